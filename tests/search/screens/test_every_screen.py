"""What every registered screen must do. A screen that is registered later is tested without changes here."""

import pytest
import torch
import zoo
from games import MODES
from specs import example_specs, specs_with_argument
from torch import Tensor

from captum_moxi import CoalitionGame
from captum_moxi.arguments import Mode
from captum_moxi.search import follow, greedy
from captum_moxi.search.screens import SCREENS, Screen

SPECS = pytest.mark.parametrize("spec", sorted({*example_specs(SCREENS), *specs_with_argument(SCREENS)}))


@pytest.fixture
def inputs() -> Tensor:
    return torch.randn(3, 12)


@pytest.fixture
def game(inputs: Tensor) -> CoalitionGame:
    """A game with effects and approximations, 12 players and a different target for each example."""
    return CoalitionGame(zoo.Classes(12), inputs, target=[0, 1, 2])


@SPECS
def test_a_spec_creates_a_screen_or_none_for_all_candidates(spec: str) -> None:
    screen = SCREENS.create(spec)
    if screen is None:
        assert spec == "all"
    else:
        assert isinstance(screen, Screen)
        assert repr(screen).startswith(type(screen).__name__)
        assert screen.m >= 1


@SPECS
@MODES
def test_a_full_run_chooses_every_player_once_and_its_rewards_are_those_of_the_game(
    spec: str, mode: Mode, game: CoalitionGame
) -> None:
    selection = greedy(game, mode, screen=SCREENS.create(spec))
    assert selection.order.sort(1).values.tolist() == [list(range(12))] * 3
    assert (selection.n_evaluated >= 1).all()
    assert (selection.n_evaluated <= torch.arange(12, 0, -1)).all()
    path = follow(game, mode, selection.order)
    torch.testing.assert_close(selection.rewards, path.rewards, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(selection.confidences, path.confidences, rtol=1e-5, atol=1e-5)
    assert torch.equal(selection.predictions, path.predictions)
    torch.testing.assert_close(selection.shapley + selection.interactions, selection.gains, rtol=1e-4, atol=1e-5)


@SPECS
@MODES
def test_shapley_values_do_not_depend_on_the_screen(spec: str, mode: Mode, game: CoalitionGame) -> None:
    selection = greedy(game, mode, screen=SCREENS.create(spec))
    exact = greedy(game, mode)
    values, expected = torch.empty(3, 12), torch.empty(3, 12)
    values.scatter_(1, selection.order, selection.shapley)
    expected.scatter_(1, exact.order, exact.shapley)
    torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-5)


@SPECS
@MODES
def test_a_screen_keeps_no_state_and_uses_no_global_random_numbers(spec: str, mode: Mode, game: CoalitionGame) -> None:
    screen = SCREENS.create(spec)
    random_state = torch.get_rng_state()
    first = greedy(game, mode, screen=screen)
    greedy(game, "deletion" if mode == "insertion" else "insertion", n_steps=3, screen=screen)
    again = greedy(game, mode, screen=screen)
    assert torch.equal(again.order, first.order)
    assert torch.equal(again.n_evaluated, first.n_evaluated)
    assert torch.equal(torch.get_rng_state(), random_state)


@SPECS
@MODES
@pytest.mark.parametrize("beam_width", [1, 3])
def test_a_batch_gives_the_selections_of_its_examples(
    spec: str, mode: Mode, beam_width: int, game: CoalitionGame, inputs: Tensor
) -> None:
    options = {"stop": "flip", "beam_width": beam_width}
    batch = greedy(game, mode, screen=SCREENS.create(spec), **options)
    for example in range(3):
        single_game = CoalitionGame(zoo.Classes(12), inputs[example : example + 1], target=example)
        single = greedy(single_game, mode, screen=SCREENS.create(spec), **options)
        steps = int(single.n_steps[0])
        assert int(batch.n_steps[example]) == steps
        assert torch.equal(batch.order[example, :steps], single.order[0])
        assert torch.equal(batch.n_evaluated[example, :steps], single.n_evaluated[0])
        assert (batch.order[example, steps:] == -1).all()


@SPECS
@MODES
def test_examples_may_have_different_players(spec: str, mode: Mode, inputs: Tensor) -> None:
    mask = torch.arange(12).repeat(3, 1)
    mask[1, 6:] = 5
    mask[2] = mask[2] // 4 + 20
    game = CoalitionGame(zoo.Classes(12), inputs, target=1, feature_mask=mask)
    selection = greedy(game, mode, screen=SCREENS.create(spec))
    assert selection.n_steps.tolist() == [12, 6, 3]
    for example in range(3):
        players = game.ids[game.exists[example]].tolist()
        assert sorted(selection.order[example, : len(players)].tolist()) == players


@MODES
@pytest.mark.parametrize("name", [entry.name for entry in SCREENS.entries if entry.argument is not None])
def test_a_screen_of_as_many_candidates_as_players_is_the_exact_search(
    name: str, mode: Mode, game: CoalitionGame
) -> None:
    selection = greedy(game, mode, screen=SCREENS.create(f"{name}:12"))
    exact = greedy(game, mode)
    assert torch.equal(selection.order, exact.order)
    assert torch.equal(selection.n_evaluated, exact.n_evaluated)
