"""Paths: what the model sees and predicts as the players of an image are inserted or deleted one by one."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_moxi.arguments import Mode
from captum_moxi.game import CoalitionGame
from captum_moxi.plot import heat_picture
from captum_moxi.plot.patches import corner_of, outline
from captum_moxi.removal import ToImages
from captum_moxi.search import has_flipped


@dataclass(frozen=True, eq=False)
class PagePath:
    """What the model sees and predicts before the first and after each of the K steps of a path.

    Args:
        method (str): Name of the method that chose the path, for example ``"MoXI"``.
        mode (str): ``"insertion"`` or ``"deletion"``.
        photograph (Tensor): Image ``(H, W, 3)`` in [0, 1] with all players.
        heat_map (Tensor): The photograph with the players of the path in color, the first in the brightest. Shape
            ``(H, W, 3)``, in [0, 1].
        places (Tensor): ``x`` and ``y`` of the upper left corner and the size of each player of the path, in pixels of
            the photograph. The size is the side of a square with as many pixels. Shape ``(K, 3)``, float64.
        left_out (Tensor): Lines around the players that were chosen and then left out of the path: ``x`` and ``y`` of
            both ends, in pixels of the photograph. Shape ``(L, 2, 2)``, float64.
        images (Tensor): Images ``(K + 1, H, W, 3)`` in [0, 1], as the model sees them.
        probabilities (Tensor): Class probabilities ``(K + 1, classes)``.
        predictions (Tensor): Predicted class. Shape ``(K + 1,)``, int64. -1 if the target, or the only class, is not
            predicted.
        target (int): Index of the target class.
        n_players (int): Number of players of the image.
        flip (int or None): First step after which the prediction is flipped, or None if it never flips.
    """

    method: str
    mode: Mode
    photograph: Tensor
    heat_map: Tensor
    places: Tensor
    left_out: Tensor
    images: Tensor
    probabilities: Tensor
    predictions: Tensor
    target: int
    n_players: int
    flip: int | None


def follow_path(
    game: CoalitionGame,
    order: Sequence[int],
    mode: Mode,
    *,
    to_images: ToImages,
    method: str = "MoXI",
    example: int = 0,
    min_confidence: float = 0.0,
    flip: Mode | None = None,
    left_out: Sequence[int] = (),
) -> PagePath:
    """Insert or delete players in the given order and record what the model sees and predicts.

    Args:
        game (CoalitionGame): Game on one input of images ``(B, C, H, W)``, with a target.
        order (Sequence[int]): Ids of players, in the order in which they are inserted or deleted.
        mode (str): ``"insertion"`` or ``"deletion"``.
        to_images (Callable): Maps pixel values ``(M, C, H, W)`` to images ``(M, H, W, 3)`` in [0, 1], for example
            :meth:`captum_moxi.models.ImageClassifier.to_images`.
        method (str, optional): Name of the method that chose the order.
            Default: ``"MoXI"``
        example (int, optional): Index of the example in the game.
            Default: 0
        min_confidence (float, optional): Confidence that the target must exceed for insertion to flip.
            Default: 0
        flip (str, optional): Mode that defines the flip, as in :class:`captum_moxi.Selection`.
            Default: None, ``mode``
        left_out (Sequence[int], optional): Ids of players that were chosen and then left out of the order.
            Default: ``()``

    Returns:
        PagePath: K + 1 images and predictions for K players in ``order``.

    Raises:
        ValueError: If the game has no target, or if its input is not a single batch of images.

    Examples::

        >>> game = CoalitionGame(classifier.model, x, target=y)
        >>> path = follow_path(game, selection.order[0].tolist(), "insertion", to_images=classifier.to_images)
        >>> Path("page.html").write_text(path_page([path], labels=classifier.labels, title="cat"), encoding="utf-8")
    """
    # a selection of a batch ends with -1 in examples that stopped earlier
    order = [player for player in order if player >= 0]
    if game.targets is None or len(game.call.inputs) != 1 or game.call.inputs[0].dim() != 4:
        raise ValueError("game has no target or is not a game on images; pass a target and one input (B, C, H, W)")
    coalitions = _path_coalitions(game, order, mode, example=example)
    examples = torch.full((len(coalitions),), example)
    probabilities = game.class_probabilities(coalitions, examples)
    target = int(game.targets[example])
    predictions = game.head.predictions(probabilities, torch.full_like(examples, target), threshold=0.5)
    flipped = has_flipped(
        flip or mode,
        predictions,
        probabilities[:, target],
        target=target,
        min_confidence=min_confidence,
    )
    photograph = game.pictures(game.exists[example][None], examples[:1], to_images)[0]
    return PagePath(
        method=method,
        mode=mode,
        photograph=photograph,
        heat_map=heat_picture(photograph, _rank_scores(game, order, example=example)),
        places=_places(game, order, example=example),
        left_out=torch.from_numpy(outline(_mask(game, example), _positions(game, left_out)) + 0.5),
        images=game.pictures(coalitions, examples, to_images),
        probabilities=probabilities,
        predictions=predictions,
        target=target,
        n_players=int(game.exists[example].sum()),
        flip=int(flipped.nonzero()[0]) if flipped.any() else None,
    )


def _path_coalitions(game: CoalitionGame, order: Sequence[int], mode: Mode, *, example: int) -> Tensor:
    """Return the coalitions before the first step and after each step. Shape ``(K + 1, n)``, bool."""
    positions = game.positions_of(torch.tensor(list(order), dtype=torch.long))
    moved = torch.zeros(len(positions) + 1, game.n_players, dtype=torch.bool)
    for step, position in enumerate(positions.tolist(), 1):
        moved[step:, position] = True
    return moved if mode == "insertion" else game.exists[example] & ~moved


def _rank_scores(game: CoalitionGame, order: Sequence[int], *, example: int) -> Tensor:
    """Return scores that fall from 1 at the first player to 0 at players without a rank. Shape ``(H, W)``, float32."""
    scores = torch.zeros(1, game.n_players)
    scores[0, game.positions_of(torch.tensor(list(order), dtype=torch.long))] = torch.linspace(
        1, 1 / max(1, len(order)), len(order)
    )
    return game.call.players.spread(scores, 0, torch.tensor([example]))[0, 0].cpu()


def _places(game: CoalitionGame, order: Sequence[int], *, example: int) -> Tensor:
    """Return the corner and the size of each player in the order. Shape ``(K, 3)``, float64."""
    mask = _mask(game, example)
    places = torch.zeros(len(order), 3, dtype=torch.float64)
    for step, position in enumerate(_positions(game, order)):
        n_pixels = int((mask == position).sum())
        places[step] = torch.tensor([*corner_of(mask, position), n_pixels**0.5])
    return places


def _mask(game: CoalitionGame, example: int) -> Tensor:
    """Return the position of the player of each pixel. Shape ``(H, W)``, int64."""
    numbers = torch.arange(game.n_players, dtype=torch.float32)[None]
    return game.call.players.spread(numbers, 0, torch.tensor([example]))[0, 0].cpu().long()


def _positions(game: CoalitionGame, ids: Sequence[int]) -> list[int]:
    """Return the positions of players. The ids of a batch may end with -1."""
    positions: list[int] = game.positions_of(torch.tensor([id for id in ids if id >= 0], dtype=torch.long)).tolist()
    return positions
