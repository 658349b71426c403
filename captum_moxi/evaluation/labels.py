"""The labels of a dataset, and the model's classes that they match."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class DataLabels:
    """The labels of images, as written in the data.

    Args:
        names (Sequence[str or None]): Label of each image, or None if the image has no label.
        classes (Sequence[str] or None): All labels of the data in their order, or None if the data define no order.
    """

    names: Sequence[str | None]
    classes: Sequence[str] | None = None

    def select(self, indices: Sequence[int]) -> Self:
        """Return the labels of the images with these indices, without the order of the classes."""
        return type(self)([self.names[index] for index in indices])

    def match(self, model_classes: Sequence[str], *, label_map: Mapping[str, str] | None = None) -> list[int | None]:
        """Find the model's class for each image.

        Args:
            model_classes (Sequence[str]): Names of the model's classes.
            label_map (Mapping[str, str], optional): The model's class, by name or index, for each label.
                Default: None, the labels are names or indices of classes

        Returns:
            list[int or None]: Index of each image's class, or None if the image has no label or its label matches no
            class.
        """
        labels = list(self.classes or sorted({name for name in self.names if name is not None}))
        class_names = labels if label_map is None else [label_map[label] for label in labels]
        indices = match_classes(class_names, model_classes, ordered=self.classes is not None)
        index_of = dict(zip(labels, indices, strict=True))
        return [None if name is None else index_of[name] for name in self.names]


def read_labels(rows: "Dataset", image_names: Sequence[str], *, pattern: str | None) -> DataLabels | None:
    """Read the labels of a dataset.

    Labels come from ``pattern`` if it is passed. Otherwise they come from the column ``label``, or from the only column
    of class labels.

    Args:
        rows (Dataset): The dataset.
        image_names (Sequence[str]): Name of each image.
        pattern (str or None): Regular expression whose first group is the label in an image's name.

    Returns:
        DataLabels or None: The labels, or None if the dataset has none.

    Raises:
        ValueError: If ``pattern`` is not valid or does not match every name.
    """
    if pattern is not None:
        return DataLabels(labels_from_names(image_names, pattern))
    class_columns = [name for name, feature in rows.features.items() if hasattr(feature, "names")]
    column = "label" if "label" in rows.features or len(class_columns) != 1 else class_columns[0]
    if column not in rows.features:
        return None
    values = rows[column][:]
    if column not in class_columns:
        return DataLabels([None if value is None else str(value) for value in values])
    classes: list[str] = rows.features[column].names
    # Datasets use -1 for the labels of a split without labels.
    return DataLabels([None if value is None or value < 0 else classes[value] for value in values], classes)


def match_classes(names: Sequence[str], model_classes: Sequence[str], *, ordered: bool = False) -> list[int | None]:
    """Find the model's classes by name, by one of the synonyms in a name, or by index.

    In ``names``, underscores may stand for spaces.

    Args:
        names (Sequence[str]): Names or indices of classes.
        model_classes (Sequence[str]): Names of the model's classes. Commas separate synonyms.
        ordered (bool, optional): Whether ``names`` are all classes of a dataset in their order. If none of them matches
            and the model has the same number of classes, the names match the classes in order.
            Default: False

    Returns:
        list[int or None]: Index of each class, or None if no class or several classes match.
    """
    index_of = _class_indices(model_classes)
    count = len(model_classes)
    matches = []
    for name in names:
        key = name.strip().casefold()
        # Names of files and folders often contain underscores instead of spaces.
        index = index_of.get(key, index_of.get(key.replace("_", " ")))
        if index is None and name.isdecimal() and int(name) < count:
            index = int(name)
        matches.append(index)
    if ordered and len(names) == count and all(index is None for index in matches):
        return list(range(count))
    return matches


def _class_indices(model_classes: Sequence[str]) -> dict[str, int | None]:
    """Return the index of each class by its names in lower case. A name that several classes share has None."""
    indices: dict[str, int | None] = {}
    for index, label in enumerate(model_classes):
        for synonym in {label, *label.split(",")}:
            name = re.sub(r"\s*\(.*\)$", "", synonym).strip().casefold()
            # ImageNet has two cranes, a bird and a machine. Only the full label or the index distinguishes them.
            indices[name] = None if name in indices else index
    return indices | {label.casefold(): index for index, label in enumerate(model_classes)}


def labels_from_names(image_names: Sequence[str], pattern: str) -> list[str | None]:
    """Find the label in the name of each image.

    Args:
        image_names (Sequence[str]): Names of the images.
        pattern (str): Regular expression whose first group is the label.

    Returns:
        list[str or None]: Label of each image. None if the group took no part in the match.

    Raises:
        ValueError: If ``pattern`` is not valid or does not match every name.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"label_pattern {pattern!r} is not a regular expression ({error}); pass one such as '(\\d+)_'"
        ) from None
    labels: list[str | None] = []
    for name in image_names:
        match = expression.search(name)
        if match is None or not expression.groups:
            raise ValueError(
                f"label_pattern {pattern!r} finds no label in {name!r}; pass a pattern that matches every name and "
                "whose first group is the label"
            )
        labels.append(match[1])
    return labels
