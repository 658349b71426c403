"""Fixtures: a folder of pictures that the embedded model knows."""

from pathlib import Path

import datasets
import pytest
from PIL import ImageChops

from captum_moxi.demo import FOLDER, demo_images
from captum_moxi.evaluation.runs import Settings

datasets.disable_progress_bars()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures of the demo, moved by a pixel or two, in folders named by their sums; one more in a wrong folder,
    and one file that is none."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, image, label in demo_images():
        for moved in range(3):
            path = folder / label / f"{Path(name).stem}_{moved}.png"
            path.parent.mkdir(exist_ok=True)
            ImageChops.offset(image, moved - 1, 0).save(path)
    name, image, label = demo_images()[0]
    wrong = folder / str(int(label) + 1)
    wrong.mkdir(exist_ok=True)
    image.save(wrong / "wrong.png")
    (wrong / "broken.png").write_text("no picture")
    return folder


@pytest.fixture
def settings(pictures: Path) -> Settings:
    return Settings(model=str(FOLDER / "model"), data=str(pictures), grid=2)
