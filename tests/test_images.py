import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from captum_moxi.demo import demo_classifier
from captum_moxi.images import as_text, expand_paths, open_image, to_rgb

Array = NDArray[Any]
# Fractions of white, with both ends.
GRADIENT = np.linspace(0, 1, 60).reshape(6, 10)


def gray(image: Image.Image) -> Array:
    """The red channel of a gray RGB image."""
    assert image.mode == "RGB"
    values = np.asarray(image)
    assert (values == values[..., :1]).all()
    return values[..., 0]


def save(array: Array, path: Path, **tags: Any) -> Path:
    Image.fromarray(array).save(path, **tags)
    return path


def test_photographs_are_rotated_upright_and_converted_to_rgb(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (8, 6)).save(tmp_path / "a.jpg", exif=exif)
    for source in (tmp_path / "a.jpg", str(tmp_path / "a.jpg"), io.BytesIO((tmp_path / "a.jpg").read_bytes())):
        image = open_image(source)
        assert image.size == (6, 8) and image.mode == "RGB"


def test_a_file_that_is_not_a_complete_image_is_explained(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not an image")
    Image.effect_noise((64, 64), 50).save(tmp_path / "truncated.png")
    complete = (tmp_path / "truncated.png").read_bytes()
    (tmp_path / "truncated.png").write_bytes(complete[: len(complete) // 2])
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("missing.png", "no such file"),
        ("text.png", "not an image that Pillow can read"),
        ("truncated.png", "may be truncated"),
        ("empty", "contains no images"),
    ):
        with pytest.raises(ValueError, match=message):
            open_image(tmp_path / name)


def test_folders_are_replaced_by_their_images_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "notes.txt", "c.webp"):
        (tmp_path / name).touch()
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "d.png").touch()
    (tmp_path / "empty").mkdir()
    assert expand_paths(["missing.png", tmp_path, tmp_path / "empty"]) == [
        "missing.png",
        *(str(tmp_path / name) for name in ("a.JPG", "b.png", "c.webp")),
        str(tmp_path / "empty"),
    ]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_integers_of_16_bits_are_scaled_by_their_bit_depth(tmp_path: Path, suffix: str) -> None:
    values = np.rint(GRADIENT * 65535).astype(np.uint16)
    path = save(values, tmp_path / f"gradient.{suffix}")
    expected = np.rint(values / 65535 * 255)
    assert (gray(open_image(path)) == expected).all()
    assert (gray(open_image(io.BytesIO(path.read_bytes()))) == expected).all()
    assert (gray(to_rgb(Image.open(path))) == expected).all()
    assert (gray(to_rgb(Image.fromarray(values))) == expected).all()


def test_integers_of_16_bits_in_the_other_byte_order_are_scaled(tmp_path: Path) -> None:
    values = np.rint(GRADIENT * 65535).astype(">u2")
    image = Image.frombytes("I;16B", (10, 6), values.tobytes())
    image.save(tmp_path / "big-endian.tif")
    expected = np.rint(values / 65535 * 255)
    assert (gray(to_rgb(image)) == expected).all()
    assert (gray(open_image(tmp_path / "big-endian.tif")) == expected).all()


def test_integers_of_32_bits_in_a_file_are_scaled_by_their_bit_depth(tmp_path: Path) -> None:
    signed = np.rint(GRADIENT * (2**31 - 1)).astype(np.int32)
    assert (gray(open_image(save(signed, tmp_path / "signed.tif"))) == np.rint(signed / (2**31 - 1) * 255)).all()
    unsigned = np.rint(GRADIENT * (2**32 - 1)).astype(np.uint32)
    # Pillow does not write unsigned values.
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "unsigned.tif", unsigned)
    assert (gray(open_image(tmp_path / "unsigned.tif")) == np.rint(unsigned / (2**32 - 1) * 255)).all()


def test_floating_point_values_are_scaled_from_0_to_1(tmp_path: Path) -> None:
    values = GRADIENT.astype(np.float32)
    path = save(values, tmp_path / "gradient.tif")
    for image in (open_image(path), to_rgb(Image.fromarray(values))):
        assert (gray(image) == np.rint(values * 255)).all()


def test_white_may_be_stored_as_0(tmp_path: Path) -> None:
    values = np.rint(GRADIENT * 65535).astype(np.uint16)
    path = save(values, tmp_path / "inverted.tif", tiffinfo={262: 0})
    with Image.open(path) as image:
        assert image.tag_v2[262] == 0
    assert (gray(open_image(path)) == 255 - np.rint(values / 65535 * 255)).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.float32([[0, 255]]), "are from 0 to 255; pass values from 0 to 1, or an 8-bit image"),
        (np.float32([[-0.5, 1]]), "are from -0.5 to 1"),
        (np.float32([[0.5, np.nan]]), "are from nan to nan"),
        (np.float32([[0.5, np.inf]]), "are from 0.5 to inf"),
        (np.int32([[0, 200]]), "the bit depth of this image of mode I is unknown; pass an 8-bit image"),
    ],
)
def test_values_without_a_known_range_are_rejected(values: Array, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_rgb(Image.fromarray(values))


def test_negative_integers_are_rejected(tmp_path: Path) -> None:
    path = save(np.int32([[-5, 5]]), tmp_path / "negative.tif")
    with pytest.raises(ValueError, match=r"are from -5 to 5; pass values from 0 to 2\.14748e\+09"):
        open_image(path)


def test_a_mode_that_pillow_does_not_convert_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"mode La is not supported .*; pass an image of mode RGB or L"):
        to_rgb(Image.new("La", (2, 2)))


def transparent(mode: str) -> Image.Image:
    """An image of 2 x 1 pixels: opaque gray 100 next to transparent gray 100."""
    image = Image.fromarray(np.uint8([[[100, 100, 100, 255], [100, 100, 100, 0]]]))
    return image.convert(mode)


def palette() -> Image.Image:
    image = Image.fromarray(np.uint8([[0, 1]])).convert("P")
    image.putpalette([100, 100, 100, 0, 0, 0])
    image.info["transparency"] = 1
    return image


def gray_key(dtype: str, scale: int) -> Image.Image:
    image = Image.fromarray(np.array([[100 * scale, 7]], dtype=dtype))
    image.info["transparency"] = 7
    return image


@pytest.mark.parametrize(
    "create",
    [
        lambda: transparent("RGBA"),
        lambda: transparent("LA"),
        lambda: transparent("RGBa"),
        palette,
        lambda: gray_key("uint8", 1),
        lambda: gray_key("uint16", 257),
    ],
    ids=["RGBA", "LA", "RGBa", "P", "L", "I;16"],
)
def test_transparent_pixels_are_put_on_white_and_this_is_reported(
    tmp_path: Path, create: Callable[[], Image.Image]
) -> None:
    image = create()
    with pytest.warns(UserWarning, match="the image has transparent pixels, which are put on white") as caught:
        assert gray(to_rgb(image)).tolist() == [[100, 255]]
    assert len(caught) == 1
    path = tmp_path / "logo.png"
    (image.convert("RGBA") if image.mode == "RGBa" else image).save(path, transparency=image.info.get("transparency"))
    with pytest.warns(UserWarning, match=r"logo\.png has transparent pixels"):
        assert gray(open_image(path)).tolist() == [[100, 255]]
    with pytest.warns(UserWarning, match=r"^split/3 has transparent pixels"):
        open_image(io.BytesIO(path.read_bytes()), name="split/3")


def test_partly_transparent_pixels_are_mixed_with_white() -> None:
    image = Image.fromarray(np.uint8([[[200, 100, 0, 51]]]))
    with pytest.warns(UserWarning, match="transparent"):
        rgb = np.asarray(to_rgb(image))[0, 0]
    np.testing.assert_allclose(rgb, 0.2 * np.array([200, 100, 0]) + 0.8 * 255, atol=0.51)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV", "LA", "RGBA"])
def test_opaque_images_of_any_mode_are_converted_without_a_warning(mode: str) -> None:
    image = Image.new("RGB", (3, 2), "white").convert(mode)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (gray(to_rgb(image)) == 255).all()


def test_16_bit_photographs_are_rotated_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    values = np.rint(GRADIENT * 65535).astype(np.uint16)
    path = save(values, tmp_path / "gradient.png", exif=exif)
    assert (gray(open_image(path)) == np.rot90(np.rint(values / 65535 * 255), -1)).all()


def test_models_receive_scaled_images() -> None:
    deep = np.rint(np.linspace(0, 1, 56 * 56).reshape(56, 56) * 65535).astype(np.uint16)
    shallow = np.rint(deep / 257).astype(np.uint8)
    x = demo_classifier("cpu").preprocess([Image.fromarray(deep), Image.fromarray(shallow)])
    assert (x[0] == x[1]).all() and len(x.unique()) > 100


def test_names_contain_no_characters_that_change_a_terminal() -> None:
    assert as_text("a\nb\x1b[31m\u202e\x7f.png") == "a\ufffdb\ufffd[31m\ufffd\ufffd.png"
    assert as_text("Größe 1\u202fPM 貓 😀.png") == "Größe 1\u202fPM 貓 😀.png"


@pytest.mark.parametrize("size", [150, 250], ids=["warning", "error"])
def test_an_image_with_too_many_pixels_is_rejected_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    path = save(np.zeros((1, size), dtype=np.uint8), tmp_path / "large.png")
    # Pillow warns of images with more pixels, and rejects those with more than twice as many.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=r"too many pixels .*; pass a smaller image"):
            open_image(path)


def test_the_number_of_pixels_can_be_limited(tmp_path: Path) -> None:
    path = save(np.zeros((10, 20), dtype=np.uint8), tmp_path / "gray.png")
    assert open_image(path, max_pixels=200).size == (20, 10)
    with pytest.raises(ValueError, match=r"too many pixels \(20 x 10, at most 199 are accepted\)"):
        open_image(path, max_pixels=199)


def test_the_file_of_a_16_bit_image_is_named(tmp_path: Path) -> None:
    path = tmp_path / "logo.png"
    gray_key("uint16", 257).save(path, transparency=7)
    with Image.open(path) as image, pytest.warns(UserWarning, match=r"logo\.png has transparent pixels"):
        assert gray(to_rgb(image)).tolist() == [[100, 255]]
