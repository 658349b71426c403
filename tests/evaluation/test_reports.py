from pathlib import Path

import numpy as np
import pandas
import pytest
from handmade_runs import explained, write_full_run, write_run

from captum_moxi.evaluation.reports import write_report
from captum_moxi.evaluation.rows import Row


@pytest.fixture
def full(tmp_path: Path) -> Path:
    return write_full_run(tmp_path / "run")


def long_and_short(tmp_path: Path) -> tuple[Path, Path]:
    """Two runs over one image, to the last player and to half of them."""
    long = [explained("a", "MoXI", "insertion", "-xxxx", [0.0, 0.5, 0.5, 0.5, 1.0])]
    short = [explained("a", "MoXI", "insertion", "-xx", [0.0, 0.5, 0.5])]
    return write_run(tmp_path / "long", long), write_run(tmp_path / "short", short)


def test_a_report_has_the_numbers_computed_by_hand(full: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    text = write_report([full], out, fractions=[0.25, 0.75], resamples=50)
    frame = pandas.read_csv(out / "report.csv", dtype=str).set_index("mode")
    assert list(frame["method"]) == ["MoXI"] * 2 and list(frame["images"]) == ["2"] * 2
    inserted, deleted = frame.loc["insertion"], frame.loc["deletion"]
    assert (inserted["accuracy, 25 %"], inserted["accuracy, 75 %"]) == ("0.5", "1.0")
    assert (deleted["accuracy, 25 %"], deleted["accuracy, 75 %"]) == ("1.0", "0.5")
    # Trapezoids with a width of a quarter: insertion has 0.5 for a and 0.25 for b, deletion 0.25 and 1.
    assert (float(inserted["area"]), float(deleted["area"])) == (0.375, 0.625)
    # Two images give no interval.
    assert frame[["area, low", "area, high"]].isna().all(axis=None)
    assert "from 10 images on" in text.replace("\n", " ")
    # Insertion flips a at 1 and b at 3. Deletion flips a at 2 and b not even at 4, so the median is not reached.
    assert (inserted["to flip, median"], deleted["to flip, median"]) == ("2", "> 4")
    assert (inserted["flipped"], deleted["flipped"]) == ("2", "1")
    assert (float(inserted["seconds per image"]), float(inserted["weighted rows per image"])) == (2, 10)
    assert "4 images, 2 explained, 1 misclassified and left out, 1 unreadable" in text
    assert "| insertion | MoXI | 2 | 4 | 0.5 | 1 | 0.375 |" in text
    assert (out / "report.md").read_text().startswith("**run**")
    for figure in ("curves.png", "flips.png"):
        assert (out / figure).read_bytes().startswith(b"\x89PNG")


def test_the_srg_is_the_difference_of_the_areas_of_the_same_order(tmp_path: Path) -> None:
    """Five copies of each image. The number of copies of a in a resample is binomial with n = 10 and p = 1/2.

    Its 95 % interval extends from 2 to 8.
    """
    write_report([write_full_run(tmp_path / "run", copies=5)], tmp_path / "report", resamples=2000)
    frame = pandas.read_csv(tmp_path / "report" / "report.csv").set_index("mode")
    # The SRG is 0.5 - 0.25 for a and 0.25 - 1 for b.
    for name, expected in (("SRG", -0.25), ("SRG, low", -0.55), ("SRG, high", 0.05)):
        assert frame[name].tolist() == pytest.approx([expected] * 2)
    for mode, low, high in (("insertion", 0.3, 0.45), ("deletion", 0.4, 0.85)):
        assert frame.loc[mode, ["area, low", "area, high"]].tolist() == pytest.approx([low, high])


def test_different_truncated_or_single_orders_have_no_srg(tmp_path: Path) -> None:
    insertion = explained("a", "MoXI", "insertion", "-xxxx", [0.0, 0.5, 0.5, 0.5, 1.0])
    deletion = explained("a", "MoXI", "deletion", "xx---", [1.0, 0.5, 0.0, 0.0, 0.0])
    short = [explained("a", "MoXI", mode, "xx", [0.5, 0.5]) for mode in ("insertion", "deletion")]
    runs = {
        "different": [insertion, deletion | {"order": [3, 2, 1, 0]}],
        "images": [insertion, deletion | {"image": "b"}],
        "single": [insertion],
        "short": short,
    }
    for name, rows in runs.items():
        text = write_report([write_run(tmp_path / name, rows)], resamples=20)
        assert "| SRG" not in text, name
        assert pandas.read_csv(tmp_path / name / "report.csv")["SRG"].isna().all()
    assert write_report([write_run(tmp_path / "same", [insertion, deletion])], resamples=20).count("| 0.25 |") == 2


def constant_run(folder: Path, confidences: dict[tuple[str, str], float], *, images: int = 10) -> Path:
    """A run whose confidences do not change along the curves, so that each is the area. They grow with the image."""
    rows = [
        explained(f"{image}", method, mode, "xxxxx", [confidence + 0.01 * image] * 5)
        for image in range(images)
        for (method, mode), confidence in confidences.items()
    ]
    return write_run(folder, rows)


CONSTANT = {
    **{("MoXI", "insertion"): 0.5, ("MoXI", "deletion"): 0.25},
    **{("MoXI(-)", "insertion"): 0.75, ("MoXI(-)", "deletion"): 0.0},
    **{("Grad-CAM", "insertion"): 0.375, ("Grad-CAM", "deletion"): 0.125},
    **{("Random", "insertion"): 0.125, ("Random", "deletion"): 0.5},
}


def test_moxi_is_compared_with_the_best_other_method_of_each_mode(tmp_path: Path) -> None:
    folder = constant_run(tmp_path / "run", CONSTANT)
    text = write_report([folder], resamples=20)
    frame = pandas.read_csv(folder / "paired.csv")
    # The order is the same in both modes here, so MoXI also has an SRG.
    assert list(frame["quantity"]) == ["insertion area", "deletion area", "SRG"]
    assert list(frame["best other"]) == ["Grad-CAM"] * 3 and set(frame["method"]) == {"MoXI"}
    # The differences are the same for each image, so their interval has no width. All 10 have the same sign.
    for name, tolerance in (("difference", 1e-6), ("low", 1e-6), ("high", 1e-6)):
        assert frame[name].tolist() == pytest.approx([0.125, 0.125, 0.0], abs=tolerance)
    assert "| insertion area | MoXI | Grad-CAM | 10 | 0.125 | 0.125 | 0.125 |" in text
    assert (folder / "report.md").read_text() == text + "\n"


def test_each_run_has_its_own_best_other_method(tmp_path: Path) -> None:
    worse = CONSTANT | {("Grad-CAM", "insertion"): 0.0, ("Grad-CAM", "deletion"): 1.0}
    folders = [constant_run(tmp_path / "a", CONSTANT), constant_run(tmp_path / "b", worse)]
    write_report(folders, tmp_path, resamples=20)
    frame = pandas.read_csv(tmp_path / "paired.csv").set_index(["run", "quantity"])
    assert frame.loc[("a", "insertion area"), "best other"] == "Grad-CAM"
    assert frame.loc[("b", "insertion area"), "best other"] == "Random"
    assert frame.loc[("b", "deletion area"), ["difference", "low", "high"]].tolist() == pytest.approx([-0.25] * 3)


def test_few_images_have_no_paired_comparison(tmp_path: Path) -> None:
    folder = constant_run(tmp_path / "run", CONSTANT, images=9)
    assert "needs at least 10 images.\n" in write_report([folder], resamples=20) + "\n"
    assert not (folder / "paired.csv").exists()


def group(image: str, hits: str, left_out: list[int], groups: list[list[int]], *, minimal: bool = True) -> Row:
    row = explained(image, "MoXI", "insertion", hits, [0.5 if hit == "x" else 0.0 for hit in hits])
    return {**row, "minimal": minimal, "left_out": left_out, "groups": groups}


def test_groups_are_columns_of_runs_that_searched_them(tmp_path: Path) -> None:
    rows = [
        group("a", "-x", [2, 3], [[0], [1]]),
        group("b", "---x", [], [[0, 1, 2]]),
        group("c", "-----", [], [], minimal=False),
    ]
    rows += [explained(image, "Random", "insertion", "--x", [0.0] * 3) for image in "abc"]
    write_report([write_run(tmp_path / "run", rows, stop="flip")], resamples=20)
    frame = pandas.read_csv(tmp_path / "run" / "report.csv").set_index("method")
    # Groups of 1 and 3 players and none, 2 and no players left out, and 2, 1 and 0 disjoint groups.
    minimal = frame.loc["MoXI"]
    assert float(minimal["minimal to flip, median"]) == 3
    assert minimal["left out"] == pytest.approx(2 / 3) and minimal["groups"] == 1
    assert frame.loc["Random", ["minimal to flip, median", "left out", "groups"]].isna().all()


def test_patches_that_a_search_left_out_count_to_the_flip(tmp_path: Path) -> None:
    rows = [group("a", "-x", [2, 3], [[0]]), group("b", "-x", [], [[0]])]
    text = write_report([write_run(tmp_path / "run", rows, stop="flip")], resamples=20)
    (record,) = pandas.read_csv(tmp_path / "run" / "report.csv").to_dict("records")
    # Both groups have one player. The search needed three players for a and one for b.
    assert (record["to flip, median"], record["minimal to flip, median"], record["flipped"]) == (2, 1, 2)
    assert "at most N in each image" in text


def test_an_empty_group_is_counted(tmp_path: Path) -> None:
    rows = [group("a", "x", [], [[]]), group("b", "-x", [], [[0], [1]])]
    write_report([write_run(tmp_path / "run", rows, stop="flip")], resamples=20)
    (count,) = pandas.read_csv(tmp_path / "run" / "report.csv")["groups"]
    # One group without players, and two of one player.
    assert count == 1.5


def test_the_report_of_one_run_is_written_to_its_folder(full: Path) -> None:
    write_report([full], resamples=50)
    assert {path.name for path in full.iterdir()} >= {"report.md", "report.csv", "curves.png", "flips.png"}


def test_a_run_that_stopped_at_flips_has_no_curves(tmp_path: Path) -> None:
    rows = [
        explained("a", "MoXI", "insertion", "-x", [0.0, 0.5]),
        explained("b", "MoXI", "insertion", "---x", [0.0, 0.0, 0.0, 0.5]),
    ]
    folder = write_run(tmp_path / "run", rows, stop="flip")
    text = write_report([folder], fractions=[0.25], resamples=50)
    assert not (folder / "curves.png").exists() and (folder / "flips.png").exists()
    assert "| 2 |" in text and "accuracy, 25 %" not in text


def test_areas_are_compared_over_the_fractions_that_all_runs_reached(tmp_path: Path) -> None:
    write_report(long_and_short(tmp_path), tmp_path, fractions=[0.04, 0.25], resamples=50)
    frame = pandas.read_csv(tmp_path / "report.csv")
    # Over half of the players, the mean heights of the trapezoids are 0.25 and 0.5.
    assert frame["area"].tolist() == [0.375, 0.375]
    # Of four players, 4 % is closest to none, which is not shown as an accuracy.
    assert frame["accuracy, 4 %"].isna().all() and frame["accuracy, 25 %"].tolist() == [1, 1]
    # One image gives no interval.
    assert frame["area, low"].isna().all()


def test_accuracies_are_shown_as_far_as_each_run_reached(tmp_path: Path) -> None:
    write_report(long_and_short(tmp_path), tmp_path, fractions=[1], resamples=50)
    frame = pandas.read_csv(tmp_path / "report.csv").set_index("run")
    assert frame.loc["long", "accuracy, 100 %"] == 1 and np.isnan(frame.loc["short", "accuracy, 100 %"])


def test_a_report_of_several_runs_warns_about_their_differences(full: Path, tmp_path: Path) -> None:
    row = explained("z", "MoXI", "insertion", "-xxxx", [0.0, 0.5, 0.5, 0.5, 1.0])
    other = write_run(tmp_path / "other", [row])
    text = write_report([full, other], tmp_path, fractions=[0.25], resamples=50)
    assert list(pandas.read_csv(tmp_path / "report.csv")["run"]) == ["run", "run", "other"]
    assert "The rows have different images." in text
    rows = [explained(image, "MoXI", "insertion", "-xx", [0, 0.5, 1], players=2) for image in "ab"]
    fewer = write_run(tmp_path / "fewer", rows)
    assert "The rows have different numbers of players." in write_report([full, fewer], tmp_path, resamples=50)


def test_runs_need_different_names_and_a_folder_for_their_report(full: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="have the same name"):
        write_report([full, full], tmp_path)
    with pytest.raises(ValueError, match="out is missing"):
        write_report([full, full])


def test_a_report_needs_a_run_with_explained_images(tmp_path: Path) -> None:
    empty = write_run(tmp_path / "run", [{"image": "a", "status": "wrong"}])
    with pytest.raises(ValueError, match="has no explained images"):
        write_report([empty], tmp_path / "report")
    with pytest.raises(ValueError, match="holds no run"):
        write_report([tmp_path], tmp_path / "report")
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("fractions", [[2.0], [-0.1], [float("nan")]])
def test_fractions_lie_between_0_and_1(full: Path, fractions: list[float]) -> None:
    with pytest.raises(ValueError, match="pass numbers from 0 to 1"):
        write_report([full], fractions=fractions)
