"""The selection along a given order of players."""

from dataclasses import replace

import torch
from torch import Tensor

from captum_moxi.arguments import SearchMode, Stop
from captum_moxi.search.game import BatchGame
from captum_moxi.search.outcomes import Outcomes
from captum_moxi.search.selection import Selection
from captum_moxi.search.state import Groups, Progress, Rules, no_progress

# Number of steps that are evaluated at once if the search may stop early. More steps fill passes better, but more of
# them may lie after the stop.
STEPS_AT_ONCE = 8


def follow(
    game: BatchGame,
    mode: SearchMode,
    positions: Tensor,
    *,
    n_steps: int | None = None,
    stop: Stop = None,
    min_confidence: float = 0.0,
    progress: Progress = no_progress,
) -> Selection:
    r"""
    Choose the players in a given order. This creates the selection of any method that orders players.

    Each step evaluates one row, or two in a symmetric search. No player is evaluated by itself, so Shapley values and
    interactions are NaN.

    Args:
        game (BatchGame): Game.
        mode (str): ``"insertion"``, ``"deletion"`` or ``"symmetric"``.
        positions (Tensor): Players of each example in order, as positions in ``game.ids``. Each player occurs at most
            once. Shape ``(B, K)`` for any K, int64. -1 after the last player.
        n_steps, stop, min_confidence, progress: As in :func:`greedy`.

    Returns:
        Selection: On the CPU.
    """
    rules = Rules(game, mode, n_steps, stop, min_confidence)
    groups = rules.start()
    n_first = torch.ones(game.n_examples, dtype=torch.long)
    return rules.selection(follow_order(rules, groups, positions, n_first=n_first, progress=progress), groups.gains)


def follow_order(
    rules: Rules, groups: Groups, positions: Tensor, *, n_first: Tensor, progress: Progress = no_progress
) -> Groups:
    """Let each group choose its players in order, until it stops.

    Args:
        rules (Rules): Rules of the search.
        groups (Groups): One empty group for each example.
        positions (Tensor): Players of each example in order, as in :func:`follow`. Shape ``(B, K)``, int64.
        n_first (Tensor): Number of candidates that were evaluated for the first step. Shape ``(B,)``, int64.
        progress (Callable, optional): Receives the number of evaluated rows.
            Default: ignored

    Returns:
        Groups: Groups after their last steps.
    """
    lengths = (positions >= 0).sum(1)
    groups = replace(groups, limit=torch.minimum(groups.limit, lengths))
    n_steps = int(groups.limit.max()) if len(groups.limit) else 0
    block_length = STEPS_AT_ONCE if rules.stop == "flip" else n_steps
    unknown = torch.full(n_first.shape, torch.nan, dtype=torch.float64)
    for first_step in range(0, n_steps, max(1, block_length)):
        if not rules.active(groups).any():
            break
        steps = range(first_step, min(first_step + block_length, n_steps))
        rows, outcomes = _evaluate_block(rules, groups, positions, steps, progress)
        for step in steps:
            if not rules.active(groups).any():
                break
            groups = rules.choose(
                groups,
                positions[:, step],
                outcomes=outcomes.take(rows[step - first_step]),
                n_evaluated=n_first if step == 0 else torch.ones_like(n_first),
                skipped=unknown,
                missed=unknown,
            )
    return groups


def _evaluate_block(
    rules: Rules, groups: Groups, positions: Tensor, steps: range, progress: Progress
) -> tuple[Tensor, Outcomes]:
    """Evaluate several steps at once.

    Returns:
        tuple[Tensor, Outcomes]: Index of each step and example in the outcomes, ``(steps, B)`` int64, with 0 for
        examples that have stopped. Outcomes of the groups.
    """
    chosen = groups.chosen.clone()
    coalitions: list[Tensor] = []
    row_examples: list[Tensor] = []
    rows = torch.zeros(len(steps), len(chosen), dtype=torch.long)
    n_rows = 0
    active = rules.active(groups)
    for step in steps:
        examples = (active & (groups.limit > step)).nonzero().flatten()
        chosen[examples, positions[examples, step]] = True
        coalitions.append(rules.coalitions(examples, chosen[examples]))
        row_examples.append(examples)
        rows[step - steps.start, examples] = n_rows + torch.arange(len(examples))
        n_rows += len(examples)
    outcomes = rules.outcomes(torch.cat(coalitions), torch.cat(row_examples))
    progress(n_rows * len(rules.paths))
    return rows, outcomes
