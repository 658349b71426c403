"""Disjoint groups, compared with an enumeration of all groups of small games."""

from itertools import combinations

import pytest
import torch
from games import MODES, TableGame
from torch import Tensor

from captum_moxi import Selection
from captum_moxi.arguments import Mode
from captum_moxi.search import disjoint_selections, greedy, minimal_selection


def or_of_teams(teams: list[list[set[int]]], n: int, mode: Mode) -> TableGame:
    """Games that flip exactly when one of an example's teams is present (insertion) or absent (deletion)."""
    logits = torch.zeros(len(teams), 2**n, 2)
    for example, groups in enumerate(teams):
        for row in range(2**n):
            moved = {player for player in range(n) if bool(row >> player & 1) == (mode == "insertion")}
            # Each player adds a little, so that greedy search makes progress towards a team.
            progress = max((len(group & moved) / len(group) for group in groups), default=0.0)
            logits[example, row, 0 if mode == "insertion" else 1] = progress
    logits[:, :, 1 if mode == "insertion" else 0] = 0.95
    return TableGame(logits)


def groups_of(
    game: TableGame, mode: Mode, *, at_most: int = 9, known: list[Selection] | None = None
) -> list[Selection]:
    def search(candidates: Tensor | None) -> Selection:
        return minimal_selection(
            lambda among: greedy(game, mode, stop="flip", candidates=among), game, mode, candidates=candidates
        )

    return disjoint_selections(search, game, at_most=at_most, known=known or [])


def players_of(selection: Selection, example: int) -> set[int]:
    return {player for player in selection.order[example].tolist() if player >= 0}


TEAMS = [[{0, 1}, {2, 3, 4}, {5}], [{0, 2, 4}, {1, 5}], [{3}], []]


@MODES
def test_all_disjoint_groups_are_found_and_no_others(mode: Mode) -> None:
    groups = groups_of(or_of_teams(TEAMS, 6, mode), mode)
    assert len(groups) == 3
    for example, teams in enumerate(TEAMS):
        found = [players_of(group, example) for group in groups if group.flipped[example]]
        assert sorted(map(sorted, found)) == sorted(map(sorted, teams))
        assert [bool(group.flipped[example]) for group in groups] == [k < len(teams) for k in range(3)]
    for group in groups:
        assert torch.equal(group.minimal, group.flipped)
        assert (group.n_steps[~group.flipped] == 0).all()
        assert (group.order[~group.flipped] == -1).all()
        assert group.rewards[~group.flipped, 1:].isnan().all()


@MODES
def test_the_groups_of_a_batch_are_those_of_its_examples(mode: Mode) -> None:
    game = or_of_teams(TEAMS, 6, mode)
    batch = groups_of(game, mode)
    for example, teams in enumerate(TEAMS):
        single = groups_of(game.single(example), mode)
        assert len(single) == len(teams)
        for group, expected in zip(single, batch, strict=False):
            steps = int(group.n_steps[0])
            assert group.order[0].tolist() == expected.order[example, :steps].tolist()


@MODES
def test_random_groups_are_disjoint_and_flip_the_prediction_alone(mode: Mode) -> None:
    game = TableGame(torch.randn(20, 64, 2) + torch.tensor([-0.8 if mode == "insertion" else 0.8, 0.0]))
    groups = groups_of(game, mode)
    assert len(groups) > 1
    for example in range(20):
        found = [players_of(group, example) for group in groups if group.flipped[example] and group.n_steps[example]]
        assert all(not first & second for first, second in combinations(found, 2))
        for group in found:
            present = torch.tensor([[(player in group) == (mode == "insertion") for player in range(6)]])
            prediction = int(game.outcome(present, torch.tensor([example])).predictions)
            assert (prediction == 0) == (mode == "insertion")


@MODES
def test_there_are_at_most_as_many_groups_as_requested(mode: Mode) -> None:
    game = or_of_teams(TEAMS, 6, mode)
    groups = groups_of(game, mode)
    for at_most in (1, 2):
        assert [g.order.tolist() for g in groups_of(game, mode, at_most=at_most)] == [
            g.order.tolist() for g in groups[:at_most]
        ]


@MODES
@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_search_continues_after_known_groups(mode: Mode, count: int) -> None:
    game = or_of_teams(TEAMS, 6, mode)
    groups = groups_of(game, mode)
    continued = groups_of(game, mode, known=groups[:count])
    assert [group.order.tolist() for group in continued] == [group.order.tolist() for group in groups]


def test_a_known_group_that_does_not_flip_ends_the_search() -> None:
    game = or_of_teams([[]], 3, "insertion")
    known = greedy(game, "insertion", stop="flip")
    game.rows = 0
    assert groups_of(game, "insertion", known=[known]) == []
    assert game.rows == 0


def test_a_prediction_that_is_flipped_without_any_player_has_one_empty_group() -> None:
    groups = groups_of(TableGame(torch.tensor([[[1.0, 0.0]] * 4])), "insertion")
    assert [group.n_steps.tolist() for group in groups] == [[0]]
    assert groups[0].flipped.tolist() == [True]
