"""Cascades: screens applied one after the other."""

from typing import Any

import pytest
import torch
from games import MODES, random_game
from torch import Tensor

from captum_moxi import Cascade, GradientScreen, HalfPrecisionScreen, LastGainsScreen, RandomScreen, Screen
from captum_moxi.arguments import Mode
from captum_moxi.search import greedy
from captum_moxi.search.screens import get_screen, screen_for_mode
from captum_moxi.search.screens.base import SearchStep


class Oracle(Screen):
    """Estimates gains by evaluating them, plus a constant, and records what it is asked for."""

    def __init__(self, m: int, error: float = 0.0) -> None:
        super().__init__(m)
        self.error = error
        self.steps: list[SearchStep] = []

    def estimate(self, step: SearchStep) -> tuple[Tensor, Tensor]:
        self.steps.append(step)
        starts, positions, coalitions, examples = step.candidate_coalitions()
        change = step.game.outcome(coalitions, examples).rewards.double() - step.rewards[starts]
        estimates = torch.full(step.candidates.shape, torch.nan, dtype=torch.float64)
        estimates[starts, positions] = (change if step.mode == "insertion" else -change) + self.error
        return estimates, estimates


@MODES
@pytest.mark.parametrize("beam_width", [1, 3])
def test_a_cascade_of_perfect_screens_makes_the_exact_search(mode: Mode, beam_width: int) -> None:
    game = random_game(batch=3, n=8)
    exact = greedy(game, mode, beam_width=1)
    cascade = greedy(game, mode, screen=Oracle(5) | Oracle(3) | Oracle(1), beam_width=1)
    assert torch.equal(cascade.order, exact.order)
    assert cascade.n_evaluated.tolist() == [[1] * 8] * 3
    assert greedy(game, mode, screen=Oracle(5) | Oracle(2), beam_width=beam_width).n_steps.tolist() == [8] * 3


@MODES
def test_each_stage_gets_the_candidates_that_the_stage_before_selects(mode: Mode) -> None:
    first, second, third = Oracle(6), Oracle(3), Oracle(2)
    selection = greedy(random_game(batch=2, n=9), mode, screen=Cascade(first, second, third))
    # A stage that would select all of its candidates is left out.
    assert [step.candidates.sum(1).tolist() for step in first.steps] == [[9, 9], [8, 8], [7, 7]]
    assert [int(step.candidates.sum(1)[0]) for step in second.steps] == [6, 6, 6, 6, 5, 4]
    assert [int(step.candidates.sum(1)[0]) for step in third.steps] == [3] * 7
    assert selection.n_evaluated[0].tolist() == [2] * 8 + [1]


def test_each_stage_gets_its_own_estimates_back() -> None:
    first, second = Oracle(6, error=100.0), Oracle(2, error=-7.0)
    greedy(random_game(batch=1, n=9), "insertion", n_steps=4, screen=first | second)
    for stage in (first, second):
        for step in stage.steps[1:]:
            known = ~step.estimates.isnan()
            assert known.any()
            # The estimate of a gain is that gain plus the constant of the stage.
            expected = step.gains[known] + stage.error
            torch.testing.assert_close(step.estimates[known], expected, rtol=1e-5, atol=1e-4)


def test_the_highest_skipped_estimate_is_that_of_the_last_stage_that_made_one() -> None:
    game = random_game(batch=1, n=6)
    gains = Oracle(1).estimate(greedy_step(game))[0][0].sort(descending=True).values
    selection = greedy(game, "insertion", n_steps=1, screen=Oracle(3, error=-10.0) | Oracle(1))
    # The second candidate was skipped by the second stage, the fourth by the first stage, which is too pessimistic.
    torch.testing.assert_close(selection.skipped[0, 0].double(), torch.maximum(gains[1], gains[3] - 10))


def greedy_step(game: Any) -> SearchStep:
    """The first step of insertion."""
    recorder = Oracle(1)
    greedy(game, "insertion", n_steps=1, screen=recorder)
    return recorder.steps[0]


def test_operators_and_names_build_the_same_cascade() -> None:
    cascades = [
        GradientScreen(32) | LastGainsScreen(16) | HalfPrecisionScreen(),
        GradientScreen(32) | (LastGainsScreen(16) | HalfPrecisionScreen()),
        Cascade(GradientScreen(32), LastGainsScreen(16), HalfPrecisionScreen()),
        get_screen("gradient:32+last-gains:16+half-precision"),
    ]
    assert len({repr(cascade) for cascade in cascades}) == 1
    assert repr(cascades[0]) == "GradientScreen(32) | LastGainsScreen(16) | HalfPrecisionScreen(torch.bfloat16)"


def test_a_cascade_is_used_in_the_modes_of_all_its_stages() -> None:
    cascade = GradientScreen(32) | RandomScreen(4)
    assert screen_for_mode(cascade, "insertion") is None
    assert screen_for_mode(cascade, "deletion") is cascade
    assert screen_for_mode(RandomScreen(8) | RandomScreen(4), "insertion") is not None


@pytest.mark.parametrize(
    ("create", "error", "message"),
    [
        (lambda: Cascade(GradientScreen(8)), ValueError, "stages has 1 screens; pass at least two"),
        (lambda: Cascade("gradient", RandomScreen(4)), TypeError, "stages is .*'gradient'.*; pass screens"),  # type: ignore[arg-type]
        (lambda: HalfPrecisionScreen() | RandomScreen(4), ValueError, "pass HalfPrecisionScreen.* as the last one"),
        (lambda: GradientScreen(8) | 4, TypeError, "unsupported operand"),
        (lambda: get_screen("gradient:8+all"), ValueError, "screen is 'gradient:8[+]all', but 'all' cannot be part"),
        (lambda: get_screen("gradient:8+cheap"), ValueError, "screen 'cheap' is unknown; pass one of all, gradient:M"),
        (lambda: get_screen("gradient:8+"), ValueError, "screen '' is unknown"),
    ],
)
def test_invalid_cascades_are_rejected(create: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        create()
