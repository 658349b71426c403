"""Image files: finding and opening them."""

import io
import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")


def expand_paths(paths: Sequence[str | os.PathLike[str]]) -> list[str]:
    """List image files, with each folder replaced by the images in it.

    Args:
        paths (Sequence[str or path]): Image files and folders. Subfolders are not searched.

    Returns:
        list[str]: Paths in the order of ``paths``. The images of a folder are in the order of their names. Other paths
        and folders without images are returned unchanged, because :func:`open_image` reports what is wrong with them.

    Examples::

        >>> expand_paths(["cat.jpg", "photographs"])
        ['cat.jpg', 'photographs/desk.png', 'photographs/dog.jpg']
    """
    files: list[str] = []
    for path in map(Path, paths):
        images = [file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES] if path.is_dir() else []
        files += [str(file) for file in sorted(images)] or [str(path)]
    return files


def open_image(source: str | os.PathLike[str] | io.BytesIO) -> Image.Image:
    """Open an image in RGB, upright according to its EXIF orientation.

    Args:
        source (str, path or BytesIO): Image file, or its contents.

    Returns:
        PIL.Image.Image: Loaded image in mode RGB.

    Raises:
        ValueError: If the file does not exist or is not a complete image. The message does not contain the path.
    """
    if not isinstance(source, io.BytesIO):
        if not Path(source).exists():
            raise ValueError("no such file; pass the path of an image")
        if Path(source).is_dir():
            raise ValueError("this folder contains no images; pass image files, or a folder that contains some")
    try:
        with Image.open(source) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except UnidentifiedImageError:
        raise ValueError("not an image that Pillow can read; pass a JPEG, PNG or similar file") from None
    except MemoryError:
        raise
    except Exception as error:
        # Pillow raises errors of many types for truncated files and invalid metadata.
        raise ValueError(f"the image cannot be read and may be truncated ({error}); pass a complete file") from None
