"""MoXI(-): players ranked independently, without interactions."""

from torch import Tensor

from captum_moxi.arguments import SearchMode, Stop
from captum_moxi.search.candidates import evaluate_candidates
from captum_moxi.search.follow import follow_order
from captum_moxi.search.game import BatchGame
from captum_moxi.search.selection import Selection
from captum_moxi.search.state import Progress, Rules, no_progress
from captum_moxi.search.ties import best_to_worst


def rank_independently(
    game: BatchGame,
    mode: SearchMode,
    *,
    n_steps: int | None = None,
    stop: Stop = None,
    min_confidence: float = 0.0,
    candidates: Tensor | None = None,
    progress: Progress = no_progress,
) -> Selection:
    r"""
    Rank the players by their own Shapley values, without interactions: MoXI(-) of the paper.

    Insertion uses self-context values, deletion uses full-context values, and symmetric search their sums. The ranking
    needs n rows. The rewards after each step need one more row per step. Symmetric search needs twice as many.

    Args:
        game, mode, n_steps, stop, min_confidence, candidates, progress: As in :func:`greedy`.

    Returns:
        Selection: On the CPU.
    """
    rules = Rules(game, mode, n_steps, stop, min_confidence, candidates=candidates)
    groups = rules.start()
    if not rules.active(groups).any():
        return rules.selection(groups, groups.gains)
    evaluations = evaluate_candidates(rules, groups, None, progress)
    positions = best_to_worst(
        evaluations.values,
        int(groups.limit.max()),
        groups.rewards.dtype,
        relative=rules.rounds_relatively,
        sizes=evaluations.sizes,
    )
    groups = follow_order(rules, groups, positions, n_first=evaluations.n_evaluated, progress=progress)
    return rules.selection(groups, evaluations.gains)
