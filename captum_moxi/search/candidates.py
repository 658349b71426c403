"""Evaluates the candidates of a step, all of them or those that a screen names."""

from dataclasses import dataclass

import torch
from torch import Tensor

from captum_moxi.search.game import GameOutcome
from captum_moxi.search.screens.base import Screen, SearchStep
from captum_moxi.search.state import Groups, Progress, Rules


@dataclass(frozen=True, eq=False)
class Evaluations:
    """What a step learned about its candidates: S groups, n players, M evaluated rows.

    Args:
        rewards, confidences, predictions (Tensor): What the model returned for each row. Shape ``(M,)``.
        rows (Tensor): Row of each evaluated candidate. Shape ``(S, n)``, int64. -1 if not evaluated.
        coalition_ids (Tensor): Number of the coalition that each candidate leads to. Candidates of several groups may
            lead to the same coalition. Shape ``(S, n)``, int64. -1 for players that are not candidates.
        values (Tensor): What the search maximizes. Shape ``(S, n)``, float64. -inf if not evaluated.
        gains (Tensor): Gain of each candidate. Shape ``(S, n)``, float64. NaN if not evaluated.
        estimates (Tensor): What the screen estimated. Shape ``(S, n)``, float64. NaN without a screen.
        n_evaluated (Tensor): Number of evaluated candidates. Shape ``(S,)``, int64.
        skipped (Tensor): Highest priority among the candidates that were not evaluated. Shape ``(S,)``, float64. NaN if
            there is none.
    """

    rewards: Tensor
    confidences: Tensor
    predictions: Tensor
    rows: Tensor
    coalition_ids: Tensor
    values: Tensor
    gains: Tensor
    estimates: Tensor
    n_evaluated: Tensor
    skipped: Tensor


def evaluate_candidates(rules: Rules, groups: Groups, screen: Screen | None, progress: Progress) -> Evaluations:
    """Evaluate the candidates of the next step.

    Args:
        rules (Rules): Rules of the search.
        groups (Groups): Groups that the search keeps.
        screen (Screen or None): Decides which candidates are evaluated. None means all.
        progress (Callable): Receives the number of evaluated rows.

    Raises:
        ValueError: If the screen returns estimates of the wrong shape, or names no candidate.
        TypeError: If the screen does not return two tensors.
    """
    step = rules.step(groups)
    if screen is not None and bool((step.candidates.sum(1) <= screen.m).all()):
        screen = None  # no candidate would be skipped
    unknown = torch.full(step.candidates.shape, torch.nan, dtype=torch.float64)
    estimates, priorities = (unknown, unknown) if screen is None else _ask_screen(screen, step)
    waiting = step.candidates if screen is None else screen.next_candidates(step, priorities, unknown) & step.candidates

    coalition_ids, coalitions, examples = _number_coalitions(step)
    row_of_coalition = torch.full((len(coalitions),), -1)
    rows = torch.full(step.candidates.shape, -1)
    gains = unknown
    values = torch.full_like(unknown, -torch.inf)
    outcomes: list[GameOutcome] = []
    n_rows = 0
    while waiting.any() or not outcomes:
        # a coalition that several groups lead to is evaluated once
        distinct = coalition_ids[waiting].unique()
        outcomes.append(rules.game.outcome(coalitions[distinct], examples[distinct]))
        progress(len(distinct))
        row_of_coalition[distinct] = n_rows + torch.arange(len(distinct))
        n_rows += len(distinct)
        rows[waiting] = row_of_coalition[coalition_ids[waiting]]
        values[waiting] = rules.sign * torch.cat([outcome.rewards for outcome in outcomes])[rows[waiting]].double()
        gains = (values - rules.sign * step.rewards[:, None]).masked_fill(rows < 0, torch.nan)
        if screen is None:
            break
        waiting = screen.next_candidates(step, priorities, gains) & step.candidates
    if screen is not None and bool((rules.active(groups) & (rows < 0).all(1)).any()):
        raise ValueError(f"{screen!r} named no candidate at step {step.number}; return at least one for each step")
    return Evaluations(
        rewards=torch.cat([outcome.rewards for outcome in outcomes]),
        confidences=torch.cat([outcome.confidences for outcome in outcomes]),
        predictions=torch.cat([outcome.predictions for outcome in outcomes]),
        rows=rows,
        coalition_ids=coalition_ids,
        values=values,
        gains=gains,
        estimates=estimates,
        n_evaluated=(rows >= 0).sum(1),
        skipped=_highest_skipped(screen, priorities, step.candidates & (rows < 0)),
    )


def _ask_screen(screen: Screen, step: SearchStep) -> tuple[Tensor, Tensor]:
    """Return the screen's estimates and priorities, checked, in float64."""
    answer = screen.estimate(step)
    if not isinstance(answer, tuple) or len(answer) != 2:
        raise TypeError(
            f"{screen!r}.estimate returned a {type(answer).__name__}; return two tensors, estimates and priorities"
        )
    estimates, priorities = (part.double() for part in answer)
    shape = step.candidates.shape
    if not estimates.shape == priorities.shape == shape:
        raise ValueError(
            f"{screen!r}.estimate returned estimates of shape {tuple(estimates.shape)} and priorities of shape "
            f"{tuple(priorities.shape)}; return shape {tuple(shape)}, one value for each group and player"
        )
    # candidates that the screen knows nothing about are evaluated
    priorities = priorities.nan_to_num(nan=torch.inf, posinf=torch.inf).masked_fill(~step.candidates, -torch.inf)
    return estimates, priorities


def _number_coalitions(step: SearchStep) -> tuple[Tensor, Tensor, Tensor]:
    """Number the coalitions that the candidates lead to.

    Returns:
        tuple[Tensor, Tensor, Tensor]: Number for each group and player ``(S, n)``, -1 for players that are not
        candidates; and coalition and example for each number.
    """
    starts, positions, coalitions, examples = step.candidate_coalitions()
    numbers = torch.arange(len(starts))
    if len(step.examples) > step.game.n_examples:
        # several groups of an example may lead to the same coalition
        keys = torch.cat([examples[:, None], coalitions.long()], 1)
        keys, numbers = keys.unique(dim=0, return_inverse=True)
        examples, coalitions = keys[:, 0], keys[:, 1:].bool()
    coalition_ids = torch.full(step.candidates.shape, -1)
    coalition_ids[starts, positions] = numbers
    return coalition_ids, coalitions, examples


def _highest_skipped(screen: Screen | None, priorities: Tensor, skipped: Tensor) -> Tensor:
    """Return the highest priority of skipped candidates, or NaN if there are none or priorities are not gains."""
    if screen is None or not screen.estimates_gains:
        return torch.full((len(skipped),), torch.nan, dtype=torch.float64)
    highest = priorities.masked_fill(~skipped, -torch.inf).amax(1)
    return highest.masked_fill(highest.isinf(), torch.nan)
