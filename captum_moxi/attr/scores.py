"""Attribution scores of players, from the selection of a search."""

from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from captum_moxi.game import CoalitionGame
from captum_moxi.search import Selection

Score: TypeAlias = Literal["rank", "gain"]
SCORES: tuple[Score, ...] = get_args(Score)


def rank_scores(selection: Selection, ids: Tensor) -> Tensor:
    r"""
    Score players by when they were chosen.

    Args:
        selection (Selection): Selection of a batch of B examples.
        ids (Tensor): Ids of the n players, ascending. Shape ``(n,)``, int64.

    Returns:
        Tensor: :math:`(K - k + 1) / K` for the player chosen at step k of the K steps of its example, and 0 for players
        that were never chosen. Shape ``(B, n)``, float64.
    """
    n_steps = selection.n_steps[:, None].double()
    return _scores_by_player((n_steps - torch.arange(selection.order.shape[1])) / n_steps, selection, ids)


def gain_scores(selection: Selection, ids: Tensor) -> Tensor:
    """
    Score players by how much the reward changed when they were chosen.

    Args:
        selection (Selection): Selection of a batch of B examples.
        ids (Tensor): Ids of the n players, ascending. Shape ``(n,)``, int64.

    Returns:
        Tensor: Rise (insertion) or fall (deletion) of the reward at the step that chose the player, or the sum of both
        (symmetric search), and 0 for players that were never chosen. Shape ``(B, n)``, float64.
    """
    return _scores_by_player(selection.gains, selection, ids)


def score_players(selection: Selection, game: CoalitionGame, *, score: Score) -> Tensor:
    """
    Score the players of a game, in the dtype of attributions.

    Args:
        selection (Selection): Selection of the game's batch.
        game (CoalitionGame): The game that was searched.
        score (str): ``"rank"`` or ``"gain"``.

    Returns:
        Tensor: Shape ``(B, n)``. Ranks are float32, or float64 if the model returns float64. Gains have the dtype of
        the model's output if it is floating point, and otherwise that of the rewards.
    """
    if score == "gain":
        gain_dtype = game.output_dtype if game.output_dtype.is_floating_point else game.full.rewards.dtype
        return gain_scores(selection, game.ids).to(gain_dtype)
    # Half precision cannot represent a few hundred distinct ranks.
    return rank_scores(selection, game.ids).to(torch.promote_types(torch.float32, game.output_dtype))


def _scores_by_player(step_values: Tensor, selection: Selection, ids: Tensor) -> Tensor:
    """Assign the value of each step, ``(B, K)``, to the player that it chose, ``(B, n)``. Other players get 0."""
    examples, steps = (selection.order >= 0).nonzero(as_tuple=True)
    scores = torch.zeros(len(step_values), len(ids), dtype=torch.float64)
    positions = torch.searchsorted(ids, selection.order[examples, steps])
    scores[examples, positions] = step_values[examples, steps].double()
    return scores
