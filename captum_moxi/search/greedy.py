"""Greedy search: at each step, choose the player that changes the reward most."""

from dataclasses import replace

import torch
from torch import Tensor

from captum_moxi.arguments import Mode, SearchMode, Stop, check_positive_int
from captum_moxi.search.beam import best_groups, remaining_groups
from captum_moxi.search.candidates import Evaluations, evaluate_candidates
from captum_moxi.search.game import BatchGame
from captum_moxi.search.screens.base import AnyScreen
from captum_moxi.search.selection import Selection
from captum_moxi.search.state import Groups, Progress, Rules, no_progress


def greedy(
    game: BatchGame,
    mode: SearchMode,
    *,
    n_steps: int | None = None,
    stop: Stop = None,
    min_confidence: float = 0.0,
    screen: AnyScreen | None = None,
    beam_width: int = 1,
    flip: Mode | None = None,
    candidates: Tensor | None = None,
    progress: Progress = no_progress,
) -> Selection:
    r"""
    Choose, at each step, the player that changes the reward most (the paper, Algorithms 1 and 2).

    This is the player with the largest sum of its Shapley value and its interaction with the players chosen so far.
    Insertion maximizes :math:`f(A \cup b)`, and deletion minimizes :math:`f(N \setminus (A \cup b))`. Symmetric search
    maximizes their difference :math:`f(A \cup b) - f(N \setminus (A \cup b))`. Step k evaluates the n - k + 1 remaining
    players, or those that a screen selects, with one row for each player, or two in symmetric search. Values that
    differ from the best value only by rounding are ties, and ties go to the lowest id. All examples of the game advance
    together, and each example stops independently.

    Args:
        game (BatchGame): Game.
        mode (str): ``"insertion"``, ``"deletion"`` or ``"symmetric"``.
        n_steps (int, optional): Maximum number of steps.
            Default: None, all players
        stop (str, optional): ``"flip"`` stops an example as soon as its prediction flips.
            Default: None
        min_confidence (float, optional): Confidence that insertion and symmetric search must exceed to flip.
            Default: 0.0
        screen (Screen, optional): Decides which candidates a step evaluates.
            Default: None, all of them
        beam_width (int, optional): Number of groups of players to keep at each step: the group of greedy search and the
            best other groups. The selection is the best group after the last step.
            Default: 1
        flip (str, optional): Mode that defines the flip: ``"insertion"`` (the target becomes the predicted class) or
            ``"deletion"`` (the target stops being the predicted class). Symmetric search requires both, and accepts no
            other flip.
            Default: None, ``mode``
        candidates (Tensor, optional): Players that the search may choose. The others stay absent on the path of
            insertion and present on that of deletion. Shape ``(B, n)``, bool.
            Default: None, all players
        progress (Callable, optional): Receives the number of rows that each step evaluated.
            Default: ignored

    Returns:
        Selection: On the CPU.

    Raises:
        ValueError: If ``mode``, ``flip`` or ``stop`` is unknown, if ``flip`` does not fit ``mode``, or if ``n_steps``
            or ``beam_width`` is less than 1.
        TypeError: If ``n_steps`` or ``beam_width`` is not an int.
    """
    check_positive_int("beam_width", beam_width)
    rules = Rules(game, mode, n_steps, stop, min_confidence, flip, candidates)
    groups = rules.start(len(screen.stages) if screen else 0)
    own_gains = groups.gains
    while rules.active(groups).any():
        evaluations = evaluate_candidates(rules, groups, screen, progress)
        if not groups.positions.shape[1]:
            own_gains = evaluations.gains
        parents, positions = best_groups(rules, groups, evaluations, beam_width)
        groups = _take_step(rules, groups, evaluations, parents, positions)
        groups = groups.take(remaining_groups(rules, groups))
    own_gains = _complete_own_gains(rules, groups, own_gains, progress)
    return rules.selection(groups, own_gains)


def _take_step(rules: Rules, groups: Groups, evaluations: Evaluations, parents: Tensor, positions: Tensor) -> Groups:
    """Continue from the parent groups, and choose a player in each of them."""
    n_evaluated = torch.zeros(rules.game.n_examples, dtype=torch.long)
    n_evaluated.index_add_(0, groups.examples, evaluations.n_evaluated)
    groups = groups.take(parents)
    gains, estimates = evaluations.gains[parents], evaluations.estimates[parents]
    evaluated = evaluations.rows[parents] >= 0
    groups = replace(
        groups,
        gains=torch.where(evaluated, gains, groups.gains),
        sizes=torch.where(evaluated, evaluations.sizes[parents], groups.sizes),
        estimates=torch.where(evaluated[:, None], estimates, groups.estimates),
    )
    # Groups that have stopped choose no player, so any row serves as a placeholder.
    rows = torch.where(rules.active(groups), evaluations.rows[parents, positions], 0)
    return rules.choose(
        groups,
        positions,
        outcomes=evaluations.outcomes.take(rows),
        n_evaluated=n_evaluated[groups.examples],
        skipped=evaluations.skipped[parents],
        missed=evaluations.missed[parents],
    )


def _complete_own_gains(rules: Rules, groups: Groups, own_gains: Tensor, progress: Progress) -> Tensor:
    """Evaluate the Shapley values of chosen players that the screen skipped at the first step."""
    columns = groups.positions.clamp(min=0)
    missing = (groups.positions >= 0) & own_gains.gather(1, columns).isnan()
    if not missing.any():
        return own_gains
    examples = groups.examples[:, None].expand_as(columns)[missing]
    positions = columns[missing]
    alone = torch.zeros(len(examples), rules.game.n_players, dtype=torch.bool).scatter(1, positions[:, None], True)
    outcomes = rules.outcomes(rules.coalitions(examples, alone), examples)
    progress(len(examples) * len(rules.paths))
    own_gains = own_gains.clone()
    own_gains[examples, positions] = rules.values(outcomes.rewards) - rules.values(groups.rewards[examples, 0])
    return own_gains
