"""Fixture: a study of the embedded model and two pictures."""

from pathlib import Path

import pytest

from captum_moxi.evaluation.experiments.study import Study
from captum_moxi.evaluation.settings import Settings


@pytest.fixture
def study(settings: Settings, tmp_path: Path) -> Study:
    return Study.prepare(settings, tmp_path / "out", methods=["moxi", "random"], limit=2, resamples=20, device="cpu")
