"""Each corruption against what its name says; the curve with a corruption against images put together by hand."""

import importlib.util
import sys
from io import BytesIO

import numpy as np
import pytest
import torch
import zoo
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from transformers import ViTImageProcessor

from captum_moxi import BaselineRemoval, deletion_curve, patch_mask
from captum_moxi.evaluation.corruptions import CORRUPTIONS, corrupt, corrupted_inputs
from captum_moxi.models import ImageClassifier

package = pytest.mark.skipif(
    importlib.util.find_spec("imagecorruptions") is None,
    reason="no package imagecorruptions-imaug; pip install '.[corruptions]'",
)
RANDOM = {
    *("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "glass_blur", "motion_blur", "snow", "frost"),
    *("fog", "elastic_transform", "spatter"),
}


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    """Shades of three colours with a sharp disc and lines, 64 x 72 pixels."""
    rows, columns = np.mgrid[:64, :72]
    image = Image.fromarray(np.stack([60 + 2 * rows, 40 + 2 * columns, 150 - rows], 2).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    draw.ellipse((20, 12, 50, 42), (230, 120, 40))
    for column in range(4, 72, 8):
        draw.line((column, 46, column, 63), (20, 30, 90))
    return image


@pytest.fixture(scope="module")
def grey() -> Image.Image:
    return Image.new("RGB", (128, 128), (128, 128, 128))


def floats(image: Image.Image) -> NDArray[np.float64]:
    return np.asarray(image) / 255


def roughness(image: Image.Image) -> float:
    values = floats(image)
    return float(np.abs(np.diff(values, axis=0)).mean() + np.abs(np.diff(values, axis=1)).mean())


def saturation(image: Image.Image) -> float:
    return float(np.asarray(image.convert("HSV"))[..., 1].mean())


@package
def test_the_package_has_these_and_no_others() -> None:
    import imagecorruptions

    assert sorted(imagecorruptions.get_corruption_names("all")) == sorted(CORRUPTIONS)


@package
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_seed_alone_decides(name: str, picture: Image.Image) -> None:
    before = picture.tobytes()
    np.random.seed(5)
    state = np.random.get_state()[1].copy()
    first = corrupt(picture, name)
    assert np.array_equal(np.random.get_state()[1], state)
    np.random.seed(6)
    assert (first.size, first.mode) == (picture.size, "RGB")
    assert first.tobytes() != before == picture.tobytes()
    assert corrupt(picture, name).tobytes() == first.tobytes()
    others = {corrupt(picture, name, seed=seed).tobytes() for seed in (0, 1, 2)}
    assert len(others) == (3 if name in RANDOM else 1)


@package
def test_noise_is_as_strong_as_the_source_says(grey: Image.Image) -> None:
    """Deviations on mid-grey at severity 1, where little is clipped: 0.08, sqrt(0.5 / 60), 3 %, 0.15 * 0.5."""
    noise = {name: floats(corrupt(grey, f"{name}_noise", 1)) for name in ("gaussian", "shot", "impulse", "speckle")}
    assert noise["gaussian"].std() == pytest.approx(0.08, rel=0.03)
    assert noise["shot"].std() == pytest.approx((0.5 / 60) ** 0.5, rel=0.03)
    assert noise["speckle"].std() == pytest.approx(0.15 * 0.5, rel=0.03)
    assert np.isin(noise["impulse"], [0, 1]).mean() == pytest.approx(0.03, rel=0.1)


@package
@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if name.endswith("_blur")])
def test_blurs_smooth_and_keep_the_mean(name: str, picture: Image.Image) -> None:
    blurred = corrupt(picture, name)
    assert roughness(blurred) < 0.8 * roughness(picture)
    assert floats(blurred).mean() == pytest.approx(floats(picture).mean(), abs=0.04)


@package
def test_light_contrast_and_colour(picture: Image.Image) -> None:
    plain = floats(picture)
    assert floats(corrupt(picture, "brightness")).mean() > plain.mean() + 0.1
    # a twentieth of the contrast; values of 8 bits, cut off
    flat = floats(corrupt(picture, "contrast"))
    assert np.abs(flat - (0.05 * (plain - plain.mean((0, 1))) + plain.mean((0, 1)))).max() < 1 / 255 + 1e-6
    assert saturation(corrupt(picture, "saturate")) > saturation(picture) + 50
    assert floats(corrupt(picture, "snow")).mean() > plain.mean()
    assert floats(corrupt(picture, "fog")).std() < plain.std()


@package
def test_pixels_blocks_and_files(picture: Image.Image) -> None:
    blocks = floats(corrupt(picture, "pixelate")).reshape(16, 4, 18, 4, 3)
    assert np.ptp(blocks, axis=(1, 3)).max() == 0
    file = BytesIO()
    picture.save(file, "JPEG", quality=7)
    assert corrupt(picture, "jpeg_compression").tobytes() == Image.open(file).tobytes()


@package
def test_colours_are_moved_about_by_an_elastic_transform(picture: Image.Image) -> None:
    moved, plain = floats(corrupt(picture, "elastic_transform")), floats(picture)
    assert np.abs(moved.mean((0, 1)) - plain.mean((0, 1))).max() < 0.02
    # no colour that was not there, but between two neighbours
    assert (moved.min((0, 1)) >= plain.min((0, 1)) - 1 / 255 - 1e-6).all()
    assert (moved.max((0, 1)) <= plain.max((0, 1)) + 1e-6).all()


@package
def test_higher_severity_is_further_off(picture: Image.Image) -> None:
    for name in ("gaussian_noise", "gaussian_blur", "brightness", "contrast", "jpeg_compression"):
        off = [np.abs(floats(corrupt(picture, name, severity)) - floats(picture)).mean() for severity in (1, 5)]
        assert off[0] < off[1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "rain"}, "'rain' is not known; pass one of gaussian_noise, .*, saturate"),
        ({"severity": 0}, "severity is 0"),
        ({"severity": 6}, "severity is 6"),
        ({"severity": 2.5}, r"severity is 2\.5"),
        ({"image": Image.new("RGB", (40, 31))}, "40 x 31 pixels; pass one of at least 32 x 32"),
    ],
)
def test_what_cannot_be(change: dict[str, object], said: str, grey: Image.Image) -> None:
    with pytest.raises(ValueError, match=said):
        corrupt(**({"image": grey, "name": "fog", "severity": 5} | change))


@package
@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_numpy_does_not_take(seed: int, grey: Image.Image) -> None:
    state = np.random.get_state()[1].copy()
    with pytest.raises(ValueError, match="Seed"):
        corrupt(grey, "fog", seed=seed)
    assert np.array_equal(np.random.get_state()[1], state)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch, grey: Image.Image) -> None:
    monkeypatch.setitem(sys.modules, "imagecorruptions", None)
    with pytest.raises(ValueError, match=r'pip install "captum-moxi\[corruptions\]"'):
        corrupt(grey, "fog")


@pytest.fixture(scope="module")
def classifier() -> ImageClassifier:
    # of another size than the images, which nothing may be resized to
    processor = ViTImageProcessor(image_mean=[0.2, 0.5, 0.4], image_std=[0.1, 0.2, 0.4])
    return ImageClassifier(zoo.randomised(zoo.resnet()), processor, "test")


@package
@pytest.mark.parametrize("name", ["fog", "jpeg_compression", "glass_blur"])
def test_inputs_are_corrupted_at_their_own_size(name: str, picture: Image.Image, classifier: ImageClassifier) -> None:
    images = [picture, picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    mean, std = np.array([0.2, 0.5, 0.4]), np.array([0.1, 0.2, 0.4])

    def normalised(image: Image.Image) -> torch.Tensor:
        return torch.from_numpy((floats(image) - mean) / std).float().permute(2, 0, 1)

    x = torch.stack([normalised(image) for image in images])
    before = x.clone()
    corrupted = corrupted_inputs(classifier, x, name, severity=3, seed=1)
    assert torch.equal(x, before)
    torch.testing.assert_close(corrupted, torch.stack([normalised(corrupt(image, name, 3, 1)) for image in images]))
    assert torch.equal(corrupted_inputs(classifier, x[1:], name, severity=3, seed=1), corrupted[1:])


def test_inputs_that_are_no_images(classifier: ImageClassifier) -> None:
    for shape in ((3, 64, 64), (2, 1, 64, 64)):
        with pytest.raises(ValueError, match="pass pixel values"):
            corrupted_inputs(classifier, torch.zeros(shape), "fog")


@package
@pytest.mark.parametrize("batch", [1, 3])
def test_deleted_patches_show_the_corruption(batch: int, picture: Image.Image, classifier: ImageClassifier) -> None:
    image = torch.from_numpy(floats(picture)).float()[None, :64, :64]
    x = classifier.to_pixel_values(torch.cat([image.roll(9 * i, 2) for i in range(batch)]))
    corrupted = corrupted_inputs(classifier, x, "gaussian_noise")
    ranking = torch.stack([torch.randperm(16, generator=torch.Generator().manual_seed(i)) for i in range(batch)])
    mask = patch_mask(64, 16)
    curve = deletion_curve(
        classifier.model,
        x,
        ranking,
        target=2,
        baselines=corrupted,
        removal=BaselineRemoval(),
        feature_mask=mask,
        fractions=[0, 0.25, 1],
    )
    with torch.no_grad():
        some = torch.stack(
            [
                torch.where(torch.isin(mask[0], row[:4]), noisy, plain)
                for row, noisy, plain in zip(ranking, corrupted, x, strict=True)
            ]
        )
        for place, shown in enumerate((x, some, corrupted)):
            wanted = classifier.model(shown).logits.softmax(1)
            torch.testing.assert_close(curve.confidences[:, place].float(), wanted[:, 2], rtol=0, atol=1e-5)
            assert torch.equal(curve.predictions[:, place], wanted.argmax(1))
