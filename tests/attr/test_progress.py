"""Reports of long searches. The tests replace the clock, so nothing sleeps."""

import logging
import re

import pytest
import torch
import zoo
from torch import Tensor

from captum_moxi import (
    CoalitionGame,
    LastGainsScreen,
    MoXIDeletion,
    MoXIInsertion,
    MoXILocalization,
    patch_mask,
)
from captum_moxi.attr import progress
from captum_moxi.search import greedy, rank_independently


class SlowModel:
    """A model of ``(B, n)`` inputs that takes some seconds per row on a clock of its own."""

    def __init__(self, seconds_per_row: float, classes: int = 3, n: int = 8) -> None:
        self.seconds_per_row = seconds_per_row
        self.now = 0.0
        self.model = zoo.Classes(n, classes)

    def __call__(self, x: Tensor) -> Tensor:
        self.now += len(x) * self.seconds_per_row
        return self.model(x)

    def clock(self) -> float:
        return self.now


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> SlowModel:
    """A model whose full ranking of 8 players takes 36 rows of 2 seconds."""
    model = SlowModel(2.0)
    monkeypatch.setattr(progress, "clock", model.clock)
    return model


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("captum_moxi")]


@pytest.fixture(autouse=True)
def all_levels(caplog: pytest.LogCaptureFixture) -> None:
    """Commands change the level of the logger."""
    caplog.set_level(logging.WARNING, logger="captum_moxi")


@pytest.mark.parametrize("method", [MoXIInsertion, MoXIDeletion])
def test_a_long_search_is_reported_once_with_rows_time_and_advice(
    method: type[MoXIInsertion | MoXIDeletion], slow: SlowModel, caplog: pytest.LogCaptureFixture
) -> None:
    method(slow).attribute(torch.randn(1, 8), target=0)
    (message,) = messages(caplog)
    # The first step consists of 8 of the 36 rows. Insertion also evaluates the empty coalition before it.
    seconds = 2 * (9 if method is MoXIInsertion else 8) / 8 * 36
    # A screen makes groups larger, so the advice says by how much.
    screen, more = ("last-gains:16", "up to 50 %") if method is MoXIInsertion else ("gradient:8", "about 10 %")
    assert message == (
        f"{method.__name__} needs 36 rows, which takes about {seconds:.0f} seconds. For a shorter search, pass "
        f"stop='flip', or n_steps, or screen='{screen}' (chooses {more} more players), or a feature_mask with fewer "
        "than 8 players. show_progress=True shows a progress bar."
    )
    caplog.clear()
    method(slow).attribute(torch.randn(1, 8), target=0, show_progress=True)
    assert not messages(caplog)


def test_the_advice_leaves_out_what_was_passed(slow: SlowModel, caplog: pytest.LogCaptureFixture) -> None:
    search = MoXIInsertion(slow, screen=LastGainsScreen(7), beam_width=2)
    slow.seconds_per_row = 10
    search.attribute(torch.randn(1, 8), target=0, n_steps=7, stop="flip", min_confidence=0.999999)
    (message,) = messages(caplog)
    assert "and often far fewer. " in message and "take about" not in message
    assert "For a shorter search, pass a smaller beam_width, or a feature_mask" in message


def test_short_searches_are_not_reported(slow: SlowModel, caplog: pytest.LogCaptureFixture) -> None:
    x = torch.randn(1, 8)
    MoXIInsertion(slow).attribute(x, target=0, n_steps=1)
    MoXIInsertion(slow, interactions=False).attribute(x, target=0, n_steps=1)
    slow.seconds_per_row = 0.5
    MoXIInsertion(slow).attribute(x, target=0)
    # A single step gives no time for a report, however long it takes.
    slow.seconds_per_row = 100
    MoXIInsertion(slow).attribute(x, target=0, n_steps=1)
    assert not messages(caplog)


def test_a_search_that_may_stop_early_is_reported_when_half_a_minute_is_over(
    slow: SlowModel, caplog: pytest.LogCaptureFixture
) -> None:
    # The reward never flips the prediction, because the confidence never exceeds the threshold.
    options = {"target": 0, "stop": "flip", "min_confidence": 0.999999}
    slow.seconds_per_row = 1
    MoXIInsertion(slow).attribute(torch.randn(1, 8), **options)
    (message,) = messages(caplog)
    # The row of the empty coalition takes another second.
    expected = (
        r"MoXIInsertion has evaluated \d+ rows in 3\d seconds, and continues\. It needs at most 36 rows, which take "
        r"about 37 seconds, and often far fewer\. For a shorter search"
    )
    assert re.match(expected, message)
    assert "stop=" not in message
    caplog.clear()
    slow.seconds_per_row = 0.8
    MoXIInsertion(slow).attribute(torch.randn(1, 8), **options)
    assert not messages(caplog)


def test_a_long_localization_is_reported_once(slow: SlowModel, caplog: pytest.LogCaptureFixture) -> None:
    slow.seconds_per_row = 20
    x = torch.randn(1, 8)
    target = int(slow.model(x).argsort()[0, -2])
    MoXILocalization(slow).attribute(x, target=target)
    (message,) = messages(caplog)
    expected = (
        r"MoXILocalization has evaluated \d+ rows in .*, and continues\. It needs at most 36 rows, which take about"
    )
    assert re.match(expected, message)


@pytest.mark.parametrize("method", [MoXIInsertion, MoXIDeletion])
@pytest.mark.parametrize("interactions", [True, False])
@pytest.mark.parametrize("n_steps", [None, 1, 3])
def test_the_plan_counts_the_rows_and_tokens_that_the_search_evaluates(
    method: type[MoXIInsertion | MoXIDeletion], interactions: bool, n_steps: int | None
) -> None:
    model, x, mask = zoo.token_model("vit"), torch.randn(2, 3, 32, 32), patch_mask(32, grid=2)
    game = CoalitionGame(model, x, target=0, feature_mask=mask)
    plan = progress.plan_search(
        "search", game, method.mode, n_steps=n_steps, is_exact=True, advice=[], interactions=interactions
    )
    rows: list[int] = []
    options = {"n_steps": n_steps, "progress": rows.append}
    if interactions:
        greedy(game, method.mode, **options)
        # Each player has 4 patches. Of 4 players, the first steps of both images evaluate 4, 3, 2 and 1.
        tokens = [1 + 4 * step if method is MoXIInsertion else 1 + 4 * (4 - step) for step in (1, 2, 3, 4)]
        assert list(plan.cost_of_row) == tokens[:n_steps]
        assert list(plan.rows_of_step) == rows == [8, 6, 4, 2][:n_steps]
        assert plan.cost(9) == sum(([tokens[0]] * 8 + tokens[1:2] * 6)[: min(9, plan.rows)])
    else:
        rank_independently(game, method.mode, **options)
        assert plan.rows == sum(rows)


def test_a_beam_needs_at_most_the_planned_rows() -> None:
    game = CoalitionGame(zoo.Classes(6), torch.randn(1, 6), target=0)
    plan = progress.plan_search("s", game, "insertion", n_steps=3, is_exact=False, advice=[], beam_width=3)
    rows: list[int] = []
    greedy(game, "insertion", n_steps=3, beam_width=3, progress=rows.append)
    assert list(plan.rows_of_step) == [6, 5 * 3, 4 * 3]
    assert all(evaluated <= planned for evaluated, planned in zip(rows, plan.rows_of_step, strict=True))


def test_rows_of_growing_cost_are_judged_after_ten_seconds(caplog: pytest.LogCaptureFixture) -> None:
    times = iter([0.0, 4.0, 12.0])
    plan = progress.SearchPlan("Search", [4, 4, 4], [1, 2, 5], is_exact=True, advice=["n_steps"])
    report = progress.LongSearchReport(plan, lambda: next(times))
    # At the end of the first step, 4 seconds for a cost of 4 mean 28 more.
    report(4)
    assert not messages(caplog)
    # The second step took 8 seconds for a cost of 8, so the third takes 20.
    report(4)
    assert messages(caplog) == [
        "Search needs 12 rows, which takes about 32 seconds. For a shorter search, pass n_steps. show_progress=True "
        "shows a progress bar."
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (30.4, "30 seconds"),
        (119, "119 seconds"),
        (120, "2 minutes"),
        (3600, "60 minutes"),
        (7200, "2 hours"),
        (90000, "25 hours"),
    ],
)
def test_durations_have_a_readable_unit(seconds: float, text: str) -> None:
    assert progress.format_duration(seconds) == text


def test_the_plan_of_a_symmetric_search_counts_both_paths() -> None:
    model, x, mask = zoo.token_model("vit"), torch.randn(2, 3, 32, 32), patch_mask(32, grid=2)
    game = CoalitionGame(model, x, target=0, feature_mask=mask, reward="probability")
    rows: list[int] = []
    greedy(game, "symmetric", progress=rows.append)
    plan = progress.plan_search("search", game, "symmetric", n_steps=None, is_exact=True, advice=[])
    assert list(plan.rows_of_step) == rows == [16, 12, 8, 4]
    # A coalition and its complement have 4 players of 4 patches together.
    assert list(plan.cost_of_row) == [1 + 4 * 2] * 4
    advice = progress.search_advice(game, "symmetric", n_steps=None, can_stop=True, has_screen=False, beam_width=1)
    assert "screen='both-ends' (half of the rows of a full ranking)" in advice
