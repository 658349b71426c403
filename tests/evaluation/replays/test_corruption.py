from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from described import assert_described
from handmade_runs import explained, write_full_run, write_run

from captum_moxi import BaselineRemoval, deletion_curve, patch_mask
from captum_moxi.evaluation import store
from captum_moxi.evaluation.curves import read_run_curves
from captum_moxi.evaluation.evaluator import Evaluator
from captum_moxi.evaluation.replays import read_orders, run_corruptions
from captum_moxi.evaluation.replays.corruption import (
    corrupt_run,
    corruption_table,
    measure_corruptions,
    plot_corruptions,
)
from captum_moxi.perturbations.corruptions import corrupted_inputs

pytest.importorskip("imagecorruptions")

MASK = patch_mask(56, grid=2)
NAMES = ("contrast", "pixelate")


def mean_areas(folder: Path, images: list[str] | None = None) -> list[float]:
    curves = [run_curve.curve for run_curve in read_run_curves(folder, images=images)]
    return [float(curve.area().mean()) for curve in curves if curve is not None]


def cells(text: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]


def test_a_corrupted_run_has_the_curves_with_corrupted_baselines(run: Path, tmp_path: Path) -> None:
    orders = read_orders(run, mode="deletion", limit=3, device="cpu")
    names = list(corrupt_run(orders, tmp_path / "contrast", corruption="contrast"))
    rows: list[dict[str, Any]] = store.read_rows(tmp_path / "contrast").to_pylist()
    assert len(names) == 3 and len(rows) == 6
    evaluator = Evaluator.of_run(run, device="cpu")
    for row in rows:
        (original,) = [
            stored
            for stored in store.read_rows(run).to_pylist()
            if (stored["image"], stored["method"], stored["mode"]) == (row["image"], row["method"], "deletion")
        ]
        assert row["order"] == original["order"] and row["mode"] == "deletion" and row["seconds"] is None
        index = evaluator.images.index_of(row["image"])
        x = evaluator.classifier.preprocess(evaluator.images.open(index))
        curve = deletion_curve(
            evaluator.classifier.model,
            x,
            attributions=torch.tensor([original["order"]]),
            target=row["target"],
            baselines=corrupted_inputs(evaluator.classifier, x, "contrast", severity=5, seed=index),
            feature_mask=MASK,
            removal=BaselineRemoval(),
            fractions=[0, 0.25, 0.5, 0.75],
        )
        torch.testing.assert_close(torch.tensor(row["confidences"]), curve.confidences[0])


def test_a_corrupted_run_continues_with_the_same_severity_only(run: Path, tmp_path: Path) -> None:
    def corrupt(limit: int, severity: int = 5) -> list[str]:
        orders = read_orders(run, mode="deletion", limit=limit, device="cpu")
        return list(corrupt_run(orders, tmp_path / "contrast", corruption="contrast", severity=severity))

    corrupt(3)
    parts = {path: path.stat().st_mtime_ns for path in (tmp_path / "contrast" / "rows").iterdir()}
    assert len(corrupt(4)) == 4 and len(store.finished_images(tmp_path / "contrast")) == 4
    assert all(path.stat().st_mtime_ns == time for path, time in parts.items())
    with pytest.raises(ValueError, match="severity was 5 and is 2"):
        corrupt(4, severity=2)


def test_the_summary_has_the_mean_area_of_each_corruption(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "corrupted"
    text = run_corruptions(run, out, corruptions=NAMES, resamples=10, device="cpu")
    assert (out / "corruptions.md").read_text() == text + "\n"
    assert (out / "corruptions.png").read_bytes().startswith(b"\x89PNG")
    _, _, *rows = cells(text)
    assert [row[0] for row in rows] == ["contrast", "pixelate", "mean", "corruptions with the smallest area"]
    areas = [mean_areas(out / name) for name in NAMES]
    assert [float(cell) for cell in rows[2][1:]] == pytest.approx(np.mean(areas, axis=0), rel=6e-3)
    assert sum(int(cell) for cell in rows[3][1:]) >= len(NAMES)
    # A smaller limit summarizes fewer images, although the folder has more.
    image = read_orders(run, mode="deletion", limit=1, device="cpu").images[0].name
    text = run_corruptions(run, out, corruptions=NAMES, limit=1, resamples=10, device="cpu")
    assert text.startswith("1 images of")
    areas = [mean_areas(out / name, [image]) for name in NAMES]
    assert [float(cell) for cell in cells(text)[4][1:]] == pytest.approx(np.mean(areas, axis=0), rel=6e-3)


def test_the_mean_area_over_the_corruptions_is_measured_for_each_image(tmp_path: Path) -> None:
    first = read_run_curves(write_full_run(tmp_path / "contrast"))
    deletion = [run_curve for run_curve in first if run_curve.mode == "deletion"]
    measurement = measure_corruptions([deletion, deletion])
    # Trapezoids with a width of a quarter: 0.25 for a and 1 for b.
    assert measurement.values["MoXI"].tolist() == [0.25, 1] and measurement.better == "lower"
    half = [explained(image, "MoXI", "deletion", "xxxxx", [0.5] * 5) for image in "ab"]
    measurement = measure_corruptions([deletion, read_run_curves(write_run(tmp_path / "fog", half))])
    assert measurement.values["MoXI"].tolist() == [0.375, 0.75]


def test_the_figure_has_the_mean_curve_of_each_method(run: Path, tmp_path: Path) -> None:
    orders = read_orders(run, mode="deletion", limit=2, device="cpu")
    list(corrupt_run(orders, tmp_path / "contrast", corruption="contrast"))
    curves = read_run_curves(tmp_path / "contrast")
    assert "contrast" in corruption_table([curves])
    (ax,) = plot_corruptions([curves], resamples=10).axes
    means = [run_curve.curve.confidences.mean(0).numpy() for run_curve in curves if run_curve.curve is not None]
    assert len(ax.lines) == len(means) == 2
    for line, mean in zip(ax.lines, means, strict=True):
        np.testing.assert_allclose(np.asarray(line.get_ydata()), mean, rtol=1e-12)
    for n_panels in (1, 2, 7):
        figure = plot_corruptions([curves] * n_panels, resamples=10)
        assert_described(figure)
        # Two images have no band.
        assert "They have no 95 % bands" in figure.get_supxlabel().replace("\n", " ")
        assert not any(ax.collections for ax in figure.axes)


def test_ten_images_have_a_band_around_the_first_method(tmp_path: Path) -> None:
    first, second = read_run_curves(write_full_run(tmp_path / "contrast", copies=5))
    figure = plot_corruptions([[first, second]], resamples=10)
    assert [len(ax.collections) for ax in figure.axes] == [1]
    assert f"Band: 95 % interval of {first.method}." in figure.get_supxlabel().replace("\n", " ")


def test_unknown_corruptions_and_the_run_itself_are_rejected(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="corruption 'hail' is unknown"):
        run_corruptions(run, tmp_path / "out", corruptions=["hail"])
    with pytest.raises(ValueError, match="the run itself; pass another folder"):
        run_corruptions(run, run)
    assert not (tmp_path / "out").exists()
