"""Prepares an image for explanation: pixel values, logits and players."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TypedDict

import torch
from PIL import Image
from torch import Tensor

from captum_moxi.game import CoalitionGame
from captum_moxi.heads import Head, head_of
from captum_moxi.models import ImageClassifier, as_forward_func, call_model
from captum_moxi.players import players_from_mask
from captum_moxi.removal import ForwardCall, Removal, default_removal, get_removal
from captum_moxi.rewards import REWARDS

# Sizes of two blank images. If they get the same size as inputs of the model, all images get this size.
BLANK_SIZES = ((64, 64), (96, 80))


class ClassDict(TypedDict):
    """A class in JSON.

    If no class is predicted, because the only logit is not positive, the index is -1 and the label None.
    """

    index: int
    label: str | None


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """An image as the classifier receives it, divided into players.

    Args:
        classifier (ImageClassifier): The classifier.
        name (str): Name of the image, for example its path.
        pixel_values (Tensor): Input of the model. Shape ``(1, 3, H, W)``, in the model's dtype and on its device.
        logits (Tensor): Output of the model. Shape ``(1, classes)``, float32, on the model's device.
        removal (Removal): How absent players are removed.
        feature_mask (Tensor): Player id of each pixel. Shape ``(1, 1, H, W)``, int64, on the CPU.
        true_label (str, optional): Name of the class of the image according to the data.
            Default: None, unknown
    """

    classifier: ImageClassifier
    name: str
    pixel_values: Tensor
    logits: Tensor
    removal: Removal
    feature_mask: Tensor
    true_label: str | None = None

    @property
    def title(self) -> str:
        """Name of the image without its folder."""
        return Path(self.name).name

    @property
    def truth(self) -> str:
        """The true label in words, for example ``"true label: tiger cat"``, or an empty string if it is unknown."""
        return describe_truth(self.true_label)

    @property
    def picture(self) -> Tensor:
        """The model's input as an image in [0, 1]. Shape ``(H, W, 3)``, float32, on the CPU."""
        return self.classifier.to_images(self.pixel_values)[0]

    @property
    def mask(self) -> Tensor:
        """Player id of each pixel. Shape ``(H, W)``, int64."""
        return self.feature_mask[0, 0]

    @property
    def n_players(self) -> int:
        """Number of players."""
        return len(self.mask.unique())

    @property
    def predicted(self) -> int:
        """Index of the predicted class.

        For a model with a single logit, 0 if it is positive and -1 otherwise. If each class has a sigmoid of its own,
        the most likely class, or -1 if none has a probability above 0.5.
        """
        return int(self.head.predictions(self.logits))

    @property
    def head(self) -> Head:
        """How logits become probabilities and predictions."""
        return head_of(self.classifier.model)

    def predicts(self, target: int) -> bool:
        """Return whether a class is predicted. If each class has a sigmoid of its own, several may be.

        Args:
            target (int): Index of the class.
        """
        return int(self.head.predictions(self.logits, self._as_target(target))) == target

    def target(self, name: str | int | None = None) -> int:
        """Return the index of the target class.

        Args:
            name (str or int, optional): Index, name, or unambiguous part of a name.
                Default: None, the most likely class, or the only class of a model with a single logit

        Returns:
            int: Index of the class.

        Raises:
            ValueError: If the model has no such class.
        """
        return int(self.logits.argmax()) if name is None else self.classifier.class_index(name)

    def confidence(self, target: int) -> float:
        """Return the confidence in a class: its probability, from 0 to 1.

        Args:
            target (int): Index of the class.
        """
        return float(self.head.confidences(self.logits, self._as_target(target)))

    def _as_target(self, target: int) -> Tensor:
        return torch.tensor([target], device=self.logits.device)

    def game(self, target: int) -> CoalitionGame:
        """Return the game of the image's players, with the log-odds of a class as its reward.

        Args:
            target (int): Index of the class.
        """
        return CoalitionGame(
            self.classifier.model,
            self.pixel_values,
            target=target,
            feature_mask=self.feature_mask,
            removal=self.removal,
        )

    def result_dict(
        self, settings: Mapping[str, object], contents: Mapping[str, object], *, target: int | None = None
    ) -> dict[str, object]:
        """Return a result for this image as JSON types: the image, the model and how the result was computed.

        Args:
            settings (dict): Settings of the result, as JSON types. The removal and the device of the image are added.
            contents (dict): What was computed, as JSON types.
            target (int, optional): Index of the target class.
                Default: None, the result has no single target
        """
        result: dict[str, object] = {"image": self.name, "model": self.classifier.name}
        if target is not None:
            label, confidence = self.classifier.labels[target], self.confidence(target)
            result["target"] = {"index": target, "label": label, "confidence": confidence}
        return result | {
            "predicted": self.predicted_dict(),
            "true_label": self.true_label,
            "settings": {**settings, "removal": repr(self.removal), "device": str(self.pixel_values.device)},
            "patches": self.patches_dict(),
            **contents,
            "versions": package_versions(),
        }

    def predicted_dict(self) -> ClassDict:
        """Return the predicted class for JSON."""
        index = self.predicted
        return {"index": index, "label": self.classifier.labels[index] if index >= 0 else None}

    def patches_dict(self) -> dict[str, list[int]]:
        """Return the bounding box of each player for JSON: top, left, bottom, right in pixels of the model's input."""
        boxes = {}
        for player in self.mask.unique().tolist():
            rows, columns = (self.mask == player).nonzero(as_tuple=True)
            boxes[str(player)] = [int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1]
        return boxes


def check_players(
    classifier: ImageClassifier, *, removal: Removal | str | None, grid: int | None
) -> ForwardCall | None:
    """Check that a removal and a grid fit a classifier. The model does not run.

    If the size of the model's input depends on the image, only :func:`prepare_image` can check them.

    Args:
        classifier (ImageClassifier): The classifier.
        removal (Removal or str or None): How absent patches are removed, as in :func:`prepare_image`.
        grid (int or None): Number of rows and columns of patches, as in :func:`prepare_image`.

    Returns:
        ForwardCall or None: Call of the classifier with a blank image, to check other removals. None if the size of the
        model's input depends on the image.

    Raises:
        ValueError: If the removal is unknown or does not support the model, or if the grid is finer than the image, or
            cuts through patches whose tokens are removed.
    """
    removal = get_removal(removal)
    inputs = [classifier.preprocess(Image.new("RGB", size)) for size in BLANK_SIZES]
    if len({pixel_values.shape for pixel_values in inputs}) > 1:
        return None
    return _divide(classifier, inputs[0], removal=removal, grid=grid)[2]


def _divide(
    classifier: ImageClassifier, pixel_values: Tensor, *, removal: Removal | None, grid: int | None
) -> tuple[Removal, Tensor, ForwardCall]:
    """Return the removal, the feature mask and the call of a model with its inputs. The model does not run."""
    removal = removal or default_removal(classifier.model, (pixel_values,), has_baselines=False)
    mask = removal.grid_mask(classifier.model, pixel_values, grid)
    players = players_from_mask(mask, (pixel_values,))
    call = ForwardCall(as_forward_func(classifier.model), (pixel_values,), None, (), players)
    # The result is created again for each game. Here, it only shows that the removal fits.
    removal.bind(call)
    return removal, mask, call


def prepare_image(
    classifier: ImageClassifier,
    image: Image.Image,
    *,
    name: str = "image",
    removal: Removal | str | None = None,
    grid: int | None = None,
    true_label: str | int | None = None,
) -> PreparedImage:
    """Preprocess and classify an image, and divide it into players.

    Args:
        classifier (ImageClassifier): The classifier.
        image (Image): The image.
        name (str, optional): Name of the image in messages, figures and JSON.
            Default: ``"image"``
        removal (Removal or str, optional): How absent players are removed: a removal, or its name in
            ``captum_moxi.removal.REMOVALS``.
            Default: None, token removal if the model has patch tokens and baseline fill with 0 otherwise
        grid (int, optional): Number of rows and columns of patches: ``N`` divides the image into N x N players.
            Default: None, the model's own patches, or 6 x 6 patches if it has none
        true_label (str or int, optional): Class of the image according to the data: the index of a class, or any name.
            Default: None, unknown

    Returns:
        PreparedImage: The image, on the classifier's device.

    Raises:
        ValueError: If the grid is finer than the image, or cuts through patches whose tokens are removed, if the
            removal does not support the model, or if the removal or the index of the true label is unknown. If the
            model is a regression.

    Examples::

        >>> prepared = prepare_image(load("google/vit-base-patch16-224"), open_image("cat.jpg"))
        >>> prepared.n_players, prepared.predicted_dict()
        (196, {'index': 282, 'label': 'tiger cat'})
    """
    removal = get_removal(removal)
    if not head_of(classifier.model).has_classes:
        raise ValueError(
            f"model {classifier.name!r} is a regression (config.problem_type), which has no classes; pass a classifier "
            "here, and explain the output of a regression with MoXIInsertion(model, reward='output')"
        )
    if true_label is not None and not isinstance(true_label, str):
        true_label = classifier.labels[classifier.class_index(true_label)]
    pixel_values = classifier.preprocess(image)
    removal, mask, _ = _divide(classifier, pixel_values, removal=removal, grid=grid)
    with torch.no_grad():
        logits: Tensor = call_model(classifier.model, pixel_values)
    return PreparedImage(
        classifier=classifier,
        name=name,
        pixel_values=pixel_values,
        logits=logits.float(),
        removal=removal,
        feature_mask=mask,
        true_label=true_label,
    )


def with_class_indices(reward: str, classifier: ImageClassifier) -> str:
    """Replace the class name in the text of a reward by the index of the class.

    Args:
        reward (str): Name in ``captum_moxi.rewards.REWARDS``, with its argument. The argument ``CLASS`` may be a name.
        classifier (ImageClassifier): The classifier.

    Returns:
        str: For example ``"contrast:281"`` for ``"contrast:tabby"``.

    Raises:
        ValueError: If the reward is unknown, or if the model does not have the class.
    """
    class_name = class_argument(reward)
    if class_name is not None:
        reward = f"{reward.partition(':')[0]}:{classifier.class_index(class_name)}"
    REWARDS.create(reward)
    return reward


def class_argument(reward: str) -> str | None:
    """Return the class in the text of a reward, for example ``"tabby"`` for ``"contrast:tabby"``, or None."""
    name, colon, argument = reward.partition(":")
    takes_class = any(entry.name == name and entry.argument == "CLASS" for entry in REWARDS.entries)
    return argument if takes_class and colon else None


def class_name(label: str) -> str:
    """Return a short name of a class for text and figures.

    It is the first of the comma-separated names. A name that is only a number is preceded by "class".
    """
    name = label.partition(",")[0]
    return f"class {name}" if name.isdecimal() else name


def describe_truth(true_label: str | None) -> str:
    """Return the true label in words, for example ``"true label: tiger cat"``, or an empty string if it is unknown."""
    return "" if true_label is None else f"true label: {class_name(true_label)}"


def gallery_title(label: str, true_label: str | None) -> str:
    """Return the title of an image in galleries: its target class and, if it is known, its true label."""
    return "\n".join(filter(None, (f"target: {class_name(label)}", describe_truth(true_label))))


def with_confidence(label: str, confidence: float) -> str:
    """Return a class and its confidence, for example ``"tabby 0.41"``, or ``"class 7, 0.41"`` for a number."""
    name = class_name(label)
    return f"{name}{',' if name[-1:].isdecimal() else ''} {confidence:.2f}"


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that an explanation depends on."""
    packages = ("captum-moxi", "torch", "captum", "transformers")
    return {"python": platform.python_version()} | {package: version(package) for package in packages}
