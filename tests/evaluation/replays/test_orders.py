import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from captum_moxi.evaluation import store
from captum_moxi.evaluation.evaluator import Evaluator
from captum_moxi.evaluation.replays import Orders, read_orders, read_orders_of_all_modes
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


@pytest.mark.parametrize("read", [partial(read_orders, mode="deletion"), read_orders_of_all_modes])
def test_the_limit_counts_only_images_that_still_exist(
    settings: Settings, pictures: Path, tmp_path: Path, read: Callable[..., Orders]
) -> None:
    shutil.copytree(pictures, tmp_path / "data")
    settings = replace(settings, data=str(tmp_path / "data"), methods=["random"], stop=None, keep="all")
    store.open_run(tmp_path / "run", settings.to_dict())
    evaluator = Evaluator.load(settings, device="cpu")
    store.write_part(tmp_path / "run", evaluator.rows(range(len(evaluator.images))))
    names = [image.name for image in read(tmp_path / "run", device="cpu").images]
    for name in (names[0], names[2]):
        (tmp_path / "data" / name).unlink()
    orders = read(tmp_path / "run", limit=2, device="cpu")
    assert [image.name for image in orders.images] == [names[1], names[3]]
    assert list(orders.missing) == [names[0], names[2]]
    # The images after the limit are not searched.
    assert list(read(tmp_path / "run", limit=1, device="cpu").missing) == [names[0]]


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
