import pytest
import torch
import zoo
from torch import Tensor

from captum_moxi import BaselineRemoval, CoalitionGame, patch_mask


def flat(x: Tensor) -> Tensor:
    """Every value as an output, so that a game shows what the model was given."""
    return x.flatten(1)


def shown(x: Tensor, row: list[int], **kwargs: object) -> Tensor:
    """The first example as the model sees it with the players of the row."""
    size = x[0].numel()
    coalition = torch.tensor([row], dtype=torch.bool)
    values = [
        CoalitionGame(flat, x, target=i, reward="output", **kwargs).outcome(coalition).rewards[0] for i in range(size)
    ]
    return torch.stack(values).reshape(x.shape[1:])


@pytest.mark.parametrize("baseline", [None, 5, 0.5, torch.tensor([[7.0, 8.0, 9.0]]), torch.tensor(3.0)])
def test_absent_values_are_the_baseline(baseline: object) -> None:
    x = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    fill = torch.zeros(3) + (torch.as_tensor(0.0 if baseline is None else baseline))
    assert shown(x, [1, 0, 1], baselines=baseline).tolist() == [1.0, float(fill.flatten()[1]), 3.0]


def test_a_baseline_an_example() -> None:
    x, baselines = torch.zeros(2, 2), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    game = CoalitionGame(flat, x, target=0, reward="output", baselines=baselines)
    none = torch.zeros(2, 2, dtype=torch.bool)
    assert game.outcome(none, torch.tensor([1, 0])).rewards.tolist() == [3.0, 1.0]


def test_mean_fill_is_each_channels_mean() -> None:
    x = torch.randn(1, 3, 4, 4)
    got = shown(x, [0, 1, 1, 1], removal=BaselineRemoval("mean"), feature_mask=patch_mask(4, 2))
    expected = x[0].clone()
    expected[:, :2, :2] = x[0].mean((1, 2))[:, None, None]
    torch.testing.assert_close(got, expected)


def test_blur_fill_is_a_gaussian_of_a_twentieth_of_the_side() -> None:
    side = 40
    x = torch.zeros(1, 1, side, side)
    x[..., 20, 20] = 1.0
    game = [
        CoalitionGame(
            lambda v, i=i: v[:, 0, 20, i],
            x,
            reward="output",
            feature_mask=torch.zeros(1).long(),
            removal=BaselineRemoval("blur"),
        )
        for i in (20, 21, 22)
    ]
    centre, one, two = (float(g.outcome(torch.zeros(1, 1)).rewards[0]) for g in game)
    # a Gaussian of standard deviation 2 falls by exp(-1 / 8) and exp(-4 / 8)
    assert one / centre == pytest.approx(torch.exp(torch.tensor(-1 / 8)).item(), rel=1e-5)
    assert two / centre == pytest.approx(torch.exp(torch.tensor(-4 / 8)).item(), rel=1e-5)
    flat_image = CoalitionGame(
        flat,
        torch.full((1, 2, 9, 9), 3.0),
        target=5,
        reward="output",
        feature_mask=torch.zeros(1).long(),
        removal=BaselineRemoval("blur"),
    )
    assert flat_image.outcome(torch.zeros(1, 1)).rewards[0] == pytest.approx(3.0)


def test_fills_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"fill is 'median'.*mean, blur"):
        BaselineRemoval("median")
    with pytest.raises(ValueError, match="pass one of them"):
        CoalitionGame(flat, torch.zeros(1, 3, 4, 4), target=0, baselines=1, removal=BaselineRemoval("mean"))
    with pytest.raises(ValueError, match="floating-point images"):
        CoalitionGame(flat, torch.zeros(1, 4), target=0, removal=BaselineRemoval("blur"))


def test_convolutional_models_see_channels_last_and_functions_what_came() -> None:
    strides = []
    model = zoo.randomised(zoo.resnet())
    model.register_forward_pre_hook(
        lambda module, args: strides.append(args[0].is_contiguous(memory_format=torch.channels_last))
    )
    x, rows = torch.randn(1, 3, 32, 32), torch.rand(3, 4) < 0.5
    CoalitionGame(model, x, target=1, feature_mask=patch_mask(32, 16)).outcome(rows)
    assert strides == [False, True]
    # a view of a flattened image needs the strides that it knows
    flat = CoalitionGame(lambda x: x.view(len(x), -1), x, target=1, feature_mask=patch_mask(32, 16))
    assert flat.outcome(rows).rewards.shape == (3,)
