"""Minimal groups: players that the flip does not need are left out."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from captum_moxi.arguments import Mode, SearchMode
from captum_moxi.search.game import BatchGame
from captum_moxi.search.selection import Selection, merge
from captum_moxi.search.state import Progress, Rules, no_progress
from captum_moxi.search.ties import best_to_worst

# Searches a group up to the flip, among the players that may be chosen, ``(B, n)`` bool. None means all players.
SearchAmong: TypeAlias = Callable[[Tensor | None], Selection]


def minimal_selection(
    search: SearchAmong,
    game: BatchGame,
    mode: SearchMode,
    *,
    min_confidence: float = 0.0,
    flip: Mode | None = None,
    candidates: Tensor | None = None,
    progress: Progress = no_progress,
) -> Selection:
    """Search a group that flips the prediction, leave out the players that the flip does not need, and order the rest.

    The group of each example becomes smaller as long as the prediction stays flipped without one of its players. The
    search then orders the players of the smaller group, so that the selection describes this group alone. If it flips
    before its last player, the remaining players are left out as well. All examples advance together. A group that
    cannot become smaller keeps its selection.

    Args:
        search (Callable): Searches up to the flip, given the players that may be chosen.
        game (BatchGame): Game that is searched.
        mode, min_confidence, flip, progress: The arguments of the search, as in :func:`greedy`.
        candidates (Tensor, optional): Players that the search may choose. Shape ``(B, n)``, bool.
            Default: None, all players

    Returns:
        Selection: On the CPU. ``minimal`` and ``left_out`` describe what was left out.
    """
    rules = Rules(game, mode, None, "flip", min_confidence, flip)
    first = selection = search(candidates)
    minimal = torch.zeros_like(first.flipped)
    unverified = first.flipped
    while unverified.any():
        needed = _needed_players(rules, selection, unverified, progress)
        n_needed = needed.sum(1)
        shrunk = unverified & (n_needed < selection.n_steps)
        if shrunk.any():
            selection = merge(selection, search(needed & shrunk[:, None]), shrunk)
        unverified = unverified & selection.flipped
        # The reward may not be monotone, so the ordered group may flip before its last player.
        is_whole = selection.n_steps == n_needed
        minimal = minimal | (unverified & is_whole)
        unverified = unverified & ~is_whole
    return replace(selection, minimal=minimal, left_out=left_out_players(first, selection))


def _needed_players(rules: Rules, selection: Selection, examples: Tensor, progress: Progress) -> Tensor:
    """Leave out players until the flip needs each of those that remain.

    Each round evaluates the group without each of its players. The players that the flip does not need by themselves
    are then left out together, the least important first, and as many as possible.

    Args:
        rules (Rules): Rules of the search.
        selection (Selection): Groups that flip the prediction.
        examples (Tensor): Which examples take part. Shape ``(B,)``, bool.
        progress (Callable): Receives the number of evaluated rows.

    Returns:
        Tensor: The players that remain. Shape ``(B, n)``, bool. None in examples that do not take part.
    """
    # If leaving out two players does equal harm, the one that was chosen last goes first.
    positions = torch.searchsorted(rules.game.ids, selection.order.clamp(min=0)).flip(1)
    exists = ((selection.order >= 0) & examples[:, None]).flip(1)
    players = one_hot(positions, rules.game.n_players).bool() & exists[:, :, None]
    group = players.any(1)
    in_progress = group.any(1)
    while in_progress.any():
        is_member = (players & group[:, None]).any(2) & in_progress[:, None]
        values, sizes, holds = evaluate_groups(rules, group[:, None] & ~players, is_member, progress)
        ranked = best_to_worst(
            values.masked_fill(~holds, -torch.inf),
            players.shape[1],
            selection.rewards.dtype,
            relative=rules.rounds_relatively,
            sizes=sizes,
        )
        left_out = players.gather(1, ranked[:, :, None].expand_as(players)).cumsum(1).bool()
        smaller = group[:, None] & ~left_out
        n_left_out = torch.arange(1, players.shape[1] + 1)
        # The group without one player is known. Evaluate it without 2, 3, ... of those that it can do without.
        *_, smaller_holds = evaluate_groups(
            rules, smaller, (n_left_out > 1) & (n_left_out <= holds.sum(1)[:, None]), progress
        )
        smaller_holds[:, 0] = holds.any(1)
        in_progress = smaller_holds.any(1)
        smallest = (smaller_holds * n_left_out).argmax(1)
        group = torch.where(in_progress[:, None], smaller[torch.arange(len(group)), smallest], group)
    return group


def evaluate_groups(
    rules: Rules, groups: Tensor, selected: Tensor, progress: Progress
) -> tuple[Tensor, Tensor, Tensor]:
    """Evaluate several groups of each example in one batch.

    Args:
        rules (Rules): Rules of the search.
        groups (Tensor): Groups ``(B, K, n)``, bool.
        selected (Tensor): Which groups to evaluate. Shape ``(B, K)``, bool.
        progress (Callable): Receives the number of evaluated rows.

    Returns:
        tuple[Tensor, Tensor, Tensor]: Value of each group that the search maximizes ``(B, K)`` float64, the size of its
        rewards ``(B, K)`` float64, and whether the prediction is flipped ``(B, K)`` bool. -inf, 0 and False for groups
        that are not evaluated.
    """
    values = torch.full(selected.shape, -torch.inf, dtype=torch.float64)
    sizes = torch.zeros_like(values)
    flips = torch.zeros_like(selected)
    examples = selected.nonzero()[:, 0]
    if len(examples):
        outcomes = rules.outcomes(rules.coalitions(examples, groups[selected]), examples)
        progress(len(examples) * len(rules.paths))
        values[selected], sizes[selected] = rules.values(outcomes.rewards), rules.sizes(outcomes.rewards)
        flips[selected] = rules.flips(outcomes, examples)
    return values, sizes, flips


def left_out_players(first: Selection, last: Selection) -> Tensor:
    """Return the ids of all players that were chosen up to the first selection, and that the last does not contain.

    Shape ``(B, R)``, int64: players of the first selection in its order, and then those that it left out itself.
    """
    rows = [
        [player for player in (*order, *left_out) if player >= 0 and player not in kept]
        for order, left_out, kept in zip(
            first.order.tolist(), first.left_out.tolist(), map(set, last.order.tolist()), strict=True
        )
    ]
    width = max(map(len, rows), default=0)
    return torch.tensor([row + [-1] * (width - len(row)) for row in rows], dtype=torch.long).reshape(len(rows), width)
