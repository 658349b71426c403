r"""Shapley values and interactions of any game: exact, in self-context and in full-context.

A game is a function that maps coalitions, a bool tensor of shape ``(M, n)``, to their values, a tensor of shape
``(M,)``. A :class:`captum_moxi.CoalitionGame` of one input is such a function. :math:`f` denotes the value, :math:`N`
the set of all players and :math:`n` their number. An interaction compares two players acting as one, :math:`S_{ij}` in
the game with the players :math:`N' = N \setminus \{i, j\} \cup \{S_{ij}\}`, with the two players acting separately.

MoXI's greedy steps follow from two identities, for any group of players :math:`A` and any player :math:`b`:

.. math::
    \phi_{self}(b) + I_{self}(A, b) &= f(A \cup b) - f(A) \\
    \phi_{full}(b) + I_{full}(A, b) &= f(N \setminus A) - f(N \setminus (A \cup b))

Equation numbers refer to Sumiyasu, Kawamoto and Kera, 'Identifying Important Group of Pixels using Interactions', CVPR
2024.
"""

from collections.abc import Callable, Sequence
from math import comb
from typing import TypeAlias

import torch
from torch import Tensor

Game: TypeAlias = Callable[[Tensor], Tensor]

MAX_EXACT_PLAYERS = 20


def shapley_values(game: Game, n: int) -> Tensor:
    r"""
    Compute exact Shapley values (Eq. 1).

    .. math::
        \phi(i | N) = \sum_{S \subseteq N \setminus \{i\}} \frac{|S|! (n - |S| - 1)!}{n!} [f(S \cup \{i\}) - f(S)]

    Args:
        game (Callable): Maps coalitions ``(M, n)``, bool, to values ``(M,)``. Called with all ``2**n`` coalitions.
        n (int): Number of players, from 1 to 20.

    Returns:
        Tensor: Shapley value of each player. Shape ``(n,)``, float64.

    Raises:
        ValueError: If ``n`` is out of range.

    Examples::

        >>> game = CoalitionGame(model, x, target=y, feature_mask=patch_mask(224, grid=3))
        >>> shapley_values(game, game.n_players)
    """
    values = _all_values(game, n)
    return torch.stack([_shapley(values, i, _others(n, i)) for i in range(n)])


def shapley_interactions(game: Game, n: int) -> Tensor:
    r"""
    Compute the exact interactions of all pairs of players (Eq. 2).

    The contribution of each player of a pair is measured while the other player is absent:

    .. math::
        I(i, j) = \phi(S_{ij} | N') - \phi(i | N \setminus \{j\}) - \phi(j | N \setminus \{i\})

    Args:
        game (Callable): Maps coalitions ``(M, n)``, bool, to values ``(M,)``. Called with all ``2**n`` coalitions.
        n (int): Number of players, from 1 to 20.

    Returns:
        Tensor: Interaction of each pair. Shape ``(n, n)``, float64, symmetric. The diagonal is
        :math:`I(i, i) = -\phi(i | N)`.

    Raises:
        ValueError: If ``n`` is out of range.
    """
    values = _all_values(game, n)

    def contribution(i: int, j: int) -> Tensor:
        return _shapley(values, i, _others(n, i, j))

    return _pair_matrix(values, n, lambda i, j: contribution(i, j) + contribution(j, i))


def shapley_interactions_in_presence(game: Game, n: int) -> Tensor:
    r"""
    Compute the exact interactions of all pairs of players, with the other player of the pair present.

    The contribution of each player of a pair is measured in the game with all players. This is the variant of Eq. 2 for
    deletion:

    .. math::
        I(i, j) = \phi(S_{ij} | N') - \phi(i | N) - \phi(j | N)

    The interaction is positive if each of the two players can replace the other. The loss of both then costs more than
    the sum of the losses of either one.

    Args:
        game (Callable): Maps coalitions ``(M, n)``, bool, to values ``(M,)``. Called with all ``2**n`` coalitions.
        n (int): Number of players, from 1 to 20.

    Returns:
        Tensor: Interaction of each pair. Shape ``(n, n)``, float64, symmetric. The diagonal is
        :math:`I(i, i) = -\phi(i | N)`.

    Raises:
        ValueError: If ``n`` is out of range.
    """
    values = _all_values(game, n)
    shapley = [_shapley(values, i, _others(n, i)) for i in range(n)]
    return _pair_matrix(values, n, lambda i, j: shapley[i] + shapley[j])


def self_context_shapley(game: Game, n: int) -> Tensor:
    r"""
    Compute Shapley values in self-context, where each player joins the empty set (Eq. 5).

    .. math::
        \phi_{self}(i) = f(\{i\}) - f(\emptyset)

    Args:
        game (Callable): Maps coalitions ``(M, n)``, bool, to values ``(M,)``. Called with n + 1 coalitions.
        n (int): Number of players.

    Returns:
        Tensor: Shapley value of each player. Shape ``(n,)``, in the dtype of the game's values.
    """
    singletons = torch.eye(n, dtype=torch.bool)
    values = game(torch.cat([singletons, torch.zeros(1, n, dtype=torch.bool)]))
    return values[:n] - values[n]


def full_context_shapley(game: Game, n: int) -> Tensor:
    r"""
    Compute Shapley values in full-context, where each player leaves the set of all players.

    .. math::
        \phi_{full}(i) = f(N) - f(N \setminus \{i\})

    This is Eq. 10 without its factor 1 / n, which is the same for all players.

    Args:
        game (Callable): Maps coalitions ``(M, n)``, bool, to values ``(M,)``. Called with n + 1 coalitions.
        n (int): Number of players.

    Returns:
        Tensor: Shapley value of each player. Shape ``(n,)``, in the dtype of the game's values.
    """
    all_but_one = ~torch.eye(n, dtype=torch.bool)
    values = game(torch.cat([all_but_one, torch.ones(1, n, dtype=torch.bool)]))
    return values[n] - values[:n]


def self_context_interactions(game: Game, group: Tensor) -> Tensor:
    r"""
    Compute the self-context interaction of a group, which acts as one player, with every player (Eq. 6).

    .. math::
        I_{self}(A, b) = f(A \cup b) - f(A) - f(b) + f(\emptyset)

    Args:
        game (Callable): Maps coalitions ``(M, n)``, bool, to values ``(M,)``. Called with 2n + 2 coalitions.
        group (Tensor): The players of the group A. Shape ``(n,)``, bool.

    Returns:
        Tensor: Interaction of A with each player. Shape ``(n,)``, in the dtype of the game's values. For a player b of
        A, it is :math:`-\phi_{self}(b)`.
    """
    n = len(group)
    singletons = torch.eye(n, dtype=torch.bool)
    values = game(torch.cat([singletons | group, singletons, group[None], torch.zeros(1, n, dtype=torch.bool)]))
    return values[:n] - values[n : 2 * n] - values[2 * n] + values[2 * n + 1]


def full_context_interactions(game: Game, group: Tensor) -> Tensor:
    r"""
    Compute the full-context interaction of a group, which acts as one player, with every player.

    .. math::
        I_{full}(A, b) = f(N \setminus A) + f(N \setminus b) - f(N \setminus (A \cup b)) - f(N)

    The interaction is positive if b can replace A. Eq. 11 defines it with the opposite sign and a factor that is the
    same for all players. The greedy choice (Eqs. 12 and 13) is the same.

    Args:
        game (Callable): Maps coalitions ``(M, n)``, bool, to values ``(M,)``. Called with 2n + 2 coalitions.
        group (Tensor): The players of the group A. Shape ``(n,)``, bool.

    Returns:
        Tensor: Interaction of A with each player. Shape ``(n,)``, in the dtype of the game's values. For a player b of
        A, it is :math:`-\phi_{full}(b)`.
    """
    return -self_context_interactions(lambda absent: game(~absent), group)


def self_context_pairs(game: Game, n: int, *, positions: Sequence[int]) -> Tensor:
    r"""
    Compute the self-context interactions of all pairs of selected players (Eq. 6).

    .. math::
        I_{self}(i, j) = f(\{i, j\}) - f(i) - f(j) + f(\emptyset)

    The interaction is negative if the two players carry the same information. It is positive if they carry more
    information together than separately.

    Args:
        game (Callable): Maps coalitions ``(M, n)``, bool, to values ``(M,)``. Called with 1 + m (m + 1) / 2
            coalitions.
        n (int): Number of players.
        positions (Sequence[int]): Positions (columns of a coalition) of the m players to compare.

    Returns:
        Tensor: Interaction of each pair. Shape ``(m, m)``, symmetric, in the dtype of the game's values. The diagonal
        is :math:`-\phi_{self}(i)`.

    Raises:
        ValueError: If a position is not from 0 to n - 1.

    Examples::

        >>> # interactions of the first five patches that a search chose
        >>> positions = game.positions_of(selection.order[0, :5]).tolist()
        >>> self_context_pairs(game, game.n_players, positions=positions)
    """
    members = torch.as_tensor(positions, dtype=torch.long)
    if members.dim() != 1 or not bool(((members >= 0) & (members < n)).all()):
        raise ValueError(f"positions is {positions}; pass columns of coalitions, from 0 to {n - 1}")
    first, second = torch.triu_indices(len(members), len(members))
    coalitions = torch.zeros(len(first) + 1, n, dtype=torch.bool)
    for pair_member in (first, second):
        coalitions[torch.arange(len(first)), members[pair_member]] = True
    values = game(coalitions)
    together = values.new_zeros(len(members), len(members))
    together[first, second] = together[second, first] = values[:-1]
    # The pair of a player with itself is the coalition of this player alone.
    alone = together.diagonal().clone()
    return together - alone[:, None] - alone + values[-1]


def full_context_pairs(game: Game, n: int, *, positions: Sequence[int]) -> Tensor:
    r"""
    Compute the full-context interactions of all pairs of selected players.

    .. math::
        I_{full}(i, j) = f(N \setminus i) + f(N \setminus j) - f(N \setminus \{i, j\}) - f(N)

    The interaction is positive if each player can replace the other. The loss of both then costs more than the sum of
    the losses of either one. The interaction is :math:`-(n - 1)` times Eq. 11.

    Args:
        game (Callable): Maps coalitions ``(M, n)``, bool, to values ``(M,)``. Called with 1 + m (m + 1) / 2
            coalitions.
        n (int): Number of players.
        positions (Sequence[int]): Positions (columns of a coalition) of the m players to compare.

    Returns:
        Tensor: Interaction of each pair. Shape ``(m, m)``, symmetric, in the dtype of the game's values. The diagonal
        is :math:`-\phi_{full}(i)`.

    Raises:
        ValueError: If a position is not from 0 to n - 1.
    """
    return -self_context_pairs(lambda absent: game(~absent), n, positions=positions)


def _all_values(game: Game, n: int) -> Tensor:
    """Return the value of every coalition: entry r is the coalition of the players whose bits are set in r."""
    if not 1 <= n <= MAX_EXACT_PLAYERS:
        raise ValueError(f"n is {n}, but exact values need 2**n coalitions; pass 1 to {MAX_EXACT_PLAYERS} players")
    return game(_subsets(n)).double().cpu()


def _subsets(n: int) -> Tensor:
    """Return all subsets of n players, ``(2**n, n)`` bool."""
    return (torch.arange(2**n)[:, None] >> torch.arange(n)) & 1 == 1


def _others(n: int, *players: int) -> list[int]:
    return [i for i in range(n) if i not in players]


def _shapley(values: Tensor, player: int | tuple[int, int], others: list[int]) -> Tensor:
    """Return the Shapley value of a player, or of two players acting as one, in the game with the other players."""
    members = (player,) if isinstance(player, int) else player
    member_bits = sum(1 << i for i in members)
    subsets = _subsets(len(others))
    subset_bits = (subsets * torch.tensor([1 << i for i in others], dtype=torch.long)).sum(1)
    weights = [1 / ((len(others) + 1) * comb(len(others), size)) for size in range(len(others) + 1)]
    gains = values[subset_bits + member_bits] - values[subset_bits]
    return (torch.tensor(weights, dtype=torch.double)[subsets.sum(1)] * gains).sum()


def _pair_matrix(values: Tensor, n: int, separate: Callable[[int, int], Tensor]) -> Tensor:
    """Return the joint minus the separate contributions of each pair. The diagonal is minus the Shapley value."""
    matrix = torch.zeros(n, n, dtype=torch.double)
    for i in range(n):
        matrix[i, i] = -_shapley(values, i, _others(n, i))
        for j in range(i):
            matrix[i, j] = matrix[j, i] = _shapley(values, (i, j), _others(n, i, j)) - separate(i, j)
    return matrix
