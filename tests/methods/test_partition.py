"""shap's partition explainer on the game, against Owen values by enumeration."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.cluster.hierarchy import is_valid_linkage
from shap.maskers import Image
from torch import Tensor

from captum_moxi import BaselineRemoval, CoalitionGame, patch_mask
from captum_moxi.methods import METHODS, Method
from captum_moxi.methods.partition import hierarchy_of

ScoresOf = Callable[[Method, CoalitionGame], Tensor]


def table_game(n: int, *, seed: int = 0) -> CoalitionGame:
    """A game of n scalar players with a random reward for each coalition."""
    table = torch.randn(2**n, generator=torch.Generator().manual_seed(seed))
    bits = 2 ** torch.arange(n)
    return CoalitionGame(lambda x: table[(x.long() * bits).sum(1)], torch.ones(1, n), reward="output")


def owen_values(game: CoalitionGame, hierarchy: NDArray[np.float64]) -> list[float]:
    """The mean change in reward when a player joins, over all orders in which each part of the hierarchy is contiguous.

    Each order results from one choice of which child comes first, for each node.
    """
    n = game.n_players
    total = torch.zeros(n, dtype=torch.float64)
    for choices in itertools.product([False, True], repeat=n - 1):
        orders = [[player] for player in range(n)]
        for (left, right), swapped in zip(hierarchy[:, :2].astype(int), choices, strict=True):
            orders.append(orders[right] + orders[left] if swapped else orders[left] + orders[right])
        path = torch.zeros(n + 1, n, dtype=torch.bool)
        for step, player in enumerate(orders[-1], start=1):
            path[step:, player] = True
        total[orders[-1]] += game(path).double().diff()
    return (total / 2 ** (n - 1)).tolist()


@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_enough_evaluations_give_exact_owen_values(n: int, scores_of: ScoresOf) -> None:
    game = table_game(n)
    expected = owen_values(game, hierarchy_of(torch.arange(n).double()[:, None]))
    assert scores_of(METHODS.create("shap-partition"), game)[0].tolist() == pytest.approx(expected, abs=1e-5)


def test_owen_values_follow_the_hierarchy_of_patches(scores_of: ScoresOf) -> None:
    """Six patches in two columns and three rows, whose mask numbers the columns first."""
    table = torch.randn(2**6, generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[0, 3], [1, 4], [2, 5]])[None, None]

    def model(x: Tensor) -> Tensor:
        return table[(x[:, 0].long() * 2 ** mask[0, 0]).sum((1, 2))]

    game = CoalitionGame(model, torch.ones(1, 1, 3, 2), feature_mask=mask, removal=BaselineRemoval(), reward="output")
    # The first row against the others, the second row against the third, and the two patches of each row.
    hierarchy = np.array([[0, 3], [1, 4], [2, 5], [7, 8], [6, 9]])
    expected = owen_values(game, hierarchy)
    assert scores_of(METHODS.create("shap-partition"), game)[0].tolist() == pytest.approx(expected, abs=1e-5)
    other = owen_values(game, hierarchy_of(torch.arange(6).double()[:, None]))
    assert expected != pytest.approx(other, abs=0.1)


@pytest.mark.parametrize("evaluations", [1, 500])
def test_values_of_an_additive_game_are_its_weights(evaluations: int, scores_of: ScoresOf) -> None:
    weights = torch.tensor([1.0, 3.0, -2.0, 0.0, 0.5])
    game = CoalitionGame(lambda x: x @ weights, torch.ones(1, 5), reward="output")
    scores = scores_of(METHODS.create(f"shap-partition:{evaluations}"), game)[0]
    if evaluations == 1:
        # The explainer stops before it divides the players, which share the reward.
        weights = torch.full((5,), float(weights.mean()))
    torch.testing.assert_close(scores, weights.double())


@pytest.mark.parametrize("evaluations", [1, 20, 100, 500])
def test_values_sum_to_the_reward_of_all_players(
    evaluations: int, vit: torch.nn.Module, x: Tensor, scores_of: ScoresOf
) -> None:
    game = CoalitionGame(vit, x, target=[1, 3])
    nobody = game.outcome(torch.zeros(2, 16), torch.arange(2)).rewards
    sums = scores_of(METHODS.create(f"shap-partition:{evaluations}"), game).sum(1)
    torch.testing.assert_close(sums, (game.full.rewards - nobody).double(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("evaluations", [7, 500])
def test_every_coalition_is_counted(evaluations: int) -> None:
    received = []

    def model(x: Tensor) -> Tensor:
        received.extend(x.tolist())
        return x[:, 0] * x[:, 1] - x[:, 2:].prod(1)

    game = CoalitionGame(model, torch.ones(1, 6), reward="output")
    received.clear()
    before = game.cost
    METHODS.create(f"shap-partition:{evaluations}").attribute(game, "insertion", n_steps=None, stop=None)
    assert (game.cost - before).rows == len(received)
    # None and all of the players, and at most one batch of ten after the limit.
    assert received[:2] == [[0] * 6, [1] * 6]
    assert len(received) < evaluations + 10
    if evaluations == 500:
        # The six players form 5 parts: 1 in one context, 2 in two contexts each, and 2 in four contexts each.
        assert len(received) == 2 + 2 * (1 + 2 * 2 + 2 * 4)


def test_examples_with_other_players(scores_of: ScoresOf) -> None:
    """The first example has the players 0 to 3, the second 3 to 5. Their rewards are sums of the players' weights."""
    mask = torch.tensor([[0, 1, 2, 3], [3, 4, 5, 5]])
    game = CoalitionGame(lambda x: x.sum(1), torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]]), feature_mask=mask)
    scores = scores_of(METHODS.create("shap-partition"), game)
    torch.testing.assert_close(scores, torch.tensor([[1.0, 2, 3, 4, 0, 0], [0, 0, 0, 5, 6, 15]]).double())


def test_the_order_of_equal_parts_does_not_depend_on_global_random_numbers(scores_of: ScoresOf) -> None:
    """All pairs of this game are equal, and the explainer stops before it has divided all of them."""
    game = CoalitionGame(lambda x: x[:, ::2].sum(1), torch.ones(1, 16), reward="output")
    method = METHODS.create("shap-partition:100")
    results = []
    for seed in range(3):
        np.random.seed(seed)
        results.append(scores_of(method, game))
    assert len(results[0].unique()) > 2
    assert all(torch.equal(result, results[0]) for result in results)


def parts_of(hierarchy: NDArray[np.float64]) -> set[frozenset[int]]:
    """The sets of points below each node."""
    n_points = len(hierarchy) + 1
    parts = [frozenset([point]) for point in range(n_points)]
    for left, right in hierarchy[:, :2].astype(int):
        parts.append(parts[left] | parts[right])
    return set(parts)


@pytest.mark.parametrize(("rows", "columns"), [(4, 4), (3, 5), (7, 7), (6, 2), (1, 9), (14, 14)])
def test_the_hierarchy_of_patches_is_that_of_shap_on_pixels(rows: int, columns: int) -> None:
    centers = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).double() * 16 + 7.5
    hierarchy = hierarchy_of(centers)
    pixels = Image(np.zeros((rows, columns, 1)), shape=(rows, columns, 1)).clustering
    # The leaves of shap's hierarchy are the pixels from the last to the first.
    last = rows * columns - 1
    assert parts_of(hierarchy) == {frozenset(last - leaf for leaf in part) for part in parts_of(pixels)}
    assert is_valid_linkage(hierarchy)


def test_points_that_coincide_are_divided_into_equal_parts() -> None:
    sizes = sorted(len(part) for part in parts_of(hierarchy_of(torch.zeros(8, 2).double())))
    assert sizes == [1] * 8 + [2] * 4 + [4] * 2 + [8]


def test_patches_of_a_model_form_the_hierarchy_of_their_grid(
    vit: torch.nn.Module, x: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    centers = []
    monkeypatch.setattr(
        "captum_moxi.methods.partition.hierarchy_of", lambda points: hierarchy_of(centers.append(points) or points)
    )
    game = CoalitionGame(vit, x[:1], target=1, feature_mask=patch_mask(32, grid=(2, 4)))
    METHODS.create("shap-partition:20").attribute(game, "insertion", n_steps=None, stop=None)
    expected = [[row, column] for row in (7.5, 23.5) for column in (3.5, 11.5, 19.5, 27.5)]
    assert centers[0].tolist() == expected
