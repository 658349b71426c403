"""Image files: finding and opening them, and converting images of any mode to RGB."""

import io
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, SAMPLEFORMAT

from captum_moxi.arguments import warn_user

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
# Modes with more than 8 bits per pixel. Pillow's own conversion to RGB clips their values at 255.
DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
# Formats in which Pillow's mode I contains values of 16 bits.
SIXTEEN_BIT_FORMATS = ("PNG", "PPM")
REPLACEMENT_CHARACTER = "\N{REPLACEMENT CHARACTER}"


def expand_paths(paths: Sequence[str | os.PathLike[str]]) -> list[str]:
    """List image files, with each folder replaced by the images in it.

    Args:
        paths (Sequence[str or path]): Image files and folders. If a folder contains no images, those of its direct
            subfolders are listed. Each class may have a subfolder, for example.

    Returns:
        list[str]: Paths in the order of ``paths``. The images of a folder are in the order of their names. Other paths
        and folders without images are returned unchanged, because :func:`open_image` reports what is wrong with them.

    Examples::

        >>> expand_paths(["cat.jpg", "photographs"])
        ['cat.jpg', 'photographs/desk.png', 'photographs/dog.jpg']
    """
    files: list[str] = []
    for path in map(Path, paths):
        images = _images_in(path) or [file for folder in _folders_in(path) for file in _images_in(folder)]
        files += [str(file) for file in images] or [str(path)]
    return files


def _images_in(path: Path) -> list[Path]:
    """Return the image files of a folder in the order of their names. A file contains none."""
    return sorted(file for file in _entries(path) if file.suffix.lower() in IMAGE_SUFFIXES)


def _folders_in(path: Path) -> list[Path]:
    return sorted(folder for folder in _entries(path) if folder.is_dir())


def _entries(path: Path) -> list[Path]:
    return list(path.iterdir()) if path.is_dir() else []


def as_text(path: str) -> str:
    """Return a path as text that can be printed, drawn and stored.

    Bytes of a file name that are not UTF-8 become replacement characters. Python represents them by surrogates, which
    cannot be encoded. The same applies to line breaks, control characters of terminals and other characters that
    cannot be printed.

    Args:
        path (str): Path as Python represents it.
    """
    text = os.fsencode(path).decode("utf-8", errors="replace")
    return "".join(char if _can_be_printed(char) else REPLACEMENT_CHARACTER for char in text)


def _can_be_printed(char: str) -> bool:
    # Python does not count spaces such as U+202F, which macOS writes into the names of screenshots.
    return char.isprintable() or unicodedata.category(char) == "Zs"


def is_utf8(path: str) -> bool:
    """Return whether a path, as Python represents it, is text in UTF-8.

    Args:
        path (str): Path as Python represents it.
    """
    return os.fsencode(path).decode("utf-8", errors="replace") == path


def open_image(
    source: str | os.PathLike[str] | io.BytesIO, *, name: str | None = None, max_pixels: int | None = None
) -> Image.Image:
    """Open an image in RGB, upright according to its EXIF orientation.

    Values of more than 8 bits are scaled, and transparent pixels are put on white, as in :func:`to_rgb`.

    Args:
        source (str, path or BytesIO): Image file, or its contents.
        name (str, optional): Name of the image in warnings.
            Default: None, the path
        max_pixels (int, optional): Maximum number of pixels. The file is not decoded if it has more.
            Default: None, twice ``PIL.Image.MAX_IMAGE_PIXELS``

    Returns:
        PIL.Image.Image: Loaded image in mode RGB.

    Raises:
        ValueError: If the file does not exist, is not a complete image, has too many pixels, or cannot be converted to
            RGB. The message does not contain the path.
    """
    if not isinstance(source, io.BytesIO):
        if not Path(source).exists():
            raise ValueError("no such file; pass the path of an image")
        if Path(source).is_dir():
            raise ValueError("this folder contains no images; pass image files, or a folder that contains some")
        name = name or as_text(os.fspath(source))
    try:
        with Image.open(source) as image:
            if max_pixels is not None and image.width * image.height > max_pixels:
                raise Image.DecompressionBombError(f"{image.width} x {image.height}, at most {max_pixels} are accepted")
            # The image is loaded and changed in place, because a copy would not know the bit depth of its file.
            ImageOps.exif_transpose(image, in_place=True)
    except UnidentifiedImageError:
        raise ValueError("not an image that Pillow can read; pass a JPEG, PNG or similar file") from None
    except MemoryError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        # The warning is an error only with Python's option -W error.
        raise ValueError(f"the image has too many pixels ({str(error).rstrip('.')}); pass a smaller image") from None
    except Exception as error:
        # Pillow raises errors of many types for truncated files and invalid metadata.
        raise ValueError(f"the image cannot be read and may be truncated ({error}); pass a complete file") from None
    return to_rgb(image, name=name)


def to_rgb(image: Image.Image, *, name: str | None = None) -> Image.Image:
    """Convert an image of any mode to RGB.

    Integers of more than 8 bits are scaled by their bit depth: 65535 becomes 255. Floating-point values are scaled from
    0..1 to 0..255. Transparent pixels are put on white, with a warning.

    Args:
        image (Image): Image of any mode.
        name (str, optional): Name of the image in the warning.
            Default: None, the path of its file if it has one

    Returns:
        PIL.Image.Image: Image in mode RGB.

    Raises:
        ValueError: If the bit depth of integers is unknown, if values are out of range, or if Pillow cannot convert the
            mode.

    Examples::

        >>> to_rgb(Image.fromarray(numpy.array([[0, 257, 65535]], dtype="uint16"))).getpixel((1, 0))
        (1, 1, 1)
    """
    # The converted image does not know its file.
    name = name or as_text(str(getattr(image, "filename", ""))) or "the image"
    if image.mode in DEEP_MODES:
        image = _to_8_bits(image)
    try:
        if not image.has_transparency_data:
            return image.convert("RGB")
        rgba = image.convert("RGBA")
    except ValueError as error:
        raise ValueError(f"mode {image.mode} is not supported ({error}); pass an image of mode RGB or L") from None
    least_opaque, _ = rgba.getchannel("A").getextrema()
    if least_opaque == 255:
        return rgba.convert("RGB")
    warn_user(f"{name} has transparent pixels, which are put on white; pass an opaque image for another background")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Scale the values of a gray image to 8 bits."""
    white = _white_value(image)
    values = np.asarray(image)
    if values.dtype == np.int32 and white > np.iinfo(np.int32).max:
        # Pillow has no mode for unsigned integers of 32 bits.
        values = values.view(np.uint32)
    low, high = values.min(), values.max()
    # NaN fails the comparison.
    if not (low >= 0 and high <= white):
        raise ValueError(
            f"the values of this image of mode {image.mode} are from {low:g} to {high:g}; pass values from 0 to "
            f"{white:g}, or an 8-bit image"
        )
    scaled = np.rint(values * (255 / white)).astype(np.uint8)
    if _tag(image, PHOTOMETRIC_INTERPRETATION, default=1) == 0:
        # The format stores white as 0, and Pillow inverts only 8-bit values.
        scaled = 255 - scaled
    gray = Image.fromarray(scaled)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        # A PNG file can have one transparent gray value.
        gray.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return gray


def _white_value(image: Image.Image) -> float:
    """Return the value of white in a gray image of more than 8 bits."""
    if image.mode == "F":
        return 1.0
    bits = _tag(image, BITSPERSAMPLE, default=0)
    if bits:
        is_signed = _tag(image, SAMPLEFORMAT, default=1) == 2
        return 2.0 ** (bits - is_signed) - 1
    if image.mode == "I" and image.format not in SIXTEEN_BIT_FORMATS:
        raise ValueError(
            "the bit depth of this image of mode I is unknown; pass an 8-bit image, a 16-bit image of mode I;16, or "
            "values from 0 to 1 in mode F"
        )
    return 65535.0


def _tag(image: Image.Image, tag: int, *, default: int) -> int:
    """Return the value of a TIFF tag, or the default if the image does not come from a TIFF file or has no such tag."""
    values = getattr(image, "tag_v2", {}).get(tag, default)
    return int(values[0]) if isinstance(values, tuple) else int(values)
