"""Fixtures: a folder of pictures that the embedded model knows, and settings of a run over it."""

from pathlib import Path

import datasets
import pytest
from pictures import write_pictures

from captum_moxi.demo import FOLDER
from captum_moxi.evaluation.settings import Settings

datasets.disable_progress_bars()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def settings(pictures: Path) -> Settings:
    return Settings(model=str(FOLDER / "model"), data=str(pictures), grid=2)
