"""Reads the images of a folder or of a Hugging Face dataset."""

import glob
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from captum_moxi.arguments import warn_user
from captum_moxi.evaluation.labels import DataLabels, read_labels
from captum_moxi.images import IMAGE_SUFFIXES, is_utf8, open_image
from captum_moxi.models.hub import check_dataset

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

# Name of the only split of a folder of image files.
FOLDER_SPLIT = "images"


@dataclass(frozen=True)
class ImageSet:
    """Images of a folder or dataset, in a fixed order.

    Args:
        names (Sequence[str]): Name of each image: its path in the folder, or its split and index in the dataset.
        labels (Sequence[int or None] or None): Index of the model's class that matches the label of each image. An
            entry is None if the image has no label, or if the label matches no class. None if the data have no labels.
        label_names (Sequence[str or None] or None): Label of each image, as written in the data.
        dataset (Dataset): The dataset.
        column (str): Column with the encoded images.
    """

    names: Sequence[str]
    labels: Sequence[int | None] | None
    label_names: Sequence[str | None] | None
    dataset: "Dataset"
    column: str

    def __len__(self) -> int:
        return len(self.names)

    def open(self, index: int) -> Image.Image:
        """Open one image.

        Args:
            index (int): Index of the image.

        Returns:
            Image: An upright RGB image, as returned by :func:`captum_moxi.images.open_image`.

        Raises:
            ValueError: If the image cannot be read.
        """
        entry = self.dataset[index][self.column]
        if entry is None:
            raise ValueError("this row of the dataset has no image; remove the row")
        source = entry["path"] if entry["bytes"] is None else io.BytesIO(entry["bytes"])
        return open_image(source, name=self.names[index])

    def index_of(self, name: str) -> int:
        """Return the index of an image.

        Args:
            name (str): Name of the image.

        Raises:
            ValueError: If no image has this name.
        """
        try:
            return list(self.names).index(name)
        except ValueError:
            raise ValueError(
                f"image {name!r} is not in the data; restore the image, or run captum-moxi evaluate again"
            ) from None


def read_images(
    data: str,
    *,
    classes: Sequence[str],
    split: str | None = None,
    label_pattern: str | None = None,
    label_map: Mapping[str, str] | None = None,
    limit: int | None = None,
) -> ImageSet:
    r"""
    Read the images of a folder, or of a dataset on the Hugging Face hub. Requires the package ``datasets``.

    Labels come from the first of these sources that exists:

    1. the part of the image's name that ``label_pattern`` finds;
    2. the folder that contains the image, or the column ``label`` of the folder's ``metadata.csv``;
    3. the column ``label`` of the dataset, or its only column of class labels.

    Labels match the model's classes by name (one of the synonyms in a name is enough) or by index. If no name matches
    and there are as many labels as classes, they match in order.

    Args:
        data (str): A folder, or the name of a dataset on the hub. A configuration follows a colon:
            ``"cifar100:default"``.
        classes (Sequence[str]): Names of the model's classes.
        split (str, optional): Split of the dataset.
            Default: None, the only split
        label_pattern (str, optional): Regular expression that finds the label in an image's name. Its first group is
            the label. For example, ``r"(\d+)_"`` finds 42 in ``42_agama.jpg``.
            Default: None
        label_map (Mapping[str, str], optional): The model's class, by name or index, for each label. Images with other
            labels are left out. With a map, models with different classes can use the same images.
            Default: None
        limit (int, optional): Maximum number of images. The first ones are used.
            Default: None, all images

    Returns:
        ImageSet: The images. A file is opened when :meth:`ImageSet.open` is called.

    Raises:
        ValueError: If the data or the split does not exist or has no images, if ``label_pattern`` does not match every
            name, if ``label_map`` contains none of the labels, or if ``datasets`` is not installed.

    Examples::

        >>> images = read_images("photographs", classes=classifier.labels, label_pattern=r"(\d+)_", limit=100)
        >>> x = classifier.preprocess(images.open(0))
    """
    if find_spec("datasets") is None:
        raise ValueError(f"data {data!r} requires the package datasets; run pip install 'captum-moxi[evaluate]'")
    splits = _load_splits(data)
    split = _choose_split(data, splits, split)
    dataset, column = _encoded_images(data, splits[split])
    if label_map is None and limit is not None:
        dataset = dataset.select(range(min(limit, len(dataset))))
    is_image_folder = Path(data).is_dir() and list(splits) == [FOLDER_SPLIT]
    names = _file_names(Path(data), dataset[column]) if is_image_folder else _row_names(split, len(dataset))
    labels = read_labels(dataset, names, pattern=label_pattern)
    if label_map is not None:
        kept = _mapped_images(data, labels, label_map)[:limit]
        dataset, names = dataset.select(kept), [names[index] for index in kept]
        labels = None if labels is None else labels.select(kept)
    if labels is None:
        return ImageSet(names, None, None, dataset, column)
    return ImageSet(names, labels.match(classes, label_map=label_map), labels.names, dataset, column)


def read_class_names(data: str, *, split: str | None = None, label_pattern: str | None = None) -> list[str]:
    """Return the labels of a folder or dataset as names of classes, with spaces in the place of underscores.

    Args:
        data (str): A folder, or the name of a dataset on the hub, as in :func:`read_images`.
        split (str, optional): Split of the dataset.
            Default: None, the only split
        label_pattern (str, optional): Regular expression that finds the label in an image's name.
            Default: None

    Returns:
        list[str]: The different labels, in alphabetical order.

    Raises:
        ValueError: If the data have no labels, and in the cases of :func:`read_images`.
    """
    images = read_images(data, classes=(), split=split, label_pattern=label_pattern)
    labels = {label.replace("_", " ") for label in images.label_names or () if label is not None}
    if not labels:
        raise ValueError(
            f"data {data!r} has no labels that could be the classes; pass classes, a label_pattern, or folders that "
            "are named after classes"
        )
    return sorted(labels)


def _load_splits(data: str) -> "DatasetDict":
    """Load all splits of a folder or dataset."""
    folder = Path(data)
    is_folder = folder.is_dir()
    if not is_folder and (folder.exists() or folder.is_absolute() or data.startswith(".")):
        raise ValueError(f"data {data!r} is not a folder; pass a folder of images or the name of a dataset")
    try:
        return _load_folder(folder) if is_folder else _load_from_hub(data)
    except Exception as error:
        # The hub, the files and the format of a dataset can raise errors of many types.
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        kind = "a folder" if is_folder else "not a local folder"
        raise ValueError(
            f"data {data!r} ({kind}) could not be read ({reason}); pass a folder of images or the name of a dataset"
        ) from error


def _load_from_hub(data: str) -> "DatasetDict":
    import datasets
    from datasets.naming import camelcase_to_snakecase

    name, _, configuration = data.partition(":")
    owner, slash, short_name = name.rpartition("/")
    folder = f"{owner}{'___' if slash else ''}{camelcase_to_snakecase(short_name)}"
    check_dataset(name, cached=Path(datasets.config.HF_DATASETS_CACHE, folder))
    return datasets.load_dataset(name, configuration or None)


def _load_folder(folder: Path) -> "DatasetDict":
    """Load image files, or a dataset that is stored in other files such as Parquet."""
    import datasets

    files = [path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES]
    if not files:
        return datasets.load_dataset(str(folder.resolve()))
    parents = {path.parent for path in files}
    is_one_class = len(parents) == 1 and folder not in parents and not any(folder.rglob("metadata.*"))
    return datasets.load_dataset(
        "imagefolder",
        data_dir=glob.escape(str(folder.resolve())),
        data_files={FOLDER_SPLIT: _file_patterns(folder, files)},
        # By default, it does not use the folder's name as label if all images are in one folder.
        drop_labels=False if is_one_class else None,
    )


def _file_patterns(folder: Path, files: Sequence[Path]) -> str | list[str]:
    """Return the patterns of the files to load, without images whose names the package datasets cannot store."""
    names = [str(file.relative_to(folder)) for file in files]
    left_out = [name for name in names if not is_utf8(name)]
    if not left_out:
        # Without a pattern, the package datasets creates splits from names that contain "train" or "test".
        return "**"
    warn_user(
        f"{len(left_out)} of {len(names)} images of {str(folder)!r} are left out, because their names are not UTF-8; "
        f"rename them, for example {left_out[0]!r}"
    )
    metadata = [str(file.relative_to(folder)) for file in folder.rglob("metadata.*")]
    patterns = [glob.escape(name) for name in [*names, *metadata] if is_utf8(name)]
    if not patterns:
        raise ValueError("no image has a name in UTF-8")
    return patterns


def _choose_split(data: str, splits: "DatasetDict", split: str | None) -> str:
    if split is None and len(splits) > 1:
        raise ValueError(f"data {data!r} has the splits {', '.join(splits)}; pass one of them as split")
    if split is not None and split not in splits:
        raise ValueError(f"data {data!r} has no split {split!r}; pass one of {', '.join(splits)}")
    return split or str(next(iter(splits)))


def _encoded_images(data: str, dataset: "Dataset") -> tuple["Dataset", str]:
    """Return the dataset with images that are not decoded, and the name of their column."""
    import datasets

    columns = [name for name, feature in dataset.features.items() if isinstance(feature, datasets.Image)]
    if not columns:
        raise ValueError(
            f"data {data!r} has no column of images, only {', '.join(dataset.features)}; pass data with images"
        )
    return dataset.cast_column(columns[0], datasets.Image(decode=False)), columns[0]


def _file_names(folder: Path, entries: Iterable[Mapping[str, str]]) -> list[str]:
    return [Path(entry["path"]).relative_to(folder.resolve()).as_posix() for entry in entries]


def _row_names(split: str, count: int) -> list[str]:
    return [f"{split}/{index:08d}" for index in range(count)]


def _mapped_images(data: str, labels: DataLabels | None, label_map: Mapping[str, str]) -> list[int]:
    """Return the indices of the images whose labels are in the map."""
    if labels is None:
        raise ValueError(
            f"data {data!r} has no labels for label_map; pass a label_pattern, or folders that are named after classes"
        )
    kept = [index for index, name in enumerate(labels.names) if name in label_map]
    if not kept:
        examples = ", ".join(repr(name) for name in list(dict.fromkeys(labels.names))[:3])
        raise ValueError(
            f"label_map has none of the labels of data {data!r}, for example {examples}; use these as its keys"
        )
    return kept
