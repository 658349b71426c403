"""The number of players that flip a prediction, and its median."""

import math

import pytest
import torch
from torch import Tensor

from captum_moxi import deletion_curve, insertion_curve
from captum_moxi.metrics import METRICS, Curve, count_players_to_flip, median_flip, skips_counts

# The inputs are added up against a logit of 2.5: three ones are needed, and lost with all but two.
X = torch.tensor([[1.0, 1, 1, 1, 1], [1, 0, 1, 1, 0], [0, 1, 0, 1, 0]])


def exceeds(x: Tensor) -> Tensor:
    return torch.stack([torch.full((len(x),), 2.5), x.sum(1)], 1)


def insertion() -> Curve:
    return insertion_curve(exceeds, X, attributions=torch.arange(5).expand(3, 5), target=1)


def test_counts_by_hand() -> None:
    assert count_players_to_flip(insertion()).tolist()[:2] == [3, 4]
    assert count_players_to_flip(insertion())[2].isnan()
    deletion = deletion_curve(exceeds, X[:2], attributions=torch.arange(5).expand(2, 5), target=1)
    assert count_players_to_flip(deletion).tolist() == [3, 1]


def test_only_the_counts_of_the_curve_are_considered() -> None:
    order = torch.arange(5).expand(3, 5)
    curve = insertion_curve(exceeds, X, attributions=order, target=1, fractions=[0, 0.4, 1])
    assert count_players_to_flip(curve).tolist()[:2] == [5, 5]
    # The true counts are 3 and 4, and the third example never flips.
    assert skips_counts(curve).tolist() == [True, True, False]
    assert not skips_counts(insertion()).any()
    assert METRICS.create("players-to-flip").summarize(curve)["players to flip, median"] == "≤ 5"


def test_a_curve_that_starts_above_the_flip_skips_counts() -> None:
    order = torch.arange(5).expand(3, 5)
    curve = insertion_curve(exceeds, X, attributions=order, target=1, fractions=[0.8])
    assert skips_counts(curve).tolist() == [True, True, False]


def test_values_are_integers_or_none() -> None:
    assert METRICS.create("players-to-flip").values(insertion()) == [3, 4, None]


def test_the_summary_is_the_median_and_the_number_of_flips() -> None:
    summary = METRICS.create("players-to-flip").summarize(insertion())
    assert summary == {"players to flip, median": "4", "examples flipped": 2}


@pytest.mark.parametrize(
    ("counts", "median"),
    [
        ([3], "3"),
        ([1, 4], "2.5"),
        ([5, 1, 9], "5"),
        ([1, math.inf, 3], "3"),
        ([1, math.inf], "> 30"),
        ([math.inf], "> 30"),
    ],
)
def test_a_median_that_is_not_reached_exceeds_the_largest_count(counts: list[float], median: str) -> None:
    assert median_flip(counts, 30) == median


def test_only_bounds_from_the_median_on_make_the_median_a_bound() -> None:
    assert median_flip([1, 5, 9], 30, are_bounds=[True, False, False]) == "5"
    assert median_flip([1, 5, 9], 30, are_bounds=[False, False, True]) == "≤ 5"
    assert median_flip([math.inf], 30, are_bounds=[False]) == "> 30"
