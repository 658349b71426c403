from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from captum_moxi import compare, patch_mask
from captum_moxi.evaluation import store
from captum_moxi.evaluation.engines import run_local
from captum_moxi.evaluation.galleries import galleries, read_comparison
from captum_moxi.evaluation.runs import Evaluator, Settings


@pytest.fixture
def run(settings: Settings, tmp_path: Path) -> tuple[Path, Evaluator]:
    of = replace(settings, methods=["moxi", "moxi-minus"], candidates="all", stop=None)
    evaluator = Evaluator(of, "cpu")
    store.open_run(tmp_path / "run", asdict(of))
    run_of = run_local(evaluator, tmp_path / "run", [[0, 1, 2], [3, 4, 5]])
    assert sum(run_of) == 6
    return tmp_path / "run", evaluator


def test_a_run_read_is_what_compare_finds(run: tuple[Path, Evaluator]) -> None:
    folder, evaluator = run
    names, found = read_comparison(folder, 3)
    places = [list(evaluator.images.names).index(name) for name in names]
    x = evaluator.classifier.preprocess([evaluator.images.open(place) for place in places])
    wanted = compare(
        evaluator.classifier.model,
        x,
        target=found.targets,
        methods=["moxi", "moxi-minus"],
        feature_mask=patch_mask(56, grid=2),
    )
    assert found.methods == wanted.methods
    for method in wanted.methods:
        for mode in ("insertion", "deletion"):
            one, other = found.of(method, mode), wanted.of(method, mode)
            assert torch.equal(one.order, other.order)
            torch.testing.assert_close(one.curve.confidences.float(), other.curve.confidences, rtol=0, atol=1e-4)
            assert torch.equal(one.curve.correct, other.curve.correct)
            torch.testing.assert_close(
                found.players_to_flip(method, mode), wanted.players_to_flip(method, mode), equal_nan=True
            )


def test_a_gallery_has_a_row_an_image_and_a_column_a_method(run: tuple[Path, Evaluator]) -> None:
    folder, _ = run
    drawn = galleries(folder, 2, "cpu")
    assert set(drawn) == {"insertion", "deletion"}
    for figure in drawn.values():
        assert [panel.get_title() for panel in figure.axes[:3]] == ["image", "MoXI", "MoXI(-)"]
        assert len(figure.axes) == 2 * 3


def test_a_run_to_the_flip_ends_in_nothing(settings: Settings, tmp_path: Path) -> None:
    evaluator = Evaluator(settings, "cpu")
    store.open_run(tmp_path / "run", asdict(settings))
    assert sum(run_local(evaluator, tmp_path / "run", [list(range(len(evaluator.images)))])) == 14
    _, found = read_comparison(tmp_path / "run")
    rows = [row for row in store.read_rows(tmp_path / "run").to_pylist() if row["mode"] == "insertion"]
    assert found.players_to_flip("MoXI", "insertion").tolist() == [row["n_steps"] for row in rows]
    assert (found.of("MoXI", "insertion").order >= 0).sum(1).tolist() == [row["n_steps"] for row in rows]


def test_a_run_of_nothing_has_no_gallery(settings: Settings, tmp_path: Path) -> None:
    store.open_run(tmp_path / "run", asdict(settings))
    with pytest.raises(ValueError, match="holds no image that was explained"):
        galleries(tmp_path / "run", 2, "cpu")
