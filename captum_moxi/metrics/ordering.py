"""Converts attributions of any form to an order of players."""

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from captum_moxi.arguments import TensorOrTuple
from captum_moxi.game import CoalitionGame
from captum_moxi.players import scores_to_players
from captum_moxi.search import Selection

Attributions: TypeAlias = TensorOrTuple | Selection


def rank_positions(game: CoalitionGame, attributions: Attributions) -> Tensor:
    """Order the players of each example by attribution, highest first.

    Players with equal attributions are ordered by id. Players that a ranking or a selection does not name come last.

    Args:
        game (CoalitionGame): Game of B examples and n players.
        attributions (Tensor, tuple[Tensor, ...] or Selection): Any form that :func:`captum_moxi.insertion_curve`
            accepts.

    Returns:
        Tensor: Positions of the players in ``game.ids``, first to last. Shape ``(B, n)``, int64. Rows of examples with
        fewer than n players end with -1.

    Raises:
        ValueError: If ``attributions`` has the wrong shape, contains non-finite values, or names a player twice or one
            that the example does not have.
        TypeError: If ``attributions`` is neither a tensor, a tuple of tensors nor a selection.
    """
    if isinstance(attributions, Selection):
        attributions = attributions.order
    tensors = attributions if isinstance(attributions, tuple) else (attributions,)
    if not tensors or not all(isinstance(tensor, Tensor) for tensor in tensors):
        types = ", ".join(type(tensor).__name__ for tensor in tensors) or "an empty tuple"
        raise TypeError(f"attributions is {types}; pass a tensor, a tuple of tensors or a Selection")
    if len(tensors) == 1 and tensors[0].dim() == 2 and _holds_whole_numbers(tensors[0]):
        scores = _scores_from_ranking(game, tensors[0].cpu().long())
    else:
        scores = _scores_from_maps(game, tensors)
    scores = scores.masked_fill(~game.exists, -torch.inf)
    positions = scores.argsort(dim=1, descending=True, stable=True)
    return positions.masked_fill(torch.arange(game.n_players) >= game.exists.sum(1, keepdim=True), -1)


def parse_fractions(fractions: Sequence[float] | Tensor) -> Tensor:
    """Convert fractions of the players to a tensor.

    Args:
        fractions (Sequence[float] or Tensor): Numbers from 0 to 1, ascending.

    Returns:
        Tensor: Shape ``(P,)``, float64, on the CPU.

    Raises:
        ValueError: If ``fractions`` is empty, out of range or not ascending.
        TypeError: If ``fractions`` does not consist of numbers.
    """
    try:
        points = torch.as_tensor(fractions, dtype=torch.float64).cpu()
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"fractions is {fractions!r}; pass numbers from 0 to 1") from None
    if points.dim() != 1 or not len(points):
        raise ValueError(f"fractions has shape {tuple(points.shape)}; pass a list of one or more numbers from 0 to 1")
    if not bool(((points >= 0) & (points <= 1)).all()) or bool((points.diff() < 0).any()):
        raise ValueError(f"fractions is {points.tolist()}; pass numbers from 0 to 1 in ascending order")
    return points


def _holds_whole_numbers(tensor: Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype is torch.bool)


def _scores_from_maps(game: CoalitionGame, attributions: tuple[Tensor, ...]) -> Tensor:
    """Return ``(B, n)`` float64 scores from scores of players or from maps of the inputs."""
    shape = tuple(attributions[0].shape)
    # If the inputs have the shape (B, n), a tensor of this shape is a map of the inputs, as in Captum.
    is_score_of_players = shape == (game.n_examples, game.n_players) != tuple(game.call.inputs[0].shape)
    if len(attributions) == 1 and is_score_of_players:
        scores = attributions[0].detach().cpu().double()
    else:
        scores = scores_to_players(attributions, game.call.players, game.call.inputs)
    _check_batch(game, scores)
    if not bool(scores.isfinite().all()):
        raise ValueError("attributions contains non-finite values; pass finite attributions")
    return scores


def _scores_from_ranking(game: CoalitionGame, ranking: Tensor) -> Tensor:
    """Return scores ``(B, n)``, float64, from K for the first of K ranked players to 0 for players without a rank."""
    _check_batch(game, ranking)
    scores = torch.zeros(game.n_examples, game.n_players, dtype=torch.float64)
    for example, row in enumerate(ranking.tolist()):
        ids = _check_ranking(game, row, example)
        positions = game.positions_of(torch.tensor(ids, dtype=torch.long))
        scores[example, positions] = torch.arange(len(ids), 0, -1, dtype=torch.float64)
    return scores


def _check_ranking(game: CoalitionGame, row: list[int], example: int) -> list[int]:
    """Return the ids that one row of a ranking names, without the -1 at its end."""
    n_named = row.index(-1) if -1 in row else len(row)
    named, rest = row[:n_named], row[n_named:]
    existing = set(game.ids[game.exists[example]].tolist())
    unknown = [player for player in rest if player != -1] + [player for player in named if player not in existing]
    if unknown:
        raise ValueError(
            f"attributions ranks player {unknown[0]} of example {example}, but the example has no such player, or the "
            "player follows -1; pass player ids from the feature mask, and -1 only at the end of a row"
        )
    seen: set[int] = set()
    for player in named:
        if player in seen:
            raise ValueError(
                f"attributions ranks player {player} of example {example} twice; pass each player at most once"
            )
        seen.add(player)
    return named


def _check_batch(game: CoalitionGame, rows: Tensor) -> None:
    if len(rows) != game.n_examples:
        raise ValueError(
            f"attributions has {len(rows)} examples, but inputs has {game.n_examples}; pass one row for each example"
        )
