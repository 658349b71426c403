import pytest
import reference
import torch
from torch import Tensor

from captum_moxi import interactions


class RandomGame:
    """A game of n players with a random value for every coalition."""

    def __init__(self, n: int, seed: int) -> None:
        self.n = n
        self.values = torch.randn(2**n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    def __call__(self, coalitions: Tensor) -> Tensor:
        return self.values[(coalitions.long() << torch.arange(self.n)).sum(1)]

    def of(self, players: frozenset[int]) -> float:
        return float(self.values[sum(1 << i for i in players)])


@pytest.fixture(params=[(1, 0), (4, 1), (6, 2)], ids=["n=1", "n=4", "n=6"])
def game(request: pytest.FixtureRequest) -> RandomGame:
    return RandomGame(*request.param)


def one(i: int) -> frozenset[int]:
    return frozenset([i])


def rest(n: int, *without: int) -> list[int]:
    return [i for i in range(n) if i not in without]


def test_shapley_values_by_enumeration(game: RandomGame) -> None:
    expected = [reference.shapley(game.of, one(i), rest(game.n, i)) for i in range(game.n)]
    torch.testing.assert_close(interactions.shapley_values(game, game.n), torch.tensor(expected, dtype=torch.float64))


def test_interactions_by_enumeration(game: RandomGame) -> None:
    absent = interactions.shapley_interactions(game, game.n)
    present = interactions.shapley_interactions_in_presence(game, game.n)
    for i in range(game.n):
        alone = reference.shapley(game.of, one(i), rest(game.n, i))
        assert absent[i, i] == pytest.approx(-alone)
        assert present[i, i] == pytest.approx(-alone)
        for j in rest(game.n, i):
            others = rest(game.n, i, j)
            together = reference.shapley(game.of, frozenset([i, j]), others)
            without = reference.shapley(game.of, one(i), others) + reference.shapley(game.of, one(j), others)
            within = alone + reference.shapley(game.of, one(j), rest(game.n, j))
            assert absent[i, j] == pytest.approx(together - without)
            assert present[i, j] == pytest.approx(together - within)


def test_contexts_by_their_definitions(game: RandomGame) -> None:
    n, everyone = game.n, frozenset(range(game.n))
    self_context = interactions.self_context_shapley(game, n)
    full_context = interactions.full_context_shapley(game, n)
    for i in range(n):
        assert self_context[i] == pytest.approx(game.of(one(i)) - game.of(frozenset()))
        assert full_context[i] == pytest.approx(game.of(everyone) - game.of(everyone - {i}))


def test_the_greedy_identities(game: RandomGame) -> None:
    """phi + I of a player is what it changes (Eqs. 4-7 and 10-13), and I(i, i) = -phi(i)."""
    n, everyone = game.n, frozenset(range(game.n))
    for group in reference.subsets(list(range(n))):
        if not group:
            continue
        held = torch.zeros(n, dtype=torch.bool)
        held[list(group)] = True
        joins = interactions.self_context_shapley(game, n) + interactions.self_context_interactions(game, held)
        leaves = interactions.full_context_shapley(game, n) + interactions.full_context_interactions(game, held)
        for b in range(n):
            assert joins[b] == pytest.approx(game.of(frozenset({*group, b})) - game.of(frozenset(group)))
            assert leaves[b] == pytest.approx(game.of(everyone - set(group)) - game.of(everyone - {*group, b}))
    for i in range(n):
        held = torch.eye(n, dtype=torch.bool)[i]
        assert interactions.self_context_interactions(game, held)[i] == pytest.approx(
            -float(interactions.self_context_shapley(game, n)[i])
        )
        assert interactions.full_context_interactions(game, held)[i] == pytest.approx(
            -float(interactions.full_context_shapley(game, n)[i])
        )


@pytest.mark.parametrize("n", [0, 21])
def test_exact_values_refuse_too_many_players(n: int) -> None:
    with pytest.raises(ValueError, match="n is"):
        interactions.shapley_values(lambda coalitions: coalitions.sum(1), n)


def test_pairs_are_interactions_of_groups_of_one(game: RandomGame) -> None:
    n = game.n
    players = [3, 0, 2] if n > 1 else [0]
    own = interactions.self_context_pairs(game, n, players)
    full = interactions.full_context_pairs(game, n, players)
    for row, player in enumerate(players):
        group = torch.arange(n) == player
        torch.testing.assert_close(own[row], interactions.self_context_interactions(game, group)[players])
        torch.testing.assert_close(full[row], interactions.full_context_interactions(game, group)[players])
    with pytest.raises(ValueError, match="pass columns of coalitions"):
        interactions.self_context_pairs(game, n, [n])
