from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from captum_moxi import BaselineRemoval, deletion_curve, patch_mask
from captum_moxi.cli import main
from captum_moxi.evaluation import store
from captum_moxi.evaluation.adversarial import attack
from captum_moxi.evaluation.engines import run_local
from captum_moxi.evaluation.records import Records
from captum_moxi.evaluation.replays import attack_run, attack_summary, corrupt_run, corruption_summary, read_orders
from captum_moxi.evaluation.reports import read_series
from captum_moxi.evaluation.runs import Evaluator, Settings
from captum_moxi.models import call_model

MASK = patch_mask(56, grid=2)


@pytest.fixture(scope="module")
def run(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from captum_moxi.demo import FOLDER

    settings = Settings(
        model=str(FOLDER / "model"), data=str(pictures), grid=2, methods=["moxi", "random"], stop=None, n_steps=3
    )
    evaluator = Evaluator(settings, "cpu")
    folder = tmp_path_factory.mktemp("run") / "run"
    store.open_run(folder, asdict(settings))
    assert sum(run_local(evaluator, folder, [[0, 1, 2, 3, 4]])) == 5
    return folder


def original(run: Path, image: str, method: str, mode: str = "deletion") -> dict[str, object]:
    (row,) = [
        row
        for row in store.read_rows(run).to_pylist()
        if (row["image"], row["method"], row["mode"]) == (image, method, mode)
    ]
    return row


def test_a_corrupted_run_is_the_curve_with_corrupted_baselines(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("imagecorruptions")
    from captum_moxi.evaluation.corruptions import corrupted_inputs

    names = list(corrupt_run(read_orders(run, "deletion", 3, "cpu"), tmp_path / "contrast", "contrast"))
    rows = store.read_rows(tmp_path / "contrast").to_pylist()
    assert len(names) == 3 and len(rows) == 6
    evaluator = Evaluator(Settings(**store.read_settings(run)), "cpu")
    for row in rows:
        index = list(evaluator.images.names).index(row["image"])
        x = evaluator.classifier.preprocess(evaluator.images.open(index))
        before = original(run, row["image"], row["method"])
        assert row["order"] == before["order"] and row["mode"] == "deletion"
        curve = deletion_curve(
            evaluator.classifier.model,
            x,
            torch.tensor([before["order"]]),
            target=row["target"],
            baselines=corrupted_inputs(evaluator.classifier, x, "contrast", 5, seed=index),
            feature_mask=MASK,
            removal=BaselineRemoval(),
            fractions=[0, 0.25, 0.5, 0.75],
        )
        torch.testing.assert_close(torch.tensor(row["confidences"]), curve.confidences[0])
    # again: nothing is left to do, and more may be
    assert len(list(corrupt_run(read_orders(run, "deletion", 4, "cpu"), tmp_path / "contrast", "contrast"))) == 4
    assert len(store.finished(tmp_path / "contrast")) == 4
    with pytest.raises(ValueError, match="severity was 5 and is 2"):
        list(corrupt_run(read_orders(run, "deletion", 4, "cpu"), tmp_path / "contrast", "contrast", severity=2))


def test_corruptions_are_summed_up(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("imagecorruptions")
    out = tmp_path / "corrupted"
    arguments = ["corrupt", str(run), "--corruptions", "contrast, pixelate", "--device", "cpu", "--out", str(out)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert (out / "corruptions.png").read_bytes().startswith(b"\x89PNG")
    lines = [line.strip("| ").split(" | ") for line in done.stdout.splitlines()]
    assert [line[0] for line in lines[4:8]] == ["contrast", "pixelate", "mean", "corruptions with the smallest area"]
    areas = [[one.area().mean() for one in read_series(out / name)] for name in ("contrast", "pixelate")]
    assert [float(text) for text in lines[6][1:]] == pytest.approx(np.mean(areas, axis=0), rel=6e-3)
    assert sum(int(text) for text in lines[7][1:]) >= 2
    names = [name for name, *_ in read_orders(run, "deletion", None, "cpu").images]
    text, figure = corruption_summary([out / "contrast"], 10, names)
    assert "pixelate" not in text
    (panel,) = figure.axes
    drawn = [np.asarray(line.get_ydata()) for line in panel.lines]
    assert [heights.tolist() for heights in drawn] == [
        one.confidences.mean(0).tolist() for one in read_series(out / "contrast")
    ]
    # fewer asked for later: of these alone, though the folder holds more
    done = CliRunner().invoke(main, [*arguments, "--limit", "1"])
    assert done.stdout.startswith("1 images of")
    lines = [line.strip("| ").split(" | ") for line in done.stdout.splitlines()]
    areas = [
        [one.area()[one.images.index(names[0])] for one in read_series(out / name)] for name in ("contrast", "pixelate")
    ]
    assert [float(text) for text in lines[6][1:]] == pytest.approx(np.mean(areas, axis=0), rel=6e-3)


def test_the_perturbation_lies_where_the_attack_put_it(run: Path, tmp_path: Path) -> None:
    records = Records(tmp_path / "attack.jsonl")
    found = dict(attack_run(read_orders(run, "deletion", 2, "cpu"), records, radius=0.5, n_steps=3))
    evaluator = Evaluator(Settings(**store.read_settings(run)), "cpu")
    for name, record in found.items():
        x = evaluator.classifier.preprocess(evaluator.images.open(list(evaluator.images.names).index(name)))
        row = original(run, name, "MoXI")
        attacked = attack(evaluator.classifier, x, row["target"], 0.5, 0.2, 3)
        moved = (evaluator.classifier.to_images(attacked) - evaluator.classifier.to_images(x))[0]
        by_hand = [float(moved[MASK[0, 0] == player].norm()) for player in row["order"]]  # type: ignore[attr-defined]
        assert record["orders"]["MoXI"] == pytest.approx(by_hand, rel=1e-5)
        assert record["norm"] == pytest.approx(float(moved.norm()), rel=1e-5) and record["norm"] <= 0.5 + 1e-6
        assert record["fooled"] == (int(call_model(evaluator.classifier.model, attacked).argmax()) != row["target"])
    assert records.made == 2
    again = Records(tmp_path / "attack.jsonl")
    assert dict(attack_run(read_orders(run, "deletion", 2, "cpu"), again, radius=0.5, n_steps=3)) == found
    assert (again.made, again.reused) == (0, 2)


def test_attacks_are_summed_up_in_the_images_own_mean() -> None:
    found = [
        {"fooled": True, "norm": 1.0, "mean": 0.5, "orders": {"a": [1.0, 0.5], "b": [0.5]}},
        {"fooled": False, "norm": 2.0, "mean": 2.0, "orders": {"a": [2.0, 2.0, 2.0, 2.0, 2.0], "b": [6.0]}},
    ]
    text, _ = attack_summary(found)
    assert text.startswith("2 images, 1 no longer predicted; norm of a perturbation 1.5")
    # the first of a is twice and once its image's mean, of b once and three times
    # of the first five, an image that has two counts with these: 1.5 and 1
    assert "| a | 1.5 | 1.25 |" in text and "| b | 2 |" in text


def test_what_cannot_be_replayed(run: Path, settings: Settings, tmp_path: Path) -> None:
    inserted = tmp_path / "inserted"
    of = replace(settings, modes=["insertion"])
    store.open_run(inserted, asdict(of))
    assert sum(run_local(Evaluator(of, "cpu"), inserted, [[0]])) == 1
    flipped = tmp_path / "flipped"
    store.open_run(flipped, asdict(settings))
    assert sum(run_local(Evaluator(settings, "cpu"), flipped, [[0]])) == 1
    for arguments, said in (
        (["corrupt", str(tmp_path)], "holds no run"),
        (["corrupt", str(inserted)], "holds no deletion"),
        (["corrupt", str(run), "--out", str(run)], "is the run itself"),
        (["corrupt", str(flipped)], "stopped at flips; run captum-moxi evaluate with --stop never"),
        (["corrupt", str(run), "--corruptions", "hail"], "corruption 'hail' is not known"),
        (["attack", str(inserted)], "holds no deletion"),
    ):
        refused = CliRunner().invoke(main, [arguments[0], "--out", str(tmp_path / "out"), *arguments[1:]])
        assert refused.exit_code == 2 and said in refused.stderr
