"""Embedded model and images: a ViT that sums the distinct digits of a 2 x 2 picture.

``python -m captum_moxi.experiments.demo_model`` creates both.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from captum_moxi.models import ImageClassifier, load

FOLDER = Path(__file__).parent
NAME = "embedded demo"
# Number of rows and columns of players. With this grid, each player is one digit.
GRID = 2


class DemoImage(NamedTuple):
    """An embedded image.

    Args:
        name (str): File name. It lists the digits of the four quarters in reading order, for example ``1-2-4-4.png``.
        image (Image): RGB picture of 56 x 56 pixels.
        label (str): Sum of the distinct digits.
    """

    name: str
    image: Image.Image
    label: str


def demo_classifier(device: str | None = None) -> ImageClassifier:
    """Load the embedded classifier: 31 classes, the sums 0 to 30, for images of 56 x 56 pixels with 4 x 4 patches.

    Args:
        device (str, optional): Device of the model.
            Default: None, CUDA if available and the CPU otherwise

    Returns:
        ImageClassifier: Classifier whose name is ``"embedded demo"``.

    Examples::

        >>> classifier = demo_classifier()
        >>> name, image, label = demo_images()[0]
        >>> attr = MoXIInsertion(classifier.model).attribute(classifier.preprocess(image), target=int(label))
    """
    return replace(load(FOLDER / "model", device), name=NAME)


def demo_images() -> list[DemoImage]:
    """Load the four embedded images. In each of them, two digits are equal.

    Returns:
        list[DemoImage]: Names, pictures and labels.
    """
    labels: dict[str, str] = json.loads((FOLDER / "images" / "labels.json").read_text())
    return [
        DemoImage(name, Image.open(FOLDER / "images" / name).convert("RGB"), label) for name, label in labels.items()
    ]
