"""The model, the images and the options that all experiments share."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from captum_moxi.evaluation import store
from captum_moxi.evaluation.evaluator import Evaluator
from captum_moxi.evaluation.runs import run_evaluation
from captum_moxi.evaluation.settings import Settings
from captum_moxi.files import write_file
from captum_moxi.methods import DEFAULT_METHODS

# File with the settings, so that results of different settings are not mixed.
SETTINGS = "settings.json"
# File with the model's class for each label, for the commands on the page.
LABEL_MAP = "label-map.json"


@dataclass(frozen=True, eq=False)
class Study:
    """The model, the images and the options that all experiments share.

    Args:
        settings (Settings): Settings of the experiment ``curves``. The others differ only in what their section says.
        out (Path): Folder of the results.
        limit (int, optional): Maximum number of images. The first ones are used.
            Default: None, all images
        slow_limit (int, optional): Maximum number of images in experiments that evaluate many rows, if it is
            smaller than ``limit``.
            Default: None, the same as ``limit``
        resamples (int, optional): Number of bootstrap resamples for the intervals.
            Default: 2000
        device (str, optional): Device of the model.
            Default: None, CUDA if available, otherwise the CPU
        show_progress (bool, optional): Whether to show progress bars over the images if standard error is a terminal.
            Default: False
    """

    settings: Settings
    out: Path
    limit: int | None = None
    slow_limit: int | None = None
    resamples: int = 2000
    device: str | None = None
    show_progress: bool = False

    @classmethod
    def prepare(cls, settings: Settings, out: Path, *, methods: Sequence[str] | None = None, **options: Any) -> Self:
        """Check the settings, the model and the images. Nothing is written, and the model does not run.

        Args:
            settings (Settings): Settings of the experiment ``curves``, except the methods.
            out (Path): Folder of the results. It may contain results of the same settings.
            methods (Sequence[str], optional): Names in ``captum_moxi.methods.METHODS``.
                Default: None, those of ``DEFAULT_METHODS`` that support the model
            **options (Any): Other arguments of the class.

        Returns:
            Study: The study.

        Raises:
            ValueError: If the settings do not fit the model or the images, or if the folder contains results of other
                settings or other files.
        """
        chosen = replace(settings, methods=tuple(methods or DEFAULT_METHODS), stop=None)
        evaluator = Evaluator.load(chosen, device=options.get("device"), limit=options.get("limit"))
        if methods is None:
            evaluator = evaluator.with_supported_methods()
        evaluator.check()
        study = cls(evaluator.settings, out, **options)
        study.check_folder()
        return study

    def check_folder(self) -> None:
        """Check that the folder contains no results of other settings, and no other files.

        Raises:
            ValueError: If it does.
        """
        path = self.out / SETTINGS
        if path.exists():
            try:
                previous = dict(json.loads(path.read_bytes()))
            except (ValueError, TypeError) as error:
                raise ValueError(f"{path} is damaged ({error}); pass another folder as out") from None
            store.check_settings(self.out, previous, self._stored_settings())
        elif self.out.exists() and any(not path.name.startswith(".") for path in self.out.iterdir()):
            raise ValueError(f"{self.out} is not empty and has no {SETTINGS}; pass a new folder")

    def open_folder(self) -> None:
        """Create the folder, and store the settings in it.

        Raises:
            ValueError: As :meth:`check_folder`.
            OSError: If the folder or the file cannot be written.
        """
        self.check_folder()
        self.out.mkdir(parents=True, exist_ok=True)
        write_file(self.out / SETTINGS, json.dumps(self._stored_settings(), indent=1) + "\n")
        if self.settings.label_map is not None:
            write_file(self.label_map, json.dumps(dict(self.settings.label_map), indent=1) + "\n")

    @property
    def label_map(self) -> Path:
        """The file with the model's class for each label, if the settings contain one."""
        return self.out / LABEL_MAP

    def _stored_settings(self) -> dict[str, Any]:
        return self.settings.with_absolute_paths().to_dict()

    def evaluate(self, name: str, *, batch_size: int = 8, limit: int | None = None, **changes: Any) -> Path:
        """Start or continue a run.

        Args:
            name (str): Folder of the run in the folder of the results.
            batch_size (int, optional): Number of images that are processed together.
                Default: 8
            limit (int, optional): Maximum number of images.
                Default: None, that of the study
            **changes (Any): Settings that differ from those of the study.

        Returns:
            Path: Folder of the run.
        """
        folder = self.out / name
        run_evaluation(
            replace(self.settings, **changes),
            folder,
            batch_size=batch_size,
            device=self.device,
            limit=limit or self.limit,
            show_progress=self.show_progress,
        )
        return folder

    @property
    def limit_of_slow_experiments(self) -> int | None:
        """Maximum number of images in experiments that evaluate many rows."""
        limits = [limit for limit in (self.limit, self.slow_limit) if limit is not None]
        return min(limits, default=None)

    @cached_property
    def curves(self) -> Path:
        """The run of the experiment ``curves``, whose orders other experiments reuse."""
        return self.evaluate("curves")

    @cached_property
    def flips(self) -> Path:
        """The run of the experiment ``seconds``, which stops at flips and explains one image at a time."""
        return self.evaluate("seconds", batch_size=1, stop="flip", n_steps=None)
