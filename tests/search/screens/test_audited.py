"""The audit of a screen: random skipped candidates, and the bound on what the others may gain."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import zoo
from games import MODES, FixedScreen, random_game
from PIL import Image
from torch import Tensor

from captum_moxi import (
    AuditedScreen,
    BothEndsScreen,
    CoalitionGame,
    GradientScreen,
    LastGainsScreen,
    MoXIDeletion,
    MoXIInsertion,
    RandomScreen,
    Selection,
    load,
    patch_mask,
)
from captum_moxi.arguments import Mode
from captum_moxi.search import greedy
from captum_moxi.search.missed import largest_missed_gain
from captum_moxi.search.screens import AnyScreen, HalfPrecisionScreen, Screen, SearchStep, get_screen
from captum_moxi.search.selection import merge, shorten


class Recorded(AuditedScreen):
    """Keeps the exact gain of every candidate that each step skipped after the audit."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.audits: list[Tensor] = []
        self.skipped_gains: list[Tensor] = []

    def audit(self, step: SearchStep, skipped: Tensor) -> Tensor:
        audited = super().audit(step, skipped)
        self.audits.append(audited)
        starts, positions, coalitions, examples = step.candidate_coalitions()
        gains = torch.full(skipped.shape, -torch.inf, dtype=torch.float64)
        change = step.game.outcome(coalitions, examples).rewards.double() - step.rewards[starts]
        gains[starts, positions] = change if step.mode == "insertion" else -change
        self.skipped_gains.append(gains.masked_fill(~skipped | audited, -torch.inf))
        return audited


def random_estimates(n: int = 8) -> FixedScreen:
    return FixedScreen(2, torch.randn(3, n, generator=torch.Generator().manual_seed(3)).double())


@MODES
def test_a_step_evaluates_the_best_candidates_and_random_others(mode: Mode) -> None:
    screen = Recorded(random_estimates(), 3)
    selection = greedy(random_game(n=8), mode, screen=screen)
    # 8 candidates at the first step. An audit of one candidate leaves no bound.
    assert selection.n_evaluated.tolist() == [[5, 5, 5, 5, 4, 3, 2, 1]] * 3
    assert (selection.missed.isfinite() == torch.tensor([True] * 3 + [False] * 5)).all()
    assert [audited.sum(1).tolist() for audited in screen.audits[:6]] == [[3] * 3] * 4 + [[2] * 3, [1] * 3]
    unaudited = greedy(random_game(n=8), mode, screen=random_estimates())
    assert unaudited.missed.isnan().all()


@MODES
def test_the_bound_is_that_of_the_errors_of_the_audited_candidates(mode: Mode) -> None:
    game, fixed = random_game(n=8), random_estimates()
    screen = Recorded(fixed, 3)
    selection = greedy(game, mode, n_steps=1, screen=screen)
    sign = 1 if mode == "insertion" else -1
    gains = torch.empty(3, 8, dtype=torch.float64)
    for example in range(3):
        value, everyone = game.value(example), frozenset(range(8))
        for player in range(8):
            before = frozenset() if mode == "insertion" else everyone
            gains[example, player] = sign * (value(before ^ {player}) - value(before))
    top = fixed.estimates.argsort(dim=1, descending=True)[:, :2]
    skipped = torch.ones(3, 8, dtype=torch.bool).scatter(1, top, False) & ~screen.audits[0]
    expected = largest_missed_gain(fixed.estimates, gains, audited=screen.audits[0], skipped=skipped)
    torch.testing.assert_close(selection.missed[:, 0].double(), expected, rtol=1e-5, atol=1e-5)


def test_the_audit_draws_every_skipped_candidate_equally_often() -> None:
    fixed = FixedScreen(2, torch.arange(8)[None].double())
    counts = torch.zeros(8)
    for seed in range(300):
        screen = Recorded(fixed, 2, seed)
        greedy(random_game(batch=1, n=8), "insertion", n_steps=1, screen=screen)
        counts += screen.audits[0][0]
    # 2 of 6 candidates: 100 of 300 on average. Five standard deviations are 41.
    assert counts[6:].tolist() == [0, 0]
    assert ((counts[:6] - 100).abs() < 41).all()


def test_a_candidate_of_the_audit_may_be_chosen() -> None:
    """Among seeds, the best candidate is found by the audit although the screen ranks it last."""
    game = random_game(batch=1, n=8)
    best = int(greedy(game, "insertion", n_steps=1).order[0, 0])
    estimates = torch.zeros(1, 8, dtype=torch.float64)
    estimates[0, best] = -1
    found = [
        int(greedy(game, "insertion", n_steps=1, screen=AuditedScreen(FixedScreen(1, estimates), 3, seed)).order[0, 0])
        for seed in range(20)
    ]
    assert best in found and set(found) != {best}


@MODES
def test_exact_games_stay_below_the_bound_as_often_as_stated(mode: Mode) -> None:
    """The gains of these games are normally distributed, and the screen expects the same of all candidates."""
    steps = below = 0
    for seed in range(150):
        screen = Recorded(FixedScreen(1, torch.zeros(3, 8).double()), 3)
        selection = greedy(random_game(n=8, seed=seed), mode, n_steps=2, screen=screen)
        for step in range(2):
            below += int((screen.skipped_gains[step].amax(1) <= selection.missed[:, step].double() + 1e-6).sum())
            steps += 3
    # Four standard deviations of a share of 95% in 900 steps are 2.9%.
    assert below >= (0.95 - 0.029) * steps


@pytest.mark.parametrize("screen", [RandomScreen(2), BothEndsScreen(), GradientScreen(4) | RandomScreen(2)])
def test_screens_that_do_not_estimate_gains_cannot_be_audited(screen: AnyScreen) -> None:
    with pytest.raises(ValueError, match="which does not estimate gains; pass for example GradientScreen"):
        AuditedScreen(screen, 3)


@pytest.mark.parametrize(
    "screen",
    [
        AuditedScreen(GradientScreen(2), 3),
        AuditedScreen(LastGainsScreen(2), 3),
        AuditedScreen(HalfPrecisionScreen(), 3),
        AuditedScreen(GradientScreen(6) | LastGainsScreen(2), 3),
    ],
)
@pytest.mark.parametrize("beam_width", [1, 3])
@MODES
def test_a_batch_gives_the_bounds_of_its_examples(screen: AuditedScreen, beam_width: int, mode: Mode) -> None:
    inputs = torch.randn(3, 12)
    options = {"screen": screen, "beam_width": beam_width}
    batch = greedy(CoalitionGame(zoo.Classes(12), inputs, target=[0, 1, 2]), mode, **options)
    assert screen.stages == get_screen(screen).stages
    for example in range(3):
        game = CoalitionGame(zoo.Classes(12), inputs[example : example + 1], target=example)
        single = greedy(game, mode, **options)
        assert torch.equal(batch.order[example], single.order[0])
        torch.testing.assert_close(batch.missed[example], single.missed[0], equal_nan=True, rtol=1e-3, atol=1e-4)
    if not isinstance(screen.screen, HalfPrecisionScreen):
        assert batch.missed[:, 1].isfinite().all()


def test_selections_keep_the_bound() -> None:
    selection = greedy(random_game(n=8), "insertion", screen=AuditedScreen(random_estimates(), 3))
    loaded = Selection.from_dict(json.loads(json.dumps(selection.to_dict())))
    torch.testing.assert_close(loaded.missed, selection.missed, check_dtype=False, equal_nan=True)
    assert selection.to_dict()["missed"][0][-1] is None
    short = shorten(selection, torch.tensor([2, 1, 0]))
    assert torch.equal(short.missed[0], selection.missed[0, :2])
    assert short.missed.isfinite().sum(1).tolist() == [2, 1, 0]
    merged = merge(selection, short, torch.tensor([False, True, False]))
    assert merged.missed.isfinite().sum(1).tolist() == [3, 1, 3]
    assert "upper bound of skipped gains (95 %)" in selection._repr_html_()


def test_older_files_have_no_bound() -> None:
    selection = greedy(random_game(n=8), "insertion", screen=AuditedScreen(random_estimates(), 3))
    values = selection.to_dict()
    del values["missed"]
    older = Selection.from_dict(values)
    assert older.missed.shape == older.order.shape and older.missed.isnan().all()
    assert "skipped" not in older._repr_html_()


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("gradient:4+audit", "AuditedScreen(GradientScreen(4), 16, seed=0)"),
        ("last-gains:4+audit:16", "AuditedScreen(LastGainsScreen(4), 16, seed=0)"),
        ("gradient:9+last-gains:4+audit:2", "AuditedScreen(GradientScreen(9) | LastGainsScreen(4), 2, seed=0)"),
    ],
)
def test_an_audit_can_be_named(spec: str, expected: str) -> None:
    assert repr(get_screen(spec)) == expected
    assert get_screen("gradient:4+audit").used_in == ("deletion",)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("audit:8", "an audit needs a screen; pass for example gradient:8"),
        ("all+audit:8", "an audit needs a screen"),
        ("gradient:8+audit:1", "pass SCREEN.audit:N, where N is an int from 2 to"),
        ("gradient:8+audit:x", "pass SCREEN.audit:N, where N is an int from 2 to"),
        ("gradient:8+audit+audit", "pass audit once, as the last part"),
        ("gradient:8+audit+last-gains:2", "pass audit once, as the last part"),
    ],
)
def test_specs_that_are_not_an_audit_are_rejected(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        get_screen(spec)


@pytest.mark.parametrize(
    ("create", "error", "message"),
    [
        (lambda: AuditedScreen("gradient"), TypeError, "screen is 'gradient'; pass a screen without an audit"),  # type: ignore[arg-type]
        (lambda: AuditedScreen(AuditedScreen(GradientScreen())), TypeError, "pass a screen without an audit"),
        (lambda: AuditedScreen(GradientScreen(), 1), ValueError, "n is 1; pass at least 2"),
        (lambda: AuditedScreen(GradientScreen(), 0), ValueError, "n is 0"),
        (lambda: AuditedScreen(GradientScreen(), 2.5), TypeError, "n is 2.5"),  # type: ignore[arg-type]
        (lambda: AuditedScreen(GradientScreen(), 4, -1), ValueError, "seed is -1"),
        (lambda: GradientScreen() | AuditedScreen(LastGainsScreen()), TypeError, "an audit inside a cascade"),
        (lambda: AuditedScreen(LastGainsScreen()) | GradientScreen(), TypeError, "an audit inside a cascade"),
    ],
)
def test_what_cannot_be_audited_is_rejected(create: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        create()


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "screen", "n_steps"),
    [
        (MoXIDeletion, GradientScreen(8), 3),
        (MoXIDeletion, LastGainsScreen(8), 4),
        (MoXIInsertion, LastGainsScreen(8), 8),
    ],
)
def test_bounds_hold_on_photographs(
    method: type[MoXIDeletion | MoXIInsertion], screen: Screen, n_steps: int, shared: Path
) -> None:
    """The share of steps in which no skipped patch has a larger gain, of ViT-T with 7 x 7 patches."""
    vit = load(shared / "models" / "vit-tiny-patch16-224", "cpu")
    paths = sorted((shared / "imagenet-sample").glob("*.jpg"))[::250]
    x = vit.preprocess([Image.open(path) for path in paths])
    with torch.no_grad():
        target = vit.model(x).logits.argmax(1)
    recorded = Recorded(screen, 16)
    _, selection = method(vit.model, screen=recorded).attribute(
        x, target=target, feature_mask=patch_mask(224, grid=7), n_steps=n_steps, return_selection=True
    )
    gains = torch.stack([gains.amax(1) for gains in recorded.skipped_gains[:n_steps]], 1)
    has_bound = selection.missed.isfinite()
    holds = (gains <= selection.missed)[has_bound]
    print(f"{method.__name__}, {screen}: {int(holds.sum())} of {len(holds)}")
    # Four standard deviations of a share of 95%.
    assert holds.double().mean() >= 0.95 - 4 * (0.95 * 0.05 / len(holds)) ** 0.5
    assert len(holds) >= 6
