"""The settings of a run over many images."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, Self

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
            which candidates a deletion step of MoXI evaluates. Insertion evaluates all.
            Default: ``"gradient:8"``
    """

    model: str
    data: str
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
    def from_dict(cls, settings: Mapping[str, Any]) -> Self:
        """Create settings from a dictionary, for example from a manifest.

        Args:
            settings (Mapping[str, Any]): Values by name. Missing settings get their defaults. Unknown names are
                ignored.

        Returns:
            Settings: The settings.
        """
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


def _absolute(name: str) -> str:
    return str(Path(name).resolve()) if Path(name).exists() else name
