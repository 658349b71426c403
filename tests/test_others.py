"""Agreement with other packages, which the extra ``others`` brings: shapiq on one game, Quantus on one map."""

import numpy as np
import pytest
import torch
import zoo
from torch import Tensor

from captum_moxi import BaselineRemoval, CoalitionGame, GradCam, deletion_curve, insertion_curve, patch_mask
from captum_moxi.interactions import shapley_interactions, shapley_values
from captum_moxi.models import LogitsModel

WITHOUT = "is not installed; pip install '.[others]'"


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def game(x: Tensor) -> CoalitionGame:
    """Eight players: two patches of a ViT each."""
    return CoalitionGame(zoo.token_model("vit"), x[:1], 2, feature_mask=patch_mask(32, grid=(4, 2)))


def test_shapiq_exact_values_and_interactions(game: CoalitionGame) -> None:
    shapiq = pytest.importorskip("shapiq", reason=f"shapiq {WITHOUT}")
    exact = shapiq.ExactComputer(game, n_players=8)
    values = exact("SV")
    ours = shapley_values(game, 8)
    assert [values[(player,)] for player in range(8)] == pytest.approx(ours.tolist(), abs=1e-4)
    pairs = exact("SII", order=2)
    ours = shapley_interactions(game, 8)
    for i in range(8):
        for j in range(i):
            assert pairs[(j, i)] == pytest.approx(float(ours[i, j]), abs=1e-4)


@pytest.mark.parametrize("name", ["KernelSHAP", "PermutationSamplingSV", "SVARM"])
def test_shapiq_approximators(game: CoalitionGame, name: str) -> None:
    """A game of ours is a game of theirs: an approximator comes near, and KernelSHAP with all coalitions is exact."""
    shapiq = pytest.importorskip("shapiq", reason=f"shapiq {WITHOUT}")
    budget = 2**8 if name == "KernelSHAP" else 6000
    found = getattr(shapiq, name)(n=8, random_state=0).approximate(budget, game)
    ours = shapley_values(game, 8)
    values = [found[(player,)] for player in range(8)]
    assert values == pytest.approx(ours.tolist(), abs=1e-3 if name == "KernelSHAP" else 0.2 * float(ours.abs().max()))


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_quantus_pixel_flipping_is_the_deletion_curve(kind: str, x: Tensor) -> None:
    quantus = pytest.importorskip("quantus", reason=f"Quantus {WITHOUT}")
    model = zoo.token_model("vit") if kind == "vit" else zoo.randomised(zoo.resnet())
    y = [1, 3]
    attr = GradCam(model, model.base_model.encoder.stages[0] if kind == "resnet" else None).attribute(x, target=y)
    patches = torch.nn.functional.adaptive_avg_pool2d(attr, 4)
    assert len(patches.flatten().unique()) == 32  # Quantus leaves ties to chance
    pixels = patches.repeat_interleave(8, 2).repeat_interleave(8, 3).expand_as(x)
    # a step of Quantus is of features, of which a patch has 64 in each of its 3 colours, in whatever order
    flip = quantus.PixelFlipping(features_in_step=64, perturb_baseline=0.0, normalise=False, disable_warnings=True)
    images = {"x_batch": x.numpy(), "y_batch": np.array(y), "a_batch": pixels.numpy()}
    steps = np.array(flip(model=LogitsModel(model), softmax=True, device="cpu", **images))
    curve = deletion_curve(model, x, attr, y, removal=BaselineRemoval(), feature_mask=patch_mask(32, 8))
    np.testing.assert_allclose(curve.confidences[:, 1:], steps[:, 2::3], atol=1e-5)


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_quantus_pixel_flipping_back_is_the_insertion_curve(kind: str, x: Tensor) -> None:
    """Of the last patches first, what is still there are the first: read backwards, its flipping is an insertion."""
    quantus = pytest.importorskip("quantus", reason=f"Quantus {WITHOUT}")
    model = zoo.token_model("vit") if kind == "vit" else zoo.randomised(zoo.resnet())
    y, fill = [1, 3], 0.25
    patches = torch.randn(2, 1, 4, 4)
    pixels = patches.repeat_interleave(8, 2).repeat_interleave(8, 3).expand_as(x)
    flip = quantus.PixelFlipping(features_in_step=64, perturb_baseline=fill, normalise=False, disable_warnings=True)
    images = {"x_batch": x.numpy(), "y_batch": np.array(y), "a_batch": -pixels.numpy()}
    steps = np.array(flip(model=LogitsModel(model), softmax=True, device="cpu", **images))
    curve = insertion_curve(
        model, x, pixels, y, baselines=fill, removal=BaselineRemoval(), feature_mask=patch_mask(32, 8)
    )
    np.testing.assert_allclose(curve.confidences[:, :-1], steps[:, 2::3][:, ::-1], atol=1e-5)
