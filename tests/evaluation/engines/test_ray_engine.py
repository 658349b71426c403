"""Where the workers of Ray run."""

from pathlib import Path

import pytest

pytest.importorskip("ray")

from captum_moxi.evaluation.engines import RayEngine, Resources, ray_engine
from captum_moxi.evaluation.engines.ray_job import RayJob
from captum_moxi.evaluation.evaluator import Evaluator
from captum_moxi.evaluation.settings import Settings

PRIVATE, CLUSTER = 1, 2


@pytest.mark.parametrize(
    ("address", "place"),
    [(None, PRIVATE), ("", PRIVATE), ("local", PRIVATE), ("auto", CLUSTER), ("10.0.0.1:6379", CLUSTER)],
)
def test_only_an_address_of_a_cluster_replaces_the_private_session(
    address: str | None, place: int, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address is not None:
        monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(ray_engine, "run_in_private_session", lambda job: iter([PRIVATE]))
    monkeypatch.setattr(RayJob, "run_in_cluster", lambda job: iter([CLUSTER]))
    evaluator = Evaluator.load(settings, device="cpu", limit=1)
    assert list(RayEngine().run(evaluator, tmp_path, [[0]], resources=Resources("cpu"))) == [place]
