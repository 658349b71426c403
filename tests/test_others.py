"""Agreement with other packages, installed with the extra ``others``: shapiq on a game, Quantus on a map."""

import numpy as np
import pytest
import torch
import zoo
from torch import Tensor

from captum_moxi import BaselineRemoval, CoalitionGame, GradCam, deletion_curve, insertion_curve, patch_mask
from captum_moxi.interactions import shapley_interactions, shapley_values
from captum_moxi.models import LogitsModel

NOT_INSTALLED = "is not installed; run pip install '.[others]'"


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def game(x: Tensor) -> CoalitionGame:
    """Eight players with two patches of a ViT each."""
    return CoalitionGame(zoo.token_model("vit"), x[:1], target=2, feature_mask=patch_mask(32, grid=(4, 2)))


def model_of(kind: str) -> torch.nn.Module:
    return zoo.token_model("vit") if kind == "vit" else zoo.randomised(zoo.resnet())


def test_shapiq_exact_values_and_interactions(game: CoalitionGame) -> None:
    shapiq = pytest.importorskip("shapiq", reason=f"shapiq {NOT_INSTALLED}")
    exact = shapiq.ExactComputer(game, n_players=8)
    values = exact("SV")
    shapley = shapley_values(game, 8)
    assert [values[(player,)] for player in range(8)] == pytest.approx(shapley.tolist(), abs=1e-4)
    pairs = exact("SII", order=2)
    interactions = shapley_interactions(game, 8)
    for i in range(8):
        for j in range(i):
            assert pairs[(j, i)] == pytest.approx(float(interactions[i, j]), abs=1e-4)


@pytest.mark.parametrize("name", ["KernelSHAP", "PermutationSamplingSV", "SVARM"])
def test_shapiq_approximators_accept_the_game(game: CoalitionGame, name: str) -> None:
    """Approximators come close to the exact values, and KernelSHAP with all coalitions is exact."""
    shapiq = pytest.importorskip("shapiq", reason=f"shapiq {NOT_INSTALLED}")
    budget = 2**8 if name == "KernelSHAP" else 6000
    approximation = getattr(shapiq, name)(n=8, random_state=0).approximate(budget, game)
    exact = shapley_values(game, 8)
    tolerance = 1e-3 if name == "KernelSHAP" else 0.2 * float(exact.abs().max())
    assert [approximation[(player,)] for player in range(8)] == pytest.approx(exact.tolist(), abs=tolerance)


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_quantus_pixel_flipping_is_the_deletion_curve(kind: str, x: Tensor) -> None:
    quantus = pytest.importorskip("quantus", reason=f"Quantus {NOT_INSTALLED}")
    model, target = model_of(kind), [1, 3]
    layer = model.base_model.encoder.stages[0] if kind == "resnet" else None  # type: ignore[union-attr, index]
    attr = GradCam(model, layer).attribute(x, target=target)
    patches = torch.nn.functional.adaptive_avg_pool2d(attr, 4)
    # Quantus breaks ties at random.
    assert len(patches.flatten().unique()) == 32
    pixels = patches.repeat_interleave(8, 2).repeat_interleave(8, 3).expand_as(x)
    # A step of Quantus flips 64 values. A patch has 64 in each of its 3 channels, in any order.
    flip = quantus.PixelFlipping(features_in_step=64, perturb_baseline=0.0, normalise=False, disable_warnings=True)
    batch = {"x_batch": x.numpy(), "y_batch": np.array(target), "a_batch": pixels.numpy()}
    steps = np.array(flip(model=LogitsModel(model), softmax=True, device="cpu", **batch))
    curve = deletion_curve(
        model, x, attributions=attr, target=target, removal=BaselineRemoval(), feature_mask=patch_mask(32, 8)
    )
    np.testing.assert_allclose(curve.confidences[:, 1:], steps[:, 2::3], atol=1e-5)


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_quantus_pixel_flipping_in_reverse_is_the_insertion_curve(kind: str, x: Tensor) -> None:
    """Flipping the last patches first leaves the first patches, so its steps in reverse are an insertion curve."""
    quantus = pytest.importorskip("quantus", reason=f"Quantus {NOT_INSTALLED}")
    model, target, fill = model_of(kind), [1, 3], 0.25
    patches = torch.randn(2, 1, 4, 4)
    pixels = patches.repeat_interleave(8, 2).repeat_interleave(8, 3).expand_as(x)
    flip = quantus.PixelFlipping(features_in_step=64, perturb_baseline=fill, normalise=False, disable_warnings=True)
    batch = {"x_batch": x.numpy(), "y_batch": np.array(target), "a_batch": -pixels.numpy()}
    steps = np.array(flip(model=LogitsModel(model), softmax=True, device="cpu", **batch))
    curve = insertion_curve(
        model,
        x,
        attributions=pixels,
        target=target,
        baselines=fill,
        removal=BaselineRemoval(),
        feature_mask=patch_mask(32, 8),
    )
    np.testing.assert_allclose(curve.confidences[:, :-1], steps[:, 2::3][:, ::-1], atol=1e-5)
