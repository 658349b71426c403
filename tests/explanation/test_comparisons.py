import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from captum_moxi import compare
from captum_moxi.arguments import MODES
from captum_moxi.explanation import CompareSettings, ComparisonReport, compare_image
from captum_moxi.methods import METHODS, get_methods, moxi
from captum_moxi.search.screens import GradientScreen, get_screen

SETTINGS = CompareSettings(methods=("moxi", "gradcam"), n_steps=3, screen=GradientScreen(4))


def test_the_results_are_those_of_compare(classifier, image) -> None:
    result = compare_image(classifier, image, settings=SETTINGS)
    expected = compare(
        classifier.model,
        classifier.preprocess(image),
        target=7,
        methods=[moxi(GradientScreen(4)), "gradcam"],
        fractions=torch.arange(4) / 16,
    )
    assert result.target == 7
    ignored = {"seconds": None}
    records, wanted = ([record | ignored for record in c.records()] for c in (result.comparison, expected))
    assert records == wanted


def test_a_random_order_depends_on_the_name_without_the_folder(classifier, image) -> None:
    settings = CompareSettings(methods=("random",), modes=("deletion",), n_steps=16)
    orders = [
        compare_image(classifier, image, name=name, settings=settings).comparison.results[0].order.tolist()
        for name in ("one/a.png", "two/a.png", "one/b.png")
    ]
    assert orders[0] == orders[1] != orders[2]


def test_rows_are_written_as_images_are_added(classifier, image, tmp_path: Path) -> None:
    (tmp_path / "comparison.csv").write_text("of another comparison")
    report = ComparisonReport(tmp_path, SETTINGS, gallery_size=1)
    for count, name in enumerate(("a.png", "b.png"), 1):
        report.add(compare_image(classifier, image, name=name, settings=SETTINGS))
        with (tmp_path / "comparison.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == count * 2 * 2
        assert {row["image"] for row in rows} == {"a.png", "b.png"} - ({"b.png"} if count == 1 else set())
    report.save_figures()
    assert {path.name for path in tmp_path.iterdir()} == {
        *("insertion.png", "deletion.png", "curves.png", "comparison.csv"),
    }


def test_the_summary_names_the_methods_that_use_the_screen(classifier, image, tmp_path: Path) -> None:
    report = ComparisonReport(tmp_path, SETTINGS)
    report.add(compare_image(classifier, image, settings=SETTINGS))
    lines = report.summary().splitlines()
    assert [line.split(" | ")[0] for line in lines[2:6]] == ["| insertion"] * 2 + ["| deletion"] * 2
    assert lines[-1] == (
        f"1 image; curves up to 3 of 16 patches (19%); {METHODS.create('moxi').title} uses GradientScreen(4) for "
        f"deletion; results in {tmp_path}"
    )


def test_the_summary_names_the_screen_of_a_symmetric_search(classifier, image, tmp_path: Path) -> None:
    for screen, expected in (
        ("both-ends", "; MoXI symmetric uses BothEndsScreen() for insertion and deletion"),
        (None, ""),
    ):
        settings = replace(SETTINGS, methods=("moxi-symmetric", "random"), screen=screen)
        report = ComparisonReport(tmp_path, settings)
        report.add(compare_image(classifier, image, settings=settings))
        assert report.summary().endswith(f"curves up to 3 of 16 patches (19%){expected}; results in {tmp_path}")


def test_the_legend_defines_the_columns_of_the_table(classifier, image, tmp_path: Path) -> None:
    report = ComparisonReport(tmp_path, SETTINGS)
    report.add(compare_image(classifier, image, settings=SETTINGS))
    header, *_, legend, _, _ = report.summary().splitlines()
    columns = [title.strip() for title in header.strip("|").split("|")]
    assert columns[2:5] == ["patches (of 16) to flip, median", "images flipped", "area"]
    for term in ("Patches to flip: ", " Area: ", " Rows: ", " Weighted rows: "):
        assert term in f" {legend}" or legend.startswith(term)


def test_galleries_show_the_target_and_the_true_label(
    classifier, image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: dict[str, Figure] = {}
    monkeypatch.setattr(
        "captum_moxi.explanation.comparisons.save_figure", lambda figure, path: figures.update({path.name: figure})
    )
    report = ComparisonReport(tmp_path, SETTINGS)
    for true_label in (12, None):
        report.add(compare_image(classifier, image, true_label=true_label, settings=SETTINGS))
    report.save_figures()
    for mode in ("insertion", "deletion"):
        titles = [ax.get_title().replace("\n", " ") for ax in figures[f"{mode}.png"].axes[::3]]
        assert titles == ["target: class 7 true label: class 12", "target: class 7"]


def test_one_image_is_saved_as_a_figure_a_json_file_and_a_page(classifier, image, tmp_path: Path) -> None:
    pytest.importorskip("bokeh")
    result = compare_image(classifier, image, name="a/digits.png", true_label=12, settings=SETTINGS)
    path = result.save(tmp_path / "new", html=True)
    assert path == tmp_path / "new" / "digits-methods.png"
    with Image.open(path) as figure:
        assert figure.width > 1000
    report = json.loads(path.with_suffix(".json").read_text())
    assert report == result.to_dict() and report["true_label"] == "12"
    assert "digits.png: class 7" in path.with_suffix(".html").read_text()
    assert result.save_page(tmp_path).name == "digits-methods.html"
    for entry, expected in zip(report["results"], result.comparison.results, strict=True):
        assert (entry["method"], entry["mode"]) == (expected.method, expected.mode)
        assert entry["order"] == [player for player in expected.order[0].tolist() if player >= 0]
        assert entry["confidences"] == expected.curve.confidences[0].tolist()


def test_the_figure_and_the_summary_of_one_image_show_both_modes(classifier, image) -> None:
    result = compare_image(classifier, image, true_label=12, settings=SETTINGS)
    figure, summary = result.figure(), result.summary()
    assert [ax.get_title().splitlines()[0] for ax in figure.axes[::3]] == ["insertion", "deletion"]
    assert "how many of the 16 patches are inserted" in figure.get_supxlabel().replace("\n", " ")
    assert summary.startswith("class 7 (confidence ") and "true label: class 12); patches to flip, of 16: " in summary
    for mode in ("insertion", "deletion"):
        for method in result.comparison.methods:
            count = result.comparison.players_to_flip(method, mode)[0]
            assert f"{method} {'> 3' if count.isnan() else int(count)}" in summary


def test_a_page_shows_each_method(classifier, image) -> None:
    pytest.importorskip("bokeh")
    page = compare_image(classifier, image, name="digits.png", settings=SETTINGS).page()
    assert "digits.png: class 7" in page and "Grad-CAM" in page


def test_unknown_names_are_rejected_before_images_are_read(classifier) -> None:
    for settings, message in (
        (CompareSettings(methods=("magic",)), "method 'magic'"),
        (CompareSettings(metrics=("beauty",)), "metric 'beauty'"),
        (CompareSettings(reward="contrast:cat"), "class 'cat'"),
    ):
        with pytest.raises(ValueError, match=message):
            settings.check(classifier)


@pytest.mark.parametrize(
    ("methods", "modes", "screen", "remedy"),
    [
        (("gradcam",), MODES, "gradient:8", "add moxi, or pass another screen, or screen='all'"),
        (("moxi-minus", "random"), MODES, "last-gains:4", "add moxi, or pass another screen, or screen='all'"),
        (("moxi",), MODES, "both-ends", "add moxi-symmetric, or pass another screen, or screen='all'"),
        (None, ("insertion",), "gradient:8", "pass modes='deletion', another screen, or screen='all'"),
        (("moxi-symmetric",), ("insertion",), "gradient:8", "add moxi and pass modes='deletion', or pass another"),
    ],
)
def test_a_screen_that_no_method_uses_is_rejected(classifier, methods, modes, screen: str, remedy: str) -> None:
    settings = CompareSettings(methods=methods, modes=modes, screen=screen)
    titles = ", ".join(method.title for method in get_methods(methods))
    message = f"screen is {get_screen(screen)!r}, which none of the methods ({titles}) uses in {' and '.join(modes)}; "
    with pytest.raises(ValueError, match=re.escape(message + remedy)):
        settings.check(classifier)
    replace(settings, screen="all").check(classifier)


@pytest.mark.parametrize(
    ("methods", "screen"),
    [
        (("gradcam", "moxi"), "gradient:8"),
        (("moxi-symmetric", "moxi"), "both-ends"),
        (("moxi-symmetric",), "last-gains:4"),
        (None, "last-gains:4"),
    ],
)
def test_a_screen_that_one_method_uses_is_accepted(classifier, methods, screen: str) -> None:
    CompareSettings(methods=methods, screen=screen).check(classifier)


def test_orders_are_replayed_under_other_removals(classifier, image, tmp_path: Path) -> None:
    pytest.importorskip("bokeh")
    settings = replace(SETTINGS, n_steps=16, replay_removals=("token", "zero"))
    settings.check(classifier)
    result = compare_image(classifier, image, name="digits.png", settings=settings)
    records = list(result.comparison.replay_records())
    assert result.to_dict()["replays"] == records and len(records) == 6
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["replays"] == records
    page = result.page()
    assert "Each order under each removal" in page and "MoXI, insertion order" in page
    report = ComparisonReport(tmp_path, settings)
    for _ in range(2):
        report.add(result)
    report.save_figures()
    assert (tmp_path / "replays.png").read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "replays.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["SRG"]) for row in rows] == pytest.approx([record["SRG"] for record in records])
    assert {row["images"] for row in rows} == {"2"}
    assert "| removal | order |" in report.summary() and "**SRG**" in report.summary()


def test_removals_of_inputs_of_any_size_are_checked_with_each_image(classifier, image) -> None:
    """Of the 4 x 4 players, each is a token of the model in images of 56 x 56 pixels, but not in the blank images."""
    classifier.processor.do_resize = False
    settings = replace(SETTINGS, grid=4, removal="zero", replay_removals=("token", "zero"))
    settings.check(classifier)
    result = compare_image(classifier, image.resize((56, 56)), settings=settings)
    assert {record["removal"] for record in result.comparison.replay_records()} == {"token", "zero"}
    with pytest.raises(ValueError, match="replay_removals='token' does not fit the model"):
        compare_image(classifier, image.resize((56, 56)), settings=replace(settings, grid=3))


def test_removals_that_do_not_fit_are_rejected_before_images_are_read(classifier) -> None:
    for removals, message in ((("hail",), "'hail' is unknown"), (("blur", "blur"), "different names")):
        with pytest.raises(ValueError, match=message):
            CompareSettings(replay_removals=removals).check(classifier)
    # Patches of the grid would cut through tokens.
    with pytest.raises(ValueError, match="replay_removals='token' does not fit the model"):
        CompareSettings(replay_removals=("token",), grid=3, removal="zero").check(classifier)
