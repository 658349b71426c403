from itertools import pairwise
from typing import Any

import pytest
import torch
from games import random_game

from captum_moxi import RandomScreen
from captum_moxi.search import greedy


def test_draws_are_the_same_in_a_batch_and_alone_and_do_not_change_the_random_state() -> None:
    game = random_game(batch=3, n=6)
    random_state = torch.get_rng_state()
    batch = greedy(game, "insertion", screen=RandomScreen(2, seed=5))
    assert torch.equal(torch.get_rng_state(), random_state)
    singles = [greedy(game.single(i), "insertion", screen=RandomScreen(2, seed=5)) for i in range(3)]
    assert torch.equal(batch.order, torch.cat([selection.order for selection in singles]))
    assert batch.n_evaluated.tolist() == [[2, 2, 2, 2, 2, 1]] * 3


def test_another_seed_gives_other_draws() -> None:
    game = random_game(batch=3, n=6)
    orders = [greedy(game, "insertion", screen=RandomScreen(2, seed=seed)).order for seed in range(4)]
    assert any(not torch.equal(a, b) for a, b in pairwise(orders))


def test_random_draws_are_not_recorded_as_gains_of_skipped_candidates() -> None:
    assert greedy(random_game(), "insertion", screen=RandomScreen(2)).skipped.isnan().all()


@pytest.mark.parametrize("seed", [1.5, True, "1", None])
def test_the_seed_must_be_an_int(seed: Any) -> None:
    with pytest.raises(TypeError, match=r"seed is .*; pass an int of at least 0"):
        RandomScreen(4, seed=seed)
