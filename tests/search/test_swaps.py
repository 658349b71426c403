"""Swaps of two players for one, compared with a hand-worked game and with enumerations of small games."""

from itertools import combinations, product

import pytest
import torch
from games import MODES, TableGame, flips, group_of, teams_game
from torch import Tensor

from captum_moxi import Selection
from captum_moxi.arguments import Mode
from captum_moxi.search import greedy, minimal_selection, swapped_selection

A, B, C, D, E = range(5)


def worked_game(mode: Mode) -> TableGame:
    """Five players, of which greedy search chooses A, B and C, while B and D are enough.

    Alone, they are worth 1, 0.2, 0.1, 0.05 and 0. A, B and C together are worth 0.3 more, and E adds 0.1 to them. B and
    D are worth 1.35 more if A is not there. More than 1.5 flips the prediction. In deletion, the values are those of
    the absent players.
    """
    logits = torch.zeros(1, 2**5, 2)
    for players in product((0, 1), repeat=5):
        a, b, c, d, e = players if mode == "insertion" else (1 - player for player in players)
        value = a + 0.2 * b + 0.1 * c + 0.05 * d + 0.3 * a * b * c + 0.1 * a * b * c * e + 1.35 * b * d * (1 - a)
        index = sum(player << position for position, player in enumerate(players))
        logits[0, index] = torch.tensor([value, 1.5]) if mode == "insertion" else torch.tensor([1.5, value])
    return TableGame(logits)


def find(
    game: TableGame, mode: Mode, n_others: int | None, *, confidence: float = 0.0, candidates: Tensor | None = None
) -> tuple[Selection, Selection]:
    """The minimal selection of greedy search, and the selection after swaps."""

    def among(candidates: Tensor | None) -> Selection:
        return greedy(game, mode, stop="flip", min_confidence=confidence, candidates=candidates)

    options = {"min_confidence": confidence, "candidates": candidates}
    minimal = minimal_selection(among, game, mode, **options)
    return minimal, swapped_selection(among, game, mode, n_others=n_others, **options)


def smaller_groups(group: set[int], game: TableGame) -> list[set[int]]:
    """The groups without one player, and those with another player in place of two."""
    others = set(range(game.n_players)) - group
    swaps = [group - set(pair) | {other} for pair in combinations(group, 2) for other in others]
    return [group - {player} for player in group] + swaps


@MODES
@pytest.mark.parametrize(("n_others", "expected"), [(1, [A, B, C]), (2, [B, D]), (None, [B, D])])
def test_two_players_are_swapped_for_one_of_those_that_are_tried(
    mode: Mode, n_others: int | None, expected: list[int]
) -> None:
    # With A, B and C, E is worth more than D. Therefore, D is not tried if only one player is.
    minimal, swapped = find(worked_game(mode), mode, n_others)
    assert minimal.order.tolist() == [[A, B, C]]
    assert swapped.order.tolist() == [expected]
    assert swapped.left_out.tolist() == [[player for player in (A, B, C) if player not in expected]]
    assert swapped.flipped.all() and swapped.minimal.all()


@MODES
def test_players_that_may_not_be_chosen_are_not_swapped_in(mode: Mode) -> None:
    _, swapped = find(worked_game(mode), mode, None, candidates=torch.tensor([[True, True, True, False, True]]))
    assert swapped.order.tolist() == [[A, B, C]]


@MODES
@pytest.mark.parametrize("confidence", [0.0, 0.7])
def test_no_player_can_be_left_out_and_no_two_swapped_for_one(mode: Mode, confidence: float) -> None:
    n_smaller = 0
    for seed in range(3):
        game = teams_game(seed)
        minimal, swapped = find(game, mode, None, confidence=confidence)
        assert torch.equal(minimal.flipped, swapped.flipped)
        assert torch.equal(swapped.minimal, swapped.flipped)
        for example in swapped.flipped.nonzero().flatten().tolist():
            group = group_of(swapped, example)
            assert flips(game, mode, example, group, confidence, None)
            smaller = smaller_groups(group, game)
            assert not any(flips(game, mode, example, players, confidence, None) for players in smaller)
            assert len(group) <= int(minimal.n_steps[example])
            n_smaller += len(group) < int(minimal.n_steps[example])
    assert n_smaller


@MODES
def test_a_batch_gives_the_groups_of_its_examples(mode: Mode) -> None:
    game = teams_game(1)
    _, together = find(game, mode, 2)
    for example in range(game.n_examples):
        _, alone = find(game.single(example), mode, 2)
        assert alone.order[0].tolist() == [player for player in together.order[example].tolist() if player >= 0]


def test_groups_of_symmetric_search_stay_sufficient_and_necessary() -> None:
    n_smaller = 0
    for seed in range(3):
        game = teams_game(seed)

        def among(candidates: Tensor | None, game: TableGame = game) -> Selection:
            return greedy(game, "symmetric", stop="flip", candidates=candidates)

        minimal = minimal_selection(among, game, "symmetric")
        swapped = swapped_selection(among, game, "symmetric", n_others=None)
        assert torch.equal(minimal.flipped, swapped.flipped) and torch.equal(swapped.minimal, swapped.flipped)
        for example in swapped.flipped.nonzero().flatten().tolist():
            group = group_of(swapped, example)
            flipping = [
                players
                for players in (group, *smaller_groups(group, game))
                if all(flips(game, mode, example, players, 0.0, None) for mode in ("insertion", "deletion"))
            ]
            assert flipping == [group]
            assert len(group) <= int(minimal.n_steps[example])
            n_smaller += len(group) < int(minimal.n_steps[example])
    assert n_smaller
