"""Images: opened one by one, and by the thousand from a folder or a Hugging Face data set."""

import glob
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError

from captum_moxi.models import ImageClassifier

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")


def open_image(source: str | Path | io.BytesIO) -> Image.Image:
    """An image as people look at it: upright, in RGB.

    Raises:
        ValueError: there is none, or it cannot be read.
    """
    if not isinstance(source, io.BytesIO):
        if not Path(source).exists():
            raise ValueError("no such file; pass the path of an image")
        if Path(source).is_dir():
            raise ValueError("this folder holds no image; pass image files, or a folder of them")
    try:
        with Image.open(source) as image:
            # cameras store how they were held
            return ImageOps.exif_transpose(image).convert("RGB")
    except UnidentifiedImageError:
        raise ValueError("this is no image that Pillow can read; pass a JPEG, PNG or the like") from None
    except MemoryError:
        raise
    except Exception as error:
        # Pillow fails in many ways at a file that is cut or has bad metadata
        raise ValueError(f"the image cannot be read ({error}); it may be truncated: pass a whole file") from None


@dataclass(frozen=True)
class ImageSet:
    """Images of a folder or a data set, in a fixed order.

    Args:
        names (Sequence[str]): What each is called: its path in the folder, or its place in the data set.
        labels (Sequence[int or None] or None): The class of each, as the model counts them; None for unknown.
        given (Sequence[str or None] or None): The same as the data tell it, also where it is none of the model's.
        rows (Dataset): The data set.
        column (str): Its column of images, not decoded.
    """

    names: Sequence[str]
    labels: Sequence[int | None] | None
    given: Sequence[str | None] | None
    rows: Any
    column: str

    def __len__(self) -> int:
        return len(self.names)

    def open(self, index: int) -> Image.Image:
        """One image.

        Raises:
            ValueError: it cannot be read.
        """
        entry = self.rows[index][self.column]
        if entry is None:
            raise ValueError("the data set holds no image here")
        return open_image(entry["path"] if entry["bytes"] is None else io.BytesIO(entry["bytes"]))


def read_images(
    data: str,
    classifier: ImageClassifier,
    split: str | None = None,
    label_pattern: str | None = None,
    limit: int | None = None,
    label_map: Mapping[str, str] | None = None,
) -> ImageSet:
    r"""
    The images of a folder or of a data set on the hub, through the package ``datasets``.

    Labels are, in this order: what ``label_pattern`` finds in the names; the folders that the images lie in, or the
    column ``label`` of the folder's ``metadata.csv``; the data set's column ``label``, or its only one of class labels.
    They are matched with the model's by name (one of a name's synonyms will do) or by index, and where no name is the
    model's, by their order, if there are as many. An image that has none, as those of test splits, or one that is not
    the model's, has None.

    Args:
        data (str): A folder, or the name of a data set on the hub, with its configuration as in ``'cifar100:default'``
            where it has several.
        classifier (ImageClassifier): The model, for its classes.
        split (str, optional): Which split. Default: the only one
        label_pattern (str, optional): A regular expression whose group is the class in an image's name, as
            ``'(\d+)_'`` is of ``0042_agama.jpg``. Default: None
        limit (int, optional): At most this many images, the first. Default: all
        label_map (Mapping[str, str], optional): The model's class, by name or index, for labels of the data; images of
            other labels are left out. So one set of images serves models of few classes and of many. Default: None

    Raises:
        ValueError: no such data or split, no images in it, a name without label_pattern, or no label of label_map.
    """
    if find_spec("datasets") is None:
        raise ValueError("reading folders and data sets needs datasets; pip install 'captum-moxi[evaluate]'")
    import datasets

    folder = Path(data)
    if not folder.is_dir() and (folder.exists() or folder.is_absolute() or data.startswith(".")):
        raise ValueError(f"data {data!r} is no folder; pass a folder of images or the name of a data set")
    try:
        if not folder.is_dir():
            name, _, configuration = data.partition(":")
            found = datasets.load_dataset(name, configuration or None)
        elif any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.rglob("*")):
            # all files named, since a name that holds 'train' or 'test' would be taken for a split
            files = {"images": "**"}
            found = datasets.load_dataset(
                "imagefolder",
                data_dir=glob.escape(str(folder.resolve())),
                data_files=files,
                # datasets takes the folder's name for no class where all images lie in one
                drop_labels=False if _is_of_one_class(folder) else None,
            )
        else:
            found = datasets.load_dataset(str(folder.resolve()))
    except Exception as error:
        # the hub, the files and the scripts of a data set each fail in their own way
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(
            f"data {data!r}, {'a folder' if folder.is_dir() else 'no folder here'}, could not be read ({reason}); pass "
            "a folder of images or the name of a data set"
        ) from error
    if split is None and len(found) > 1:
        raise ValueError(f"data {data!r} has the splits {', '.join(found)}; pass one as split")
    if split is not None and split not in found:
        raise ValueError(f"data {data!r} has no split {split!r}; pass one of {', '.join(found)}")
    chosen = split or next(iter(found))
    rows = found[chosen]
    columns = [name for name, feature in rows.features.items() if isinstance(feature, datasets.Image)]
    if not columns:
        raise ValueError(f"data {data!r} holds no column of images, but {', '.join(rows.features)}; pass other data")
    column = columns[0]
    rows = rows.cast_column(column, datasets.Image(decode=False))
    if label_map is None and limit is not None:
        rows = rows.select(range(min(limit, len(rows))))
    if list(found) == ["images"] and folder.is_dir():
        names = [Path(entry["path"]).relative_to(folder.resolve()).as_posix() for entry in rows[column]]
    else:
        names = [f"{chosen}/{index:08d}" for index in range(len(rows))]
    given, classes = _given(rows, names, label_pattern)
    if label_map is not None:
        if given is None:
            raise ValueError(
                f"data {data!r} has no labels for label_map; pass a label_pattern, or folders named by classes"
            )
        kept = [index for index, label in enumerate(given) if label in label_map][:limit]
        if not kept:
            some = ", ".join(map(repr, list(dict.fromkeys(given))[:3]))
            raise ValueError(
                f"label_map names none of the labels of data {data!r}, such as {some}; pass these as its keys"
            )
        rows, names, given = rows.select(kept), [names[index] for index in kept], [given[index] for index in kept]
        classes = None
    labels: list[int | None] | None = None
    if given is not None:
        named = classes or sorted({label for label in given if label is not None})
        meant = named if label_map is None else [label_map[label] for label in named]
        index_of = dict(zip(named, _match(meant, classifier, in_order=classes is not None), strict=True))
        labels = [None if label is None else index_of[label] for label in given]
    return ImageSet(names, labels, given, rows, column)


def _given(
    rows: Any, names: Sequence[str], label_pattern: str | None
) -> tuple[list[str | None] | None, list[str] | None]:
    """The label of every image as the data tell it, None where there are none; and the data's classes, if in order."""
    if label_pattern is not None:
        try:
            pattern = re.compile(label_pattern)
        except re.error as error:
            raise ValueError(
                f"label_pattern {label_pattern!r} is no regular expression ({error}); pass one such as '(\\d+)_'"
            ) from None
        found = [pattern.search(name) for name in names]
        if None in found or not pattern.groups:
            lost = next((name for name, match in zip(names, found, strict=True) if match is None), names[0])
            raise ValueError(
                f"label_pattern {label_pattern!r} finds no class in {lost!r}; pass one whose group is the class in "
                "every name"
            )
        return [match[1] for match in found if match], None
    columns = [column for column, feature in rows.features.items() if hasattr(feature, "names")]
    column = "label" if "label" in rows.features or len(columns) != 1 else columns[0]
    if column not in rows.features:
        return None, None
    given = rows[column][:]
    feature = rows.features[column]
    if hasattr(feature, "names"):
        # -1 is how splits without labels say so
        return [None if label is None or label < 0 else feature.names[label] for label in given], feature.names
    return [None if label is None else str(label) for label in given], None


def _is_of_one_class(folder: Path) -> bool:
    """Whether all images of a folder lie in one folder of it, and no table says more."""
    parents = {path.parent for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES}
    return len(parents) == 1 and folder not in parents and not any(folder.rglob("metadata.*"))


def _match(given: Sequence[str], classifier: ImageClassifier, in_order: bool = False) -> Sequence[int | None]:
    """The model's classes of these names or indices; of names in order, by their order where none is the model's.

    None for what is none of the model's, or of several.
    """
    known: dict[str, int | None] = {}
    for index, label in enumerate(classifier.labels):
        for name in {label, *label.split(",")}:
            key = re.sub(r"\s*\(.*\)$", "", name).strip().casefold()
            # a crane is a bird and a machine: which of them, only the index says
            known[key] = None if key in known else index
    known |= {label.casefold(): index for index, label in enumerate(classifier.labels)}
    found = [known.get(name.strip().casefold()) for name in given]
    count = len(classifier.labels)
    found = [
        int(name) if index is None and name.isdecimal() and int(name) < count else index
        for name, index in zip(given, found, strict=True)
    ]
    if in_order and len(given) == count and not any(index is not None for index in found):
        return list(range(count))
    return found
