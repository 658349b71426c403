"""Shapley values and interactions compared with plain enumeration of their definitions."""

import pytest
import reference
import torch
from torch import Tensor

from captum_moxi import interactions


class RandomGame:
    """A game of n players with a random value for each coalition."""

    def __init__(self, n: int, seed: int) -> None:
        self.n = n
        self.values = torch.randn(2**n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    def __call__(self, coalitions: Tensor) -> Tensor:
        return self.values[(coalitions.long() << torch.arange(self.n)).sum(1)]

    def value(self, players: frozenset[int]) -> float:
        """The value of one coalition, given as a set of players."""
        return float(self.values[sum(1 << i for i in players)])


@pytest.fixture(params=[(1, 0), (4, 1), (6, 2)], ids=["n=1", "n=4", "n=6"])
def game(request: pytest.FixtureRequest) -> RandomGame:
    return RandomGame(*request.param)


def single(i: int) -> frozenset[int]:
    return frozenset([i])


def others(n: int, *players: int) -> list[int]:
    """All players except these."""
    return [i for i in range(n) if i not in players]


def test_shapley_values_match_enumeration(game: RandomGame) -> None:
    expected = [reference.shapley(game.value, single(i), others(game.n, i)) for i in range(game.n)]
    torch.testing.assert_close(interactions.shapley_values(game, game.n), torch.tensor(expected, dtype=torch.float64))


def test_interactions_match_enumeration(game: RandomGame) -> None:
    absent = interactions.shapley_interactions(game, game.n)
    present = interactions.shapley_interactions_in_presence(game, game.n)
    for i in range(game.n):
        alone = reference.shapley(game.value, single(i), others(game.n, i))
        assert absent[i, i] == pytest.approx(-alone)
        assert present[i, i] == pytest.approx(-alone)
        for j in others(game.n, i):
            context = others(game.n, i, j)
            together = reference.shapley(game.value, frozenset([i, j]), context)
            without_each_other = sum(reference.shapley(game.value, single(player), context) for player in (i, j))
            in_whole_game = alone + reference.shapley(game.value, single(j), others(game.n, j))
            assert absent[i, j] == pytest.approx(together - without_each_other)
            assert present[i, j] == pytest.approx(together - in_whole_game)


def test_shapley_values_in_both_contexts_match_their_definitions(game: RandomGame) -> None:
    n, everyone = game.n, frozenset(range(game.n))
    self_context = interactions.self_context_shapley(game, n)
    full_context = interactions.full_context_shapley(game, n)
    for i in range(n):
        assert self_context[i] == pytest.approx(game.value(single(i)) - game.value(frozenset()))
        assert full_context[i] == pytest.approx(game.value(everyone) - game.value(everyone - {i}))


def test_shapley_value_plus_interaction_is_the_change_in_value(game: RandomGame) -> None:
    n, everyone = game.n, frozenset(range(game.n))
    self_shapley = interactions.self_context_shapley(game, n)
    full_shapley = interactions.full_context_shapley(game, n)
    for group in map(frozenset, reference.subsets(list(range(n)))):
        if not group:
            continue
        members = torch.zeros(n, dtype=torch.bool)
        members[list(group)] = True
        rises = self_shapley + interactions.self_context_interactions(game, members)
        falls = full_shapley + interactions.full_context_interactions(game, members)
        for b in range(n):
            assert rises[b] == pytest.approx(game.value(group | {b}) - game.value(group))
            assert falls[b] == pytest.approx(game.value(everyone - group) - game.value(everyone - group - {b}))


def test_the_interaction_of_a_player_with_itself_is_minus_its_shapley_value(game: RandomGame) -> None:
    self_shapley = interactions.self_context_shapley(game, game.n)
    full_shapley = interactions.full_context_shapley(game, game.n)
    for i in range(game.n):
        members = torch.arange(game.n) == i
        self_context = interactions.self_context_interactions(game, members)
        full_context = interactions.full_context_interactions(game, members)
        assert self_context[i] == pytest.approx(-float(self_shapley[i]))
        assert full_context[i] == pytest.approx(-float(full_shapley[i]))


@pytest.mark.parametrize("n", [0, 21])
def test_exact_values_reject_an_unsupported_number_of_players(n: int) -> None:
    with pytest.raises(ValueError, match=f"n is {n}, .*pass 1 to 20 players"):
        interactions.shapley_values(lambda coalitions: coalitions.sum(1), n)


def test_pairs_are_interactions_with_groups_of_one_player(game: RandomGame) -> None:
    n = game.n
    positions = [3, 0, 2] if n > 1 else [0]
    self_context = interactions.self_context_pairs(game, n, positions=positions)
    full_context = interactions.full_context_pairs(game, n, positions=positions)
    for row, position in enumerate(positions):
        members = torch.arange(n) == position
        expected = interactions.self_context_interactions(game, members)[positions]
        torch.testing.assert_close(self_context[row], expected)
        expected = interactions.full_context_interactions(game, members)[positions]
        torch.testing.assert_close(full_context[row], expected)


@pytest.mark.parametrize("positions", [[4], [-1], [[0, 1]]])
def test_pairs_reject_positions_that_do_not_exist(positions: list[int]) -> None:
    with pytest.raises(ValueError, match=r"positions is .*pass columns of coalitions, from 0 to 3"):
        interactions.self_context_pairs(RandomGame(4, seed=0), 4, positions=positions)


def test_the_full_context_matches_the_paper_up_to_sign_and_factor(game: RandomGame) -> None:
    """Eqs. 10 and 11 have factors 1 / n and 1 / (n - 1), and Eq. 11 has the opposite sign."""
    n, everyone = game.n, frozenset(range(game.n))
    shapley = interactions.full_context_shapley(game, n)
    pairs = interactions.full_context_pairs(game, n, positions=range(n))
    whole = game.value(everyone)
    for i in range(n):
        eq_10 = (whole - game.value(everyone - {i})) / n
        assert float(shapley[i]) / n == pytest.approx(eq_10)
        for j in others(n, i):
            without_either = game.value(everyone - {i}) + game.value(everyone - {j})
            eq_11 = (whole - without_either + game.value(everyone - {i, j})) / (n - 1)
            assert -float(pairs[i, j]) / (n - 1) == pytest.approx(eq_11)
