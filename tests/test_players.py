import pytest
import torch

from captum_moxi import patch_mask
from captum_moxi.players import collect_scores, make_players, scalar_mask, spread_scores


def test_patch_mask_numbers_patches_in_reading_order() -> None:
    expected = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]])
    assert torch.equal(patch_mask(4, 2), expected[None, None])


def test_patch_mask_with_a_ragged_edge_gives_every_pixel_a_player() -> None:
    mask = patch_mask((3, 5), (2, 2))
    assert mask[0, 0].tolist() == [[0, 0, 1, 1, 2], [0, 0, 1, 1, 2], [3, 3, 4, 4, 5]]


@pytest.mark.parametrize(("size", "grid", "players"), [(224, 7, 49), ((240, 321), (3, 4), 12), (5, 5, 25)])
def test_patch_mask_by_grid(size: object, grid: object, players: int) -> None:
    mask = patch_mask(size, grid=grid)
    assert mask.unique().tolist() == list(range(players))


@pytest.mark.parametrize(
    ("kwargs", "error", "names"),
    [
        ({"image_size": 0}, ValueError, "image_size"),
        ({"image_size": 8, "patch_size": (2, 2, 2)}, TypeError, "patch_size"),
        ({"image_size": 8.0}, TypeError, "image_size"),
        ({"image_size": 8, "patch_size": 2, "grid": 4}, ValueError, "grid"),
        ({"image_size": 8, "grid": 9}, ValueError, "grid"),
    ],
)
def test_patch_mask_refuses(kwargs: dict, error: type[Exception], names: str) -> None:
    with pytest.raises(error, match=names):
        patch_mask(**kwargs)


def test_scalars_are_numbered_through_all_tensors() -> None:
    masks = scalar_mask((torch.zeros(2, 3), torch.zeros(2, 2, 2)))
    assert masks[0].tolist() == [[0, 1, 2]]
    assert masks[1].tolist() == [[[3, 4], [5, 6]]]


def test_ids_with_gaps_and_groups_across_tensors() -> None:
    players = make_players(
        (torch.tensor([[7, 0, 7]]), torch.tensor([[9], [0]])), (torch.zeros(2, 3), torch.zeros(2, 1))
    )
    assert players.ids.tolist() == [0, 7, 9]
    assert players.exists.tolist() == [[True, True, True], [True, True, False]]
    present = torch.tensor([[True, False, True], [False, True, False]])
    assert players.spread(present, 0, torch.tensor([0, 1])).tolist() == [[False, True, False], [True, False, True]]
    assert players.spread(present, 1, torch.tensor([0, 1])).tolist() == [[True], [False]]


def test_spread_and_collect_are_inverse() -> None:
    inputs = (torch.zeros(2, 3), torch.zeros(2, 2))
    players = make_players((torch.tensor([[0, 0, 1]]), torch.tensor([[1, 2], [2, 4]])), inputs)
    scores = torch.tensor([[1.0, 2.0, 3.0, 0.0], [4.0, 5.0, 6.0, 7.0]])
    maps = spread_scores(scores, players, inputs)
    assert maps[0].tolist() == [[1, 1, 2], [4, 4, 5]]
    assert maps[1].tolist() == [[2, 3], [6, 7]]
    assert torch.equal(collect_scores(maps, players, inputs), scores.double())


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
def test_masks_that_do_not_fit_are_refused_by_name(mask: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="feature_mask"):
        make_players(mask, (torch.zeros(2, 3),))


def test_whole_numbers_of_a_floating_mask_are_taken() -> None:
    assert make_players(torch.tensor([[0.0, 2.0, 2.0]]), (torch.zeros(2, 3),)).ids.tolist() == [0, 2]
