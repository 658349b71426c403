from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import pytest
import reference
import torch
from torch import Tensor

from captum_moxi import Selection, interactions
from captum_moxi.search import Mode, follow, greedy, rank


class TableGame:
    """Games given by tables of logits ``(B, 2**n, 2)``: the reward is class 0's, the target's, less class 1's."""

    def __init__(self, logits: Tensor, ids: Tensor | None = None, exists: Tensor | None = None) -> None:
        self.logits = logits
        self.n_games, size, _ = logits.shape
        self.n_players = size.bit_length() - 1
        self.ids = torch.arange(self.n_players) if ids is None else ids
        self.exists = torch.ones(self.n_games, self.n_players, dtype=torch.bool) if exists is None else exists
        self.targets = torch.zeros(self.n_games, dtype=torch.long)
        self.rounds_relatively = False
        self.full = self.outcome(self.exists, torch.arange(self.n_games))
        self.rows = 0

    def outcome(self, coalitions: Tensor, examples: Tensor) -> SimpleNamespace:
        self.rows = getattr(self, "rows", 0) + len(coalitions)
        logits = self.logits[examples, (coalitions.long() << torch.arange(self.n_players)).sum(1)]
        return SimpleNamespace(
            rewards=logits[:, 0] - logits[:, 1],
            confidences=logits.softmax(1)[:, 0],
            predictions=logits.argmax(1),
        )

    def value(self, example: int) -> reference.Value:
        def of(players: frozenset[int]) -> float:
            logits = self.logits[example, sum(1 << i for i in players)]
            return float(logits[0] - logits[1])

        return of

    def alone(self, example: int) -> "TableGame":
        return TableGame(self.logits[example : example + 1], self.ids, self.exists[example : example + 1])


def random_game(batch: int = 3, n: int = 6, seed: int = 0) -> TableGame:
    return TableGame(torch.randn(batch, 2**n, 2, generator=torch.Generator().manual_seed(seed)))


MODES = pytest.mark.parametrize("mode", ["insertion", "deletion"])
SEARCHES = pytest.mark.parametrize("search", [greedy, rank])


@MODES
def test_greedy_is_the_papers_algorithm(mode: Mode) -> None:
    game = random_game()
    selection = greedy(game, mode)
    for example in range(3):
        order, values = getattr(reference, mode)(game.value(example), 6, 6)
        assert selection.order[example].tolist() == order
        assert selection.rewards[example].tolist() == pytest.approx(values)


@MODES
def test_every_step_maximises_shapley_plus_interaction(mode: Mode) -> None:
    game = random_game(batch=1)
    selection = greedy(game, mode)

    def value(coalitions: Tensor) -> Tensor:
        return game.outcome(coalitions, torch.zeros(len(coalitions), dtype=torch.long)).rewards

    context = "self" if mode == "insertion" else "full"
    shapley = getattr(interactions, f"{context}_context_shapley")(value, 6)
    group = torch.zeros(6, dtype=torch.bool)
    for step, player in enumerate(selection.order[0].tolist()):
        together = torch.zeros(6)
        if step:
            together = getattr(interactions, f"{context}_context_interactions")(value, group)
        assert int((shapley + together).masked_fill(group, -torch.inf).argmax()) == player
        assert selection.shapley[0, step] == pytest.approx(float(shapley[player]), abs=1e-5)
        assert selection.interactions[0, step] == pytest.approx(float(together[player]), abs=1e-5)
        group[player] = True


@MODES
def test_greedy_takes_the_fewest_rows(mode: Mode) -> None:
    game = random_game(batch=2, n=5)
    game.rows = 0
    greedy(game, mode, n_steps=3)
    start = 2 if mode == "insertion" else 0  # deletion begins with what the game knows already
    assert game.rows == start + 2 * (5 + 4 + 3)


@MODES
def test_rank_orders_by_shapley_value_alone(mode: Mode) -> None:
    game = random_game()
    selection = rank(game, mode)
    for example in range(3):
        value, everyone = game.value(example), frozenset(range(6))
        own = [
            value(frozenset([i])) - value(frozenset())
            if mode == "insertion"
            else value(everyone) - value(everyone - {i})
            for i in range(6)
        ]
        order = sorted(range(6), key=lambda i: -own[i])
        assert selection.order[example].tolist() == order
        assert selection.shapley[example].tolist() == pytest.approx([own[i] for i in order], abs=1e-5)
        path = [frozenset(order[:k]) if mode == "insertion" else everyone - set(order[:k]) for k in range(7)]
        assert selection.rewards[example].tolist() == pytest.approx([value(coalition) for coalition in path])


@MODES
@SEARCHES
def test_the_rewards_telescope(mode: Mode, search: object) -> None:
    game = random_game()
    selection = search(game, mode)
    for example in range(3):
        value = game.value(example)
        whole = value(frozenset(range(6))) - value(frozenset())
        assert float(selection.gains[example].sum()) == pytest.approx(whole, abs=1e-5)
        both = selection.shapley[example] + selection.interactions[example]
        assert both.tolist() == pytest.approx(selection.gains[example].tolist(), abs=1e-5)


@MODES
@SEARCHES
@pytest.mark.parametrize("confidence", [0.0, 0.6])
def test_each_example_stops_at_its_first_flip_as_it_would_alone(mode: Mode, search: object, confidence: float) -> None:
    game = random_game(batch=6, n=5, seed=3)
    whole = search(game, mode)
    stopped = search(game, mode, stop="flip", min_confidence=confidence)
    assert stopped.order.shape[1] == int(stopped.n_steps.max())
    for example in range(6):
        hit = whole.predictions[example] == 0
        flips = hit & (whole.confidences[example] > confidence) if mode == "insertion" else ~hit
        steps = int(flips.nonzero()[0]) if flips.any() else 5
        assert int(stopped.n_steps[example]) == steps
        assert bool(stopped.flipped[example]) == bool(flips.any())
        assert stopped.order[example, :steps].tolist() == whole.order[example, :steps].tolist()
        assert (stopped.order[example, steps:] == -1).all()
        assert stopped.rewards[example, steps + 1 :].isnan().all()
        assert not stopped.rewards[example, : steps + 1].isnan().any()
        alone = search(game.alone(example), mode, stop="flip", min_confidence=confidence)
        assert alone.order[0].tolist() == stopped.order[example, :steps].tolist()


@MODES
@SEARCHES
def test_examples_have_their_own_players(mode: Mode, search: object) -> None:
    exists = torch.tensor([[True, True, False, True], [False, True, True, False]])
    ids = torch.tensor([2, 5, 7, 11])
    selection = search(TableGame(torch.randn(2, 16, 2), ids, exists), mode)
    assert selection.n_steps.tolist() == [3, 2]
    assert sorted(selection.order[0].tolist()) == [2, 5, 11]
    assert sorted(selection.order[1].tolist()) == [-1, 5, 7]


@MODES
@SEARCHES
def test_ties_go_to_the_lowest_id(mode: Mode, search: object) -> None:
    sizes = torch.tensor([float(bin(r).count("1")) for r in range(32)])
    noise = 1 + 1e-7 * torch.randn(32, generator=torch.Generator().manual_seed(1))
    game = TableGame(torch.stack([sizes * noise, torch.zeros(32)], 1)[None])
    assert search(game, mode).order[0].tolist() == [0, 1, 2, 3, 4]


def test_set_sum_leaves_duplicates_to_the_end_where_shapley_values_do_not() -> None:
    """Section 4.1: the reward is the sum of the distinct integers held."""
    held = [9, 9, 4, 3]
    sums = [float(sum({held[i] for i in range(4) if r >> i & 1})) for r in range(16)]
    game = TableGame(torch.tensor([[[value, 0.0] for value in sums]]))
    assert greedy(game, "insertion").order[0].tolist() == [0, 2, 3, 1]
    # by their Shapley values, 4.5 each, the two nines come before the four and the three
    shapley = interactions.shapley_values(
        lambda coalitions: game.outcome(coalitions, torch.zeros(len(coalitions), dtype=torch.long)).rewards, 4
    )
    assert shapley.tolist() == pytest.approx([4.5, 4.5, 4.0, 3.0])
    assert rank(game, "insertion").order[0].tolist() == [0, 1, 2, 3]


def test_a_selection_is_frozen_and_survives_json(tmp_path: Path) -> None:
    selection = greedy(random_game(batch=4, n=4), "insertion", stop="flip")
    with pytest.raises(AttributeError):
        selection.order = None
    selection.save(tmp_path / "selection.json")
    loaded = Selection.load(tmp_path / "selection.json")
    assert loaded.mode == "insertion"
    for name in ("order", "rewards", "confidences", "predictions", "shapley", "interactions", "n_steps", "flipped"):
        torch.testing.assert_close(getattr(loaded, name), getattr(selection, name), check_dtype=False, equal_nan=True)


def test_a_selection_of_no_step_survives_json() -> None:
    game = TableGame(torch.tensor([[[1.0, 0.0]] * 4]))
    selection = greedy(game, "insertion", stop="flip")
    assert selection.order.shape == (1, 0)
    assert selection.flipped.tolist() == [True]
    assert Selection.from_dict(selection.to_dict()).order.shape == (1, 0)


def test_what_is_no_selection_is_refused() -> None:
    whole = greedy(random_game(batch=2, n=3), "insertion").to_dict()
    for values in (
        [],
        {},
        {"mode": "insertion"},
        {**whole, "rewards": [[0.0], [0.0]]},
        {**whole, "shapley": [[0.0] * 2] * 3},
    ):
        with pytest.raises(ValueError, match="no selection"):
            Selection.from_dict(values)


def prefix_rewards(game: TableGame, selection: Selection, example: int) -> list[float]:
    """The reward before the first step and after each, from the game itself."""
    value, taken = game.value(example), selection.order[example].tolist()
    groups = [frozenset(taken[:k]) for k in range(len(taken) + 1) if -1 not in taken[:k]]
    everyone = frozenset(range(game.n_players))
    return [value(group if selection.mode == "insertion" else everyone - group) for group in groups]


@MODES
@pytest.mark.parametrize("k", [1, 2, 3, 4, 6])
def test_a_beam_of_all_groups_finds_the_best_one(mode: Mode, k: int) -> None:
    game = random_game(seed=4)
    selection = greedy(game, mode, k, beam_width=20)
    everyone = frozenset(range(6))
    for example in range(3):
        value = game.value(example)
        groups = [frozenset(group) for group in combinations(range(6), k)]
        best = max(map(value, groups)) if mode == "insertion" else min(value(everyone - group) for group in groups)
        assert float(selection.rewards[example, -1]) == pytest.approx(best)


@MODES
@pytest.mark.parametrize("width", [2, 3, 4, 8])
def test_a_beam_is_never_worse_than_greedy_after_as_many_steps(mode: Mode, width: int) -> None:
    game = random_game(batch=8, n=7, seed=5)
    sign = 1 if mode == "insertion" else -1
    better = 0
    for k in range(1, 8):
        alone, beam = greedy(game, mode, k), greedy(game, mode, k, beam_width=width)
        gap = sign * (beam.rewards[:, -1] - alone.rewards[:, -1])
        assert (gap >= -1e-6).all()
        better += int((gap > 1e-3).sum())
        for example in range(8):
            assert beam.rewards[example].tolist() == pytest.approx(prefix_rewards(game, beam, example))
    assert better
    alone, beam = (greedy(game, mode, stop="flip", beam_width=w) for w in (1, width))
    assert (beam.n_steps <= alone.n_steps).all()
    assert (beam.flipped >= alone.flipped).all()


@MODES
def test_a_beam_of_one_is_greedy_search_and_a_batch_is_its_examples(mode: Mode) -> None:
    game = random_game(batch=3, seed=6)
    assert torch.equal(greedy(game, mode, beam_width=1).order, greedy(game, mode).order)
    together = greedy(game, mode, 4, stop="flip", beam_width=3)
    for example in range(3):
        alone = greedy(game.alone(example), mode, 4, stop="flip", beam_width=3)
        steps = int(alone.n_steps[0])
        assert int(together.n_steps[example]) == steps
        assert torch.equal(together.order[example, :steps], alone.order[0, :steps])
        assert together.rewards[example, : steps + 1].tolist() == pytest.approx(alone.rewards[0].tolist())
        assert (together.order[example, steps:] == -1).all()


def test_a_beam_keeps_the_two_that_are_strong_together_only() -> None:
    # alone, player 0 is best; players 1 and 2 together are better than any two with it
    rewards = {(): 0.0, (0,): 1.0, (1,): 0.9, (2,): 0.8, (0, 1): 1.5, (0, 2): 1.4, (1, 2): 3.0, (0, 1, 2): 3.5}
    logits = torch.zeros(1, 8, 2)
    for group, reward in rewards.items():
        logits[0, sum(1 << i for i in group), 0] = reward
    game = TableGame(logits)
    assert greedy(game, "insertion", 2).order.tolist() == [[0, 1]]
    game.rows = 0
    beam = greedy(game, "insertion", 2, beam_width=2)
    assert beam.order.tolist() == [[1, 2]]
    assert beam.shapley[0].tolist() == pytest.approx([0.9, 0.8])
    assert beam.interactions[0].tolist() == pytest.approx([0.0, 3.0 - 0.9 - 0.8])
    # nobody, three, and of the two groups' four next ones {0, 1} but once
    assert game.rows == 1 + 3 + 3
    assert beam.n_evaluated.tolist() == [[3, 4]]


@MODES
def test_a_beam_through_all_players_takes_the_path_of_the_largest_rewards(mode: Mode) -> None:
    game = random_game(batch=1, seed=7)
    alone, beam = greedy(game, mode), greedy(game, mode, beam_width=4)
    assert sorted(beam.order[0].tolist()) == list(range(6))
    sign = 1 if mode == "insertion" else -1
    assert sign * float(beam.rewards.sum()) >= sign * float(alone.rewards.sum()) - 1e-6


@MODES
@pytest.mark.parametrize("stop", [None, "flip"])
def test_following_the_order_of_a_search_is_that_search(mode: Mode, stop: str | None) -> None:
    game = random_game()
    game.exists[1, 4] = False
    whole = rank(game, mode).order
    found = follow(game, mode, whole, stop=stop)
    ranked = rank(game, mode, stop=stop)
    for name in ("order", "rewards", "confidences", "predictions", "n_steps", "flipped"):
        torch.testing.assert_close(getattr(found, name), getattr(ranked, name), equal_nan=True)
    # the examples that have all players
    for example in (0, 2):
        steps = int(found.n_steps[example])
        values = prefix_rewards(game, found, example)
        assert found.rewards[example, : steps + 1].tolist() == pytest.approx(values[: steps + 1])
        hits = [(value > 0) == (mode == "insertion") for value in values[: steps + 1]]
        assert stop is None or (not any(hits[:-1]) and hits[-1] == bool(found.flipped[example]))
    assert found.shapley.isnan().all() and found.interactions.isnan().all()
    assert found.n_evaluated.tolist() == (found.order >= 0).long().tolist()


@MODES
def test_any_order_can_be_followed_as_far_as_asked(mode: Mode) -> None:
    game = random_game()
    order = torch.stack([torch.randperm(6, generator=torch.Generator().manual_seed(seed)) for seed in range(3)])
    selection = follow(game, mode, order, n_steps=4)
    assert torch.equal(selection.order, order[:, :4])
    for example in range(3):
        assert selection.rewards[example].tolist() == pytest.approx(prefix_rewards(game, selection, example))
