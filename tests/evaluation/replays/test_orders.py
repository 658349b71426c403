from dataclasses import replace
from pathlib import Path

import pytest

from captum_moxi.evaluation import store
from captum_moxi.evaluation.evaluator import Evaluator
from captum_moxi.evaluation.replays import read_orders
from captum_moxi.evaluation.settings import Settings


def test_orders_are_those_of_the_rows(run: Path) -> None:
    orders = read_orders(run, mode="deletion", limit=2, device="cpu")
    rows = store.read_rows(run).to_pylist()
    assert [image.name for image in orders.images] == sorted({row["image"] for row in rows})[:2]
    for image in orders.images:
        assert orders.evaluator.images.names[image.index] == image.name
        stored = [row for row in rows if row["image"] == image.name and row["mode"] == "deletion"]
        assert image.orders == {row["method"]: row["order"] for row in stored}
        assert {row["target"] for row in stored} == {image.target}


def write_one_row(settings: Settings, folder: Path) -> Path:
    store.open_run(folder, settings.to_dict())
    store.write_part(folder, Evaluator.load(settings, device="cpu").rows([0]))
    return folder


def test_a_run_without_the_mode_or_that_stopped_at_flips_is_rejected(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no run"):
        read_orders(tmp_path, mode="deletion")
    insertion = write_one_row(replace(settings, modes=["insertion"], stop=None), tmp_path / "insertion")
    with pytest.raises(ValueError, match="has no deletion orders"):
        read_orders(insertion, mode="deletion")
    flips = write_one_row(settings, tmp_path / "flips")
    with pytest.raises(ValueError, match=r"stopped at flips.* run captum-moxi evaluate with --stop never"):
        read_orders(flips, mode="deletion")
