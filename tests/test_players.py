from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from captum_moxi import patch_mask
from captum_moxi.players import players_from_mask, scalar_mask, scores_to_inputs, scores_to_players


def test_patch_mask_numbers_patches_in_reading_order() -> None:
    expected = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]])
    assert torch.equal(patch_mask(4, 2), expected[None, None])


def test_the_last_patches_are_smaller_if_the_size_does_not_divide_the_image() -> None:
    mask = patch_mask((3, 5), (2, 2))
    assert mask[0, 0].tolist() == [[0, 0, 1, 1, 2], [0, 0, 1, 1, 2], [3, 3, 4, 4, 5]]


def test_patches_have_16_pixels_by_default() -> None:
    assert torch.equal(patch_mask(64), patch_mask(64, 16))


@pytest.mark.parametrize(("size", "grid", "n_players"), [(224, 7, 49), ((240, 321), (3, 4), 12), (5, 5, 25)])
def test_patch_mask_by_grid(size: int | Sequence[int], grid: int | Sequence[int], n_players: int) -> None:
    mask = patch_mask(size, grid=grid)
    assert mask.unique().tolist() == list(range(n_players))


@pytest.mark.parametrize(
    ("kwargs", "error", "argument"),
    [
        ({"image_size": 0}, ValueError, "image_size"),
        ({"image_size": 8, "patch_size": (2, 2, 2)}, TypeError, "patch_size"),
        ({"image_size": 8.0}, TypeError, "image_size"),
        ({"image_size": 8, "patch_size": 2, "grid": 4}, ValueError, "grid"),
        ({"image_size": 8, "grid": 9}, ValueError, "grid"),
        ({"image_size": True}, TypeError, "image_size"),
        ({"image_size": float("nan")}, TypeError, "image_size"),
        ({"image_size": "88"}, TypeError, "image_size"),
        ({"image_size": (8, None)}, TypeError, "image_size"),
        ({"image_size": 10**30}, ValueError, "image_size"),
        ({"image_size": 8, "patch_size": [1]}, TypeError, "patch_size"),
        ({"image_size": 8, "patch_size": (2, -2)}, ValueError, "patch_size"),
        ({"image_size": 8, "grid": 10**30}, ValueError, "grid"),
    ],
)
def test_patch_mask_rejects_bad_arguments_by_name(
    kwargs: dict[str, Any], error: type[Exception], argument: str
) -> None:
    with pytest.raises(error, match=argument):
        patch_mask(**kwargs)


def test_scalars_are_numbered_across_all_tensors() -> None:
    masks = scalar_mask((torch.zeros(2, 3), torch.zeros(2, 2, 2)))
    assert masks[0].tolist() == [[0, 1, 2]]
    assert masks[1].tolist() == [[[3, 4], [5, 6]]]


def test_ids_may_have_gaps_and_a_player_may_span_tensors() -> None:
    players = players_from_mask(
        (torch.tensor([[7, 0, 7]]), torch.tensor([[9], [0]])), (torch.zeros(2, 3), torch.zeros(2, 1))
    )
    assert players.ids.tolist() == [0, 7, 9]
    assert players.exists.tolist() == [[True, True, True], [True, True, False]]
    present = torch.tensor([[True, False, True], [False, True, False]])
    assert players.spread(present, 0, torch.tensor([0, 1])).tolist() == [[False, True, False], [True, False, True]]
    assert players.spread(present, 1, torch.tensor([0, 1])).tolist() == [[True], [False]]


@pytest.mark.parametrize(("rows", "shared"), [(1, True), (2, False)])
def test_players_are_shared_if_the_mask_has_one_row(rows: int, shared: bool) -> None:
    mask = torch.tensor([[0, 1, 1], [0, 0, 1]])[:rows]
    assert players_from_mask(mask, (torch.zeros(2, 3),)).shared is shared


def test_scores_to_players_is_the_inverse_of_scores_to_inputs() -> None:
    inputs = (torch.zeros(2, 3), torch.zeros(2, 2))
    players = players_from_mask((torch.tensor([[0, 0, 1]]), torch.tensor([[1, 2], [2, 4]])), inputs)
    scores = torch.tensor([[1.0, 2.0, 3.0, 0.0], [4.0, 5.0, 6.0, 7.0]])
    maps = scores_to_inputs(scores, players, inputs)
    assert maps[0].tolist() == [[1, 1, 2], [4, 4, 5]]
    assert maps[1].tolist() == [[2, 3], [6, 7]]
    assert torch.equal(scores_to_players(maps, players, inputs), scores.double())


def test_the_mean_of_equal_values_is_exact() -> None:
    inputs = (torch.zeros(1, 49),)
    players = players_from_mask(torch.zeros(1, 49, dtype=torch.long), inputs)
    score = torch.tensor([[0.1]], dtype=torch.float64)
    # 0.1 added up 49 times and divided by 49 is 0.09999999999999998
    assert torch.equal(scores_to_players(scores_to_inputs(score, players, inputs), players, inputs), score)


def test_a_smaller_map_of_an_image_is_resized_to_the_image() -> None:
    inputs = (torch.zeros(1, 3, 4, 4),)
    players = players_from_mask(patch_mask(4, 2), inputs)
    smaller = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    assert scores_to_players((smaller,), players, inputs).tolist() == [[1.0, 2.0, 3.0, 4.0]]


@pytest.mark.parametrize(
    ("attributions", "message"),
    [
        ((torch.zeros(2, 3), torch.zeros(2, 3)), "attributions has 2 tensors, but inputs has 1"),
        ((torch.zeros(2, 4),), r"attributions has shape \(2, 4\)"),
        ((torch.zeros(3),), r"attributions has shape \(3,\)"),
        ((torch.zeros(3, 3),), r"attributions has shape \(3, 3\)"),
    ],
)
def test_attributions_that_do_not_fit_the_inputs_are_rejected(attributions: tuple[Tensor, ...], message: str) -> None:
    inputs = (torch.zeros(2, 3),)
    with pytest.raises(ValueError, match=message):
        scores_to_players(attributions, players_from_mask(torch.tensor([[0, 1, 2]]), inputs), inputs)


@pytest.mark.parametrize(
    ("mask", "error"),
    [
        (torch.zeros(4, dtype=torch.long), ValueError),
        (torch.zeros(3, 2, 3, dtype=torch.long), ValueError),
        ((torch.zeros(1, 3).long(), torch.zeros(1, 3).long()), ValueError),
        (torch.tensor([[0.5, 1, 2]]), ValueError),
        (torch.tensor([[-1, 0, 1]]), ValueError),
        (torch.tensor([[True, False, True]]), TypeError),
        ([0, 1, 2], TypeError),
    ],
)
def test_masks_that_do_not_fit_are_rejected_by_name(mask: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="feature_mask"):
        players_from_mask(mask, (torch.zeros(2, 3),))


def test_inputs_without_values_are_rejected() -> None:
    with pytest.raises(ValueError, match="there are no players"):
        players_from_mask(torch.zeros(1, 0, dtype=torch.long), (torch.zeros(2, 0),))


def test_a_floating_point_mask_of_whole_numbers_is_accepted() -> None:
    assert players_from_mask(torch.tensor([[0.0, 2.0, 2.0]]), (torch.zeros(2, 3),)).ids.tolist() == [0, 2]


def test_sizes_may_be_any_kind_of_int() -> None:
    expected = patch_mask((8, 6), (2, 3))
    assert torch.equal(patch_mask([np.int64(8), torch.tensor(6)], (torch.tensor(2), 3)), expected)


@pytest.mark.parametrize("ids", [[0], 0, torch.tensor([0.0]), torch.tensor([torch.nan]), torch.tensor([True])])
def test_what_are_not_ids_is_rejected(ids: Any) -> None:
    players = players_from_mask(torch.tensor([[0, 7, 7]]), (torch.zeros(2, 3),))
    assert players.positions_of(torch.tensor([[7, -1]], dtype=torch.int32)).tolist() == [[1, -1]]
    with pytest.raises(TypeError, match=r"ids .*; pass a tensor of integers, the ids of players"):
        players.positions_of(ids)


def test_attributions_that_are_not_tensors_are_rejected() -> None:
    inputs = (torch.zeros(2, 3), torch.zeros(2, 3))
    mask = torch.tensor([[0, 1, 2]])
    with pytest.raises(TypeError, match=r"attributions\[1\] is a list; pass a tensor"):
        scores_to_players((torch.zeros(2, 3), [0.0] * 3), players_from_mask((mask, mask), inputs), inputs)
