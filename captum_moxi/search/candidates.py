"""Evaluates the candidates of a step: all of them, or those that a screen selects."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from captum_moxi.search.missed import largest_missed_gain
from captum_moxi.search.outcomes import Outcomes, join_groups
from captum_moxi.search.screens.base import AnyScreen, Screen, SearchStep
from captum_moxi.search.state import Groups, Progress, Rules


@dataclass(frozen=True, eq=False)
class Evaluations:
    """What a step learned about its candidates: S groups, n players, M evaluated candidates.

    Args:
        outcomes (Outcomes): Outcomes of the M evaluated candidates.
        rows (Tensor): Index of each evaluated candidate in ``outcomes``. Shape ``(S, n)``, int64. -1 if not evaluated.
        coalition_ids (Tensor): Number of the coalition that each candidate leads to. Candidates of several groups may
            lead to the same coalition. Shape ``(S, n)``, int64. -1 for players that are not candidates.
        values (Tensor): Value that the search maximizes, see :meth:`Rules.values`. Shape ``(S, n)``, float64. -inf if
            not evaluated.
        sizes (Tensor): Size of the rewards from which each value was computed. Shape ``(S, n)``, float64. 0 if not
            evaluated.
        gains (Tensor): Gain of each candidate. Shape ``(S, n)``, float64. NaN if not evaluated.
        estimates (Tensor): Estimate of each gain by each stage of the screen. Shape ``(S, stages, n)``, float64. NaN if
            there is none.
        n_evaluated (Tensor): Number of evaluated candidates. Shape ``(S,)``, int64.
        skipped (Tensor): Highest priority among the candidates that were not evaluated. Shape ``(S,)``, float64. NaN if
            there is none.
        missed (Tensor): Bound on the gains of the candidates that were not evaluated. Shape ``(S,)``, float64. NaN if
            there is none.
    """

    outcomes: Outcomes
    rows: Tensor
    coalition_ids: Tensor
    values: Tensor
    sizes: Tensor
    gains: Tensor
    estimates: Tensor
    n_evaluated: Tensor
    skipped: Tensor
    missed: Tensor


@dataclass(frozen=True, eq=False)
class Screening:
    """What the stages of a screen left of the candidates of a step, before any is evaluated.

    Args:
        step (SearchStep): Step with the candidates that remain, as the last stage sees it.
        last (Screen or None): Last stage, which decides which candidates are evaluated. None means all.
        last_priorities (Tensor): Priorities of the last stage. Shape ``(S, n)``, float64.
        priorities (Tensor): Priority of each candidate at the last stage that estimated its gain. Shape ``(S, n)``,
            float64.
        estimates (Tensor): Shape ``(S, stages, n)``, float64.
    """

    step: SearchStep
    last: Screen | None
    last_priorities: Tensor
    priorities: Tensor
    estimates: Tensor

    def next_candidates(self, gains: Tensor) -> Tensor:
        """Return the candidates to evaluate next, ``(S, n)``, bool, given the gains of those evaluated before."""
        if self.last is None:
            return self.step.candidates & gains.isnan().all(1, keepdim=True)
        return self.last.next_candidates(self.step, self.last_priorities, gains) & self.step.candidates


def evaluate_candidates(rules: Rules, groups: Groups, screen: AnyScreen | None, progress: Progress) -> Evaluations:
    """Evaluate the candidates of the next step.

    Args:
        rules (Rules): Rules of the search.
        groups (Groups): Groups that the search keeps.
        screen (Screen, Cascade or None): Decides which candidates are evaluated. None means all.
        progress (Callable): Receives the number of evaluated rows.

    Returns:
        Evaluations: On the CPU.

    Raises:
        ValueError: If the screen returns estimates of the wrong shape, or selects no candidate.
        TypeError: If the screen does not return two tensors.
    """
    step = rules.step(groups)
    screening = _apply_stages(step, groups, screen.stages if screen else ())
    coalition_ids, coalitions, examples = _number_coalitions(step)
    row_of_coalition = torch.full((len(coalitions),), -1)
    rows = torch.full(step.candidates.shape, -1)
    gains = torch.full(step.candidates.shape, torch.nan, dtype=torch.float64)
    values = torch.full_like(gains, -torch.inf)
    sizes = torch.zeros_like(gains)
    start_values = rules.values(groups.rewards[:, -1])
    parts: list[Outcomes] = []
    n_rows = 0
    audited = torch.zeros_like(step.candidates)
    pending = screening.next_candidates(gains)
    while pending.any() or not parts:
        # A coalition that several groups lead to is evaluated once.
        distinct = coalition_ids[pending].unique()
        parts.append(rules.outcomes(coalitions[distinct], examples[distinct]))
        progress(len(distinct) * len(rules.paths))
        row_of_coalition[distinct] = n_rows + torch.arange(len(distinct))
        n_rows += len(distinct)
        rows[pending] = row_of_coalition[coalition_ids[pending]]
        outcomes = join_groups(parts)
        rewards = outcomes.rewards[rows[pending]]
        values[pending], sizes[pending] = rules.values(rewards), rules.sizes(rewards)
        gains = (values - start_values[:, None]).masked_fill(rows < 0, torch.nan)
        pending = screening.next_candidates(gains)
        if screen is not None and not audited.any() and not pending.any():
            pending = audited = screen.audit(step, step.candidates & (rows < 0))
    if bool((rules.active(groups) & (rows < 0).all(1)).any()):
        raise ValueError(f"{screen!r} selected no candidate at step {step.number}; return at least one at each step")
    skipped = step.candidates & (rows < 0)
    # NaN where the priorities are not gains.
    expected = screening.priorities if _estimates_gains(screen) else torch.full_like(gains, torch.nan)
    return Evaluations(
        outcomes=outcomes,
        rows=rows,
        coalition_ids=coalition_ids,
        values=values,
        sizes=sizes,
        gains=gains,
        estimates=screening.estimates,
        n_evaluated=(rows >= 0).sum(1),
        skipped=_highest_skipped(expected, skipped),
        missed=largest_missed_gain(expected, gains, audited=audited, skipped=skipped),
    )


def _apply_stages(step: SearchStep, groups: Groups, stages: tuple[Screen, ...]) -> Screening:
    """Narrow the candidates of a step by each stage but the last, and ask the last for its estimates."""
    estimates = torch.full_like(groups.estimates, torch.nan)
    priorities = torch.full(step.candidates.shape, torch.nan, dtype=torch.float64)
    last: Screen | None = None
    last_priorities = unknown = priorities
    for number, stage in enumerate(stages):
        if last is not None:
            step = replace(step, candidates=last.next_candidates(step, last_priorities, unknown) & step.candidates)
        last = None
        if int(step.candidates.sum(1).amax()) <= stage.m:
            continue  # No candidate would be skipped.
        last, step = stage, replace(step, estimates=groups.estimates[:, number])
        estimates[:, number], last_priorities = _ask_screen(stage, step)
        priorities = torch.where(step.candidates, last_priorities, priorities)
    return Screening(step, last, last_priorities, priorities, estimates)


def _ask_screen(screen: Screen, step: SearchStep) -> tuple[Tensor, Tensor]:
    """Return the screen's estimates and priorities in float64, after checking them."""
    returned = screen.estimate(step)
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise TypeError(
            f"{screen!r}.estimate returned a {type(returned).__name__}; return two tensors, estimates and priorities"
        )
    estimates, priorities = (values.double() for values in returned)
    shape = step.candidates.shape
    if not estimates.shape == priorities.shape == shape:
        raise ValueError(
            f"{screen!r}.estimate returned estimates of shape {tuple(estimates.shape)} and priorities of shape "
            f"{tuple(priorities.shape)}; return shape {tuple(shape)}, one value for each group and player"
        )
    # Candidates without an estimate get the highest priority, so that they are evaluated.
    priorities = priorities.nan_to_num(nan=torch.inf, posinf=torch.inf).masked_fill(~step.candidates, -torch.inf)
    return estimates, priorities


def _number_coalitions(step: SearchStep) -> tuple[Tensor, Tensor, Tensor]:
    """Number the coalitions that the candidates lead to.

    Returns:
        tuple[Tensor, Tensor, Tensor]: Number for each group and player, ``(S, n)``, with -1 for players that are not
        candidates. Coalition of each number, ``(C, n)``. Example of each number, ``(C,)``.
    """
    starts, positions, coalitions, examples = step.candidate_coalitions()
    numbers = torch.arange(len(starts))
    if len(step.examples) > step.game.n_examples:
        # Several groups of an example may lead to the same coalition.
        keys = torch.cat([examples[:, None], coalitions.long()], 1)
        keys, numbers = keys.unique(dim=0, return_inverse=True)
        examples, coalitions = keys[:, 0], keys[:, 1:].bool()
    coalition_ids = torch.full(step.candidates.shape, -1)
    coalition_ids[starts, positions] = numbers
    return coalition_ids, coalitions, examples


def _estimates_gains(screen: AnyScreen | None) -> bool:
    """Return whether the priorities of all stages of a screen are gains."""
    return screen is not None and all(stage.estimates_gains for stage in screen.stages)


def _highest_skipped(priorities: Tensor, skipped: Tensor) -> Tensor:
    """Return the highest priority of skipped candidates, or NaN if there are none or priorities are not gains."""
    highest = priorities.masked_fill(~skipped, -torch.inf).amax(1)
    return highest.masked_fill(highest.isinf(), torch.nan)
