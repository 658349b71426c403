from itertools import pairwise
from typing import Any

import pytest
import torch
import zoo
from games import random_game

from captum_moxi import CoalitionGame, RandomScreen
from captum_moxi.search import greedy


def test_draws_are_the_same_in_a_batch_and_alone_and_do_not_change_the_random_state() -> None:
    game = random_game(batch=3, n=6)
    random_state = torch.get_rng_state()
    batch = greedy(game, "insertion", screen=RandomScreen(2, seed=5))
    assert torch.equal(torch.get_rng_state(), random_state)
    singles = [greedy(game.single(i), "insertion", screen=RandomScreen(2, seed=5)) for i in range(3)]
    assert torch.equal(batch.order, torch.cat([selection.order for selection in singles]))
    assert batch.n_evaluated.tolist() == [[2, 2, 2, 2, 2, 1]] * 3


@pytest.mark.parametrize("beam_width", [1, 3])
def test_draws_do_not_depend_on_the_players_of_other_examples(beam_width: int) -> None:
    # Alone, each example has only its own players, with columns of their own.
    model, x = zoo.Classes(12), torch.randn(4, 12)
    masks = torch.arange(12).repeat(4, 1)
    masks[1] = masks[1] // 2 + 7
    masks[2, 6:] = 3
    masks[3] = (masks[3] + 5) % 11 * 3
    options = {"screen": RandomScreen(2, seed=5), "beam_width": beam_width}
    batch = greedy(CoalitionGame(model, x, target=0, feature_mask=masks), "insertion", **options)
    for i in range(4):
        example = slice(i, i + 1)
        game = CoalitionGame(model, x[example], target=0, feature_mask=masks[example])
        alone = greedy(game, "insertion", **options)
        steps = int(alone.n_steps[0])
        assert batch.n_steps[i] == steps
        assert torch.equal(batch.order[i, :steps], alone.order[0])
        assert torch.equal(batch.n_evaluated[i, :steps], alone.n_evaluated[0])


def test_every_step_draws_again_and_each_candidate_is_drawn_equally_often() -> None:
    game = random_game(batch=1, n=6)
    first = torch.stack(
        [greedy(game, "insertion", n_steps=1, screen=RandomScreen(1, seed=seed)).order[0, 0] for seed in range(600)]
    )
    counts = first.bincount(minlength=6)
    # 100 expected, with a standard deviation of 9
    assert counts.min() > 60 and counts.max() < 140
    order = greedy(game, "insertion", screen=RandomScreen(1)).order
    assert order[0].tolist() not in (sorted(order[0].tolist()), sorted(order[0].tolist(), reverse=True))


def test_seeds_of_any_size_give_different_draws() -> None:
    game = random_game(batch=1, n=6)
    seeds = (0, 2**32, 2**64, 10**30, 10**30 + 1)
    orders = {tuple(greedy(game, "insertion", screen=RandomScreen(1, seed=seed)).order[0].tolist()) for seed in seeds}
    assert len(orders) == len(seeds)


def test_another_seed_gives_other_draws() -> None:
    game = random_game(batch=3, n=6)
    orders = [greedy(game, "insertion", screen=RandomScreen(2, seed=seed)).order for seed in range(4)]
    assert any(not torch.equal(a, b) for a, b in pairwise(orders))


def test_random_draws_are_not_recorded_as_gains_of_skipped_candidates() -> None:
    assert greedy(random_game(), "insertion", screen=RandomScreen(2)).skipped.isnan().all()


@pytest.mark.parametrize("seed", [1.5, True, "1", None, float("nan"), torch.tensor([1, 2])])
def test_the_seed_must_be_an_int(seed: Any) -> None:
    with pytest.raises(TypeError, match=r"seed is .*; pass an int of at least 0"):
        RandomScreen(4, seed=seed)
