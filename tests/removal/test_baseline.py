from typing import Any

import numpy as np
import pytest
import torch
import zoo
from scipy.ndimage import gaussian_filter
from torch import Tensor

from captum_moxi import BaselineRemoval, CoalitionGame, patch_mask


def flat(x: Tensor) -> Tensor:
    """A model that returns its input, one class per value, so that a game shows what the model received."""
    return x.flatten(1).float()


def received(x: Tensor, coalition: list[int], **kwargs: Any) -> Tensor:
    """The first example as the model receives it with the players of the coalition."""
    row, first = torch.tensor([coalition], dtype=torch.bool), torch.tensor([0])
    values = [
        CoalitionGame(flat, x, target=i, reward="output", **kwargs).outcome(row, first).rewards[0]
        for i in range(x[0].numel())
    ]
    return torch.stack(values).reshape(x.shape[1:])


@pytest.mark.parametrize(
    ("baselines", "fill"),
    [(None, 0.0), (5, 5.0), (0.5, 0.5), (torch.tensor([[7.0, 8.0, 9.0]]), 8.0), (torch.tensor(3.0), 3.0)],
)
def test_absent_values_are_replaced_by_the_baseline(baselines: Any, fill: float) -> None:
    x = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert received(x, [1, 0, 1], baselines=baselines).tolist() == [1.0, fill, 3.0]


def test_each_example_can_have_its_own_baseline() -> None:
    x, baselines = torch.zeros(2, 2), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    game = CoalitionGame(flat, x, target=0, reward="output", baselines=baselines)
    empty = torch.zeros(2, 2, dtype=torch.bool)
    assert game.outcome(empty, torch.tensor([1, 0])).rewards.tolist() == [3.0, 1.0]


def test_absent_booleans_become_false_by_default() -> None:
    x = torch.tensor([[True, True, False]])
    assert received(x, [1, 0, 1]).tolist() == [1.0, 0.0, 0.0]


def test_mean_fill_is_the_mean_of_each_channel() -> None:
    x = torch.randn(1, 3, 4, 4)
    expected = x[0].clone()
    expected[:, :2, :2] = x[0].mean((1, 2))[:, None, None]
    filled = received(x, [0, 1, 1, 1], removal=BaselineRemoval("mean"), feature_mask=patch_mask(4, 2))
    torch.testing.assert_close(filled, expected)


def test_blur_fill_is_a_gaussian_with_a_twentieth_of_the_side_as_standard_deviation() -> None:
    x = torch.zeros(1, 1, 40, 40)
    x[..., 20, 20] = 1.0
    games = [
        CoalitionGame(
            lambda image, column=column: image[:, 0, 20, column],
            x,
            reward="output",
            feature_mask=torch.zeros(1).long(),
            removal=BaselineRemoval("blur"),
        )
        for column in (20, 21, 22)
    ]
    center, next_pixel, second_pixel = (float(game.outcome(torch.zeros(1, 1)).rewards[0]) for game in games)
    # a Gaussian of standard deviation 2 falls by exp(-1 / 8) and exp(-4 / 8)
    assert next_pixel / center == pytest.approx(torch.exp(torch.tensor(-1 / 8)).item(), rel=1e-5)
    assert second_pixel / center == pytest.approx(torch.exp(torch.tensor(-4 / 8)).item(), rel=1e-5)


def gaussian_blur(x: Tensor) -> Tensor:
    """The blur of SciPy in double precision, cut off at the same radius."""
    sigma = min(x.shape[2:]) / 20
    blurred = [
        [gaussian_filter(channel, sigma, mode="nearest", radius=max(1, round(3 * sigma))) for channel in image]
        for image in x.double().numpy()
    ]
    return torch.from_numpy(np.array(blurred))


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.float16, 2**-10), (torch.bfloat16, 2**-7)],
)
def test_blur_has_the_precision_of_the_input(dtype: torch.dtype, tolerance: float) -> None:
    x, seen = torch.rand(2, 3, 50, 40, dtype=torch.float64).to(dtype), []

    def forward(images: Tensor) -> Tensor:
        seen.append(images)
        return images.sum((2, 3))

    game = CoalitionGame(forward, x, target=0, feature_mask=torch.zeros(1).long(), removal=BaselineRemoval("blur"))
    game.outcome(torch.zeros(2, 1), torch.arange(2))
    assert seen[-1].dtype is dtype
    # Values are below 1, so half an ulp of the dtype is the error of one rounding.
    torch.testing.assert_close(seen[-1].double(), gaussian_blur(x), rtol=0, atol=tolerance)


def test_blur_does_not_change_a_constant_image() -> None:
    x = torch.full((1, 2, 9, 9), 3.0)
    kwargs = {"feature_mask": torch.zeros(1).long(), "removal": BaselineRemoval("blur")}
    game = CoalitionGame(flat, x, target=5, reward="output", **kwargs)
    assert float(game(torch.zeros(1, 1))[0]) == pytest.approx(3.0)


def test_fills_that_do_not_fit_are_rejected() -> None:
    with pytest.raises(ValueError, match=r"fill is 'median'; pass 'mean', 'blur'"):
        BaselineRemoval("median")
    for fill in (["mean"], 5, float("nan"), {"mean": 1}):
        with pytest.raises(TypeError, match=r"fill is .*; pass 'mean', 'blur', or None"):
            BaselineRemoval(fill)
    with pytest.raises(ValueError, match="pass only one of them"):
        CoalitionGame(flat, torch.zeros(1, 3, 4, 4), target=0, baselines=1, removal=BaselineRemoval("mean"))
    with pytest.raises(ValueError, match="floating-point images"):
        CoalitionGame(flat, torch.zeros(1, 4), target=0, removal=BaselineRemoval("blur"))


def test_convolutional_models_receive_channels_last_and_functions_the_original_layout() -> None:
    is_channels_last = []
    model = zoo.randomised(zoo.resnet())
    model.register_forward_pre_hook(
        lambda module, args: is_channels_last.append(args[0].is_contiguous(memory_format=torch.channels_last))
    )
    x, coalitions = torch.randn(1, 3, 32, 32), torch.rand(3, 4) < 0.5
    CoalitionGame(model, x, target=1, feature_mask=patch_mask(32, 16)).outcome(coalitions)
    # the first pass is the unchanged input
    assert is_channels_last == [False, True]
    # view() works only in the original layout
    game = CoalitionGame(lambda x: x.view(len(x), -1), x, target=1, feature_mask=patch_mask(32, 16))
    assert game.outcome(coalitions).rewards.shape == (3,)


def test_pictures_show_exactly_what_the_model_receives() -> None:
    x, seen = torch.rand(2, 3, 8, 8), []

    def forward(images: Tensor) -> Tensor:
        seen.append(images)
        return images.sum((2, 3))

    game = CoalitionGame(forward, x, target=0, removal=BaselineRemoval("blur"), feature_mask=patch_mask(8, 4))
    coalitions, examples = torch.rand(5, 4) < 0.5, torch.tensor([0, 1, 1, 0, 1])
    seen.clear()
    game.outcome(coalitions, examples)
    pictures = game.pictures(coalitions, examples, lambda pixel_values: pixel_values.permute(0, 2, 3, 1))
    torch.testing.assert_close(pictures.permute(0, 3, 1, 2), torch.cat(seen))
