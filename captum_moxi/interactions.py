r"""Shapley values and interactions of any game: exact, self-context, full-context.

A game here is a function of coalitions ``(M, n)`` bool to values ``(M,)``, such as a
:class:`captum_moxi.CoalitionGame` of one input. :math:`f` is its value, :math:`N` all players. An interaction sets
two players that act as one, :math:`S_{ij}` in the game with players :math:`N'`, against the two apart.

The paper's greedy steps follow from two identities, for A chosen so far and any player b:

.. math::
    \phi_{self}(b) + I_{self}(A, b) &= f(A \cup b) - f(A) \\
    \phi_{full}(b) + I_{full}(A, b) &= f(N \setminus A) - f(N \setminus (A \cup b))
"""

from collections.abc import Callable, Sequence
from math import comb

import torch
from torch import Tensor

Game = Callable[[Tensor], Tensor]

MAX_EXACT_PLAYERS = 20


def shapley_values(game: Game, n: int) -> Tensor:
    r"""
    Exact Shapley values (the paper, Eq. 1).

    .. math::
        \phi(i | N) = \sum_{S \subseteq N \setminus \{i\}} \frac{|S|! (n - |S| - 1)!}{n!} [f(S \cup \{i\}) - f(S)]

    Args:
        game (Callable): Coalitions ``(M, n)`` bool -> values ``(M,)``.
        n (int): The number of players, at most 20: the game is played on all ``2**n`` coalitions.

    Returns:
        Tensor: ``(n,)`` float64.

    Raises:
        ValueError: n out of range.
    """
    values = _all_values(game, n)
    return torch.stack([_shapley(values, i, _others(n, i)) for i in range(n)])


def shapley_interactions(game: Game, n: int) -> Tensor:
    r"""
    Exact interactions of all pairs, a player's own share being its value while the other is absent (Eq. 2).

    .. math::
        I(i, j) = \phi(S_{ij} | N') - \phi(i | N \setminus \{j\}) - \phi(j | N \setminus \{i\})

    Args:
        game (Callable): Coalitions ``(M, n)`` bool -> values ``(M,)``.
        n (int): The number of players, at most 20.

    Returns:
        Tensor: ``(n, n)`` float64, symmetric; on the diagonal :math:`I(i, i) = -\phi(i)`.

    Raises:
        ValueError: n out of range.
    """
    values = _all_values(game, n)

    def share(i: int, j: int) -> Tensor:
        return _shapley(values, i, _others(n, i, j))

    return _pairs(values, n, lambda i, j: share(i, j) + share(j, i))


def shapley_interactions_in_presence(game: Game, n: int) -> Tensor:
    r"""
    Exact interactions of all pairs, a player's own share being its value in the whole game (Eq. 9).

    .. math::
        I(i, j) = \phi(S_{ij} | N') - \phi(i | N) - \phi(j | N)

    This is the one that deletion asks for: it is positive where two players stand in for one another, so that taking
    both away costs more than the sum of taking either.

    Args:
        game (Callable): Coalitions ``(M, n)`` bool -> values ``(M,)``.
        n (int): The number of players, at most 20.

    Returns:
        Tensor: ``(n, n)`` float64, symmetric; on the diagonal :math:`I(i, i) = -\phi(i)`.

    Raises:
        ValueError: n out of range.
    """
    values = _all_values(game, n)
    shapley = [_shapley(values, i, _others(n, i)) for i in range(n)]
    return _pairs(values, n, lambda i, j: shapley[i] + shapley[j])


def self_context_shapley(game: Game, n: int) -> Tensor:
    r"""
    Shapley values in self-context, the empty set alone: :math:`\phi_{self}(i) = f(\{i\}) - f(\emptyset)` (Eq. 5).

    Args:
        game (Callable): Coalitions ``(M, n)`` bool -> values ``(M,)``; played on n + 1.
        n (int): The number of players.

    Returns:
        Tensor: ``(n,)``, in the game's dtype.
    """
    alone = torch.eye(n, dtype=torch.bool)
    values = game(torch.cat([alone, torch.zeros(1, n, dtype=torch.bool)]))
    return values[:n] - values[n]


def full_context_shapley(game: Game, n: int) -> Tensor:
    r"""
    Shapley values in full-context, all others present: :math:`\phi_{full}(i) = f(N) - f(N \setminus \{i\})` (Eq. 11).

    Args:
        game (Callable): Coalitions ``(M, n)`` bool -> values ``(M,)``; played on n + 1.
        n (int): The number of players.

    Returns:
        Tensor: ``(n,)``, in the game's dtype.
    """
    all_but_one = ~torch.eye(n, dtype=torch.bool)
    values = game(torch.cat([all_but_one, torch.ones(1, n, dtype=torch.bool)]))
    return values[n] - values[:n]


def self_context_interactions(game: Game, group: Tensor) -> Tensor:
    r"""
    Interaction of a group A, as one player, with every player b in self-context (Eq. 6).

    .. math::
        I_{self}(A, b) = f(A \cup b) - f(A) - f(b) + f(\emptyset)

    Args:
        game (Callable): Coalitions ``(M, n)`` bool -> values ``(M,)``; played on 2n + 2.
        group (Tensor): ``(n,)`` bool: the players of A.

    Returns:
        Tensor: ``(n,)``, in the game's dtype; :math:`-\phi_{self}(b)` for b in A.
    """
    n = len(group)
    alone = torch.eye(n, dtype=torch.bool)
    values = game(torch.cat([alone | group, alone, group[None], torch.zeros(1, n, dtype=torch.bool)]))
    return values[:n] - values[n : 2 * n] - values[2 * n] + values[2 * n + 1]


def full_context_interactions(game: Game, group: Tensor) -> Tensor:
    r"""
    Interaction of a group A, as one player, with every player b in full-context (Eq. 12, in the sense of Eq. 9).

    .. math::
        I_{full}(A, b) = f(N \setminus A) + f(N \setminus b) - f(N \setminus (A \cup b)) - f(N)

    Args:
        game (Callable): Coalitions ``(M, n)`` bool -> values ``(M,)``; played on 2n + 2.
        group (Tensor): ``(n,)`` bool: the players of A.

    Returns:
        Tensor: ``(n,)``, in the game's dtype; :math:`-\phi_{full}(b)` for b in A. Positive where b stands in for A.
    """
    return -self_context_interactions(lambda absent: game(~absent), group)


def self_context_pairs(game: Game, n: int, players: Sequence[int]) -> Tensor:
    r"""
    Interactions of all pairs of some players in self-context (Eq. 6, A being one player).

    .. math::
        I_{self}(i, j) = f(\{i, j\}) - f(i) - f(j) + f(\emptyset)

    Negative where the two say the same thing; positive where they say more together.

    Args:
        game (Callable): Coalitions ``(M, n)`` bool -> values ``(M,)``; played on 1 + m (m + 1) / 2.
        n (int): The number of players.
        players (Sequence[int]): m of them, by their columns in a coalition.

    Returns:
        Tensor: ``(m, m)``, symmetric, in the game's dtype; on the diagonal :math:`-\phi_{self}(i)`.

    Raises:
        ValueError: columns that are not there.
    """
    chosen = torch.as_tensor(players, dtype=torch.long)
    if chosen.dim() != 1 or not bool(((chosen >= 0) & (chosen < n)).all()):
        raise ValueError(f"players is {players}; pass columns of coalitions, from 0 to {n - 1}")
    first, second = torch.triu_indices(len(chosen), len(chosen))
    rows = torch.zeros(len(first) + 1, n, dtype=torch.bool)
    for of in (first, second):
        rows[torch.arange(len(first)), chosen[of]] = True
    values = game(rows)
    together = values.new_zeros(len(chosen), len(chosen))
    together[first, second] = together[second, first] = values[:-1]
    alone = together.diagonal().clone()
    # on the diagonal i with i is i
    return together - alone[:, None] - alone + values[-1]


def full_context_pairs(game: Game, n: int, players: Sequence[int]) -> Tensor:
    r"""
    Interactions of all pairs of some players in full-context (Eq. 12, A being one player).

    .. math::
        I_{full}(i, j) = f(N \setminus i) + f(N \setminus j) - f(N \setminus \{i, j\}) - f(N)

    Positive where each stands in for the other, so that losing both costs more than losing either would.

    Args:
        game (Callable): Coalitions ``(M, n)`` bool -> values ``(M,)``; played on 1 + m (m + 1) / 2.
        n (int): The number of players.
        players (Sequence[int]): m of them, by their columns in a coalition.

    Returns:
        Tensor: ``(m, m)``, symmetric, in the game's dtype; on the diagonal :math:`-\phi_{full}(i)`.

    Raises:
        ValueError: columns that are not there.
    """
    return -self_context_pairs(lambda absent: game(~absent), n, players)


def _all_values(game: Game, n: int) -> Tensor:
    """The value of every coalition: entry r is of the players whose bits are set in r."""
    if not 1 <= n <= MAX_EXACT_PLAYERS:
        raise ValueError(f"n is {n}, and exact values take 2**n coalitions; pass 1 to {MAX_EXACT_PLAYERS} players")
    return game(_subsets(n)).double().cpu()


def _subsets(n: int) -> Tensor:
    return (torch.arange(2**n)[:, None] >> torch.arange(n)) & 1 == 1


def _others(n: int, *without: int) -> list[int]:
    return [i for i in range(n) if i not in without]


def _shapley(values: Tensor, player: int | tuple[int, int], others: list[int]) -> Tensor:
    """The Shapley value of a player, or of two acting as one, in the game among it and the others."""
    members = (player,) if isinstance(player, int) else player
    bits = sum(1 << i for i in members)
    subsets = _subsets(len(others))
    index = (subsets * torch.tensor([1 << i for i in others], dtype=torch.long)).sum(1)
    weights = [1 / ((len(others) + 1) * comb(len(others), size)) for size in range(len(others) + 1)]
    gains = values[index + bits] - values[index]
    return (torch.tensor(weights, dtype=torch.double)[subsets.sum(1)] * gains).sum()


def _pairs(values: Tensor, n: int, apart: Callable[[int, int], Tensor]) -> Tensor:
    """Together less apart for every pair, and less the player's own value where a player is paired with itself."""
    matrix = torch.zeros(n, n, dtype=torch.double)
    for i in range(n):
        matrix[i, i] = -_shapley(values, i, _others(n, i))
        for j in range(i):
            matrix[i, j] = matrix[j, i] = _shapley(values, (i, j), _others(n, i, j)) - apart(i, j)
    return matrix
