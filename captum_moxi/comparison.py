"""compare: several methods on the same inputs, players, removal and reward, side by side."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from captum_moxi import models
from captum_moxi.arguments import devices
from captum_moxi.game import CoalitionGame
from captum_moxi.methods import Method, get_methods
from captum_moxi.metrics import Curve, order_players, play_curve, read_fractions
from captum_moxi.removal import Removal
from captum_moxi.rewards import Reward
from captum_moxi.search import Mode

MODES: tuple[Mode, ...] = ("insertion", "deletion")
DEFAULT_METHODS = ("moxi", "moxi-minus", "shapley", "gradcam", "gradcam++", "rollout", "random")


@dataclass(frozen=True)
class Result:
    """One method in one mode.

    Args:
        method (str): Its title.
        mode (str): ``"insertion"`` or ``"deletion"``.
        order (Tensor): ``(B, n)`` int64: the players' ids, first to last; -1 after an example's last. Those that no
            curve looks at may stand in the order of their ids.
        curve (Curve): What the model says along that order.
        seconds (float): What the ordering took an example, the curve not counted.
        forwards (float): Rows that the ordering took of the game an example, one that also goes back through the model
            counted as three. Methods that look at the model itself take none of the game.
    """

    method: str
    mode: Mode
    order: Tensor
    curve: Curve
    seconds: float
    forwards: float


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare` found.

    Args:
        results (tuple[Result, ...]): One a method and mode, in the order that they were named.
        targets (Tensor or None): ``(B,)`` int64: the classes explained.
        n_players (Tensor): ``(B,)`` int64: how many players each example has.
    """

    results: tuple[Result, ...]
    targets: Tensor | None
    n_players: Tensor

    @property
    def methods(self) -> list[str]:
        """The titles of the methods."""
        return list(dict.fromkeys(result.method for result in self.results))

    def of(self, method: str, mode: str) -> Result:
        """The result of a method, by its title, and mode."""
        found = [result for result in self.results if (result.method, result.mode) == (method, mode)]
        if not found:
            raise ValueError(f"there is no {mode} by {method!r}; pass one of {', '.join(self.methods)}")
        return found[0]

    def players_to_flip(self, method: str, mode: str) -> Tensor:
        """``(B,)`` float64: how many players flip the prediction, of those that the curve looked at; NaN for never."""
        curve = self.of(method, mode).curve
        place = (curve.fractions == curve.flipped[:, None]).long().argmax(1, keepdim=True)
        count = curve.players.gather(1, place)[:, 0].double()
        return count.masked_fill(curve.flipped.isnan(), torch.nan)

    def records(self) -> list[dict[str, Any]]:
        """A dictionary an example, method and mode."""
        rows = []
        for result in self.results:
            curve, flip = result.curve, self.players_to_flip(result.method, result.mode)
            areas, reward_areas = curve.area(), curve.area("rewards")
            for example in range(len(flip)):
                rows.append(
                    {
                        "example": example,
                        "target": None if self.targets is None else int(self.targets[example]),
                        "method": result.method,
                        "mode": result.mode,
                        "players": int(self.n_players[example]),
                        "players to flip": None if flip[example].isnan() else int(flip[example]),
                        "area": float(areas[example]),
                        "reward area": float(reward_areas[example]),
                        "seconds": result.seconds,
                        "forwards": result.forwards,
                    }
                )
        return rows

    @property
    def table(self) -> Any:
        """The records as a pandas frame, where pandas is installed; else as they are."""
        try:
            import pandas
        except ImportError:
            return self.records()
        return pandas.DataFrame(self.records())


def join(comparisons: Sequence[Comparison]) -> Comparison:
    """Comparisons of the same methods, modes, fractions and number of players on other inputs, as one."""
    weights = torch.tensor([len(one.n_players) for one in comparisons], dtype=torch.float64)

    def mean(values: list[float]) -> float:
        return float((torch.tensor(values, dtype=torch.float64) * weights).sum() / weights.sum())

    results = []
    for parts in zip(*(one.results for one in comparisons), strict=True):
        curves = [part.curve for part in parts]
        by_example = ("players", "rewards", "confidences", "predictions", "correct", "flipped")
        joined = {name: torch.cat([getattr(curve, name) for curve in curves]) for name in by_example}
        results.append(
            Result(
                method=parts[0].method,
                mode=parts[0].mode,
                order=torch.cat([part.order for part in parts]),
                curve=replace(curves[0], **joined),
                seconds=mean([part.seconds for part in parts]),
                forwards=mean([part.forwards for part in parts]),
            )
        )
    targets = [one.targets for one in comparisons if one.targets is not None]
    return Comparison(
        tuple(results), torch.cat(targets) if targets else None, torch.cat([one.n_players for one in comparisons])
    )


def compare(
    forward_func: Callable[..., Any],
    inputs: Tensor | tuple[Tensor, ...],
    target: Any = None,
    methods: Sequence[str | Method] = DEFAULT_METHODS,
    modes: Sequence[Mode] = MODES,
    baselines: Any = None,
    additional_forward_args: Any = None,
    feature_mask: Tensor | tuple[Tensor, ...] | None = None,
    removal: Removal | None = None,
    reward: str | Reward = "log_odds",
    fractions: Sequence[float] | Tensor | None = None,
    perturbations_per_eval: int | None = None,
    show_progress: bool = False,
) -> Comparison:
    r"""
    Order the players by several methods, and say what the model makes of each order.

    All methods have the same players, and all curves the same removal and reward. Methods that play coalitions (MoXI,
    Shapley values, LIME, ablation) play the same game too; Grad-CAM, rollout and the like look at the model itself, and
    a player's score is the mean of its values'.

    Args:
        forward_func (Callable): The model, as in :class:`captum_moxi.MoXIInsertion`.
        inputs (Tensor or tuple[Tensor, ...]): The examples.
        target (int, tuple, Tensor or list, optional): As in ``captum.attr.FeatureAblation``.
            Default: None
        methods (Sequence[str or Method], optional): Names of ``captum_moxi.methods.METHODS``: moxi, moxi-minus,
            shapley, shapley-exact, kernel-shap, lime, ablation, gradcam, gradcam++, rollout,
            integrated-gradients, occlusion, random; some take a number, such as shapley:200, or
            methods that you made, such as ``captum_moxi.methods.moxi(GradientScreen(8))``.
            Default: moxi, moxi-minus, shapley, gradcam, gradcam++, rollout, random
        modes (Sequence[str], optional): ``"insertion"``, ``"deletion"`` or both. Methods whose order is for insertion
            or for deletion run once for each, others once.
            Default: both
        baselines, additional_forward_args, feature_mask: As in ``captum.attr.FeatureAblation``.
        removal, reward: As in :class:`captum_moxi.MoXIInsertion`.
        fractions (Sequence[float] or Tensor, optional): As in :func:`captum_moxi.insertion_curve`. MoXI orders no more
            players than the largest fraction asks for, which is what its cost depends on.
            Default: None, every number of players
        perturbations_per_eval (int, optional): As in :class:`captum_moxi.MoXIInsertion`.
            Default: None
        show_progress (bool, optional): Show a progress bar over methods.
            Default: False

    Returns:
        Comparison: orders, curves, seconds; its ``table`` has a row an example, method and mode.

    Raises:
        ValueError: an unknown method or mode, none or two of one title, one that the model is not fit for; and as
            :func:`captum_moxi.insertion_curve`.
        TypeError: an argument of the wrong type.

    Examples::

        >>> comparison = compare(model, x, target=y, methods=["moxi", "shapley:100", "rollout"])
        >>> comparison.table.groupby(["method", "mode"])["players to flip"].median()
        >>> figure, axes = plot_curves(comparison)
    """
    chosen = get_methods([methods] if isinstance(methods, str | Method) else methods)
    wanted: list[Any] = [modes] if isinstance(modes, str) else list(modes)
    if not wanted or len(set(wanted)) < len(wanted) or not set(wanted) <= set(MODES):
        raise ValueError(f"modes is {modes!r}; pass 'insertion', 'deletion' or both")
    points = None if fractions is None else read_fractions(fractions)
    results: list[Result] = []
    jobs = [(method, mode) for method in chosen for mode in (wanted if method.of_mode else wanted[:1])]
    with models.unchanged(forward_func, devices(inputs)):
        game = CoalitionGame(
            forward_func,
            inputs,
            target,
            baselines,
            additional_forward_args,
            feature_mask,
            removal,
            reward,
            perturbations_per_eval,
        )
        for method in chosen:
            method.check(game)
        # what no curve looks at need not be ordered
        most = None if points is None else max(1, int(float(points[-1]) * game.n_players + 0.5))
        with tqdm(jobs, desc="methods", unit="method", leave=None, disable=not show_progress) as bar:
            for method, mode in bar:
                bar.set_postfix_str(method.title)
                before, start = game.n_rows + 2 * game.n_backward_rows, time.perf_counter()
                order = order_players(game, method.play(game, mode, most, None))
                seconds = (time.perf_counter() - start) / game.n_games
                forwards = (game.n_rows + 2 * game.n_backward_rows - before) / game.n_games
                ids = torch.where(order >= 0, game.ids[order], -1)
                for each in [mode] if method.of_mode else wanted:
                    curve = play_curve(game, ids, each, points)
                    results.append(Result(method.title, each, ids, curve, seconds, forwards))
    return Comparison(tuple(results), game.targets, game.exists.sum(1))
