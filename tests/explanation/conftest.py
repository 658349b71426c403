"""Fixtures: the embedded classifier and its first image."""

import pytest
from PIL import Image

from captum_moxi.demo import demo_classifier, demo_images
from captum_moxi.models import ImageClassifier


@pytest.fixture
def classifier() -> ImageClassifier:
    """Classes '0' to '30'."""
    return demo_classifier("cpu")


@pytest.fixture
def image() -> Image.Image:
    """The digits 1, 2, 4 and 4, whose class is 7."""
    (image,) = [demo.image for demo in demo_images() if demo.name == "1-2-4-4.png"]
    return image
