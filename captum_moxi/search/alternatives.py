"""Alternative groups: disjoint groups of players, each of which flips the prediction by itself."""

from collections.abc import Sequence

import torch
from torch import Tensor

from captum_moxi.search.game import BatchGame
from captum_moxi.search.minimal import SearchAmong
from captum_moxi.search.selection import Selection, shorten


def disjoint_selections(
    search: SearchAmong, game: BatchGame, *, at_most: int, known: Sequence[Selection] = ()
) -> list[Selection]:
    """Search groups one after another, each without the players of the earlier ones, until none flips the prediction.

    All examples advance together. An example has no further group if the search did not flip its prediction, or if the
    prediction is flipped without any player.

    Args:
        search (Callable): Searches a group up to the flip, given the players that may be chosen.
        game (BatchGame): Game that is searched.
        at_most (int): Maximum number of groups.
        known (Sequence[Selection], optional): Groups that were found before.
            Default: ``()``

    Returns:
        list[Selection]: The known groups that flip a prediction, and the new ones. Examples without a further group
        have no steps.
    """
    groups: list[Selection] = []
    free = game.exists.clone()
    unfinished = torch.ones(game.n_examples, dtype=torch.bool)
    while len(groups) < at_most and unfinished.any():
        selection = known[len(groups)] if len(groups) < len(known) else search(free & unfinished[:, None])
        unfinished = unfinished & selection.flipped
        if not unfinished.any():
            break
        groups.append(shorten(selection, torch.where(unfinished, selection.n_steps, 0)))
        free &= ~_chosen(game, groups[-1])
        unfinished = unfinished & (selection.n_steps > 0)
    return groups


def _chosen(game: BatchGame, selection: Selection) -> Tensor:
    """Return which players the selection contains, ``(B, n)`` bool."""
    return (selection.order[:, :, None] == game.ids).any(1)
