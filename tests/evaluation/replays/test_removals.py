import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from handmade_runs import explained, write_run
from PIL import Image
from torch import Tensor

from captum_moxi import patch_mask
from captum_moxi.arguments import Mode
from captum_moxi.demo import FOLDER
from captum_moxi.evaluation import store
from captum_moxi.evaluation.curves import read_run_curves
from captum_moxi.evaluation.evaluator import Evaluator
from captum_moxi.evaluation.measurements import paired_records
from captum_moxi.evaluation.replays import ImageOrders, Orders, read_orders_of_all_modes, run_removals
from captum_moxi.evaluation.replays.removals import fitting_removals, measure_replays, read_replays, replay_run
from captum_moxi.evaluation.settings import Settings
from captum_moxi.metrics import Replay
from captum_moxi.models import call_model

MASK = patch_mask(56, grid=2)[0, 0]
ORDERS = ["MoXI, insertion order", "MoXI, deletion order", "Random"]


def replayed_rows(run: Path, out: Path, removal: str, limit: int = 2) -> tuple[Evaluator, list[dict[str, Any]]]:
    orders = read_orders_of_all_modes(run, limit=limit, device="cpu")
    list(replay_run(orders, out, removal=removal))
    return orders.evaluator, store.read_rows(out).to_pylist()


def filled(x: Tensor, removal: str, present: list[int]) -> Tensor:
    """An image whose absent patches are filled by hand."""
    fill = torch.zeros_like(x) if removal == "zero" else x.mean((2, 3), keepdim=True).expand_as(x)
    keep = torch.isin(MASK, torch.tensor(present, dtype=torch.long))
    return torch.where(keep, x, fill)


@pytest.mark.parametrize("removal", ["zero", "mean"])
def test_a_replay_is_a_plain_forward_with_pixels_filled_by_hand(run: Path, tmp_path: Path, removal: str) -> None:
    evaluator, rows = replayed_rows(run, tmp_path / removal, removal)
    classifier = evaluator.classifier
    assert {(row["method"], row["mode"]) for row in rows} == {(o, m) for o in ORDERS for m in ("insertion", "deletion")}
    for row in rows:
        x = classifier.preprocess(evaluator.images.open(evaluator.images.index_of(row["image"])))
        expected = []
        for step in range(len(row["order"]) + 1):
            moved = row["order"][:step]
            present = moved if row["mode"] == "insertion" else [p for p in range(4) if p not in moved]
            with torch.no_grad():
                logits = call_model(classifier.model, filled(x, removal, present))
            expected.append(float(logits.softmax(1)[0, row["target"]]))
        assert row["confidences"] == pytest.approx(expected, abs=1e-5)


def test_the_replay_under_the_removal_of_the_run_is_the_curve_of_the_run(run: Path, tmp_path: Path) -> None:
    _, rows = replayed_rows(run, tmp_path / "token", "token", limit=5)
    replayed = {(row["image"], row["method"], row["mode"]): row for row in rows}
    originals = [row for row in store.read_rows(run).to_pylist() if row["status"] == "explained"]
    assert originals
    for row in originals:
        title = f"MoXI, {row['mode']} order" if row["method"] == "MoXI" else row["method"]
        same = replayed[row["image"], title, row["mode"]]
        assert same["order"] == row["order"] and same["target"] == row["target"]
        assert same["confidences"] == pytest.approx(row["confidences"], abs=1e-5)
        assert same["predictions"] == row["predictions"]


def test_replays_of_a_run_have_the_areas_of_its_curves(tmp_path: Path) -> None:
    """Two images of four players. The heights are those of trapezoids with a width of a quarter."""
    confidences: dict[tuple[str, Mode], list[float]] = {
        ("a", "insertion"): [0, 1, 1, 1, 1],
        ("a", "deletion"): [1, 0, 0, 0, 0],
        ("b", "insertion"): [0, 0, 0, 0, 1],
        ("b", "deletion"): [1, 1, 1, 1, 0],
    }
    rows = [explained(image, "A", mode, "xxxxx", values) for (image, mode), values in confidences.items()]
    (replay,) = read_replays(read_run_curves(write_run(tmp_path / "zero", rows)), removal="zero")
    assert replay.insertion.tolist() == [7 / 8, 1 / 8] and replay.deletion.tolist() == [1 / 8, 7 / 8]
    assert replay.srg is not None
    assert replay.srg.tolist() == [3 / 4, -3 / 4] and replay.fraction == 1


def test_orders_of_moxi_are_compared_with_the_best_other_order_under_each_removal() -> None:
    """Ten images of two orders of MoXI and of two others, with the same areas for each image."""
    areas = {
        "zero": {"MoXI, insertion order": (0.75, 0.5), "MoXI, deletion order": (0.5, 0.25), "A": (0.5, 0.5)},
        "blur": {"MoXI, insertion order": (0.75, 0.5), "MoXI, deletion order": (0.5, 0.25), "A": (0.5, 0.125)},
    }
    areas["zero"]["B"], areas["blur"]["B"] = (0.25, 0.375), (0.625, 0.5)
    replays = [
        Replay(removal, order, np.full(10, insertion), np.full(10, deletion), fraction=1.0, is_complete=True)
        for removal, by_order in areas.items()
        for order, (insertion, deletion) in by_order.items()
    ]
    records = paired_records(measure_replays(replays), resamples=20)
    found = [
        tuple(record[name] for name in ("condition", "quantity", "method", "best other", "difference"))
        for record in records
    ]
    assert found == [
        ("zero", "insertion area", "MoXI, insertion order", "A", 0.25),
        ("zero", "deletion area", "MoXI, deletion order", "B", -0.125),
        # SRG: 0.25 for both orders of MoXI, 0 for A and -0.125 for B.
        ("zero", "SRG", "MoXI, insertion order", "A", 0.25),
        ("zero", "SRG", "MoXI, deletion order", "A", 0.25),
        ("blur", "insertion area", "MoXI, insertion order", "B", 0.125),
        ("blur", "deletion area", "MoXI, deletion order", "A", 0.125),
        # SRG: 0.375 for A.
        ("blur", "SRG", "MoXI, insertion order", "A", -0.125),
        ("blur", "SRG", "MoXI, deletion order", "A", -0.125),
    ]


def test_the_summary_is_written_and_continues_after_an_interruption(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options: dict[str, Any] = {"removals": ["zero", "token"], "resamples": 20, "device": "cpu"}
    # An interruption leaves the parts of the first images.
    run_removals(run, out, limit=2, **options)
    parts = {path: path.stat().st_mtime_ns for path in out.glob("*/rows/*.parquet")}
    assert len(parts) == 4
    text = run_removals(run, out, **options)
    assert all(path.stat().st_mtime_ns == time for path, time in parts.items())
    # The run has the first three of four players, so the difference of the areas is no SRG.
    assert "cover the first 75% of the patches" in text and (out / "replay.md").read_text() == text + "\n"
    assert (out / "replay.png").read_bytes().startswith(b"\x89PNG")
    records = json.loads((out / "replay.json").read_text())
    assert [(record["removal"], record["order"]) for record in records] == [
        (removal, order) for removal in ("zero", "token") for order in ORDERS
    ]
    with (out / "replay.csv").open() as file:
        differences = [float(row["area difference"]) for row in csv.DictReader(file)]
    assert differences == [record["area difference"] for record in records]
    for record in records:
        assert record["fraction of patches"] == 0.75
        assert record["area difference"] == pytest.approx(record["insertion area"] - record["deletion area"])
        assert "SRG" not in record
        rows = [
            row
            for row in store.read_rows(out / record["removal"]).to_pylist()
            if row["method"] == record["order"] and row["mode"] == "insertion"
        ]
        areas = [np.trapezoid(row["confidences"]) / 3 for row in rows]
        assert record["images"] == len(rows) and record["insertion area"] == pytest.approx(np.mean(areas))


def test_images_that_cannot_be_read_do_not_stop_a_replay(pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(pictures, tmp_path / "data")
    settings = Settings(
        model=str(FOLDER / "model"), data=str(tmp_path / "data"), grid=2, methods=["random"], stop=None, keep="all"
    )
    evaluator = Evaluator.load(settings, device="cpu")
    store.open_run(tmp_path / "run", settings.to_dict())
    store.write_part(tmp_path / "run", evaluator.rows(range(len(evaluator.images))))
    first, second, *others = (
        row["image"] for row in store.read_rows(tmp_path / "run").to_pylist()[::2] if row["status"] == "explained"
    )
    picture = (tmp_path / "data" / first).read_bytes()
    (tmp_path / "data" / first).write_text("torn")
    (tmp_path / "data" / second).unlink()
    options: dict[str, Any] = {"removals": ["zero", "blur"], "resamples": 20, "device": "cpu"}
    text = run_removals(tmp_path / "run", tmp_path / "out", **options)
    assert "2 images could not be replayed:" in text and f"{first}: " in text
    assert f"{second}: image {second!r} is not in the data" in text
    records = json.loads((tmp_path / "out" / "replay.json").read_text())
    assert [record["images"] for record in records] == [len(others)] * 2
    # A restored image is replayed when the command is repeated.
    (tmp_path / "data" / first).write_bytes(picture)
    text = run_removals(tmp_path / "run", tmp_path / "out", **options)
    assert text.startswith(f"{len(others) + 1} images") and "1 image could not be replayed:" in text
    for name in (first, *others):
        (tmp_path / "data" / name).write_text("torn")
    with pytest.raises(ValueError, match="no image could be replayed"):
        run_removals(tmp_path / "run", tmp_path / "torn", **options)
    shutil.rmtree(tmp_path / "data")
    shutil.copytree(pictures, tmp_path / "data")
    for name in (first, second, *others):
        (tmp_path / "data" / name).unlink()
    with pytest.raises(ValueError, match="is not in the data; restore the image"):
        run_removals(tmp_path / "run", tmp_path / "gone", **options)


def test_replays_of_another_run_are_not_mixed(run: Path, tmp_path: Path) -> None:
    orders = read_orders_of_all_modes(run, limit=1, device="cpu")
    list(replay_run(orders, tmp_path / "zero", removal="zero", run_id="first"))
    with pytest.raises(ValueError, match="replay_of was 'first' and is 'second'"):
        list(replay_run(orders, tmp_path / "zero", removal="zero", run_id="second"))


def test_removals_that_do_not_fit_are_rejected_before_the_model_runs(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(model=str(zoo_folder(tmp_path)), data=str(pictures), keep="all", methods=["random"], grid=2)
    evaluator = Evaluator.load(settings, device="cpu")
    orders, model = Orders(evaluator, []), evaluator.classifier.model
    monkeypatch.setattr(type(model), "forward", lambda *_, **__: pytest.fail("the model ran"))
    assert fitting_removals(orders, None) == ["zero", "mean", "blur"]
    with pytest.raises(ValueError, match=r"removals='token' does not fit the model .*; pass other removals"):
        fitting_removals(orders, ["zero", "token"])


def test_removals_fit_the_first_image_if_the_size_of_the_input_depends_on_it(tmp_path: Path) -> None:
    """Of the 4 x 4 players, each is a token of the model in images of 56 x 56 pixels, but not in the blank images."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.png").write_text("torn")
    Image.new("RGB", (56, 56)).save(data / "b.png")
    players: dict[str, Any] = {"grid": 4, "removal": "zero"}
    settings = Settings(
        model=str(FOLDER / "model"), data=str(data), methods=["random"], stop=None, keep="all", **players
    )
    evaluator = Evaluator.load(settings, device="cpu")
    processor: Any = evaluator.classifier.processor
    processor.do_resize = False
    images = [ImageOrders(name, evaluator.images.index_of(name), 3, {"Random": [2, 0]}) for name in ("a.png", "b.png")]
    orders = Orders(evaluator, images)
    assert fitting_removals(orders, None) == ["token", "zero", "mean", "blur"]
    assert fitting_removals(orders, ["blur", "token"]) == ["blur", "token"]
    list(replay_run(orders, tmp_path / "token", removal="token"))
    assert sorted(row["status"] for row in store.read_rows(tmp_path / "token").to_pylist()) == [
        "explained",
        "explained",
        "failed",
    ]
    with pytest.raises(ValueError, match=r"no image could be replayed; the first one is a\.png"):
        fitting_removals(Orders(evaluator, images[:1]), None)


def zoo_folder(tmp_path: Path) -> Path:
    """A folder with a random ResNet and its image processor."""
    from transformers import ConvNextImageProcessor

    folder = tmp_path / "resnet"
    zoo.resnet().save_pretrained(folder)
    ConvNextImageProcessor(size={"shortest_edge": 56}, crop_pct=1.0).save_pretrained(folder)
    return folder


def test_wrong_names_and_folders_are_rejected(run: Path, settings: Settings, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for removals, message in (
        (["hail"], "removal 'hail' is unknown"),
        ([], "one or more different names"),
        (["zero", "zero"], "one or more different names"),
    ):
        with pytest.raises(ValueError, match=message):
            run_removals(run, out, removals=removals)
    with pytest.raises(ValueError, match="the run itself; pass another folder"):
        run_removals(run, run)
    store.open_run(tmp_path / "flips", settings.to_dict())
    store.write_part(tmp_path / "flips", Evaluator.load(settings, device="cpu").rows([0]))
    with pytest.raises(ValueError, match=r"stopped at flips.* --stop never"):
        run_removals(tmp_path / "flips", out)
    store.open_run(tmp_path / "empty", settings.to_dict())
    with pytest.raises(ValueError, match="has no explained images"):
        run_removals(tmp_path / "empty", out)
    assert not out.exists()
