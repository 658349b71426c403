import json
import math
import tempfile
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from games import TableGame, random_game
from hypothesis import strategies as st
from sizes import for_all
from torch import Tensor

from captum_moxi import LastGainsScreen, Selection
from captum_moxi.search import follow, greedy, has_flipped, rank_independently


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
        ({"n_steps": [3, 3, 3]}, r"n_steps has shape \(3,\) instead of \(2,\)"),
        ({"n_steps": [[3, 3]]}, r"n_steps contains \[3, 3\], which is not torch.int64"),
        ({"n_steps": [3, 4]}, "n_steps is outside 0 to 3"),
        ({"n_steps": [3, 2]}, "order does not have one player for each step of n_steps"),
        ({"order": [[0, 1, 2], [0, 1, 1.5]]}, "order contains 1.5, which is not torch.int64"),
        ({"order": [[0, 1, 2], [0, 1]]}, "order has rows of different lengths"),
        ({"order": [[0, 1, 2], [0, 1, 2**70]]}, "order contains a number that is too large"),
        ({"order": [[0, 1, 2], [0, 1, 0]]}, "order and left_out contain a player more than once"),
        ({"left_out": [[5], [2]]}, "order and left_out contain a player more than once"),
        ({"left_out": [[5, -1], [4, 4]]}, "order and left_out contain a player more than once"),
        ({"n_evaluated": [[3, 2, 1], [3, -2, 1]]}, "n_evaluated contains a number below 0"),
        ({"confidences": [[0.1] * 4, [0.1, None, 1.5, 0.2]]}, "confidences contains a number outside 0 to 1"),
        ({"confidences": [[0.1] * 4, [0.1, -0.5, 1.0, 0.2]]}, "confidences contains a number outside 0 to 1"),
        ({"rewards": [[0.0] * 4, [10**400] * 4]}, "rewards contains a number that is too large"),
        ({"rewards": 3}, "rewards is not a list of lists"),
        ({"flipped": "yes"}, "flipped is not a list of values"),
        ({"flipped": [1, 0]}, "flipped contains 1, which is not torch.bool"),
        ({"mode": "both"}, "mode is 'both'; pass 'insertion' or 'deletion' or 'symmetric'"),
        ({"mode": "symmetric"}, "mode is 'symmetric', but rewards_without is not a list of lists"),
        ({"rewards_without": [[0.0] * 4] * 2}, "mode is 'insertion', but rewards_without is not null"),
        ({"flip": "symmetric"}, "flip is 'symmetric'; pass 'insertion' or 'deletion'"),
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


# Numbers and nesting that JSON allows and tensors do not.
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 5),
    st.sampled_from([10**30, -(2**63) - 1, 2**63, 10**400]),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["insertion", "deletion"]),
)
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner))
NAMES = [field.name for field in fields(Selection)]


SAVED = json.dumps(greedy(random_game(batch=2, n=3), "insertion", stop="flip").to_dict())


def check_from_dict(values: object) -> None:
    """A selection that from_dict accepts can be shown and saved; anything else is a ValueError."""
    try:
        selection = Selection.from_dict(values)
    except ValueError:
        return
    assert repr(selection) and selection._repr_html_()
    assert selection.gains.shape == selection.order.shape
    check_equal(Selection.from_dict(json.loads(json.dumps(selection.to_dict()))), selection)


@for_all(st.dictionaries(st.sampled_from(NAMES), JSON), quick=100, large=2_000)
def test_any_change_of_a_saved_selection_is_a_selection_or_a_value_error(changes: dict[str, Any]) -> None:
    check_from_dict(json.loads(SAVED) | changes)


@for_all(st.tuples(st.sampled_from(NAMES), st.data()), quick=100, large=2_000)
def test_any_change_of_one_number_is_a_selection_or_a_value_error(drawn: tuple[str, Any]) -> None:
    name, data = drawn
    values = json.loads(SAVED)
    rows = values[name]
    if isinstance(rows, list):
        row = data.draw(st.integers(0, len(rows) - 1))
        if isinstance(rows[row], list) and rows[row]:
            rows[row][data.draw(st.integers(0, len(rows[row]) - 1))] = data.draw(LEAVES)
        else:
            rows[row] = data.draw(LEAVES)
    check_from_dict(values)


@for_all(JSON, quick=100, large=2_000)
def test_any_json_is_a_selection_or_a_value_error(values: object) -> None:
    check_from_dict(values)


@for_all(st.binary(max_size=40), quick=100, large=2_000)
def test_any_bytes_are_a_selection_or_a_value_error(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "selection.json"
        path.write_bytes(content)
        with pytest.raises(ValueError):
            Selection.load(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "selection.json', which is not JSON"),
        (b'{"mode": "\xff"}', "which is not JSON .*utf-8"),
        (b"\xff\xfe\x00", "which is not JSON"),
        (b"[" * 100_000, "which is not JSON"),
        (b'{"mode": ' + b"[" * 500 + b"]" * 500 + b"}", "values is not a selection, because it lacks"),
        (b"1" * 10_000, "which is not JSON"),
        (b"NaN", "values is a float; pass the dict of a selection"),
        (b"null", "values is a NoneType"),
    ],
)
def test_a_file_without_a_selection_is_rejected(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "selection.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        Selection.load(path)


@pytest.mark.parametrize("name", NAMES)
def test_deep_nesting_in_a_field_is_rejected(name: str) -> None:
    deep: list[Any] = []
    for _ in range(900):
        deep = [deep]
    values = greedy(random_game(batch=1, n=3), "insertion").to_dict()
    with pytest.raises(ValueError, match=name):
        Selection.from_dict(values | {name: deep})


def test_a_file_that_cannot_be_read_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Selection.load(tmp_path / "missing.json")
    with pytest.raises(OSError):
        Selection.load(tmp_path)


@pytest.mark.parametrize(
    ("min_confidence", "error"),
    [(math.nan, ValueError), (math.inf, ValueError), (-0.1, ValueError), (1, ValueError), ("0", TypeError)],
)
def test_every_search_checks_the_confidence_before_it_starts(min_confidence: Any, error: type[Exception]) -> None:
    game = random_game(batch=1, n=3)
    order = torch.tensor([[0, 1, 2]])
    for search in (
        lambda **options: greedy(game, "insertion", **options),
        lambda **options: follow(game, "insertion", order, **options),
        lambda **options: rank_independently(game, "insertion", **options),
    ):
        with pytest.raises(error, match=r"min_confidence is .*; pass a number of at least 0 and less than 1"):
            search(stop="flip", min_confidence=min_confidence)
    assert game.rows == 0
    with pytest.raises(error, match="min_confidence is"):
        has_flipped("insertion", order, torch.rand(1, 3), target=0, min_confidence=min_confidence)


def test_minimal_and_removed_survive_json() -> None:
    selection = greedy(random_game(batch=2, n=3), "insertion", stop="flip")
    selection = replace(selection, minimal=torch.tensor([True, False]), left_out=torch.tensor([[4, 7], [3, -1]]))
    check_equal(Selection.from_dict(json.loads(json.dumps(selection.to_dict()))), selection)


def test_selections_saved_without_minimal_and_removed_are_not_minimal() -> None:
    values = greedy(random_game(batch=2, n=3), "insertion").to_dict()
    del values["minimal"], values["left_out"]
    selection = Selection.from_dict(values)
    assert selection.minimal.tolist() == [False, False]
    assert selection.left_out.shape == (2, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"minimal": [True]}, r"minimal has shape \(1,\) instead of \(2,\)"),
        ({"minimal": [1, 0]}, "minimal contains 1, which is not torch.bool"),
        ({"left_out": [[1]]}, "left_out has shape"),
        ({"left_out": [[1, 2], [-1, 2]]}, "left_out does not have players, and then -1"),
        ({"left_out": [[1, 2], [-2, -1]]}, "left_out does not have players, and then -1"),
        ({"left_out": [[1], [2, 3]]}, "left_out has rows of different lengths"),
    ],
)
def test_invalid_values_of_minimal_and_removed_are_rejected(changes: dict[str, Any], message: str) -> None:
    values = greedy(random_game(batch=2, n=3), "insertion").to_dict()
    with pytest.raises(ValueError, match=message):
        Selection.from_dict(values | changes)


def test_a_minimal_selection_says_so() -> None:
    selection = greedy(random_game(batch=1, n=3), "insertion")
    assert "minimal" not in repr(selection)
    minimal = replace(selection, minimal=torch.tensor([True]))
    assert repr(minimal).endswith("minimal)")
    assert repr(replace(minimal, left_out=torch.tensor([[4, 5]]))).endswith("minimal (2 left out))")
