"""Games that the tests of methods share."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import zoo
from torch import Tensor

from captum_moxi import CoalitionGame, patch_mask
from captum_moxi.methods import Method
from captum_moxi.players import scores_to_players

TARGETS = [1, 3]
ScoresOf = Callable[[Method, CoalitionGame], Tensor]


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def vit() -> torch.nn.Module:
    return zoo.token_model("vit")


@pytest.fixture
def quarters(vit: torch.nn.Module, x: Tensor) -> CoalitionGame:
    """A game of two images with four players each."""
    return CoalitionGame(vit, x, target=TARGETS, feature_mask=patch_mask(32, grid=2))


@pytest.fixture
def quarters_alone(vit: torch.nn.Module, x: Tensor) -> list[CoalitionGame]:
    """The games of the two images, each by itself."""
    mask = patch_mask(32, grid=2)
    return [CoalitionGame(vit, x[i : i + 1], target=TARGETS[i], feature_mask=mask) for i in range(2)]


@pytest.fixture
def scores_of() -> ScoresOf:
    """Maps a method and a game to the scores of the players, ``(B, n)``."""

    def scores(method: Method, game: CoalitionGame) -> Tensor:
        attributions: Any = method.attribute(game, "insertion", n_steps=None, stop=None)
        return scores_to_players(attributions, game.call.players, game.call.inputs)

    return scores
