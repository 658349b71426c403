from dataclasses import replace
from pathlib import Path

import pytest
import torch
from handmade_runs import explained, write_run
from pictures import TOTAL

from captum_moxi import compare, patch_mask
from captum_moxi.arguments import MODES
from captum_moxi.demo import FOLDER
from captum_moxi.evaluation import store
from captum_moxi.evaluation.evaluator import Evaluator
from captum_moxi.evaluation.galleries import draw_galleries, read_comparison
from captum_moxi.evaluation.settings import Settings


@pytest.fixture
def run(settings: Settings, tmp_path: Path) -> tuple[Path, Evaluator]:
    settings = replace(settings, methods=["moxi", "moxi-minus"], screen="all", stop=None)
    evaluator = Evaluator.load(settings, device="cpu")
    store.open_run(tmp_path / "run", settings.to_dict())
    store.write_part(tmp_path / "run", evaluator.rows(range(6)))
    return tmp_path / "run", evaluator


def test_a_run_is_read_as_the_result_of_compare(run: tuple[Path, Evaluator]) -> None:
    folder, evaluator = run
    names, comparison = read_comparison(folder, limit=3)
    x = evaluator.classifier.preprocess([evaluator.images.open(evaluator.images.index_of(name)) for name in names])
    expected = compare(
        evaluator.classifier.model,
        x,
        target=comparison.targets,
        methods=["moxi", "moxi-minus"],
        feature_mask=patch_mask(56, grid=2),
    )
    assert comparison.methods == expected.methods
    for method in expected.methods:
        for mode in MODES:
            read, computed = comparison.of(method, mode), expected.of(method, mode)
            assert torch.equal(read.order, computed.order)
            assert torch.equal(read.curve.correct, computed.curve.correct)
            torch.testing.assert_close(
                read.curve.confidences.float(), computed.curve.confidences.float(), rtol=0, atol=1e-4
            )
            torch.testing.assert_close(
                comparison.players_to_flip(method, mode), expected.players_to_flip(method, mode), equal_nan=True
            )


def test_a_gallery_has_a_row_for_each_image_and_a_column_for_each_method(run: tuple[Path, Evaluator]) -> None:
    folder, _ = run
    figures = draw_galleries(folder, count=2, device="cpu")
    assert set(figures) == set(MODES)
    for figure in figures.values():
        assert [ax.get_title() for ax in figure.axes[1:3]] == ["MoXI", "MoXI(-)"]
        assert len(figure.axes) == 2 * 3


def test_the_title_of_an_image_is_its_target_and_its_label(settings: Settings, tmp_path: Path) -> None:
    # The model's names, a label that is no class, and no labels.
    for pattern, truth in (("(.)-", "class {}"), (r"(.\D)", "{}-"), (None, None)):
        run = replace(settings, data=str(FOLDER / "images"), label_pattern=pattern, keep="all", methods=["random"])
        evaluator = Evaluator.load(run, device="cpu")
        folder = tmp_path / str(truth)
        store.open_run(folder, run.to_dict())
        store.write_part(folder, evaluator.rows(range(2)))
        figure = draw_galleries(folder, count=2, device="cpu")["deletion"]
        for name, ax in zip(evaluator.images.names, figure.axes[::2], strict=False):
            image = evaluator.classifier.preprocess(evaluator.images.open(evaluator.images.index_of(name)))
            target = int(evaluator.classifier.model(image).logits.argmax())
            expected = [f"target: class {target}", *([] if truth is None else [f"true label: {truth.format(name[0])}"])]
            assert ax.get_title().replace("\n", " ") == " ".join(expected)


def test_orders_of_a_run_that_stopped_at_flips_end_in_padding(settings: Settings, tmp_path: Path) -> None:
    evaluator = Evaluator.load(settings, device="cpu")
    store.open_run(tmp_path / "run", settings.to_dict())
    store.write_part(tmp_path / "run", evaluator.rows(range(TOTAL)))
    _, comparison = read_comparison(tmp_path / "run")
    rows = [row for row in store.read_rows(tmp_path / "run").to_pylist() if row["mode"] == "insertion"]
    assert comparison.players_to_flip("MoXI", "insertion").tolist() == [row["n_steps"] for row in rows]
    order = comparison.of("MoXI", "insertion").order
    assert (order >= 0).sum(1).tolist() == [row["n_steps"] for row in rows]


def test_a_gallery_needs_explained_images_with_one_number_of_players(settings: Settings, tmp_path: Path) -> None:
    store.open_run(tmp_path / "empty", settings.to_dict())
    with pytest.raises(ValueError, match="has no explained images"):
        draw_galleries(tmp_path / "empty", count=2, device="cpu")
    rows = [
        explained("a", "MoXI", "insertion", "-xx", [0.0, 0.5, 1.0], players=2),
        explained("b", "MoXI", "insertion", "-xxxx", [0.0, 0.5, 0.5, 0.5, 1.0]),
    ]
    with pytest.raises(ValueError, match="has images of 2 to 4 players"):
        read_comparison(write_run(tmp_path / "mixed", rows))
