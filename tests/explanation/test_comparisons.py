import csv
from pathlib import Path

import pytest
import torch

from captum_moxi import compare
from captum_moxi.explanation import CompareSettings, ComparisonReport, compare_image
from captum_moxi.methods import METHODS, moxi
from captum_moxi.search.screens import GradientScreen

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
        f"1 images of 16 patches; curves up to 3 patches; {METHODS.create('moxi').title} uses "
        f"GradientScreen(4) for deletion; results in {tmp_path}"
    )


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
