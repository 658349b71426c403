"""Scores of players compared with values worked out by hand."""

from dataclasses import replace

import pytest
import torch
import zoo
from selections import make_selection
from torch import Tensor

from captum_moxi import CoalitionGame, Selection
from captum_moxi.attr.scores import Score, gain_scores, rank_scores, score_players

# a mask with gaps: the positions of these players are 0, 1, 2 and 3
IDS = torch.tensor([0, 3, 5, 9])


@pytest.fixture(params=["insertion", "deletion"])
def selection(request: pytest.FixtureRequest) -> Selection:
    """Three examples: one takes three steps, one stops after one step, and one takes none."""
    sign = 1.0 if request.param == "insertion" else -1.0
    rewards = torch.tensor([[1.0, 3.0, 2.5, 6.0], [0.0, 4.0, torch.nan, torch.nan], [2.0] + [torch.nan] * 3])
    return replace(
        make_selection(request.param, [0] * 4, [0.0] * 4),
        order=torch.tensor([[9, 0, 5], [3, -1, -1], [-1, -1, -1]]),
        rewards=sign * rewards,
        n_steps=torch.tensor([3, 1, 0]),
    )


def test_rank_scores_count_down_from_one_to_the_last_step_of_each_example(selection: Selection) -> None:
    expected = torch.tensor([[2 / 3, 0, 1 / 3, 1], [0, 1, 0, 0], [0, 0, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(rank_scores(selection, IDS), expected)


def test_gain_scores_are_rises_in_insertion_and_falls_in_deletion(selection: Selection) -> None:
    expected = torch.tensor([[-0.5, 0, 3.5, 2], [0, 4, 0, 0], [0, 0, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(gain_scores(selection, IDS), expected)


@pytest.mark.parametrize(
    ("score", "output_dtype", "expected"),
    [
        ("rank", torch.float32, torch.float32),
        ("rank", torch.bfloat16, torch.float32),
        ("rank", torch.float64, torch.float64),
        ("rank", torch.int64, torch.float32),
        ("gain", torch.float32, torch.float32),
        ("gain", torch.bfloat16, torch.bfloat16),
        ("gain", torch.float64, torch.float64),
        ("gain", torch.int64, torch.float32),
    ],
)
def test_scores_have_the_documented_dtype(score: Score, output_dtype: torch.dtype, expected: torch.dtype) -> None:
    net = zoo.Classes(4)

    def forward_func(x: Tensor) -> Tensor:
        return (10 * net(x)).to(output_dtype)

    game = CoalitionGame(forward_func, torch.randn(1, 4), target=0)
    selection = make_selection("insertion", [0] * 5, [0.0] * 5)
    scores = score_players(selection, game, score=score)
    assert scores.shape == (1, 4)
    assert scores.dtype is expected
