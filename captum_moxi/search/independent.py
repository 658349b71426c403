"""MoXI(-): players ranked independently, without interactions."""

import torch

from captum_moxi.arguments import Mode, Stop
from captum_moxi.search.candidates import evaluate_candidates
from captum_moxi.search.follow import follow_order
from captum_moxi.search.game import BatchGame
from captum_moxi.search.selection import Selection
from captum_moxi.search.state import Progress, Rules, no_progress
from captum_moxi.search.ties import first_best


def rank_independently(
    game: BatchGame,
    mode: Mode,
    *,
    n_steps: int | None = None,
    stop: Stop = None,
    min_confidence: float = 0.0,
    progress: Progress = no_progress,
) -> Selection:
    r"""
    Rank the players by their own Shapley values, without interactions: MoXI(-) of the paper.

    Insertion uses self-context values, and deletion uses full-context values. The ranking needs n rows. The rewards
    after each step need one more row per step.

    Args:
        game, mode, n_steps, stop, min_confidence, progress: As in :func:`greedy`.

    Returns:
        Selection: On the CPU.
    """
    rules = Rules(game, mode, n_steps, stop, min_confidence)
    groups = rules.start()
    if not rules.active(groups).any():
        return rules.selection(groups, groups.gains)
    evaluations = evaluate_candidates(rules, groups, None, progress)
    remaining = evaluations.values.clone()
    order = []
    for _ in range(int(groups.limit.max())):
        best = first_best(remaining, evaluations.rewards.dtype, relative=game.rounds_relatively)
        order.append(best)
        remaining[groups.examples, best] = -torch.inf
    positions = torch.stack(order, 1)
    groups = follow_order(rules, groups, positions, n_first=evaluations.n_evaluated, progress=progress)
    return rules.selection(groups, evaluations.gains)
