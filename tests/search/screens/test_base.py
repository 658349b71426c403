from typing import Any

import numpy as np
import pytest
import torch
import zoo
from games import MODES, FixedScreen, TableGame, random_game
from torch import Tensor

from captum_moxi import (
    GradientScreen,
    LastGainsScreen,
    MoXIDeletion,
    MoXIInsertion,
    RandomScreen,
    patch_mask,
)
from captum_moxi.arguments import Mode
from captum_moxi.search import greedy
from captum_moxi.search.screens import Screen, SearchStep, get_screen


def test_a_step_evaluates_the_m_candidates_with_the_highest_estimates() -> None:
    estimates = torch.tensor([[3.0, 1.0, 5.0, 4.0, 2.0]], dtype=torch.float64)
    selection = greedy(random_game(batch=1, n=5), "insertion", n_steps=4, screen=FixedScreen(2, estimates))
    remaining = {0, 1, 2, 3, 4}
    for player, skipped, n_evaluated in zip(
        selection.order[0].tolist(), selection.skipped[0].tolist(), selection.n_evaluated[0].tolist(), strict=True
    ):
        by_estimate = sorted(remaining, key=lambda b: -float(estimates[0, b]))
        assert player in by_estimate[:2]
        assert n_evaluated == 2
        if len(remaining) > 2:
            # the highest estimate of a candidate that was not evaluated
            assert skipped == estimates[0, by_estimate[2]]
        else:
            assert skipped != skipped  # NaN: no candidate was skipped
        remaining.remove(player)


@pytest.mark.parametrize("unknown", [torch.nan, torch.inf])
def test_candidates_without_an_estimate_are_evaluated(unknown: float) -> None:
    estimates = torch.tensor([[3.0, unknown, 5.0, unknown, 2.0]], dtype=torch.float64)
    selection = greedy(random_game(batch=1, n=5), "insertion", n_steps=1, screen=FixedScreen(1, estimates))
    assert selection.n_evaluated.tolist() == [[2]]
    assert selection.skipped.tolist() == [[5.0]]


@MODES
def test_shapley_values_are_exact_even_for_players_that_the_first_step_skipped(mode: Mode) -> None:
    game = random_game(n=6)
    selection = greedy(game, mode, screen=FixedScreen(2, torch.rand(3, 6).double()))
    everyone = frozenset(range(6))
    for example in range(3):
        value = game.value(example)
        for player, shapley in zip(selection.order[example].tolist(), selection.shapley[example].tolist(), strict=True):
            if mode == "insertion":
                assert shapley == pytest.approx(value(frozenset([player])) - value(frozenset()), abs=1e-6)
            else:
                assert shapley == pytest.approx(value(everyone) - value(everyone - {player}), abs=1e-6)
    torch.testing.assert_close(selection.shapley + selection.interactions, selection.gains)


@pytest.mark.parametrize("per_eval", [None, 1, 3])
@pytest.mark.parametrize("width", [1, 3])
def test_a_screened_batch_gives_the_selections_of_its_examples(per_eval: int | None, width: int) -> None:
    """The examples have different numbers of players and stop at different steps."""
    model, images = zoo.randomised(zoo.resnet()), torch.randn(3, 3, 32, 32)
    masks = torch.cat([patch_mask(32, 8), patch_mask(32, 16), patch_mask(32, 8)])
    options = {"stop": "flip", "return_selection": True, "perturbations_per_eval": per_eval}
    method = MoXIDeletion(model, screen=GradientScreen(2), beam_width=width)
    target = model(images).logits.argmax(1)
    _, batch = method.attribute(images, target=target, feature_mask=masks, **options)
    for i in range(3):
        example = slice(i, i + 1)
        _, single = method.attribute(images[example], target=target[example], feature_mask=masks[example], **options)
        steps = int(single.n_steps[0])
        assert int(batch.n_steps[i]) == steps
        assert torch.equal(batch.order[i, :steps], single.order[0])
        assert torch.equal(batch.n_evaluated[i, :steps], single.n_evaluated[0])
        # the logits of the network are in the hundreds
        tolerance = {"rtol": 1e-4, "atol": 1e-2, "equal_nan": True}
        torch.testing.assert_close(batch.skipped[i, :steps], single.skipped[0], **tolerance)
        torch.testing.assert_close(batch.shapley[i, :steps], single.shapley[0], **tolerance)


def test_a_step_lists_the_coalition_that_each_candidate_leads_to() -> None:
    game = random_game(batch=2, n=3)
    present = torch.tensor([[True, False, False], [False, True, False]])
    candidates = torch.tensor([[False, True, True], [True, False, False]])
    nothing = torch.full((2, 3), torch.nan)
    step = SearchStep(
        game=game,
        mode="insertion",
        number=2,
        examples=torch.tensor([1, 0]),
        present=present,
        candidates=candidates,
        rewards=torch.zeros(2),
        gains=nothing,
        sizes=torch.zeros(2, 3),
        estimates=nothing,
    )
    starts, positions, coalitions, examples = step.candidate_coalitions()
    assert starts.tolist() == [0, 0, 1]
    assert positions.tolist() == [1, 2, 0]
    assert coalitions.tolist() == [[True, True, False], [True, False, True], [True, True, False]]
    assert examples.tolist() == [1, 1, 0]
    assert torch.equal(step.present, torch.tensor([[True, False, False], [False, True, False]]))


class NoCandidates(Screen):
    """Names no candidates in the second example."""

    def estimate(self, step: SearchStep) -> tuple[Tensor, Tensor]:
        return torch.zeros(step.candidates.shape), torch.zeros(step.candidates.shape)

    def next_candidates(self, step: SearchStep, priorities: Tensor, gains: Tensor) -> Tensor:
        return step.candidates & gains.isnan() & (step.examples != 1)[:, None]


class WrongShape(Screen):
    def estimate(self, step: SearchStep) -> tuple[Tensor, Tensor]:
        return torch.zeros(6), torch.zeros(6)


class OneTensor(Screen):
    def estimate(self, step: SearchStep) -> tuple[Tensor, Tensor]:
        return torch.zeros(step.candidates.shape)


@pytest.mark.parametrize(
    ("screen", "error", "message"),
    [
        (NoCandidates, ValueError, r"NoCandidates\(2\).* no candidate.* at step 1"),
        (WrongShape, ValueError, r"WrongShape\(2\).*\(6,\)"),
        (OneTensor, TypeError, r"OneTensor\(2\).* a Tensor"),
    ],
)
@pytest.mark.parametrize("batch", [2, 3])
def test_an_error_of_a_custom_screen_names_the_screen_and_its_mistake(
    screen: type[Screen], error: type[Exception], message: str, batch: int
) -> None:
    with pytest.raises(error, match=message):
        greedy(random_game(batch=batch), "insertion", screen=screen(2))


@pytest.mark.parametrize(
    ("screen", "message"),
    [
        (8, "screen is 8; pass an instance of Screen"),
        (GradientScreen, "screen is <class .*; pass an instance of Screen"),
    ],
)
def test_what_is_not_a_screen_is_rejected(screen: Any, message: str) -> None:
    for create in (get_screen, lambda screen: MoXIInsertion(zoo.Classes(4), screen=screen)):
        with pytest.raises(TypeError, match=message):
            create(screen)
    assert get_screen(None) is None
    screen = GradientScreen()
    assert get_screen(screen) is screen


def test_a_screen_can_be_named() -> None:
    assert repr(get_screen("gradient:3")) == "GradientScreen(3)"
    assert repr(MoXIInsertion(zoo.Classes(4), screen="last-gains:5").screen) == "LastGainsScreen(5)"
    with pytest.raises(ValueError, match="screen 'gradients' is unknown; pass one of all, gradient:M"):
        MoXIInsertion(zoo.Classes(4), screen="gradients")


BAD_NUMBERS = [
    (0, ValueError),
    (-1, ValueError),
    (1.5, TypeError),
    (True, TypeError),
    (float("nan"), TypeError),
    ("8", TypeError),
    (None, TypeError),
]


@pytest.mark.parametrize("screen", [GradientScreen, LastGainsScreen, RandomScreen])
@pytest.mark.parametrize(("m", "error"), BAD_NUMBERS)
def test_the_number_of_candidates_must_be_a_positive_int(screen: Any, m: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"m is {m!r}"):
        screen(m)


@pytest.mark.parametrize("screen", [GradientScreen, LastGainsScreen, RandomScreen])
def test_the_number_of_candidates_may_be_any_kind_of_int(screen: Any) -> None:
    assert repr(screen(torch.tensor(3))) == repr(screen(np.int64(3))) == repr(screen(3))
    with pytest.raises(TypeError, match=r"m is tensor\(\[1, 2\]\); pass an int of at least 1"):
        screen(torch.tensor([1, 2]))
    # more than there are players
    selection = greedy(random_game(batch=1, n=4), "insertion", screen=screen(10**30))
    assert torch.equal(selection.order, greedy(random_game(batch=1, n=4), "insertion").order)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"beam_width": 0}, ValueError, "beam_width is 0"),
        ({"beam_width": 2.0}, TypeError, "beam_width is 2.0"),
        ({"interactions": False, "beam_width": 2}, ValueError, "interactions"),
        ({"interactions": False, "screen": GradientScreen()}, ValueError, "interactions"),
    ],
)
def test_options_that_do_not_fit_the_search_are_rejected(
    kwargs: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        MoXIDeletion(zoo.Classes(4), **kwargs)


def test_all_candidates_are_evaluated_without_a_screen_if_none_would_be_skipped() -> None:
    game: TableGame = random_game(batch=1, n=4)
    selection = greedy(game, "insertion", screen=FixedScreen(4, torch.zeros(1, 4).double()))
    assert selection.n_evaluated.tolist() == [[4, 3, 2, 1]]
    assert selection.skipped.isnan().all()
