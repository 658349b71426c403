"""What must hold for every model of images: logits of coalitions, filled cells, batches and screens.

The tests run the model by themselves and compare.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from captum_moxi import CoalitionGame, MoXIInsertion, patch_mask
from captum_moxi.removal import BaselineRemoval, Removal, default_removal
from captum_moxi.search.screens import Screen


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


def check_filled_cells(model: nn.Module, images: Tensor, logits_of: Callable[[Tensor], Tensor], **options: int) -> None:
    """Check that the players are the cells of a 6 x 6 grid, and that absent cells are filled with 0.

    ``logits_of`` runs the model. ``options`` are those of ``all_logits``.
    """
    assert isinstance(default_removal(model, (images,), has_baselines=False), BaselineRemoval)
    coalitions, examples, logits = all_logits(model, images, **options)
    assert coalitions.shape[1] == 36
    cells = patch_mask(images.shape[-1], grid=6)[0, 0]
    for coalition, example, row in zip(coalitions, examples.tolist(), logits, strict=True):
        filled = torch.where(coalition[cells], images[example], 0.0)[None]
        with torch.no_grad():
            torch.testing.assert_close(row, logits_of(filled)[0, : len(row)], rtol=1e-3, atol=1e-4)


def check_batch(model: nn.Module, images: Tensor) -> None:
    """Check that a batch of two images gives what each of them gives alone."""
    together = MoXIInsertion(model).attribute(images, target=[0, 1], n_steps=2)
    for example in range(2):
        alone = MoXIInsertion(model).attribute(images[example][None], target=example, n_steps=2)
        assert torch.equal(together[example], alone[0])


def check_screens(model: nn.Module, images: Tensor, screens: Iterable[Screen]) -> None:
    """Check that searches with these screens choose different players and have finite rewards."""
    for screen in screens:
        moxi = MoXIInsertion(model, screen=screen)
        _, selection = moxi.attribute(images, target=0, n_steps=2, return_selection=True)
        assert all(len(set(order)) == 2 for order in selection.order.tolist())
        assert selection.rewards.isfinite().all()
