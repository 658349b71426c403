"""A run whose orders can be played again."""

from pathlib import Path

import pytest

from captum_moxi.demo import FOLDER
from captum_moxi.evaluation import store
from captum_moxi.evaluation.evaluator import Evaluator
from captum_moxi.evaluation.settings import Settings


@pytest.fixture(scope="session")
def run(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = Settings(
        model=str(FOLDER / "model"), data=str(pictures), grid=2, methods=["moxi", "random"], stop=None, n_steps=3
    )
    folder = tmp_path_factory.mktemp("replays") / "run"
    store.open_run(folder, settings.to_dict())
    store.write_part(folder, Evaluator.load(settings, device="cpu").rows(range(5)))
    return folder
