"""What greedy search and MoXI(-) have in common: rewards, stopping, players and ties."""

from collections.abc import Callable

import pytest
import torch
from games import MODES, TableGame, random_game

from captum_moxi import Selection
from captum_moxi.arguments import Mode
from captum_moxi.search import greedy, has_flipped, rank_independently

Search = Callable[..., Selection]
SEARCHES = pytest.mark.parametrize("search", [greedy, rank_independently])


@MODES
@SEARCHES
def test_the_gains_of_a_full_run_sum_to_the_total_change(mode: Mode, search: Search) -> None:
    game = random_game()
    selection = search(game, mode)
    for example in range(3):
        value = game.value(example)
        total = value(frozenset(range(6))) - value(frozenset())
        assert float(selection.gains[example].sum()) == pytest.approx(total, abs=1e-5)
        terms = selection.shapley[example] + selection.interactions[example]
        assert terms.tolist() == pytest.approx(selection.gains[example].tolist(), abs=1e-5)


@MODES
@SEARCHES
@pytest.mark.parametrize("confidence", [0.0, 0.6])
def test_each_example_stops_at_its_own_first_flip(mode: Mode, search: Search, confidence: float) -> None:
    game = random_game(batch=6, n=5, seed=3)
    whole = search(game, mode)
    stopped = search(game, mode, stop="flip", min_confidence=confidence)
    assert stopped.order.shape[1] == int(stopped.n_steps.max())
    for example in range(6):
        is_target = whole.predictions[example] == 0
        flips = is_target & (whole.confidences[example] > confidence) if mode == "insertion" else ~is_target
        steps = int(flips.nonzero()[0]) if flips.any() else 5
        assert int(stopped.n_steps[example]) == steps
        assert bool(stopped.flipped[example]) == bool(flips.any())
        assert stopped.order[example, :steps].tolist() == whole.order[example, :steps].tolist()
        assert (stopped.order[example, steps:] == -1).all()
        assert stopped.rewards[example, steps + 1 :].isnan().all()
        assert not stopped.rewards[example, : steps + 1].isnan().any()
        single = search(game.single(example), mode, stop="flip", min_confidence=confidence)
        assert single.order[0].tolist() == stopped.order[example, :steps].tolist()


@MODES
@SEARCHES
def test_examples_may_have_different_players(mode: Mode, search: Search) -> None:
    exists = torch.tensor([[True, True, False, True], [False, True, True, False]])
    ids = torch.tensor([2, 5, 7, 11])
    selection = search(TableGame(torch.randn(2, 16, 2), ids, exists), mode)
    assert selection.n_steps.tolist() == [3, 2]
    assert sorted(selection.order[0].tolist()) == [2, 5, 11]
    assert sorted(selection.order[1].tolist()) == [-1, 5, 7]


@MODES
@SEARCHES
def test_ties_go_to_the_lowest_id(mode: Mode, search: Search) -> None:
    sizes = torch.tensor([float(bin(r).count("1")) for r in range(32)])
    rounding = 1 + 1e-7 * torch.randn(32)
    game = TableGame(torch.stack([sizes * rounding, torch.zeros(32)], 1)[None])
    assert search(game, mode).order[0].tolist() == [0, 1, 2, 3, 4]


@MODES
@SEARCHES
def test_a_game_without_targets_never_flips(mode: Mode, search: Search) -> None:
    game = random_game()
    game.targets = None
    selection = search(game, mode, stop="flip")
    assert selection.n_steps.tolist() == [6] * 3
    assert not selection.flipped.any()


def test_has_flipped_depends_on_mode_and_confidence() -> None:
    predictions, confidences = torch.tensor([2, 2, 1]), torch.tensor([0.9, 0.4, 0.3])
    options = {"target": 2, "min_confidence": 0.5}
    assert has_flipped("insertion", predictions, confidences, target=2).tolist() == [True, True, False]
    assert has_flipped("insertion", predictions, confidences, **options).tolist() == [True, False, False]
    assert has_flipped("deletion", predictions, confidences, **options).tolist() == [False, False, True]
    targets = torch.tensor([2, 1, 1])
    assert has_flipped("deletion", predictions, confidences, target=targets).tolist() == [False, True, False]


@MODES
def test_the_flip_of_the_other_mode_can_stop_a_search(mode: Mode) -> None:
    game = random_game(batch=8, n=5, seed=3)
    other: Mode = "deletion" if mode == "insertion" else "insertion"
    whole = greedy(game, mode)
    selection = greedy(game, mode, stop="flip", flip=other)
    assert selection.flip == other
    for example in range(8):
        flips = has_flipped(other, whole.predictions[example], whole.confidences[example], target=0)
        assert int(selection.n_steps[example]) == (int(flips.nonzero()[0]) if flips.any() else 5)
    assert whole.flip is None
    assert greedy(game, mode, flip=mode).flip is None
