"""The settings of a run over many images."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, Self, get_args

from captum_moxi.arguments import MODES, Mode, Stop

Keep = Literal["right", "all"]


@dataclass(frozen=True)
class Settings:
    r"""
    The settings that determine the rows of a run.

    They are stored in the manifest of the run. A run continues only with the same settings.

    Args:
        model (str): Hub name or folder of a Hugging Face image classifier.
        data (str): Folder of images, or name of a dataset on the Hugging Face hub.
        classes (Sequence[str], optional): Classes of a zero-shot classifier, as in :func:`captum_moxi.load`.
            Default: None, the labels of the data if there is a template
        template (str, optional): Text for each class of a zero-shot classifier, as in :func:`captum_moxi.load`.
            Default: None, the class itself
        split (str, optional): Split of the dataset.
            Default: None, the only split
        label_pattern (str, optional): Regular expression that finds the label in an image's name, as in
            :func:`captum_moxi.evaluation.data.read_images`.
            Default: None
        label_map (Mapping[str, str], optional): The model's class for each label, as in
            :func:`captum_moxi.evaluation.data.read_images`.
            Default: None
        keep (str, optional): ``"right"`` explains only images that the model classifies correctly. ``"all"`` explains
            every image. The target is always the predicted class.
            Default: ``"right"``
        methods (Sequence[str], optional): Names in ``captum_moxi.methods.METHODS``, some with an argument, for example
            ``"shapley:200"``.
            Default: ``("moxi",)``
        modes (Sequence[str], optional): ``"insertion"``, ``"deletion"`` or both.
            Default: both
        n_steps (int, optional): Maximum number of players to insert or delete in each image.
            Default: None, all players
        stop (str, optional): ``"flip"`` stops each image when its prediction flips. None continues after the flip.
            Default: ``"flip"``
        grid (int, optional): Number of rows and columns of patches: ``N`` divides each image into N x N players.
            Default: None, the model's own patches, or 6 x 6 patches if it has none
        removal (str, optional): Name in ``captum_moxi.removal.REMOVALS``.
            Default: None, token removal if the model has patch tokens and baseline fill with 0 otherwise
        reward (str, optional): Name in ``captum_moxi.rewards.REWARDS``.
            Default: ``"log_odds"``
        screen (str, optional): Name in ``captum_moxi.search.screens.SCREENS``, with its argument. The screen decides
            which candidates a step of MoXI evaluates. ``gradient`` is used in deletion, the others in both modes.
            Default: ``"gradient:8"``
        minimal (bool, optional): Whether methods that search, such as MoXI, leave out the players that the flip does
            not need. The orders of other methods do not change. It requires ``stop="flip"``.
            Default: False
        alternatives (int, optional): Maximum number of disjoint minimal groups that methods that search find in each
            image. It implies ``minimal``.
            Default: None, no alternatives

    Raises:
        ValueError: If a setting has the wrong type, or if minimal groups are searched without ``stop="flip"``. Names
            are checked when the model is loaded.
    """

    model: str
    data: str
    classes: Sequence[str] | None = None
    template: str | None = None
    split: str | None = None
    label_pattern: str | None = None
    label_map: Mapping[str, str] | None = None
    keep: Keep = "right"
    methods: Sequence[str] = ("moxi",)
    modes: Sequence[Mode] = MODES
    n_steps: int | None = None
    stop: Stop = "flip"
    grid: int | None = None
    removal: str | None = None
    reward: str = "log_odds"
    screen: str = "gradient:8"
    minimal: bool = False
    alternatives: int | None = None

    def __post_init__(self) -> None:
        for name, (is_valid, expected) in _CHECKS.items():
            if not is_valid(getattr(self, name)):
                raise ValueError(f"{name} is {getattr(self, name)!r}; pass {expected}")
        if self.searches_minimal and self.stop != "flip":
            name = "minimal" if self.minimal else "alternatives"
            raise ValueError(
                f"{name} is {getattr(self, name)}, but stop is None, and minimal groups are defined by a flip; pass "
                "stop='flip'"
            )

    @property
    def searches_minimal(self) -> bool:
        """Whether methods that search leave out the players that the flip does not need."""
        return self.minimal or self.alternatives is not None

    def with_absolute_paths(self) -> Self:
        """Return the settings with absolute paths, so that the run can continue from any working directory.

        Names on the hub do not change.
        """
        return replace(self, model=_absolute(self.model), data=_absolute(self.data))

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON types. Tuples become lists."""
        settings: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return settings

    @classmethod
    def add_defaults(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Add the defaults of missing settings, for example to those of a run of an earlier version.

        Args:
            settings (Mapping[str, Any]): Values by name, in JSON types.

        Returns:
            dict[str, Any]: Values by name, in JSON types. Other entries do not change.
        """
        defaults = cls(model="model", data="data").to_dict()
        return {name: defaults[name] for name in defaults if name not in ("model", "data")} | dict(settings)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Self:
        """Create settings from a dictionary, for example from a manifest.

        Args:
            settings (Mapping[str, Any]): Values by name. Missing settings get their defaults. Unknown names are
                ignored.

        Returns:
            Settings: The settings.

        Raises:
            ValueError: If ``model`` or ``data`` is missing, or a setting has the wrong type.
        """
        for name in ("model", "data"):
            if name not in settings:
                raise ValueError(f"the setting {name} is missing")
        return cls(**{field.name: settings[field.name] for field in fields(cls) if field.name in settings})


def read_label_map(path: Path) -> dict[str, str]:
    """Read a JSON file that maps labels of the data to classes of the model.

    Args:
        path (Path): File with one JSON object. Its values are class names or indices.

    Returns:
        dict[str, str]: The model's class, by name or index, for each label.

    Raises:
        ValueError: If the file is not JSON, or not an object of names and indices.
        OSError: If the file cannot be opened.
    """
    try:
        label_map = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f'label map {str(path)!r} is not valid JSON ({error}); pass an object such as {{"cat": 3}}'
        ) from None
    if not isinstance(label_map, dict) or not all(isinstance(name, str | int) for name in label_map.values()):
        raise ValueError(
            f"label map {str(path)!r} is not an object of class names or indices; pass an object such as "
            '{"cat": 3, "dog": "animal"}'
        )
    return {label: str(name) for label, name in label_map.items()}


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_optional_text(value: object) -> bool:
    return value is None or _is_text(value)


def _is_optional_count(value: object) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1)


def _is_label_map(value: object) -> bool:
    return value is None or (isinstance(value, Mapping) and all(map(_is_text, [*value, *value.values()])))


def _is_list_of_texts(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and bool(value) and all(map(_is_text, value))


def _is_optional_list_of_texts(value: object) -> bool:
    return value is None or _is_list_of_texts(value)


def _are_modes(value: object) -> bool:
    return _is_list_of_texts(value) and set(value) <= set(MODES)  # type: ignore[call-overload]  # a list of texts


# For each setting, a check of its value, and what to pass if it is not valid.
_CHECKS: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "model": (_is_text, "a hub name or a folder"),
    "data": (_is_text, "a folder or the name of a dataset"),
    "classes": (_is_optional_list_of_texts, "a list with at least one text, or None"),
    "template": (_is_optional_text, "a text such as 'a photo of a {}', or None"),
    "split": (_is_optional_text, "the name of a split, or None"),
    "label_pattern": (_is_optional_text, "a regular expression, or None"),
    "label_map": (_is_label_map, "a mapping of labels to names of classes, or None"),
    "keep": (lambda value: value in get_args(Keep), "'right' or 'all'"),
    "methods": (_is_list_of_texts, "a list with at least one name of a method"),
    "modes": (_are_modes, "a list of 'insertion', 'deletion' or both"),
    "n_steps": (_is_optional_count, "an int of at least 1, or None"),
    "stop": (lambda value: value in ("flip", None), "'flip' or None"),
    "grid": (_is_optional_count, "an int of at least 1, or None"),
    "removal": (_is_optional_text, "the name of a removal, or None"),
    "reward": (_is_text, "the name of a reward"),
    "screen": (_is_text, "the name of a screen"),
    "minimal": (lambda value: isinstance(value, bool), "True or False"),
    "alternatives": (_is_optional_count, "an int of at least 1, or None"),
}


def _absolute(name: str) -> str:
    return str(Path(name).resolve()) if Path(name).exists() else name
