"""Corruptions against the definition of each, and curves with a corruption against images composed by hand."""

import importlib.util
import sys
from collections.abc import Iterator
from io import BytesIO

import numpy as np
import pytest
import torch
import zoo
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps
from transformers import ViTImageProcessor

from captum_moxi import BaselineRemoval, deletion_curve, patch_mask
from captum_moxi.models import ImageClassifier
from captum_moxi.perturbations.corruptions import CORRUPTIONS, corrupt, corrupted_inputs

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("imagecorruptions") is None,
    reason="imagecorruptions-imaug is not installed; pip install '.[corruptions]'",
)
RANDOM = {
    *("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "glass_blur", "motion_blur", "snow", "frost"),
    *("fog", "elastic_transform", "spatter"),
}
MEAN, STD = [0.2, 0.5, 0.4], [0.1, 0.2, 0.4]


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    """Gradients of three colors with a sharp disc and lines, 72 x 64 pixels."""
    rows, columns = np.mgrid[:64, :72]
    image = Image.fromarray(np.stack([60 + 2 * rows, 40 + 2 * columns, 150 - rows], 2).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    draw.ellipse((20, 12, 50, 42), (230, 120, 40))
    for column in range(4, 72, 8):
        draw.line((column, 46, column, 63), (20, 30, 90))
    return image


@pytest.fixture(scope="module")
def gray() -> Image.Image:
    return Image.new("RGB", (128, 128), (128, 128, 128))


@pytest.fixture(scope="module")
def classifier() -> ImageClassifier:
    """A classifier whose processor has another image size than the tests, to detect any resizing."""
    processor = ViTImageProcessor(image_mean=MEAN, image_std=STD)
    return ImageClassifier(zoo.randomised(zoo.resnet()), processor, "test")


@pytest.fixture
def invert() -> Iterator[str]:
    """A corruption registered from outside the package."""
    CORRUPTIONS.register("invert", lambda: lambda image, severity, seed: ImageOps.invert(image))
    yield "invert"
    CORRUPTIONS.unregister("invert")


def as_floats(image: Image.Image) -> NDArray[np.float64]:
    return np.asarray(image) / 255


def roughness(image: Image.Image) -> float:
    values = as_floats(image)
    return float(np.abs(np.diff(values, axis=0)).mean() + np.abs(np.diff(values, axis=1)).mean())


def saturation(image: Image.Image) -> float:
    return float(np.asarray(image.convert("HSV"))[..., 1].mean())


@needs_package
def test_all_corruptions_of_the_package_are_registered() -> None:
    import imagecorruptions

    assert sorted(imagecorruptions.get_corruption_names("all")) == sorted(CORRUPTIONS)


@needs_package
@pytest.mark.parametrize("name", list(CORRUPTIONS))
def test_result_depends_only_on_the_seed(name: str, picture: Image.Image) -> None:
    before = picture.tobytes()
    np.random.seed(5)
    state = np.random.get_state()[1].copy()
    first = corrupt(picture, name)
    assert np.array_equal(np.random.get_state()[1], state)
    np.random.seed(6)
    assert (first.size, first.mode) == (picture.size, "RGB")
    assert first.tobytes() != before == picture.tobytes()
    assert corrupt(picture, name).tobytes() == first.tobytes()
    distinct = {corrupt(picture, name, seed=seed).tobytes() for seed in (0, 1, 2)}
    assert len(distinct) == (3 if name in RANDOM else 1)


@needs_package
def test_noise_has_the_strength_of_the_source(gray: Image.Image) -> None:
    """Deviations on mid-gray at severity 1, where little is clipped: 0.08, sqrt(0.5 / 60), 3 %, 0.15 * 0.5."""
    kinds = ("gaussian", "shot", "impulse", "speckle")
    noise = {kind: as_floats(corrupt(gray, f"{kind}_noise", severity=1)) for kind in kinds}
    assert noise["gaussian"].std() == pytest.approx(0.08, rel=0.03)
    assert noise["shot"].std() == pytest.approx((0.5 / 60) ** 0.5, rel=0.03)
    assert noise["speckle"].std() == pytest.approx(0.15 * 0.5, rel=0.03)
    assert np.isin(noise["impulse"], [0, 1]).mean() == pytest.approx(0.03, rel=0.1)


@needs_package
@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if name.endswith("_blur")])
def test_blurs_smooth_and_keep_the_mean(name: str, picture: Image.Image) -> None:
    blurred = corrupt(picture, name)
    assert roughness(blurred) < 0.8 * roughness(picture)
    assert as_floats(blurred).mean() == pytest.approx(as_floats(picture).mean(), abs=0.04)


@needs_package
def test_brightness_contrast_and_color(picture: Image.Image) -> None:
    original = as_floats(picture)
    assert as_floats(corrupt(picture, "brightness")).mean() > original.mean() + 0.1
    # The contrast is reduced to a twentieth, with 8-bit values rounded down.
    flat = as_floats(corrupt(picture, "contrast"))
    mean = original.mean((0, 1))
    assert np.abs(flat - (0.05 * (original - mean) + mean)).max() < 1 / 255 + 1e-6
    assert saturation(corrupt(picture, "saturate")) > saturation(picture) + 50
    assert as_floats(corrupt(picture, "snow")).mean() > original.mean()
    assert as_floats(corrupt(picture, "fog")).std() < original.std()


@needs_package
def test_pixelation_and_jpeg_compression(picture: Image.Image) -> None:
    blocks = as_floats(corrupt(picture, "pixelate")).reshape(16, 4, 18, 4, 3)
    assert np.ptp(blocks, axis=(1, 3)).max() == 0
    file = BytesIO()
    picture.save(file, "JPEG", quality=7)
    assert corrupt(picture, "jpeg_compression").tobytes() == Image.open(file).tobytes()


@needs_package
def test_elastic_transform_moves_colors(picture: Image.Image) -> None:
    moved, original = as_floats(corrupt(picture, "elastic_transform")), as_floats(picture)
    assert np.abs(moved.mean((0, 1)) - original.mean((0, 1))).max() < 0.02
    # Interpolation creates no color outside the original range.
    assert (moved.min((0, 1)) >= original.min((0, 1)) - 1 / 255 - 1e-6).all()
    assert (moved.max((0, 1)) <= original.max((0, 1)) + 1e-6).all()


@needs_package
@pytest.mark.parametrize("name", ["gaussian_noise", "gaussian_blur", "brightness", "contrast", "jpeg_compression"])
def test_higher_severity_changes_more(name: str, picture: Image.Image) -> None:
    mild, severe = (
        np.abs(as_floats(corrupt(picture, name, severity=severity)) - as_floats(picture)).mean() for severity in (1, 5)
    )
    assert mild < severe


def test_a_registered_corruption_can_be_used(invert: str, classifier: ImageClassifier) -> None:
    image = Image.new("RGB", (2, 3), (255, 0, 51))
    assert corrupt(image, invert).getpixel((0, 0)) == (0, 255, 204)
    x = classifier.to_pixel_values(torch.tensor([1.0, 0.0, 0.2]).expand(1, 2, 3, 3))
    expected = classifier.to_pixel_values(torch.tensor([0.0, 1.0, 0.8]).expand(1, 2, 3, 3))
    torch.testing.assert_close(corrupted_inputs(classifier, x, invert), expected)
    with pytest.raises(ValueError, match="invert"):
        corrupt(image, "rain")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "rain"}, "'rain' is unknown; pass one of gaussian_noise, .*, saturate"),
        ({"severity": 0}, "severity is 0"),
        ({"severity": 6}, "severity is 6"),
        ({"severity": 2.5}, r"severity is 2\.5"),
        ({"image": Image.new("RGB", (40, 31))}, "40 x 31 pixels; pass an image of at least 32 x 32"),
    ],
)
def test_invalid_arguments_are_rejected(arguments: dict[str, object], message: str, gray: Image.Image) -> None:
    with pytest.raises(ValueError, match=message):
        corrupt(**({"image": gray, "name": "fog", "severity": 5} | arguments))


@needs_package
@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range_is_rejected(seed: int, gray: Image.Image) -> None:
    state = np.random.get_state()[1].copy()
    with pytest.raises(ValueError, match="Seed"):
        corrupt(gray, "fog", seed=seed)
    assert np.array_equal(np.random.get_state()[1], state)


def test_a_missing_package_is_reported(monkeypatch: pytest.MonkeyPatch, gray: Image.Image) -> None:
    monkeypatch.setitem(sys.modules, "imagecorruptions", None)
    with pytest.raises(ValueError, match=r"run pip install 'captum-moxi\[corruptions\]'"):
        corrupt(gray, "fog")


@needs_package
@pytest.mark.parametrize("name", ["fog", "jpeg_compression", "glass_blur"])
def test_inputs_are_corrupted_at_their_own_size(name: str, picture: Image.Image, classifier: ImageClassifier) -> None:
    images = [picture, picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]

    def normalized(image: Image.Image) -> torch.Tensor:
        return torch.from_numpy((as_floats(image) - np.array(MEAN)) / np.array(STD)).float().permute(2, 0, 1)

    x = torch.stack([normalized(image) for image in images])
    before = x.clone()
    corrupted = corrupted_inputs(classifier, x, name, severity=3, seed=1)
    assert torch.equal(x, before)
    expected = torch.stack([normalized(corrupt(image, name, severity=3, seed=1)) for image in images])
    torch.testing.assert_close(corrupted, expected)
    assert torch.equal(corrupted_inputs(classifier, x[1:], name, severity=3, seed=1), corrupted[1:])


@pytest.mark.parametrize("shape", [(3, 64, 64), (2, 1, 64, 64)])
def test_inputs_of_another_shape_are_rejected(shape: tuple[int, ...], classifier: ImageClassifier) -> None:
    with pytest.raises(ValueError, match="pass pixel values"):
        corrupted_inputs(classifier, torch.zeros(shape), "fog")


@needs_package
@pytest.mark.parametrize("batch", [1, 3])
def test_deleted_patches_show_the_corruption(batch: int, picture: Image.Image, classifier: ImageClassifier) -> None:
    image = torch.from_numpy(as_floats(picture)).float()[None, :64, :64]
    x = classifier.to_pixel_values(torch.cat([image.roll(9 * i, 2) for i in range(batch)]))
    corrupted = corrupted_inputs(classifier, x, "gaussian_noise")
    ranking = torch.stack([torch.randperm(16, generator=torch.Generator().manual_seed(i)) for i in range(batch)])
    mask = patch_mask(64, 16)
    curve = deletion_curve(
        classifier.model,
        x,
        attributions=ranking,
        target=2,
        baselines=corrupted,
        removal=BaselineRemoval(),
        feature_mask=mask,
        fractions=[0, 0.25, 1],
    )
    partly = torch.stack(
        [
            torch.where(torch.isin(mask[0], row[:4]), noisy, clean)
            for row, noisy, clean in zip(ranking, corrupted, x, strict=True)
        ]
    )
    with torch.no_grad():
        for point, shown in enumerate((x, partly, corrupted)):
            probabilities = classifier.model(shown).logits.softmax(1)
            torch.testing.assert_close(curve.confidences[:, point].float(), probabilities[:, 2], rtol=0, atol=1e-5)
            assert torch.equal(curve.predictions[:, point], probabilities.argmax(1))
