"""One line to a picture of each type of result, and what notebooks show."""

from collections.abc import Iterator
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from selections import make_selection
from torch import Tensor

from captum_moxi import Comparison, patch_mask
from captum_moxi.demo import demo_classifier
from captum_moxi.plot import heat_picture, show


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture
def images() -> Tensor:
    """Two images ``(2, 4, 4, 3)`` that contain black and white."""
    images = torch.rand(2, 4, 4, 3)
    images[:, 0, 0], images[:, 3, 3] = 0, 1
    return images


def picture(ax: Axes) -> Tensor:
    return torch.tensor(ax.images[0].get_array())


@pytest.mark.parametrize("form", ["image", "images", "pixel values"])
def test_a_selection_on_an_image_or_pixel_values(images: Tensor, form: str) -> None:
    selection = make_selection("insertion", [1, 1, 0], [0.1, 0.4, 0.9])
    inputs = {"image": images[0], "images": images, "pixel values": 4 * images.permute(0, 3, 1, 2) - 2}[form]
    figure, ax = show(selection, inputs, mask=patch_mask(4, 2), alpha=0.2, cmap="magma", colorbar=True)
    torch.testing.assert_close(picture(ax)[:2], images[0, :2])  # players 0 and 1 are in color
    assert ax.images[1].get_alpha() == 0.2
    assert len(figure.axes) == 2


def test_attributions_of_an_example(images: Tensor) -> None:
    attributions = torch.rand(2, 3, 4, 4)
    figure, ax = show(attributions, images, example=1, cmap="gray", alpha=0.3, colorbar=True)
    expected = heat_picture(images[1], attributions[1].mean(0), cmap="gray", alpha=0.3)
    torch.testing.assert_close(picture(ax), expected)
    assert len(figure.axes) == 2


def test_the_colorbar_has_the_range_of_the_scores(images: Tensor) -> None:
    # The rank scores of players that cover all channels lie between 0 and 1.
    scores = torch.tensor([1.0, 0.5, 0, 0])[patch_mask(4, 2)].expand(1, 3, 4, 4)
    figure, _ = show(scores, images, colorbar=True)
    assert figure.axes[1].get_ylim() == pytest.approx((0, 1))


@pytest.mark.parametrize("n_steps", [1, 3, 300])
def test_the_colorbar_has_one_color_for_each_step(n_steps: int) -> None:
    selection = make_selection("insertion", [1] * (n_steps + 1), [0.5] * (n_steps + 1))
    figure, ax = show(selection, torch.rand(36, 36, 3), mask=patch_mask(36, 2), cmap="gray", alpha=1, colorbar=True)
    assert figure.axes[1].get_ylim() == pytest.approx((0.5, n_steps + 0.5))
    steps = ax.images[1]
    # The colormap "gray" ends with white, the color of the first step.
    assert steps.to_rgba(np.array([1.0]))[0].tolist() == [1, 1, 1, 1]
    assert len(np.unique(steps.to_rgba(np.arange(1.0, n_steps + 1)), axis=0)) == min(n_steps, 256)


def test_attributions_of_a_layer_are_enlarged(images: Tensor) -> None:
    _, ax = show(torch.ones(1, 1, 2, 2), images[0], cmap="gray", alpha=1.0)
    assert (picture(ax) == 1).all()


def test_a_curve_and_a_comparison(comparison: Comparison, images: Tensor) -> None:
    curve = comparison.of("up", "insertion").curve
    _, ax = show(curve, quantity="correct")
    assert ax.lines[-1].get_ydata().tolist() == [0, 0, 0.5]
    assert len(ax.lines) == 3  # two examples and their mean
    assert len(show(comparison)[1]) == 2
    gallery = show(comparison, torch.rand(2, 1, 3, 3), mask=torch.tensor([[[0, 1, 2]]]), mode="deletion")[1]
    assert gallery.shape == (2, 4)


def test_a_comparison_draws_into_given_axes(comparison: Comparison) -> None:
    pictures, mask = torch.rand(2, 1, 3, 3), torch.tensor([[[0, 1, 2]]])
    curves, gallery = Figure().subplots(1, 2), Figure().subplots(2, 4)
    assert show(comparison, ax=curves)[1].tolist() == curves.tolist()
    assert show(comparison, pictures, mask=mask, ax=gallery)[1].tolist() == gallery.tolist()
    insertion = replace(comparison, results=tuple(r for r in comparison.results if r.mode == "insertion"))
    single = Figure().subplots()
    assert show(insertion, ax=single)[1].tolist() == [single]
    with pytest.raises(
        ValueError, match="axes contains 1 Axes, but the comparison has 2 modes; pass one Axes for each"
    ):
        show(comparison, ax=single)
    with pytest.raises(ValueError, match=r"axes has shape \(1,\); pass axes of shape \(2, 4\)"):
        show(comparison, pictures, mask=mask, ax=single)


@pytest.mark.parametrize("kind", ["selection", "attributions", "comparison"])
def test_a_missing_image_or_mask_is_named(images: Tensor, comparison: Comparison, kind: str) -> None:
    selection = make_selection("insertion", [1, 0], [0.1, 0.9])
    result = {"selection": selection, "attributions": torch.rand(1, 3, 4, 4), "comparison": comparison}[kind]
    if kind != "comparison":
        with pytest.raises(ValueError, match="image is missing; pass the image"):
            show(result)
    if kind != "attributions":
        with pytest.raises(ValueError, match="image is missing; pass the image"):
            show(result, mask=patch_mask(4, 2))
        with pytest.raises(ValueError, match="mask is missing; pass the feature mask, for example mask=patch_mask"):
            show(result, images)
        with pytest.raises(ValueError, match=r"mask has shape \(1, 1, 8, 8\) for an image of \(4, 4\) pixels"):
            show(result, images, mask=patch_mask(8, 2))
    with pytest.raises(TypeError, match="image is a ndarray; pass a tensor"):
        show(result, images.numpy(), **({} if kind == "attributions" else {"mask": patch_mask(4, 2)}))


def test_unsuitable_arguments_are_rejected(images: Tensor) -> None:
    selection = make_selection("insertion", [1, 0], [0.1, 0.9])
    with pytest.raises(TypeError, match="result is a int; pass a Selection, a tensor, a Curve or a Comparison"):
        show(3)
    with pytest.raises(ValueError, match=r"image has shape \(4, 4\); pass an image \(H, W, 3\)"):
        show(selection, torch.rand(4, 4), mask=patch_mask(4, 2))


def test_results_have_a_short_repr_and_a_table(comparison: Comparison) -> None:
    selection = make_selection("insertion", [1, 1, 0], [0.1, 0.4, 0.9])
    classifier = demo_classifier("cpu")
    curve = comparison.of("up", "insertion").curve
    assert repr(selection) == "Selection(insertion, 2 steps: players 0, 1; confidence 0.10 -> 0.90; flipped)"
    assert repr(comparison) == (
        "Comparison(up, down, mixed; insertion and deletion; 2 examples; 3 fractions of the players up to 67%)"
    )
    assert repr(curve).startswith("Curve(insertion, 2 examples at 3 fractions; mean area 0.")
    assert repr(classifier) == "ImageClassifier('embedded demo': ViTForImageClassification with 31 classes)"
    for result, cell in ((selection, "0.4"), (curve, "66.7 %"), (comparison, "mixed"), (classifier, "56 x 56")):
        table = result._repr_html_()
        assert table.startswith("<table>") and f"<td>{cell}</td>" in table
