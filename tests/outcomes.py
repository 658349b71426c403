"""Logits of coalitions of every size, to compare with a model that the test runs by itself."""

import torch
from torch import Tensor, nn

from captum_moxi import CoalitionGame
from captum_moxi.removal import Removal


def rows_of(game: CoalitionGame) -> tuple[Tensor, Tensor]:
    """Coalitions of two examples: the empty and the full one of each, and others."""
    coalitions = torch.rand(8, game.n_players) < torch.linspace(0.2, 0.8, 8)[:, None]
    coalitions[:2], coalitions[-2:] = False, True
    return coalitions, torch.arange(8) % 2


def all_logits(
    model: nn.Module, images: Tensor, n_classes: int = 5, removal: Removal | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Coalitions, examples, and the logits of each coalition: one game per class, because a game returns one reward."""
    games = [
        CoalitionGame(model, images, target=target, reward="output", removal=removal) for target in range(n_classes)
    ]
    coalitions, examples = rows_of(games[0])
    return coalitions, examples, torch.stack([game.outcome(coalitions, examples).rewards for game in games], 1)
