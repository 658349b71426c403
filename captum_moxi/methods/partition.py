"""The partition explainer of the package shap, on the game. Requires shap."""

from importlib.util import find_spec
from types import FunctionType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from captum_moxi.arguments import Mode, Stop
from captum_moxi.game import CoalitionGame
from captum_moxi.methods.base import Method
from captum_moxi.metrics import Attributions
from captum_moxi.players import scores_to_inputs


def shap_partition(n_evaluations: int = 500) -> Method:
    """Return the partition explainer of shap, which computes Owen values (Owen, 1977) of a hierarchy of the players.

    The hierarchy of patches halves the image, and then each part, along its longer side, as shap does with pixels. The
    hierarchy of players that do not lie on an image halves the list of the players.

    The explainer first divides the reward among the largest parts, and then divides the parts whose rewards changed
    most. When it stops, the players of a part that is not divided share its reward equally. With enough evaluations,
    the values are exact Owen values. They sum to f(N) - f({}).

    Args:
        n_evaluations (int, optional): Number of coalitions after which the explainer stops. It evaluates 10 coalitions
            at once, so their number may be larger by up to 9.
            Default: 500

    Raises:
        ValueError: If shap is not installed.
    """
    if find_spec("shap") is None:
        raise ValueError("shap-partition requires shap; run pip install 'captum-moxi[shap]'")

    def attribute(game: CoalitionGame, mode: Mode, *, n_steps: int | None, stop: Stop) -> Attributions:
        scores = torch.zeros(game.exists.shape, dtype=torch.float64)
        for example, exists in enumerate(game.exists):
            if exists.any():
                scores[example, exists] = _owen_values(game, example, n_evaluations)
        return scores_to_inputs(scores, game.call.players, game.call.inputs)

    return Method(f"SHAP partition, {n_evaluations}", attribute)


def hierarchy_of(points: Tensor) -> NDArray[np.float64]:
    """Build a hierarchy of points by halving the extent of each part along its longest axis.

    A part whose points coincide is divided into halves with equally many points.

    Args:
        points (Tensor): Coordinates of n points. Shape ``(n, axes)``, float64.

    Returns:
        ndarray: Linkage matrix in the format of ``scipy.cluster.hierarchy``, with the number of points as the distance.
        Shape ``(n - 1, 4)``, float64.
    """
    n_points = len(points)
    rows: list[tuple[int, int, int, int]] = []

    def join(members: Tensor) -> int:
        """Add the hierarchy of some points, and return the index of its root."""
        if len(members) == 1:
            return int(members)
        left, right = (join(half) for half in _halves(points, members))
        rows.append((left, right, len(members), len(members)))
        return n_points + len(rows) - 1

    join(torch.arange(n_points))
    return np.array(rows, dtype=np.float64).reshape(-1, 4)


def _halves(points: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
    low, high = points[members].amin(0), points[members].amax(0)
    axis = int((high - low).argmax())
    is_left = points[members, axis] < (low + high)[axis] / 2
    if not is_left.any():
        # All points coincide.
        return members[: len(members) // 2], members[len(members) // 2 :]
    return members[is_left], members[~is_left]


def _points_of(game: CoalitionGame, example: int) -> Tensor:
    """Return the centers of the players of an example on its image, or their numbers if there is no image.

    Returns:
        Tensor: One row for each player that the example has: row and column on the image, or a number. Float64.
    """
    exists, inputs = game.exists[example], game.call.inputs
    if len(inputs) > 1 or inputs[0].dim() != 4:
        return torch.arange(int(exists.sum())).double()[:, None]
    positions = game.call.players.positions[0].cpu()
    owners = positions[example if len(positions) > 1 else 0].expand(-1, *inputs[0].shape[2:])
    pixels = torch.ones_like(owners).nonzero()[:, 1:].double()
    counts = owners.flatten().bincount(minlength=len(exists))
    sums = torch.zeros(len(exists), 2, dtype=torch.float64).index_add_(0, owners.flatten(), pixels)
    return sums[exists] / counts[exists, None]


def _owen_values(game: CoalitionGame, example: int, n_evaluations: int) -> Tensor:
    """Return the value of each player that an example has. Float64."""
    exists = game.exists[example]
    hierarchy = hierarchy_of(_points_of(game, example))

    def rewards(coalitions: NDArray[np.bool_]) -> NDArray[np.float64]:
        rows = torch.zeros(len(coalitions), game.n_players, dtype=torch.bool)
        rows[:, exists] = torch.from_numpy(coalitions)
        return game.outcome(rows, torch.full((len(rows),), example)).rewards.double().numpy()

    explainer = _private_explainer()(rewards, _CoalitionMasker(hierarchy))
    explanation = explainer(np.ones((1, int(exists.sum())), dtype=bool), max_evals=n_evaluations, silent=True)
    return torch.from_numpy(explanation.values[0])


class _CoalitionMasker:
    """A masker of shap that passes the coalition itself to the model.

    Args:
        clustering (ndarray): Hierarchy of the players, from :func:`hierarchy_of`.
    """

    def __init__(self, clustering: NDArray[np.float64]) -> None:
        self.clustering = clustering
        self.shape = (1, len(clustering) + 1)

    def __call__(self, mask: NDArray[np.bool_], full_coalition: NDArray[np.bool_]) -> tuple[NDArray[np.bool_]]:
        return (mask[None],)


class _PrivateNumPy:
    """NumPy with a seeded generator in place of the global one, which belongs to all threads.

    Args:
        seed (int): Seed of the generator.
    """

    def __init__(self, seed: int) -> None:
        self.random = np.random.RandomState(seed)

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


def _private_explainer() -> type:
    """Return shap's PartitionExplainer with random numbers from seed 0.

    Its search draws from NumPy's global generator, to order parts of equal priority. The subclass runs the same search
    on a generator of its own.
    """
    from shap import PartitionExplainer

    search = PartitionExplainer.owen
    private_search = FunctionType(
        search.__code__,
        {**search.__globals__, "np": _PrivateNumPy(0)},
        search.__name__,
        search.__defaults__,
        search.__closure__,
    )
    return type("PartitionExplainer", (PartitionExplainer,), {"owen": private_search})
