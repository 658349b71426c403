"""Symmetric search: greedy search on v(S) = f(S) - f(N without S)."""

from collections.abc import Callable
from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any

import pytest
import reference
import torch
from games import TableGame, random_game
from torch import Tensor

from captum_moxi import Cascade, LastGainsScreen, RandomScreen, Selection, interactions
from captum_moxi.search import disjoint_selections, follow, greedy, minimal_selection, rank_independently

WITHOUT = ("rewards_without", "confidences_without", "predictions_without")


class DifferenceGame:
    """The game v of a game f. Its insertion is the symmetric search of f."""

    def __init__(self, game: TableGame) -> None:
        self.game = game
        self.n_examples, self.n_players, self.ids = game.n_examples, game.n_players, game.ids
        self.exists, self.targets, self.rounds_relatively = game.exists, None, False
        self.full = self.outcome(game.exists, torch.arange(game.n_examples))

    def outcome(self, coalitions: Tensor, examples: Tensor) -> SimpleNamespace:
        present = self.game.outcome(coalitions, examples)
        absent = self.game.outcome(self.exists[examples] & ~coalitions, examples)
        return SimpleNamespace(
            rewards=present.rewards - absent.rewards,
            confidences=present.confidences,
            predictions=present.predictions,
        )


def difference(value: reference.Value, n: int) -> reference.Value:
    """v of one example, as a function of the set of present players."""
    return lambda players: value(players) - value(frozenset(range(n)) - players)


def members(selection: Selection, example: int, step: int, n: int) -> Tensor:
    group = torch.zeros(1, n, dtype=torch.bool)
    group[0, selection.order[example, :step]] = True
    return group


def test_symmetric_search_is_greedy_insertion_of_the_difference() -> None:
    game = random_game()
    selection = greedy(game, "symmetric")
    for example in range(3):
        order, values = reference.insertion(difference(game.value(example), 6), 6, 6)
        assert selection.order[example].tolist() == order
        difference_of_paths = selection.rewards[example] - selection.rewards_without[example]
        assert difference_of_paths.tolist() == pytest.approx(values, abs=1e-5)


@pytest.mark.parametrize(
    ("search", "options"),
    [
        (greedy, {}),
        (greedy, {"n_steps": 3}),
        (greedy, {"beam_width": 3}),
        (greedy, {"screen": LastGainsScreen(2)}),
        (greedy, {"screen": RandomScreen(2)}),
        (greedy, {"screen": Cascade(LastGainsScreen(4), RandomScreen(2))}),
        (rank_independently, {}),
    ],
)
def test_every_search_is_that_of_insertion_in_the_game_of_differences(
    search: Callable[..., Selection], options: dict[str, Any]
) -> None:
    game = random_game(batch=3, n=6, seed=4)
    selection = search(game, "symmetric", **options)
    expected = search(DifferenceGame(game), "insertion", **options)
    assert torch.equal(selection.order, expected.order)
    assert torch.equal(selection.n_evaluated, expected.n_evaluated)
    for name in ("shapley", "interactions", "gains", "skipped"):
        torch.testing.assert_close(getattr(selection, name), getattr(expected, name), equal_nan=True)


@pytest.mark.parametrize("search", [greedy, rank_independently])
def test_both_paths_are_the_outcomes_of_the_group_and_of_all_others(search: Callable[..., Selection]) -> None:
    exists = torch.tensor([[True] * 5, [True, False, True, True, False]])
    game = replaced(random_game(batch=2, n=5), exists)
    selection = search(game, "symmetric")
    for example, n_players in enumerate((5, 3)):
        for step in range(n_players + 1):
            group = members(selection, example, step, 5)
            row = torch.tensor([example])
            alone, others = game.outcome(group, row), game.outcome(exists[row] & ~group, row)
            for name in ("rewards", "confidences", "predictions"):
                assert getattr(selection, name)[example, step] == getattr(alone, name)[0]
                assert getattr(selection, f"{name}_without")[example, step] == getattr(others, name)[0]
    assert selection.rewards_without[1, 4:].isnan().all()
    assert selection.predictions_without[1, 4:].tolist() == [-1, -1]


def replaced(game: TableGame, exists: Tensor) -> TableGame:
    return TableGame(game.logits, game.ids, exists)


def test_shapley_values_and_interactions_are_sums_over_the_contexts() -> None:
    game = random_game(batch=1)
    selection = greedy(game, "symmetric")

    def value(coalitions: Tensor) -> Tensor:
        return game.outcome(coalitions).rewards

    shapley = interactions.self_context_shapley(value, 6) + interactions.full_context_shapley(value, 6)
    for step, player in enumerate(selection.order[0].tolist()):
        assert float(selection.shapley[0, step]) == pytest.approx(float(shapley[player]), abs=1e-5)
        group = members(selection, 0, step, 6)[0]
        both = interactions.self_context_interactions(value, group) + interactions.full_context_interactions(
            value, group
        )
        expected = float(both[player]) if step else 0.0
        assert float(selection.interactions[0, step]) == pytest.approx(expected, abs=1e-5)


def test_the_gains_of_a_full_run_sum_to_twice_the_total_change() -> None:
    game = random_game()
    selection = greedy(game, "symmetric")
    for example in range(3):
        value = game.value(example)
        total = value(frozenset(range(6))) - value(frozenset())
        assert float(selection.gains[example].sum()) == pytest.approx(2 * total, abs=1e-5)


def test_each_candidate_takes_two_rows() -> None:
    game = random_game(batch=2, n=5)
    rows: list[int] = []
    selection = greedy(game, "symmetric", n_steps=3, progress=rows.append)
    assert rows == [2 * 2 * 5, 2 * 2 * 4, 2 * 2 * 3]
    assert game.rows == 2 + sum(rows)  # the empty coalition of each example; the full coalition is known
    assert selection.n_evaluated.tolist() == [[5, 4, 3]] * 2


@pytest.mark.parametrize("confidence", [0.0, 0.6])
def test_an_example_stops_when_the_group_suffices_and_the_others_fail(confidence: float) -> None:
    game = random_game(batch=8, n=5, seed=3)
    whole = greedy(game, "symmetric")
    stopped = greedy(game, "symmetric", stop="flip", min_confidence=confidence)
    suffices = (whole.predictions == 0) & (whole.confidences > confidence)
    fails = whole.predictions_without != 0
    for example, flips in enumerate(suffices & fails):
        steps = int(flips.nonzero()[0]) if flips.any() else 5
        assert int(stopped.n_steps[example]) == steps
        assert bool(stopped.flipped[example]) == bool(flips.any())
        assert stopped.order[example, :steps].tolist() == whole.order[example, :steps].tolist()
        assert not stopped.rewards_without[example, : steps + 1].isnan().any()
        assert stopped.confidences_without[example, steps + 1 :].isnan().all()
        single = greedy(game.single(example), "symmetric", stop="flip", min_confidence=confidence)
        assert single.order[0].tolist() == stopped.order[example, :steps].tolist()
    # The examples must differ for this test to mean something.
    assert len(set(stopped.n_steps.tolist())) > 1


def test_flips_are_those_of_both_paths() -> None:
    selection = greedy(random_game(batch=8, n=5, seed=3), "symmetric")
    expected = (selection.predictions == 0) & (selection.confidences > 0.6) & (selection.predictions_without != 0)
    assert torch.equal(selection.flips(0, min_confidence=0.6), expected)
    assert torch.equal(selection.flips(torch.zeros(8, dtype=torch.long), min_confidence=0.6), expected)


def both_hold(game: TableGame, group: set[int]) -> bool:
    present = torch.zeros(1, game.n_players, dtype=torch.bool)
    present[0, list(group)] = True
    return int(game.outcome(present).predictions) == 0 and int(game.outcome(~present).predictions) != 0


@pytest.mark.parametrize("seed", range(6))
def test_a_minimal_group_needs_each_of_its_players(seed: int) -> None:
    game = random_game(batch=1, n=6, seed=seed)

    def search(candidates: Tensor | None) -> Selection:
        return greedy(game, "symmetric", stop="flip", candidates=candidates)

    selection = minimal_selection(search, game, "symmetric")
    if not selection.flipped[0]:
        assert not selection.minimal[0]
        return
    group = set(selection.order[0].tolist())
    assert selection.minimal[0] and both_hold(game, group)
    assert not any(both_hold(game, group - {player}) for player in group)
    left_out = set(selection.left_out[0].tolist())
    assert group | left_out == set(search(None).order[0].tolist())


@pytest.mark.parametrize("seed", range(6))
def test_alternative_groups_are_disjoint_and_flip_by_themselves(seed: int) -> None:
    game = random_game(batch=1, n=6, seed=seed)

    def search(candidates: Tensor | None) -> Selection:
        return greedy(game, "symmetric", stop="flip", candidates=candidates)

    groups = disjoint_selections(search, game, at_most=3)
    players = [set(group.order[0].tolist()) for group in groups]
    assert sum(map(len, players)) == len(set().union(*players))
    assert all(both_hold(game, group) for group in players)


def test_following_the_order_of_a_search_gives_its_paths() -> None:
    game = random_game()
    selection = greedy(game, "symmetric", stop="flip")
    followed = follow(game, "symmetric", selection.order, stop="flip")
    for name in ("order", "rewards", "confidences", "predictions", "n_steps", "flipped", *WITHOUT):
        torch.testing.assert_close(getattr(followed, name), getattr(selection, name), equal_nan=True)


def test_ties_go_to_the_lowest_id_although_rewards_are_large() -> None:
    """The difference of two large rewards rounds like the rewards, not like the difference."""
    sizes = torch.tensor([float(bin(r).count("1")) for r in range(32)])
    rounding = 1e-4 * torch.randn(32)  # a few epsilons of a reward of 1000
    game = TableGame(torch.stack([1000 + 0.01 * sizes + rounding, torch.zeros(32)], 1)[None])
    assert greedy(game, "symmetric").order[0].tolist() == [0, 1, 2, 3, 4]
    assert rank_independently(game, "symmetric").order[0].tolist() == [0, 1, 2, 3, 4]


def test_a_symmetric_selection_survives_saving_and_loading(tmp_path: Any) -> None:
    selection = greedy(random_game(batch=4, n=4), "symmetric", stop="flip")
    selection.save(tmp_path / "selection.json")
    loaded = Selection.load(tmp_path / "selection.json")
    for field in fields(Selection):
        value, other = getattr(selection, field.name), getattr(loaded, field.name)
        if isinstance(value, Tensor):
            torch.testing.assert_close(value, other, check_dtype=False, equal_nan=True)
        else:
            assert value == other
    assert "without them" in repr(greedy(random_game(batch=1), "symmetric"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rewards_without": None}, "mode is 'symmetric', but rewards_without is not a list of lists"),
        ({"mode": "deletion"}, "mode is 'deletion', but rewards_without is not null"),
        ({"predictions_without": [[0] * 3] * 2}, r"predictions_without has shape \(2, 3\) instead of \(2, 4\)"),
        ({"confidences_without": [[2.0] * 4] * 2}, "confidences_without contains a number outside 0 to 1"),
        ({"flip": "insertion"}, "flip is 'insertion'; pass None"),
    ],
)
def test_values_that_are_not_those_of_a_symmetric_selection_are_rejected(changes: dict[str, Any], message: str) -> None:
    values = greedy(random_game(batch=2, n=3), "symmetric").to_dict()
    with pytest.raises(ValueError, match=message):
        Selection.from_dict(values | changes)


def test_a_flip_of_another_number_of_paths_is_rejected() -> None:
    with pytest.raises(ValueError, match="flip is 'insertion', but mode is 'symmetric'; pass flip=None"):
        greedy(random_game(), "symmetric", flip="insertion")
    symmetric: Any = "symmetric"
    with pytest.raises(ValueError, match="flip is 'symmetric'; pass 'insertion' or 'deletion', or None"):
        greedy(random_game(), "deletion", flip=symmetric)


def test_selections_of_the_other_modes_have_no_second_path() -> None:
    for mode in ("insertion", "deletion"):
        selection = greedy(random_game(), mode)
        assert [getattr(selection, name) for name in WITHOUT] == [None] * 3
        assert selection.gains.shape == replace(selection, flip=None).order.shape
