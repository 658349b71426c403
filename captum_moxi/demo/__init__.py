"""The embedded model and images: a ViT that sums the distinct digits of a 2 x 2 picture (``python -m
captum_moxi.demo.train`` makes both)."""

import json
from pathlib import Path

from PIL import Image

from captum_moxi.models import ImageClassifier, load

FOLDER = Path(__file__).parent


def demo_classifier(device: str | None = None) -> ImageClassifier:
    """The embedded classifier: 31 classes, the sums 0 to 30, on pictures of 56 x 56 pixels with 4 x 4 patches."""
    return load(FOLDER / "model", device)


def demo_images() -> list[tuple[str, Image.Image, str]]:
    """The embedded pictures: name, picture and the sum of its distinct digits. A name lists the digits, quarter by
    quarter in reading order."""
    labels = json.loads((FOLDER / "images" / "labels.json").read_text())
    return [(name, Image.open(FOLDER / "images" / name).convert("RGB"), label) for name, label in labels.items()]
