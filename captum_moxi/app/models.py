"""The models that the app offers. Each is loaded once, and all users share it."""

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import TypeAlias

from captum_moxi.demo import NAME, demo_classifier
from captum_moxi.models import ImageClassifier, load, load_config

# Number of loaded models that stay in memory. The one that was used least recently is dropped first.
MOST_LOADED = 4
# Number of texts of zero-shot classes, and characters of each. A loaded model keeps its texts.
MOST_CLASSES = 256
LONGEST_CLASS = 200

# Name of a model, and the texts of its classes.
ModelKey: TypeAlias = tuple[str, tuple[str, ...]]


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
        self._loaded: OrderedDict[ModelKey, ImageClassifier] = OrderedDict()
        # Held only while the dictionary is read or changed, so a model that is loading does not delay users of others.
        self._lock = Lock()
        # transformers replaces functions of PyTorch while it loads a model, so two threads must not load at once.
        self._loading = Lock()

    def get(self, name: str, *, classes: Sequence[str] = ()) -> ImageClassifier:
        """Return a model, and load it first if necessary.

        Args:
            name (str): Hub name, folder, or ``"embedded demo"``.
            classes (Sequence[str], optional): Texts of the classes, for zero-shot classifiers.
                Default: ``()``

        Raises:
            ValueError: If the model is not offered, cannot be loaded, or does not fit the classes. If there are too
                many classes, or if one is too long.
        """
        if not name:
            raise ValueError("no model is chosen; choose one from the list")
        if name not in self.names and not self.accept_others:
            raise ValueError(f"model {name!r} is not offered; choose one of {', '.join(self.names)}")
        if name == NAME and classes:
            raise ValueError("the embedded model has classes of its own; leave the texts of the classes empty")
        _check_sizes(classes)
        key = (name, tuple(classes))
        classifier = self._find(key)
        if classifier is not None:
            return classifier
        with self._loading:
            # Another user may have loaded the model in the meantime.
            return self._find(key) or self._keep(key, self._load(name, classes))

    def _find(self, key: ModelKey) -> ImageClassifier | None:
        with self._lock:
            if key in self._loaded:
                self._loaded.move_to_end(key)
            return self._loaded.get(key)

    def _keep(self, key: ModelKey, classifier: ImageClassifier) -> ImageClassifier:
        with self._lock:
            self._loaded[key] = classifier
            if len(self._loaded) > MOST_LOADED:
                self._loaded.popitem(last=False)
        return classifier

    def _load(self, name: str, classes: Sequence[str]) -> ImageClassifier:
        if name == NAME:
            return demo_classifier(self._device)
        return load(name, self._device, classes=list(classes) or None)


def _check_sizes(classes: Sequence[str]) -> None:
    """Check the number of classes, and the length of each."""
    if len(classes) > MOST_CLASSES:
        raise ValueError(f"there are {len(classes)} classes; enter at most {MOST_CLASSES}")
    for name in classes:
        if len(name) > LONGEST_CLASS:
            raise ValueError(
                f"the class {name[:20]!r}... has {len(name)} characters; enter at most {LONGEST_CLASS} for each class"
            )
