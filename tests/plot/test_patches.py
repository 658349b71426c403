"""Images of patches, and heat maps."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from captum_moxi import BaselineRemoval, CoalitionGame, patch_mask
from captum_moxi.plot import (
    draw_from_game,
    faded,
    heat_picture,
    highlight_patches,
    patches_alone,
    show_heat_map,
    show_patches,
)
from captum_moxi.plot.patches import outline, outline_players


def test_patches_alone_are_in_color_and_the_rest_is_gray(image: Tensor, mask: Tensor) -> None:
    alone = patches_alone(image, mask, [1])
    assert torch.equal(alone[:2, 2:], image[:2, 2:])
    assert (alone[2:] == 0.5).all()
    assert (alone[:2, :2] == 0.5).all()


def test_removed_patches_are_gray_and_the_rest_is_in_color(image: Tensor, mask: Tensor) -> None:
    without = patches_alone(image, mask, [1], keep=False)
    assert (without[:2, 2:] == 0.5).all()
    assert torch.equal(without[2:], image[2:])


def test_an_empty_group_is_all_gray(image: Tensor, mask: Tensor) -> None:
    assert (patches_alone(image, mask, []) == 0.5).all()


def test_inserted_patches_stand_out_from_a_faded_image(image: Tensor, mask: Tensor) -> None:
    highlighted = highlight_patches(image, mask, [1], mode="insertion")
    assert torch.equal(highlighted[:2, 2:], image[:2, 2:])
    pale = highlighted[2:]
    assert (pale >= 0.5).all()
    assert torch.equal(pale, pale[..., :1].expand_as(pale))


def test_deleted_patches_are_highlighted_in_gray(image: Tensor, mask: Tensor) -> None:
    highlighted = highlight_patches(image, mask, [1], mode="deletion")
    assert torch.equal(highlighted, patches_alone(image, mask, [1], keep=False))


@pytest.mark.parametrize("keep", [True, False])
def test_show_patches_draws_the_patches_alone(image: Tensor, mask: Tensor, keep: bool) -> None:
    _, ax = show_patches(image, mask, [1, 2], keep=keep, ax=Figure().add_subplot())
    assert torch.equal(torch.tensor(ax.images[0].get_array()), patches_alone(image, mask, [1, 2], keep=keep))


def test_a_heat_map_without_scores_is_the_image(image: Tensor) -> None:
    _, ax = show_heat_map(image, torch.zeros(4, 4), ax=Figure().add_subplot())
    assert len(ax.images) == 1
    assert torch.equal(torch.tensor(ax.images[0].get_array()), image)


def test_a_heat_map_tints_pixels_by_their_score_and_fades_the_rest(image: Tensor) -> None:
    scores = torch.tensor([[4.0, 2.0], [0.0, -1.0]]).repeat_interleave(2, 0).repeat_interleave(2, 1)
    picture = heat_picture(image, scores, cmap="gray", alpha=0.5)
    # The colormap "gray" maps 1 to white and one half to middle gray. The opacities are 0.5 and 0.25.
    torch.testing.assert_close(picture[:2, :2], 0.5 * image[:2, :2] + 0.5, rtol=0, atol=1e-6)
    torch.testing.assert_close(picture[:2, 2:], 0.75 * image[:2, 2:] + 0.25 * 0.5, rtol=0, atol=2e-3)
    assert torch.equal(picture[2:], faded(image)[2:])


def test_a_heat_map_can_have_a_colorbar(image: Tensor) -> None:
    figure = Figure()
    show_heat_map(image, torch.rand(4, 4), colorbar=True, ax=figure.add_subplot())
    assert [ax.get_ylabel() for ax in figure.axes[1:]] == ["score"]


@pytest.mark.parametrize("example", [0, 1])
def test_pictures_of_a_game_show_the_inputs_of_the_model(mask: Tensor, example: int) -> None:
    x = torch.rand(2, 3, 4, 4)
    inputs: list[Tensor] = []

    def model(x: Tensor) -> Tensor:
        inputs.append(x)
        return x.mean((2, 3))

    game = CoalitionGame(model, x, target=0, feature_mask=patch_mask(4, 2), removal=BaselineRemoval("blur"))
    draw = draw_from_game(game, lambda values: values.permute(0, 2, 3, 1), example=example)
    game.outcome(torch.tensor([[True, False, False, True]]), torch.tensor([example]))
    seen = inputs[-1][0].permute(1, 2, 0)
    assert torch.equal(draw([0, 3]), seen)
    image = x[example].permute(1, 2, 0)
    for players, keep in (([0, 3], True), ([1, 2], False)):
        _, ax = show_patches(image, mask, players, keep=keep, draw=draw, ax=Figure().add_subplot())
        assert torch.equal(torch.tensor(ax.images[0].get_array()), seen)


def unit_edges(segment: NDArray[np.float64]) -> list[tuple[tuple[float, float], ...]]:
    """The edges of pixels that a straight line consists of."""
    (x, y), (x_end, y_end) = sorted(segment.tolist())
    if x == x_end:
        return [((x, y + step), (x, y + step + 1)) for step in range(int(y_end - y))]
    return [((x + step, y), (x + step + 1, y)) for step in range(int(x_end - x))]


def test_outlines_surround_each_player(mask: Tensor) -> None:
    ax = Figure().add_subplot()
    outline_players(ax, mask, [0])
    (lines,) = ax.collections
    edges = {edge for segment in lines.get_segments() for edge in unit_edges(segment)}
    # Player 0 covers the pixels 0 and 1 in both directions.
    upright = {((x, y), (x, y + 1)) for x in (-0.5, 1.5) for y in (-0.5, 0.5)}
    assert edges == upright | {((x, y), (x + 1, y)) for y in (-0.5, 1.5) for x in (-0.5, 0.5)}


def test_each_side_of_a_rectangle_is_one_line() -> None:
    mask = torch.zeros(8, 9, dtype=torch.long)
    mask[2:5, 3:7] = 1
    sides = {tuple(map(tuple, sorted(line.tolist()))) for line in outline(mask, [1])}
    corners = (2.5, 1.5), (6.5, 1.5), (2.5, 4.5), (6.5, 4.5)
    top_left, top_right, bottom_left, bottom_right = corners
    assert sides == {
        (top_left, top_right),
        (bottom_left, bottom_right),
        (top_left, bottom_left),
        (top_right, bottom_right),
    }


def test_outlines_of_any_players_are_the_borders_between_pixels_of_different_players() -> None:
    mask = torch.randint(0, 5, (7, 6))
    edges = {edge for line in outline(mask, [1, 3]) for edge in unit_edges(line)}
    numbers = torch.zeros(9, 8, dtype=torch.long)
    numbers[1:-1, 1:-1] = torch.where((mask == 1) | (mask == 3), mask, 0)
    expected = set()
    for y in range(8):
        for x in range(7):
            if y < 7 and numbers[y + 1, x] != numbers[y + 1, x + 1]:
                expected.add(((x - 0.5, y - 0.5), (x - 0.5, y + 0.5)))
            if x < 6 and numbers[y, x + 1] != numbers[y + 1, x + 1]:
                expected.add(((x - 0.5, y - 0.5), (x + 0.5, y - 0.5)))
    assert edges == expected


def test_dashed_outlines_are_dashed(mask: Tensor) -> None:
    ax = Figure().add_subplot()
    outline_players(ax, mask, [0])
    outline_players(ax, mask, [1], dashed=True)
    solid, dashed = ax.collections
    assert solid.get_linestyles()[0][1] is None
    assert dashed.get_linestyles()[0][1] is not None
