from itertools import combinations

import pytest
import torch
from games import MODES, TableGame, random_game
from paths import path_rewards
from torch import Tensor

from captum_moxi.arguments import Mode
from captum_moxi.search import greedy
from captum_moxi.search.screens import Screen, SearchStep


@MODES
@pytest.mark.parametrize("k", [1, 2, 3, 4, 6])
def test_a_beam_of_all_groups_finds_the_best_group(mode: Mode, k: int) -> None:
    game = random_game(seed=4)
    selection = greedy(game, mode, n_steps=k, beam_width=20)
    everyone = frozenset(range(6))
    for example in range(3):
        value = game.value(example)
        groups = [frozenset(group) for group in combinations(range(6), k)]
        best = max(map(value, groups)) if mode == "insertion" else min(value(everyone - group) for group in groups)
        assert float(selection.rewards[example, -1]) == pytest.approx(best)


@MODES
@pytest.mark.parametrize("width", [2, 3, 4, 8])
def test_a_beam_is_never_worse_than_greedy_search_after_as_many_steps(mode: Mode, width: int) -> None:
    game = random_game(batch=8, n=7, seed=5)
    sign = 1 if mode == "insertion" else -1
    n_better = 0
    for k in range(1, 8):
        single, beam = greedy(game, mode, n_steps=k), greedy(game, mode, n_steps=k, beam_width=width)
        gap = sign * (beam.rewards[:, -1] - single.rewards[:, -1])
        assert (gap >= -1e-6).all()
        n_better += int((gap > 1e-3).sum())
        for example in range(8):
            assert beam.rewards[example].tolist() == pytest.approx(path_rewards(game, beam, example))
    assert n_better
    single, beam = (greedy(game, mode, stop="flip", beam_width=w) for w in (1, width))
    assert (beam.n_steps <= single.n_steps).all()
    assert (beam.flipped >= single.flipped).all()


@MODES
def test_a_beam_of_width_1_is_greedy_search(mode: Mode) -> None:
    game = random_game(seed=6)
    assert torch.equal(greedy(game, mode, beam_width=1).order, greedy(game, mode).order)


@MODES
def test_the_beams_of_a_batch_are_those_of_its_examples(mode: Mode) -> None:
    game = random_game(seed=6)
    batch = greedy(game, mode, n_steps=4, stop="flip", beam_width=3)
    for example in range(3):
        single = greedy(game.single(example), mode, n_steps=4, stop="flip", beam_width=3)
        steps = int(single.n_steps[0])
        assert int(batch.n_steps[example]) == steps
        assert torch.equal(batch.order[example, :steps], single.order[0, :steps])
        assert batch.rewards[example, : steps + 1].tolist() == pytest.approx(single.rewards[0].tolist())
        assert (batch.order[example, steps:] == -1).all()


def test_a_beam_finds_two_players_that_are_strong_only_together() -> None:
    # player 0 is the best alone, but players 1 and 2 together are better than any pair that contains it
    rewards = {(): 0.0, (0,): 1.0, (1,): 0.9, (2,): 0.8, (0, 1): 1.5, (0, 2): 1.4, (1, 2): 3.0, (0, 1, 2): 3.5}
    logits = torch.zeros(1, 8, 2)
    for group, reward in rewards.items():
        logits[0, sum(1 << i for i in group), 0] = reward
    game = TableGame(logits)
    assert greedy(game, "insertion", n_steps=2).order.tolist() == [[0, 1]]
    game.rows = 0
    beam = greedy(game, "insertion", n_steps=2, beam_width=2)
    assert beam.order.tolist() == [[1, 2]]
    assert beam.shapley[0].tolist() == pytest.approx([0.9, 0.8])
    assert beam.interactions[0].tolist() == pytest.approx([0.0, 3.0 - 0.9 - 0.8])
    # the empty group, three players, and the successors of {0} and {1}, which share {0, 1}
    assert game.rows == 1 + 3 + 3
    assert beam.n_evaluated.tolist() == [[3, 4]]


@MODES
def test_a_beam_over_all_players_returns_the_path_with_the_highest_rewards(mode: Mode) -> None:
    game = random_game(batch=1, seed=7)
    single, beam = greedy(game, mode), greedy(game, mode, beam_width=4)
    assert sorted(beam.order[0].tolist()) == list(range(6))
    sign = 1 if mode == "insertion" else -1
    assert sign * float(beam.rewards.sum()) >= sign * float(single.rewards.sum()) - 1e-6


class OneThenTheRest(Screen):
    """Evaluates one random candidate and then the others, so that two groups can meet in different passes."""

    def estimate(self, step: SearchStep) -> tuple[Tensor, Tensor]:
        draws = torch.rand(step.candidates.shape, generator=torch.Generator().manual_seed(step.number))
        return draws, draws

    def next_candidates(self, step: SearchStep, priorities: Tensor, gains: Tensor) -> Tensor:
        if bool(gains.isnan().all()):
            return super().next_candidates(step, priorities, gains)
        return step.candidates & gains.isnan()


@MODES
def test_a_beam_keeps_each_group_once_however_many_passes_reach_it(mode: Mode) -> None:
    game = random_game(batch=4, n=6, seed=9)
    for k in range(1, 7):
        exact = greedy(game, mode, n_steps=k, beam_width=4)
        in_passes = greedy(game, mode, n_steps=k, screen=OneThenTheRest(1), beam_width=4)
        torch.testing.assert_close(in_passes.rewards[:, -1], exact.rewards[:, -1])
