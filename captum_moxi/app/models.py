"""The models that the app offers. Each is loaded once, and all users share it."""

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock

from captum_moxi.demo import NAME, demo_classifier
from captum_moxi.models import ImageClassifier, load, load_config

# Number of loaded models that stay in memory. The one that was used least recently is dropped first.
MOST_LOADED = 4


class AppModels:
    """Loads models by name, each at most once while it is in use.

    Args:
        offered (Sequence[str], optional): Hub names and folders that users can choose from, besides the embedded model.
            Default: ``()``
        accept_others (bool, optional): Whether users may enter other hub names and folders. Do not accept them if
            strangers reach the app, because it would read folders and fill the disk for them.
            Default: False
        device (str, optional): Device of the models.
            Default: None, CUDA if available and the CPU otherwise

    Raises:
        ValueError: If an offered model cannot be found.
    """

    def __init__(self, offered: Sequence[str] = (), *, accept_others: bool = False, device: str | None = None) -> None:
        for name in offered:
            load_config(name)
        self.names = [*offered, NAME]
        self.accept_others = accept_others
        self._device = device
        self._loaded: OrderedDict[tuple[str, tuple[str, ...]], ImageClassifier] = OrderedDict()
        self._lock = Lock()

    def get(self, name: str, *, classes: Sequence[str] = ()) -> ImageClassifier:
        """Return a model, and load it first if necessary.

        Args:
            name (str): Hub name, folder, or ``"embedded demo"``.
            classes (Sequence[str], optional): Texts of the classes, for zero-shot classifiers.
                Default: ``()``

        Raises:
            ValueError: If the model is not offered, cannot be loaded, or does not fit the classes.
        """
        if not name:
            raise ValueError("no model is chosen; choose one from the list")
        if name not in self.names and not self.accept_others:
            raise ValueError(f"model {name!r} is not offered; choose one of {', '.join(self.names)}")
        if name == NAME and classes:
            raise ValueError("the embedded model has classes of its own; leave the texts of the classes empty")
        key = (name, tuple(classes))
        # Two users who choose the same model wait for one load.
        with self._lock:
            if key not in self._loaded:
                self._loaded[key] = self._load(name, classes)
                if len(self._loaded) > MOST_LOADED:
                    self._loaded.popitem(last=False)
            self._loaded.move_to_end(key)
            return self._loaded[key]

    def _load(self, name: str, classes: Sequence[str]) -> ImageClassifier:
        if name == NAME:
            return demo_classifier(self._device)
        return load(name, self._device, classes=list(classes) or None)
