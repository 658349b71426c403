from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

from captum_moxi.evaluation import reports, store
from captum_moxi.evaluation.reports import band, line_styles, plot_flips, plot_series, read_series, write_report

SETTINGS = {"model": "a model", "data": "photographs", "stop": None, "n_steps": None}


def row(image: str, method: str, mode: str, hits: str, confidences: list[float], seconds: float = 1) -> dict[str, Any]:
    """An image of so many players less one: 'x' where its target, class 1, is predicted."""
    return {
        "image": image,
        "status": store.EXPLAINED,
        "method": method,
        "mode": mode,
        "target": 1,
        "players": 4,
        "order": list(range(len(hits) - 1)),
        "rewards": confidences,
        "confidences": confidences,
        "predictions": [1 if hit == "x" else 0 for hit in hits],
        "seconds": seconds,
        "forwards": 10.0,
        "versions": '{"captum-moxi": "0"}',
    }


def run(folder: Path, rows: list[dict[str, Any]], **settings: Any) -> Path:
    store.open_run(folder, SETTINGS | settings)
    for image in dict.fromkeys(one["image"] for one in rows):
        store.write_part(folder, [one for one in rows if one["image"] == image])
    return folder


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    rows = [
        row("a", "MoXI", "insertion", "-xxxx", [0.0, 0.5, 0.5, 0.5, 1.0], seconds=1),
        row("a", "MoXI", "deletion", "xx---", [1.0, 0.5, 0.0, 0.0, 0.0]),
        row("b", "MoXI", "insertion", "---xx", [0.0, 0.0, 0.0, 0.5, 1.0], seconds=3),
        row("b", "MoXI", "deletion", "xxxxx", [1.0, 1.0, 1.0, 1.0, 1.0]),
    ]
    rows += [
        {"image": "c", "status": store.WRONG, "versions": '{"captum-moxi": "0"}'},
        {"image": "d", "status": store.UNREADABLE, "error": "torn", "versions": '{"captum-moxi": "0"}'},
    ]
    return run(tmp_path / "run", rows)


def test_a_report_has_what_a_hand_works_out(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    out.mkdir()
    text = write_report([whole], out, [0.25, 0.75], 50)
    frame = pandas.read_csv(out / "report.csv", dtype=str).set_index("mode")
    assert list(frame["method"]) == ["MoXI"] * 2 and list(frame["images"]) == ["2"] * 2
    inserted, deleted = frame.loc["insertion"], frame.loc["deletion"]
    assert (inserted["accuracy, 25 %"], inserted["accuracy, 75 %"]) == ("0.5", "1.0")
    assert (deleted["accuracy, 25 %"], deleted["accuracy, 75 %"]) == ("1.0", "0.5")
    # trapezoids of a quarter each: a has 0.5, b 0.25 in insertion, 0.25 and 1 in deletion
    assert (float(inserted["area"]), float(deleted["area"])) == (0.375, 0.625)
    assert 0.25 <= float(inserted["area, low"]) <= 0.375 <= float(inserted["area, high"]) <= 0.5
    # a flips with 1 and b with 3; without 2, and not without 4, so that the middle is more than 3
    assert (inserted["to flip, median"], deleted["to flip, median"]) == ("2", "> 3")
    assert (inserted["flipped"], deleted["flipped"]) == ("2", "1")
    assert float(inserted["seconds an image"]) == 2
    assert "4 images, 2 explained, 1 wrong, 1 unreadable" in text
    assert (out / "report.md").read_text().startswith("**run**")
    for picture in ("curves.png", "flips.png"):
        assert (out / picture).read_bytes().startswith(b"\x89PNG")


def test_a_run_to_the_flip_has_no_curves(tmp_path: Path) -> None:
    rows = [
        row("a", "MoXI", "insertion", "-x", [0.0, 0.5]),
        row("b", "MoXI", "insertion", "---x", [0.0, 0.0, 0.0, 0.5]),
    ]
    folder = run(tmp_path / "run", rows, stop="flip")
    text = write_report([folder], folder, [0.25], 50)
    assert not (folder / "curves.png").exists() and (folder / "flips.png").exists()
    (one,) = read_series(folder)
    assert one.flips.tolist() == [1, 3] and "| 2 |" in text


def test_images_of_unlike_size_meet_at_fractions_of_their_players(tmp_path: Path) -> None:
    rows = [
        row("a", "MoXI", "insertion", "-xxxx", [0.0, 0.1, 0.2, 0.3, 0.4]),
        row("b", "MoXI", "insertion", "-xx", [0.0, 0.6, 0.8]) | {"players": 2},
    ]
    (one,) = read_series(run(tmp_path / "run", rows))
    assert one.fractions.tolist() == [0, 0.25, 0.5, 0.75, 1]
    # of two players the nearest to a quarter is one, to a half one, to three quarters two
    assert one.confidences[1].tolist() == [0, 0.6, 0.6, 0.8, 0.8]


def test_areas_are_over_the_fractions_that_all_have_and_no_player_is_no_share(tmp_path: Path) -> None:
    long = run(tmp_path / "long", [row("a", "MoXI", "insertion", "-xxxx", [0.0, 0.5, 0.5, 0.5, 1.0])])
    short = run(tmp_path / "short", [row("a", "MoXI", "insertion", "-xx", [0.0, 0.5, 0.5])])
    write_report([long, short], tmp_path, [0.04, 0.25], 50)
    frame = pandas.read_csv(tmp_path / "report.csv")
    # a quarter of a half in the mean, and a quarter of a half, over half of the players
    assert frame["area"].tolist() == [0.375, 0.375]
    assert frame["accuracy, 4 %"].isna().all() and frame["accuracy, 25 %"].tolist() == [1, 1]
    # one image says nothing of the others
    assert frame["area, low"].isna().all()


def test_accuracies_go_as_far_as_their_run(tmp_path: Path) -> None:
    long = run(tmp_path / "long", [row("a", "MoXI", "insertion", "-xxxx", [0.0, 0.5, 0.5, 0.5, 1.0])])
    short = run(tmp_path / "short", [row("a", "MoXI", "insertion", "-xx", [0.0, 0.5, 0.5])])
    write_report([long, short], tmp_path, [1], 50)
    frame = pandas.read_csv(tmp_path / "report.csv").set_index("run")
    assert frame.loc["long", "accuracy, 100 %"] == 1 and np.isnan(frame.loc["short", "accuracy, 100 %"])


def test_a_line_is_the_same_in_every_panel(whole: Path, tmp_path: Path) -> None:
    rows = [
        row("a", name, "deletion", "xx---", [1.0, 0.5, 0.0, 0.0, 0.0]) | {"players": 4} for name in ("Random", "MoXI")
    ]
    every = [*read_series(whole), *read_series(run(tmp_path / "other", rows))]
    lines = line_styles(every)
    for figure in (plot_series(every, lines, 50), plot_flips(every, lines, 50)):
        labels = [text.get_text() for text in figure.legends[0].get_texts()]
        assert labels == ["MoXI, run", "Random, other", "MoXI, other"]
        looks = [(line.get_color(), line.get_linestyle()) for line in figure.legends[0].get_lines()]
        # a colour a method, a dash a run
        assert looks[0][0] == looks[2][0] != looks[1][0] and looks[0][1] != looks[1][1] == looks[2][1]
        inserted, deleted = (
            [(line.get_color(), line.get_linestyle()) for line in panel.get_lines()] for panel in figure.axes[:2]
        )
        assert inserted == looks[:1] and deleted == looks


def test_lines_of_many_methods_and_runs_all_differ(whole: Path) -> None:
    one, *_ = read_series(whole)
    every = [replace(one, run=run, method=method) for run in "ab" for method in map(str, range(14))]
    for series in (every, every[:14]):
        lines = line_styles(series).values()
        looks = {tuple(value for name, value in line.items() if name != "label") for line in lines}
        assert len(looks) == len(series)


def test_runs_stand_side_by_side(whole: Path, tmp_path: Path) -> None:
    other = run(tmp_path / "other", [row("z", "MoXI", "insertion", "-xxxx", [0.0, 0.5, 0.5, 0.5, 1.0])])
    text = write_report([whole, other], tmp_path, [0.25], 50)
    frame = pandas.read_csv(tmp_path / "report.csv")
    assert list(frame["run"]) == ["run", "run", "other"]
    assert "not all of the same images." in text
    fewer = run(
        tmp_path / "fewer", [row(name, "MoXI", "insertion", "-xx", [0, 0.5, 1]) | {"players": 2} for name in "ab"]
    )
    assert "not all of the same players." in write_report([whole, fewer], tmp_path, [0.25], 50)
    with pytest.raises(ValueError, match="share a name"):
        write_report([whole, whole], tmp_path, [0.25], 50)


def test_a_run_of_nothing_is_told(tmp_path: Path) -> None:
    empty = run(tmp_path / "run", [{"image": "a", "status": store.WRONG}])
    with pytest.raises(ValueError, match="holds no image that was explained"):
        write_report([empty], tmp_path, [0.25], 50)


def test_the_band_holds_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for seed in range(200):
        low, high = band(rng.normal(3, 2, (60, 1)), 400, seed)
        held += int(low[0] <= 3 <= high[0])
    # a binomial of 200 and 0.95 lies there but for one time in ten thousand
    assert 175 <= held <= 200
    low, high = band(np.full((5, 2), 0.25), 100)
    assert low.tolist() == pytest.approx([0.25, 0.25]) and high.tolist() == pytest.approx([0.25, 0.25])


def test_the_band_is_the_same_however_many_are_drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=(7, 3))
    whole = band(values, 50)
    monkeypatch.setattr(reports, "DRAWN_AT_ONCE", 30)
    np.testing.assert_allclose(band(values, 50), whole)
