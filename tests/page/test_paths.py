"""What the model sees and predicts along a path."""

import pytest
import torch
import zoo
from torch import Tensor

from captum_moxi import BaselineRemoval, CoalitionGame, patch_mask
from captum_moxi.arguments import Mode
from captum_moxi.page import follow_path


def to_images(values: Tensor) -> Tensor:
    return values.permute(0, 2, 3, 1).expand(-1, -1, -1, 3).sigmoid()


def split_patches(image: Tensor) -> Tensor:
    """An image ``(32, 32, 3)`` as 16 patches of 8 x 8 pixels, flattened."""
    return image.reshape(4, 8, 4, 8, 3).permute(0, 2, 1, 3, 4).reshape(16, -1)


def threshold_game() -> CoalitionGame:
    """Four pixels of 1, in a model that predicts class 1 if more than 1.5 of them are present."""

    def model(x: Tensor) -> Tensor:
        return torch.stack([torch.full((len(x),), 1.5), x.flatten(1).sum(1)], 1)

    return CoalitionGame(model, torch.ones(1, 1, 2, 2), target=1)


@pytest.mark.parametrize("mode", ["insertion", "deletion"])
def test_a_path_records_what_the_model_sees_and_predicts(mode: Mode) -> None:
    x = torch.randn(2, 3, 32, 32)
    game = CoalitionGame(zoo.token_model("vit"), x, target=[1, 3])
    path = follow_path(game, [5, 0, 9], mode, to_images=to_images, example=1)
    assert (path.method, path.mode, path.target, path.n_players) == ("MoXI", mode, 3, 16)
    original = split_patches(to_images(x)[1])
    for step, moved in enumerate(([], [5], [5, 0], [5, 0, 9])):
        present = torch.tensor([(player in moved) == (mode == "insertion") for player in range(16)])
        outcome = game.outcome(present[None], torch.tensor([1]))
        assert path.probabilities[step, 3] == pytest.approx(float(outcome.confidences), abs=1e-6)
        assert path.probabilities[step].sum() == pytest.approx(1, abs=1e-5)
        patches = split_patches(path.images[step])
        assert torch.equal(patches[present], original[present])
        assert (patches[~present] == 0.5).all()


def test_a_path_with_baseline_fill_shows_the_fill() -> None:
    x = torch.randn(1, 3, 32, 32)
    game = CoalitionGame(
        zoo.resnet().eval(), x, target=1, removal=BaselineRemoval("mean"), feature_mask=patch_mask(32, grid=2)
    )
    path = follow_path(game, [3], "deletion", to_images=to_images)
    assert torch.equal(path.images[0], to_images(x)[0])
    fill = x.mean((2, 3), keepdim=True).expand_as(x)[:, :, 16:, 16:]
    torch.testing.assert_close(path.images[1][16:, 16:], to_images(fill)[0])
    assert torch.equal(path.images[1][:16], to_images(x)[0][:16])


@pytest.mark.parametrize(
    ("order", "mode", "min_confidence", "flip"),
    [
        ([0, 1, 2], "insertion", 0.0, 2),
        ([0, 1, 2], "deletion", 0.0, 3),
        ([0], "insertion", 0.0, None),
        ([0, 1, 2], "insertion", 0.7, 3),
    ],
)
def test_a_path_knows_its_flip(order: list[int], mode: Mode, min_confidence: float, flip: int | None) -> None:
    path = follow_path(threshold_game(), order, mode, to_images=to_images, min_confidence=min_confidence)
    assert path.flip == flip


def test_a_path_of_a_single_logit_flips_with_its_sign() -> None:
    game = CoalitionGame(lambda x: x.flatten(1).sum(1, keepdim=True) - 1.5, torch.ones(1, 1, 2, 2), target=0)
    assert follow_path(game, [0, 1, 2], "insertion", to_images=to_images).flip == 2
    assert follow_path(game, [0, 1, 2], "deletion", to_images=to_images).flip == 3


def test_a_path_needs_a_game_on_images() -> None:
    game = CoalitionGame(lambda x: x, torch.ones(1, 4), target=1)
    with pytest.raises(ValueError, match=r"not a game on images; pass a target and one input \(B, C, H, W\)"):
        follow_path(game, [0], "insertion", to_images=to_images)


def test_the_heat_map_is_brightest_at_the_first_player() -> None:
    game = CoalitionGame(zoo.token_model("vit"), torch.full((1, 3, 32, 32), -9.0), target=1)
    path = follow_path(game, [5, 0, 9], "insertion", to_images=to_images)
    assert torch.equal(path.photograph, to_images(game.call.inputs[0])[0])
    brightness = split_patches(path.heat_map).mean(1)
    assert brightness[5] > brightness[0] > brightness[9] > float(path.photograph.mean())
    # All other patches are equally pale.
    assert brightness[[1, 2, 3, 4, 6, 7, 8, 10]].unique().numel() == 1


@pytest.mark.parametrize("example", [0, 1])
def test_a_path_knows_where_its_players_are(example: int) -> None:
    masks = torch.tensor([[[7, 7, 2], [7, 7, 2]], [[2, 7, 7], [2, 2, 7]]])[:, None]
    game = CoalitionGame(lambda x: x.flatten(1)[:, :2], torch.rand(2, 1, 2, 3), target=0, feature_mask=masks)
    path = follow_path(game, [2, 7], "insertion", to_images=to_images, example=example)
    # The pixel of each player that is closest to the upper left corner, and the root of its number of pixels.
    corners = [[[2, 0], [0, 0]], [[0, 0], [1, 0]]][example]
    counts = [[2, 4], [3, 3]][example]
    assert path.places[:, :2].tolist() == corners
    assert path.places[:, 2].square().tolist() == pytest.approx(counts)


def test_an_order_that_ended_earlier_than_others_of_its_batch_ends_there() -> None:
    game = CoalitionGame(zoo.token_model("vit"), torch.randn(2, 3, 32, 32), target=[1, 3])
    whole = follow_path(game, [7], "insertion", to_images=to_images, example=1)
    padded = follow_path(game, [7, -1, -1], "insertion", to_images=to_images, example=1)
    assert len(padded.images) == 2
    torch.testing.assert_close(padded.probabilities, whole.probabilities)
    torch.testing.assert_close(padded.heat_map, whole.heat_map)


@pytest.mark.parametrize("example", [0, 1])
def test_a_path_knows_the_outlines_of_the_players_that_were_left_out(example: int) -> None:
    game = CoalitionGame(zoo.token_model("vit"), torch.randn(2, 3, 32, 32), target=1)
    assert follow_path(game, [2], "insertion", to_images=to_images, example=example).left_out.shape == (0, 2, 2)
    path = follow_path(game, [2], "insertion", to_images=to_images, example=example, left_out=[6, -1])
    # Player 6 is in row 1 and column 2 of patches of 8 x 8 pixels.
    sides = {tuple(map(tuple, sorted(line))) for line in path.left_out.tolist()}
    assert sides == {
        ((16, 8), (24, 8)),
        ((16, 16), (24, 16)),
        ((16, 8), (16, 16)),
        ((24, 8), (24, 16)),
    }
