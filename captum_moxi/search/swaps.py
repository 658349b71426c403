"""Swaps: two players of a minimal group are replaced by one other player, if the prediction stays flipped."""

from dataclasses import replace
from itertools import combinations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from captum_moxi.arguments import Mode, SearchMode
from captum_moxi.search.game import BatchGame
from captum_moxi.search.minimal import SearchAmong, evaluate_groups, left_out_players, minimal_selection
from captum_moxi.search.selection import Selection, merge
from captum_moxi.search.state import Progress, Rules, no_progress
from captum_moxi.search.ties import best_to_worst


def swapped_selection(
    search: SearchAmong,
    game: BatchGame,
    mode: SearchMode,
    *,
    n_others: int | None = 8,
    min_confidence: float = 0.0,
    flip: Mode | None = None,
    candidates: Tensor | None = None,
    progress: Progress = no_progress,
) -> Selection:
    """Search a minimal group, and replace two of its players by one other player as long as the flip holds.

    Each round evaluates the group with each other player, without leaving out any, and selects the ``n_others`` players
    with the highest values. It then evaluates the group with each of these players in place of each pair of players. Of
    the groups that flip the prediction, it continues with the one of the highest value, leaves out the players that the
    flip no longer needs, and orders the rest. A round for k of n players evaluates n - k + ``n_others`` k (k - 1) / 2
    groups. It ends when no group flips the prediction.

    Args:
        search (Callable): Searches up to the flip, given the players that may be chosen.
        game (BatchGame): Game that is searched.
        mode, min_confidence, flip, progress: The arguments of the search, as in :func:`greedy`.
        n_others (int, optional): Number of other players that a round tries. None means all.
            Default: 8
        candidates (Tensor, optional): Players that the search may choose. Shape ``(B, n)``, bool.
            Default: None, all players

    Returns:
        Selection: On the CPU. ``minimal`` states that no player can be left out. ``left_out`` contains the players that
        were chosen at some time, and that the last group does not contain.
    """
    rules = Rules(game, mode, None, "flip", min_confidence, flip)
    allowed = game.exists if candidates is None else game.exists & candidates

    def search_minimal(candidates: Tensor | None) -> Selection:
        return minimal_selection(
            search, game, mode, min_confidence=min_confidence, flip=flip, candidates=candidates, progress=progress
        )

    selection = search_minimal(candidates)
    unfinished = selection.minimal & (selection.n_steps > 1)
    while unfinished.any():
        group, unfinished = _swap(rules, selection, allowed, unfinished, n_others, progress)
        if not unfinished.any():
            break
        smaller = search_minimal(group & unfinished[:, None])
        # Rewards of passes of different sizes differ by rounding, so the flip may be lost.
        unfinished = unfinished & smaller.minimal & (smaller.n_steps < selection.n_steps)
        smaller = replace(smaller, left_out=left_out_players(selection, smaller))
        selection = merge(selection, smaller, unfinished)
        unfinished = unfinished & (selection.n_steps > 1)
    return selection


def _swap(
    rules: Rules,
    selection: Selection,
    allowed: Tensor,
    examples: Tensor,
    n_others: int | None,
    progress: Progress,
) -> tuple[Tensor, Tensor]:
    """Return the best group with one player in place of two that flips the prediction.

    Args:
        rules (Rules): Rules of the search.
        selection (Selection): Minimal groups.
        allowed (Tensor): Players that may be chosen. Shape ``(B, n)``, bool.
        examples (Tensor): Which examples take part. Shape ``(B,)``, bool.
        n_others (int or None): Number of other players that are tried.
        progress (Callable): Receives the number of evaluated rows.

    Returns:
        tuple[Tensor, Tensor]: The groups ``(B, n)`` bool, and the examples that have one ``(B,)`` bool.
    """
    n_players = rules.game.n_players
    members = one_hot(torch.searchsorted(rules.game.ids, selection.order.clamp(min=0)), n_players).bool()
    members &= (selection.order >= 0)[:, :, None]
    group = members.any(1)

    def rank(values: Tensor, sizes: Tensor, count: int) -> Tensor:
        dtype, relative = selection.rewards.dtype, rules.rounds_relatively
        return best_to_worst(values, count, dtype, relative=relative, sizes=sizes)

    is_other = allowed & ~group & examples[:, None]
    larger = group[:, None] | torch.eye(n_players, dtype=torch.bool)
    values, sizes, _ = evaluate_groups(rules, larger, is_other, progress)
    added = rank(values, sizes, n_players if n_others is None else min(n_others, n_players))

    pairs = torch.tensor(list(combinations(range(members.shape[1]), 2))).reshape(-1, 2)
    pair = members[:, pairs].any(2)
    is_pair = members.any(2)[:, pairs].all(2)
    swapped = group[:, None, None] & ~pair[:, :, None] | one_hot(added, n_players).bool()[:, None]
    swapped = swapped.flatten(1, 2)
    selected = (is_pair[:, :, None] & is_other.gather(1, added)[:, None]).flatten(1)
    values, sizes, flips = evaluate_groups(rules, swapped, selected, progress)
    best = rank(values.masked_fill(~flips, -torch.inf), sizes, 1)[:, 0]
    return swapped[torch.arange(len(group)), best], flips.any(1)
