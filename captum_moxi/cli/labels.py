"""True labels of the images that a command processes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from captum_moxi.cli.runner import SourceImage
from captum_moxi.evaluation.labels import DataLabels, labels_from_names


def label_sources(
    sources: Sequence[SourceImage], classes: Sequence[str], *, pattern: str | None, label_map: Mapping[str, str] | None
) -> list[SourceImage]:
    """Replace the label of each image by the class of the model that it matches.

    Args:
        sources (Sequence[SourceImage]): The images. The label of an image in a subfolder is the name of its subfolder.
        classes (Sequence[str]): Names of the model's classes.
        pattern (str or None): Regular expression whose first group is the label in the name of an image. None uses the
            labels of ``sources``. Labels that match no class are kept with a pattern. Without one, they are removed,
            because a folder may not be named after a class.
        label_map (Mapping[str, str] or None): The model's class, by name or index, for each label. Other labels are
            removed.

    Returns:
        list[SourceImage]: The images with their new labels.

    Raises:
        ValueError: If ``pattern`` is not valid or does not match every name, or if ``label_map`` is passed and maps no
            label to a class.
    """
    labels: list[str | None] = [source.label for source in sources]
    if pattern is not None:
        labels = labels_from_names([source.path_in_folder for source in sources], pattern)
    if label_map is not None:
        labels = _known_labels(labels, label_map)
    indices = DataLabels(labels).match(classes, label_map=label_map)
    if label_map is not None and all(index is None for index in indices):
        raise ValueError(
            f"label_map maps no label to a class of the model, such as {classes[0]!r}; pass names or indices of classes"
        )
    unmatched = labels if pattern is not None and label_map is None else [None] * len(labels)
    return [
        replace(source, label=label if index is None else classes[index])
        for source, label, index in zip(sources, unmatched, indices, strict=True)
    ]


def _known_labels(labels: Sequence[str | None], label_map: Mapping[str, str]) -> list[str | None]:
    """Return the labels that are in the map, with None for the others."""
    known = [label if label in label_map else None for label in labels]
    if all(label is None for label in labels):
        raise ValueError(
            "the images have no labels for label_map; pass a label_pattern, or a folder with a subfolder for each class"
        )
    if all(label is None for label in known):
        examples = ", ".join(repr(label) for label in list(dict.fromkeys(filter(None, labels)))[:3])
        raise ValueError(f"label_map has none of the images' labels, for example {examples}; use these as its keys")
    return known
