"""Minimal groups, compared with enumerations of all groups of small games."""

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from itertools import combinations

import pytest
import reference
import torch
from games import MODES, TableGame, flips, group_of, outcome, teams_game
from torch import Tensor

from captum_moxi import LastGainsScreen, Selection
from captum_moxi.arguments import Mode
from captum_moxi.search import greedy, minimal_selection, rank_independently

Search = Callable[..., Selection]
SEARCHES = pytest.mark.parametrize(
    "search",
    [greedy, rank_independently, partial(greedy, screen=LastGainsScreen(2)), partial(greedy, beam_width=3)],
    ids=["greedy", "moxi-minus", "screen", "beam"],
)


def find(
    search: Search,
    game: TableGame,
    mode: Mode,
    *,
    confidence: float = 0.0,
    flip: Mode | None = None,
    candidates: Tensor | None = None,
) -> tuple[Selection, Selection]:
    """The selection of a search up to the flip, and the minimal selection."""
    options = {"stop": "flip", "min_confidence": confidence} | ({"flip": flip} if flip else {})

    def among(candidates: Tensor | None) -> Selection:
        return search(game, mode, candidates=candidates, **options)

    minimal = minimal_selection(among, game, mode, min_confidence=confidence, flip=flip, candidates=candidates)
    return among(candidates), minimal


@MODES
@SEARCHES
@pytest.mark.parametrize("confidence", [0.0, 0.7])
def test_no_player_of_a_minimal_group_can_be_left_out(mode: Mode, search: Search, confidence: float) -> None:
    n_smaller = 0
    for seed in range(4):
        game = teams_game(seed)
        before, after = find(search, game, mode, confidence=confidence)
        assert torch.equal(before.flipped, after.flipped)
        assert torch.equal(after.minimal, after.flipped)
        for example in range(game.n_examples):
            group, first = group_of(after, example), group_of(before, example)
            left_out = [player for player in after.left_out[example].tolist() if player >= 0]
            assert group <= first
            assert left_out == [player for player in before.order[example].tolist() if player in first - group]
            if after.flipped[example]:
                assert flips(game, mode, example, group, confidence, None)
                assert not any(flips(game, mode, example, group - {player}, confidence, None) for player in group)
            n_smaller += len(group) < len(first)
    assert n_smaller


@MODES
def test_the_selection_is_the_plain_algorithm_on_the_players_of_the_group(mode: Mode) -> None:
    game = teams_game(5)
    before, after = find(greedy, game, mode)
    shrunk = (after.n_steps < before.n_steps).nonzero().flatten().tolist()
    assert shrunk
    for example in shrunk:
        group = sorted(group_of(after, example))

        def value(players: frozenset[int], group: list[int] = group, example: int = example) -> reference.Outcome:
            present = players if mode == "insertion" else players | (set(range(game.n_players)) - set(group))
            result = outcome(game, "insertion", example, set(present))
            return reference.Outcome(float(result.rewards), float(result.confidences), int(result.predictions))

        path = reference.search(value, group, mode)
        steps = len(group)
        assert after.order[example, :steps].tolist() == path.order
        assert after.rewards[example, : steps + 1].tolist() == pytest.approx([o.reward for o in path.outcomes])
        assert after.predictions[example, : steps + 1].tolist() == [o.prediction for o in path.outcomes]
        assert after.shapley[example, :steps].tolist() == pytest.approx(path.shapley, abs=1e-5)
        assert (after.order[example, steps:] == -1).all()
        assert after.rewards[example, steps + 1 :].isnan().all()


@MODES
def test_in_a_monotone_game_a_minimal_group_is_minimal_among_all_its_subsets(mode: Mode) -> None:
    weights = torch.rand(20, 8) ** 3
    present = torch.tensor([[bool(row >> player & 1) for player in range(8)] for row in range(256)])
    sums = weights @ present.T.float()
    threshold = 0.6 * weights.sum(1, keepdim=True)
    game = TableGame(torch.stack([sums, threshold.expand_as(sums)], 2))
    _, after = find(rank_independently, game, mode)
    assert after.minimal.all()
    for example in range(20):
        group = group_of(after, example)
        smaller = [set(subset) for size in range(len(group)) for subset in combinations(group, size)]
        assert not any(flips(game, mode, example, subset, 0.0, None) for subset in smaller)


@MODES
@SEARCHES
def test_the_examples_of_a_batch_do_not_influence_each_other(mode: Mode, search: Search) -> None:
    game = teams_game(6)
    _, batch = find(search, game, mode)
    for example in range(game.n_examples):
        _, single = find(search, game.single(example), mode)
        steps = int(single.n_steps[0])
        assert int(batch.n_steps[example]) == steps
        assert batch.order[example, :steps].tolist() == single.order[0].tolist()
        assert batch.rewards[example, : steps + 1].tolist() == single.rewards[0].tolist()
        assert [p for p in batch.left_out[example].tolist() if p >= 0] == single.left_out[0].tolist()


@MODES
def test_the_flip_may_be_that_of_the_other_mode(mode: Mode) -> None:
    game = teams_game(7, batch=30)
    game.targets = torch.ones(30, dtype=torch.long)
    flip: Mode = "deletion" if mode == "insertion" else "insertion"
    before, after = find(greedy, game, mode, flip=flip)
    assert (after.n_steps < before.n_steps).any()
    assert after.minimal.all()
    for example in range(30):
        group = group_of(after, example)
        assert flips(game, mode, example, group, 0.0, flip)
        assert not any(flips(game, mode, example, group - {player}, 0.0, flip) for player in group)


@MODES
def test_players_with_gaps_in_their_ids_may_be_missing_in_an_example(mode: Mode) -> None:
    dense = teams_game(8, batch=6, n=6)
    exists = torch.rand(6, 6) > 0.2
    game = TableGame(dense.logits, torch.tensor([2, 3, 5, 7, 11, 13]), exists)
    _, after = find(greedy, game, mode)
    for example in range(6):
        group = group_of(after, example)
        assert group <= set(game.ids[exists[example]].tolist())
        if after.minimal[example]:
            assert flips(game, mode, example, group, 0.0, None)
            assert not any(flips(game, mode, example, group - {player}, 0.0, None) for player in group)


@MODES
@SEARCHES
def test_the_group_consists_of_players_that_may_be_chosen(mode: Mode, search: Search) -> None:
    game = teams_game(9)
    candidates = torch.rand(game.n_examples, game.n_players) > 0.3
    before, after = find(search, game, mode, candidates=candidates)
    for selection in (before, after):
        for example in range(game.n_examples):
            assert group_of(selection, example) <= set(candidates[example].nonzero().flatten().tolist())
    for example in after.minimal.nonzero().flatten().tolist():
        assert flips(game, mode, example, group_of(after, example), 0.0, None)


def test_a_prediction_that_never_flips_is_not_minimal_and_keeps_its_selection() -> None:
    game = TableGame(torch.stack([torch.rand(1, 16), torch.full((1, 16), 2.0)], 2))
    before, after = find(greedy, game, "insertion")
    assert not after.minimal.any()
    assert after.left_out.shape == (1, 0)
    for field in fields(Selection):
        value, other = getattr(before, field.name), getattr(after, field.name)
        if isinstance(value, Tensor):
            torch.testing.assert_close(value, other, rtol=0, atol=0, equal_nan=True)


def test_a_prediction_that_is_flipped_without_any_player_is_minimal() -> None:
    game = TableGame(torch.tensor([[[1.0, 0.0]] * 4]))
    _, after = find(greedy, game, "insertion")
    assert after.minimal.tolist() == [True]
    assert after.order.shape == after.left_out.shape == (1, 0)


def test_a_group_that_is_already_minimal_costs_one_row_for_each_of_its_players() -> None:
    # Player k raises the reward by 2**k, and the target needs all of them.
    rows = torch.arange(16.0)
    game = TableGame(torch.stack([rows, torch.full((16,), 14.5)], 1)[None])
    rows_of_batches: list[int] = []
    after = minimal_selection(
        lambda candidates: greedy(game, "insertion", stop="flip", candidates=candidates),
        game,
        "insertion",
        progress=rows_of_batches.append,
    )
    assert after.order.tolist() == [[3, 2, 1, 0]]
    assert sum(rows_of_batches) == 4
