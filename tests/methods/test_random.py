"""Random orders, by seed and by image name."""

import torch
import zoo
from torch import Tensor

from captum_moxi import CoalitionGame, patch_mask
from captum_moxi.methods import METHODS, Method, random_order
from captum_moxi.metrics import rank_positions


def positions_of(method: Method, game: CoalitionGame) -> Tensor:
    return rank_positions(game, method.attribute(game, "deletion", n_steps=None, stop=None))


def test_orders_differ_by_example_and_seed() -> None:
    game = CoalitionGame(lambda x: torch.stack([x.sum(1), -x.sum(1)], 1), torch.ones(2, 50), target=0)
    first, again, other = (positions_of(random_order(seed), game) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])
    # Examples count on from the seed.
    assert torch.equal(first[1], other[0])


def test_the_name_of_an_image_decides_its_order_in_every_batch(x: Tensor) -> None:
    model = zoo.resnet()
    both, second = (
        CoalitionGame(model, images, target=0, feature_mask=patch_mask(32, grid=4)) for images in (x, x[1:])
    )
    together = positions_of(METHODS.create("random").for_images(["a", "b"]), both)
    alone = positions_of(METHODS.create("random").for_images(["b"]), second)
    assert torch.equal(together[1:], alone)
    assert not torch.equal(together[:1], alone)


def test_methods_without_random_orders_do_not_depend_on_names() -> None:
    rollout = METHODS.create("rollout")
    assert rollout.for_images(["a", "b"]) is rollout
