from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from games import TableGame, random_game
from torch import Tensor

from captum_moxi import LastGainsScreen, Selection
from captum_moxi.search import greedy


def check_equal(first: Selection, second: Selection) -> None:
    for field in fields(Selection):
        value, other = getattr(first, field.name), getattr(second, field.name)
        if isinstance(value, Tensor):
            torch.testing.assert_close(value, other, check_dtype=False, equal_nan=True)
        else:
            assert value == other


def test_a_selection_is_frozen() -> None:
    selection = greedy(random_game(batch=1, n=3), "insertion")
    with pytest.raises(AttributeError):
        selection.order = None


@pytest.mark.parametrize(
    "options", [{"stop": "flip"}, {"screen": LastGainsScreen(2)}, {"stop": "flip", "flip": "deletion"}]
)
def test_a_selection_survives_saving_and_loading(options: dict[str, Any], tmp_path: Path) -> None:
    selection = greedy(random_game(batch=4, n=4), "insertion", **options)
    selection.save(tmp_path / "selection.json")
    check_equal(Selection.load(tmp_path / "selection.json"), selection)


def test_a_selection_without_steps_survives_json() -> None:
    game = TableGame(torch.tensor([[[1.0, 0.0]] * 4]))
    selection = greedy(game, "insertion", stop="flip")
    assert selection.order.shape == (1, 0)
    assert selection.flipped.tolist() == [True]
    check_equal(Selection.from_dict(selection.to_dict()), selection)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rewards": [[0.0], [0.0]]}, r"rewards has shape \(2, 1\) instead of \(2, 4\)"),
        ({"shapley": [[0.0] * 2] * 3}, r"shapley has shape \(3, 2\) instead of \(2, 3\)"),
        ({"n_steps": [[3, 3]]}, r"n_steps has shape \(1, 2\) instead of \(2,\)"),
        ({"mode": "symmetric"}, "mode is 'symmetric'; pass 'insertion' or 'deletion'"),
        ({"flip": "both"}, "flip is 'both'"),
    ],
)
def test_values_and_shapes_that_are_not_those_of_a_selection_are_rejected(
    changes: dict[str, Any], message: str
) -> None:
    values = greedy(random_game(batch=2, n=3), "insertion").to_dict()
    with pytest.raises(ValueError, match=message):
        Selection.from_dict(values | changes)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "values is a list; pass the dict of a selection"),
        ({}, "values is not a selection, because it lacks confidences, flipped, interactions, mode"),
        ({"mode": "insertion"}, "values is not a selection, because it lacks confidences"),
    ],
)
def test_what_is_not_the_dict_of_a_selection_is_rejected(values: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Selection.from_dict(values)


@pytest.mark.parametrize(("mode", "expected"), [("insertion", [1.0, -0.5]), ("deletion", [-1.0, 0.5])])
def test_gains_are_rises_in_insertion_and_falls_in_deletion(mode: str, expected: list[float]) -> None:
    values = greedy(random_game(batch=1, n=2), "insertion").to_dict()
    selection = Selection.from_dict(values | {"mode": mode, "rewards": [[0.0, 1.0, 0.5]]})
    assert selection.gains.tolist() == [expected]
