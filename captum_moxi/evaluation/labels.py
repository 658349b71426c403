"""The labels of a data set, and the classes of the model that they mean."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class DataLabels:
    """The labels of images, as the data name them.

    Args:
        names (Sequence[str or None]): Label of each image; None if the image has no label.
        classes (Sequence[str] or None): The classes of the data in their order; None if the data define no order.
    """

    names: Sequence[str | None]
    classes: Sequence[str] | None = None

    def select(self, indices: Sequence[int]) -> Self:
        """Return the labels of some images, without an order of classes."""
        return type(self)([self.names[index] for index in indices])

    def match(self, model_classes: Sequence[str], *, label_map: Mapping[str, str] | None = None) -> list[int | None]:
        """Find the class of the model for each image.

        Args:
            model_classes (Sequence[str]): Names of the model's classes.
            label_map (Mapping[str, str], optional): Class of the model, by name or index, for each label.
                Default: None, labels name the classes themselves

        Returns:
            list[int or None]: Index of each image's class; None if it has no label or its label matches no class.
        """
        labels = list(self.classes or sorted({name for name in self.names if name is not None}))
        class_names = labels if label_map is None else [label_map[label] for label in labels]
        indices = match_classes(class_names, model_classes, ordered=self.classes is not None)
        index_of = dict(zip(labels, indices, strict=True))
        return [None if name is None else index_of[name] for name in self.names]


def read_labels(rows: "Dataset", image_names: Sequence[str], *, pattern: str | None) -> DataLabels | None:
    """Read the labels of a data set.

    Labels come from ``pattern`` if it is passed. Otherwise they come from the column ``label``, or from the only column
    of class labels.

    Args:
        rows (Dataset): The data set.
        image_names (Sequence[str]): Name of each image.
        pattern (str or None): Regular expression whose group is the label in an image's name.

    Returns:
        DataLabels or None: None if the data set has no labels.

    Raises:
        ValueError: If ``pattern`` is not valid or does not match every name.
    """
    if pattern is not None:
        return DataLabels(_labels_from_names(image_names, pattern))
    class_columns = [name for name, feature in rows.features.items() if hasattr(feature, "names")]
    column = "label" if "label" in rows.features or len(class_columns) != 1 else class_columns[0]
    if column not in rows.features:
        return None
    values = rows[column][:]
    if column not in class_columns:
        return DataLabels([None if value is None else str(value) for value in values])
    classes: list[str] = rows.features[column].names
    # Splits without labels have -1.
    return DataLabels([None if value is None or value < 0 else classes[value] for value in values], classes)


def match_classes(names: Sequence[str], model_classes: Sequence[str], *, ordered: bool = False) -> list[int | None]:
    """Find classes of the model by name, by one of the synonyms in a name, or by index.

    Args:
        names (Sequence[str]): Names or indices of classes.
        model_classes (Sequence[str]): Names of the model's classes. Commas separate synonyms.
        ordered (bool, optional): Whether ``names`` are all classes of a data set in their order. If there are as many
            as the model has, and none matches, they are taken to be in the model's order.
            Default: False

    Returns:
        list[int or None]: Index of each class; None if no class or several classes match.
    """
    index_of = _class_indices(model_classes)
    count = len(model_classes)
    matches = []
    for name in names:
        index = index_of.get(name.strip().casefold())
        if index is None and name.isdecimal() and int(name) < count:
            index = int(name)
        matches.append(index)
    if ordered and len(names) == count and all(index is None for index in matches):
        return list(range(count))
    return matches


def _class_indices(model_classes: Sequence[str]) -> dict[str, int | None]:
    """Return the index of each class by its names in lower case; None for a name that several classes share."""
    indices: dict[str, int | None] = {}
    for index, label in enumerate(model_classes):
        for synonym in {label, *label.split(",")}:
            name = re.sub(r"\s*\(.*\)$", "", synonym).strip().casefold()
            # ImageNet has two cranes, a bird and a machine. Only the full label or the index can tell them apart.
            indices[name] = None if name in indices else index
    return indices | {label.casefold(): index for index, label in enumerate(model_classes)}


def _labels_from_names(image_names: Sequence[str], pattern: str) -> list[str | None]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"label_pattern {pattern!r} is not a regular expression ({error}); pass one, for example '(\\d+)_'"
        ) from None
    labels: list[str | None] = []
    for name in image_names:
        match = expression.search(name)
        if match is None or not expression.groups:
            raise ValueError(
                f"label_pattern {pattern!r} finds no class in {name!r}; pass a pattern that matches every name and "
                "whose group is the class"
            )
        labels.append(match[1])
    return labels
