import pytest
import torch
from torch import Tensor

from captum_moxi import CoalitionGame
from captum_moxi.arguments import Mode
from captum_moxi.metrics import Curve, covers_all_players, play_curve, symmetric_relevance_gain


def two_players(x: Tensor) -> Tensor:
    """Player 0 decides: P(class 1) is 0.9 if it is present and 0.1 otherwise."""
    log_odds = torch.where(x[:, 0] > 0, 9.0, 1 / 9).log()
    return torch.stack([torch.zeros_like(log_odds), log_odds], 1)


def curve_of(mode: Mode, order: list[list[int]], fractions: list[float] | None = None) -> Curve:
    game = CoalitionGame(two_players, torch.ones(len(order), 2), target=1)
    return play_curve(game, torch.tensor(order), mode, fractions=fractions)


def test_srg_computed_by_hand() -> None:
    """The curves of the good order are (0.1, 0.9, 0.9) and (0.9, 0.1, 0.1), those of the bad order the other ones."""
    orders = [[0, 1], [1, 0]]
    srg = symmetric_relevance_gain(curve_of("insertion", orders), curve_of("deletion", orders))
    # Trapezoids with a width of a half: 0.7 - 0.3, and 0.3 - 0.7.
    torch.testing.assert_close(srg, torch.tensor([0.4, -0.4], dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("insertion", "deletion", "message"),
    [
        (curve_of("deletion", [[0, 1]]), curve_of("insertion", [[0, 1]]), "pass an insertion curve and then"),
        (curve_of("insertion", [[0, 1]]), curve_of("deletion", [[0, 1], [1, 0]]), "of the same examples and fractions"),
        (
            curve_of("insertion", [[0, 1]], [0, 0.5, 1]),
            curve_of("deletion", [[0, 1]], [0, 0.6, 1]),
            "of the same examples and fractions",
        ),
        (
            curve_of("insertion", [[0, 1]], [0, 0.5]),
            curve_of("deletion", [[0, 1]], [0, 0.5]),
            r"extend from 0 to 0\.5 of the players, but SRG needs all players",
        ),
    ],
)
def test_srg_needs_both_complete_curves_of_an_order(insertion: Curve, deletion: Curve, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        symmetric_relevance_gain(insertion, deletion)


@pytest.mark.parametrize(("fractions", "covers"), [(None, True), ([0, 1], True), ([0, 0.5], False), ([0.5, 1], False)])
def test_curves_that_cover_all_players(fractions: list[float] | None, covers: bool) -> None:
    assert covers_all_players(curve_of("insertion", [[0, 1]], fractions)) is covers
