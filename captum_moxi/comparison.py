"""Compares several methods on the same inputs, players, removal and reward."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Union

import torch
from torch import Tensor
from tqdm.auto import tqdm

from captum_moxi.arguments import (
    MODES,
    Baselines,
    ForwardArgs,
    Mode,
    Model,
    Stop,
    Target,
    TensorOrTuple,
    input_devices,
    parse_modes,
    warn_user,
)
from captum_moxi.game import CoalitionGame
from captum_moxi.methods import AnyMethod, Method, get_methods
from captum_moxi.metrics import (
    Attributions,
    Cell,
    Curve,
    Metric,
    Replay,
    check_fit,
    check_removals,
    count_players_to_flip,
    covers_all_players,
    get_metrics,
    join_replays,
    order_title,
    parse_fractions,
    play_curve,
    play_replays,
    rank_positions,
    replay_records,
    replay_rows,
    symmetric_relevance_gain,
)
from captum_moxi.models import preserved_state
from captum_moxi.removal import Removal
from captum_moxi.rewards import Reward
from captum_moxi.tables import Record, Table, html_table

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, eq=False)
class MethodRun:
    """The order in which a method ranked the players of a game, and its cost.

    Args:
        attributions (Tensor, tuple[Tensor, ...] or Selection): Result of the method.
        positions (Tensor): Positions of the players in ``game.ids``, first to last. Shape ``(B, n)``, int64. Rows of
            examples with fewer than n players end with -1.
        seconds (float): Time per example, in seconds.
        rows (float): Rows that the model evaluated per example. NaN if they are unknown.
        weighted_rows (float): Forward equivalents per example: a row that also goes backward counts as three. NaN if
            they are unknown.
    """

    attributions: Attributions
    positions: Tensor
    seconds: float
    rows: float
    weighted_rows: float


@dataclass(frozen=True, eq=False)
class Result:
    """The result of one method in one mode.

    Args:
        method (str): Title of the method.
        mode (str): ``"insertion"`` or ``"deletion"``.
        order (Tensor): Ids of the players, first to last. Shape ``(B, n)``, int64. Rows of examples with fewer than n
            players end with -1. Players beyond the last fraction of the curve may be in the order of their ids.
        curve (Curve): The model's output along the order.
        seconds (float): Time per example to compute the order, without the curve, in seconds.
        rows (float): Rows that the model evaluated per example to compute the order, without the curve. NaN if they
            are unknown: for some functions, as in :func:`captum_moxi.methods.from_function`, and for runs, which store
            only weighted rows.
        weighted_rows (float): Forward equivalents of these rows per example: a row that also goes backward counts as
            three. NaN if they are unknown.
    """

    method: str
    mode: Mode
    order: Tensor
    curve: Curve
    seconds: float
    rows: float
    weighted_rows: float


@dataclass(frozen=True, eq=False)
class Comparison:
    """The results of :func:`compare`.

    Args:
        results (tuple[Result, ...]): One result for each method and mode, in the order of the methods.
        targets (Tensor or None): Target class of each example. Shape ``(B,)``, int64. None if there is no target.
        n_players (Tensor): Number of players of each example. Shape ``(B,)``, int64.
        metrics (tuple[Metric, ...], optional): Metrics in the table.
            Default: all registered metrics
        replays (tuple[Replay, ...], optional): Areas of each order under each of the ``replay_removals``.
            Default: ``()``
    """

    results: tuple[Result, ...]
    targets: Tensor | None
    n_players: Tensor
    metrics: tuple[Metric, ...] = field(default_factory=lambda: tuple(get_metrics()))
    replays: tuple[Replay, ...] = ()

    def __repr__(self) -> str:
        n_examples = len(self.n_players)
        return (
            f"Comparison({', '.join(self.methods)}; {' and '.join(self.modes)}; "
            f"{n_examples} example{'' if n_examples == 1 else 's'}{self._evaluated()})"
        )

    def _evaluated(self) -> str:
        """Return how many fractions of the players the curves contain, in words."""
        if not self.results:
            return ""
        fractions = self.results[0].curve.fractions
        return f"; {len(fractions)} fractions of the players up to {float(fractions[-1]):.0%}"

    def _repr_html_(self) -> str:
        """Return a table of each method's means over the examples, which a notebook shows."""
        rows = [
            {"": result.mode, "method": result.method}
            | self.summary_columns(result)
            | {"seconds per example": result.seconds}
            for result in self.results
        ]
        table = html_table(repr(self), list(rows[0]) if rows else [], [list(row.values()) for row in rows])
        return table + self.replay_html()

    @property
    def methods(self) -> list[str]:
        """Titles of the methods."""
        return list(dict.fromkeys(result.method for result in self.results))

    @property
    def modes(self) -> list[Mode]:
        """Modes of the results."""
        return list(dict.fromkeys(result.mode for result in self.results))

    def of(self, method: str, mode: str) -> Result:
        """Return the result of a method in a mode.

        Args:
            method (str): Title of the method.
            mode (str): ``"insertion"`` or ``"deletion"``.

        Raises:
            ValueError: If there is no such result.
        """
        for result in self.results:
            if (result.method, result.mode) == (method, mode):
                return result
        available = ", ".join(f"{result.method!r} in {result.mode}" for result in self.results)
        raise ValueError(f"there is no result of method {method!r} in mode {mode!r}; pass one of {available}")

    def players_to_flip(self, method: str, mode: str) -> Tensor:
        """Count the players that flip the prediction of each example, among the counts of the curve.

        Args:
            method (str): Title of the method.
            mode (str): ``"insertion"`` or ``"deletion"``.

        Returns:
            Tensor: Shape ``(B,)``, float64. NaN for examples whose prediction never flips.

        Raises:
            ValueError: If there is no such result.
        """
        return count_players_to_flip(self.of(method, mode).curve)

    def srg(self, method: str) -> Tensor | None:
        """Compute the symmetric relevance gain (SRG) of a method's order: its insertion area minus its deletion area.

        Args:
            method (str): Title of the method.

        Returns:
            Tensor or None: SRG of each example. Shape ``(B,)``, float64. None if the method has a different order for
            each mode, as MoXI does, or if there is only one mode, or if the fractions do not extend from 0 to 1.
            ``replay_removals`` of :func:`compare` also inserts and deletes the orders of MoXI.
        """
        return srg_of([result for result in self.results if result.method == method])

    @property
    def _has_srg(self) -> bool:
        """Whether the table has a column for the SRG. It does not depend on the orders, so all images share it."""
        return len(self.modes) == len(MODES) and all(covers_all_players(result.curve) for result in self.results)

    def _srg_values(self, result: Result) -> Tensor | None:
        """Return the SRG of a result ``(B,)``, NaN if it has none. None if the table has no column for it."""
        if not self._has_srg:
            return None
        values = self.srg(result.method)
        return torch.full((len(self.n_players),), math.nan, dtype=torch.float64) if values is None else values

    def summary_columns(self, result: Result, metrics: Sequence[Metric] | None = None) -> dict[str, Cell]:
        """Summarize a result over the examples.

        Args:
            result (Result): One of the results.
            metrics (Sequence[Metric], optional): Metrics of the columns.
                Default: None, the metrics of the comparison

        Returns:
            dict[str, str or int or float]: Value of each column, by title: those of the metrics, and the mean SRG if
            the table has it, as in :meth:`records`.
        """
        metrics = self.metrics if metrics is None else metrics
        columns = {column: cell for metric in metrics for column, cell in metric.summarize(result.curve).items()}
        srg = self._srg_values(result)
        return columns if srg is None else columns | {"SRG": float(srg.mean())}

    def records(self) -> Table:
        """Return one dict for each example, method and mode, with a column for each metric.

        If there are both modes and the curves extend over all players, there is also a column for the SRG, as in
        :meth:`srg`. It is NaN for methods with a different order for each mode.

        The players to flip are the smallest number on the curve that flips the prediction, and None if no number on the
        curve does. With few ``fractions``, there are few such numbers. Rows are NaN if they are unknown, as in
        :class:`Result`.

        Returns:
            Table: A list of dicts that prints as a table.
        """
        return Table(record for result in self.results for record in self._records_of(result))

    @property
    def table(self) -> Union["pandas.DataFrame", Table]:
        """The result of :meth:`records`, as a pandas DataFrame if pandas is installed."""
        return _as_data_frame(self.records())

    def replay_records(self, *, resamples: int = 2000) -> Table:
        """Return one dict for each of the ``replay_removals`` and each order, with means over the examples.

        MoXI and MoXI(-) have one order for each mode. The columns are the removal, the title of the
        order, the number of examples, the fraction of the patches at which the curves end, and the mean and the 95 %
        bootstrap interval of the insertion area, the deletion area and the SRG. If the curves do not extend over all
        players, ``"area difference"`` replaces the SRG. Values that are not known are None, such as the interval of
        fewer than 10 examples.

        Args:
            resamples (int, optional): Number of bootstrap resamples for the intervals.
                Default: 2000

        Returns:
            Table: A list of dicts that prints as a table. :func:`captum_moxi.plot.replays_figure` draws it.
        """
        return Table(replay_records(self.replays, resamples=resamples))

    def replay_html(self) -> str:
        """Return the table of the replays as HTML, or an empty text if there are none."""
        if not self.replays:
            return ""
        return html_table("Each order under each removal", *replay_rows(self.replay_records()))

    @property
    def replay_table(self) -> Union["pandas.DataFrame", Table]:
        """The result of :meth:`replay_records`, as a pandas DataFrame if pandas is installed."""
        return _as_data_frame(self.replay_records())

    def _records_of(self, result: Result) -> list[Record]:
        columns = {metric.title: metric.values(result.curve) for metric in self.metrics}
        targets = None if self.targets is None else self.targets.tolist()
        srg = self._srg_values(result)
        return [
            {
                "example": example,
                "target": None if targets is None else targets[example],
                "method": result.method,
                "mode": result.mode,
                "players": n_players,
                **{title: values[example] for title, values in columns.items()},
                **({} if srg is None else {"SRG": float(srg[example])}),
                "seconds": result.seconds,
                "rows": result.rows,
                "weighted rows": result.weighted_rows,
            }
            for example, n_players in enumerate(self.n_players.tolist())
        ]


def _as_data_frame(records: Table) -> Union["pandas.DataFrame", Table]:
    """Convert records to a pandas DataFrame if pandas is installed."""
    try:
        import pandas
    except ImportError:
        return records
    return pandas.DataFrame(records)


def srg_of(results: Sequence[Result]) -> Tensor | None:
    """Compute the symmetric relevance gain (SRG) of one method.

    Args:
        results (Sequence[Result]): Results of the method in its modes, for the same examples.

    Returns:
        Tensor or None: SRG of each example. Shape ``(B,)``, float64. None if there are not both modes, if the modes
        have different orders, or if the curves do not extend over all players.
    """
    by_mode = {result.mode: result for result in results}
    if len(by_mode) < len(MODES):
        return None
    insertion, deletion = (by_mode[mode] for mode in MODES)
    if not torch.equal(insertion.order, deletion.order) or not covers_all_players(insertion.curve):
        return None
    return symmetric_relevance_gain(insertion.curve, deletion.curve)


def join(comparisons: Sequence[Comparison]) -> Comparison:
    """Join comparisons of different inputs into one.

    Args:
        comparisons (Sequence[Comparison]): One or more comparisons with the same methods, modes, metrics, fractions
            and number of players.

    Returns:
        Comparison: Comparison of all examples. Its seconds and rows are means over the examples.
    """
    weights = torch.tensor([len(comparison.n_players) for comparison in comparisons], dtype=torch.float64)

    def mean(values: list[float]) -> float:
        return float((torch.tensor(values, dtype=torch.float64) * weights).sum() / weights.sum())

    results = tuple(
        Result(
            method=parts[0].method,
            mode=parts[0].mode,
            order=torch.cat([part.order for part in parts]),
            curve=Curve.concatenate([part.curve for part in parts]),
            seconds=mean([part.seconds for part in parts]),
            rows=mean([part.rows for part in parts]),
            weighted_rows=mean([part.weighted_rows for part in parts]),
        )
        for parts in zip(*(comparison.results for comparison in comparisons), strict=True)
    )
    targets = [comparison.targets for comparison in comparisons if comparison.targets is not None]
    return Comparison(
        results=results,
        targets=torch.cat(targets) if targets else None,
        n_players=torch.cat([comparison.n_players for comparison in comparisons]),
        metrics=comparisons[0].metrics,
        replays=tuple(
            join_replays(parts) for parts in zip(*(comparison.replays for comparison in comparisons), strict=True)
        ),
    )


def play_method(
    game: CoalitionGame, method: Method, mode: Mode, *, n_steps: int | None = None, stop: Stop = None
) -> MethodRun:
    """Run one method on a game, and measure its time and rows.

    Args:
        game (CoalitionGame): Game.
        method (Method): Method.
        mode (str): ``"insertion"`` or ``"deletion"``.
        n_steps (int, optional): Number of players to order.
            Default: None, all players
        stop (str, optional): ``"flip"`` if players after the one that flips the prediction are not needed.
            Default: None

    Returns:
        MethodRun: Order of the players and its cost.
    """
    cost_before, start = game.cost, time.perf_counter()
    attributions = method.attribute(game, mode, n_steps=n_steps, stop=stop)
    positions = rank_positions(game, attributions)
    seconds = time.perf_counter() - start
    cost, n_examples = game.cost - cost_before, game.n_examples
    rows, weighted_rows = (math.nan, math.nan) if cost.uncounted else (cost.rows, cost.weighted_rows)
    return MethodRun(attributions, positions, seconds / n_examples, rows / n_examples, weighted_rows / n_examples)


def compare(
    forward_func: Model,
    inputs: TensorOrTuple,
    *,
    target: Target = None,
    methods: AnyMethod | Sequence[AnyMethod] | None = None,
    modes: Mode | Sequence[Mode] = MODES,
    metrics: str | Metric | Sequence[str | Metric] | None = None,
    baselines: Baselines = None,
    additional_forward_args: ForwardArgs = None,
    feature_mask: TensorOrTuple | None = None,
    removal: Removal | str | None = None,
    reward: str | Reward = "log_odds",
    fractions: Sequence[float] | Tensor | None = None,
    replay_removals: Sequence[str] | None = None,
    perturbations_per_eval: int | None = None,
    show_progress: bool = False,
) -> Comparison:
    r"""
    Order the players with several methods, and evaluate the model along each order.

    All methods share the players, and all curves share the removal and the reward. Perturbation methods (MoXI, Shapley
    values, LIME, ablation) also run on the same game. Methods that attribute the model's output to the inputs
    (Grad-CAM, rollout, integrated gradients, occlusion, and Captum's classes) score a player with the mean over its
    values.

    Args:
        forward_func (Callable): Model, as in :class:`captum_moxi.MoXIInsertion`.
        inputs (Tensor or tuple[Tensor, ...]): Inputs of B examples, with the examples along dimension 0.
        target (int, tuple, Tensor or list, optional): As in ``captum.attr.FeatureAblation``.
            Default: None
        methods (str, Method, Attribution, type, Callable, or Sequence of these, optional): Methods in any of these
            forms:

            - A name from ``captum_moxi.methods.METHODS``. Some names take a number, for example ``"shapley:200"``.
            - An object that you created from a class of ``captum.attr`` and your model, for example
              ``NoiseTunnel(Saliency(model))``. A transformers model is accepted as it is.
            - A class of ``captum.attr`` that can be created from the model alone, for example ``Saliency``.
            - A function ``(inputs, target) -> attributions``, as in :func:`captum_moxi.methods.from_function`.
            - Your own :class:`captum_moxi.Method`, for example ``captum_moxi.methods.moxi(GradientScreen(8))``.

            Default: None, those of moxi, moxi-minus, shapley:5, gradcam, gradcam++, rollout and random that support
            the model. A warning names the others.
        modes (str or Sequence[str], optional): ``"insertion"``, ``"deletion"`` or both. Methods whose order depends on
            the mode run once for each mode. All other methods run once.
            Default: both
        metrics (str, Metric or Sequence[str or Metric], optional): Columns of the table: names from
            ``captum_moxi.metrics.METRICS``, or your own metrics.
            Default: None, all registered metrics that need no argument
        baselines (scalar, Tensor or tuple, optional): As in ``captum.attr.FeatureAblation``.
            Default: None
        additional_forward_args (Any, optional): As in ``captum.attr.FeatureAblation``.
            Default: None
        feature_mask (Tensor or tuple[Tensor, ...], optional): As in :func:`captum_moxi.insertion_curve`.
            Default: None
        removal (Removal or str, optional): As in :func:`captum_moxi.insertion_curve`.
            Default: None
        reward (str or Callable, optional): As in :class:`captum_moxi.MoXIInsertion`.
            Default: ``"log_odds"``
        fractions (Sequence[float] or Tensor, optional): As in :func:`captum_moxi.insertion_curve`. MoXI orders no more
            players than the largest fraction needs, so smaller fractions cost less. All metrics know only these
            fractions: with ``[0, 0.04]`` of 196 players, the players to flip are 8, or None if 8 players do not flip
            the prediction.
            Default: None, every number of players
        replay_removals (Sequence[str], optional): Names of removals, for example ``["token", "zero", "blur"]``. Each
            order is inserted and deleted under each of them, at the same fractions. ``replay_table`` and
            :meth:`Comparison.replay_records` contain the areas and the SRG. Orders are not computed again, and
            ``baselines`` are not used.
            Default: None, only the curves under ``removal``
        perturbations_per_eval (int, optional): As in :class:`captum_moxi.MoXIInsertion`.
            Default: None
        show_progress (bool, optional): Whether to show a progress bar that names the current method and counts the
            evaluated rows.
            Default: False

    Returns:
        Comparison: Orders, curves and costs. Its ``table`` has one row for each example, method and mode.

    Raises:
        ValueError: If a method, mode, metric or removal is unknown or repeated, if there is no method or mode, if a
            method or a removal does not support the model, and in the cases of :func:`captum_moxi.insertion_curve`.
        TypeError: If an argument has the wrong type.

    Examples::

        >>> comparison = compare(model, x, target=y, methods=["moxi", "shapley:100", "rollout"])
        >>> comparison = compare(model, x, target=y, methods=["moxi", Saliency, GuidedGradCam(model, layer)])
        >>> comparison.table.groupby(["method", "mode"])["players to flip"].median()
        >>> figure, axes = plot_curves(comparison)
    """
    created_methods, created_metrics, parsed_modes = get_methods(methods), get_metrics(metrics), parse_modes(modes)
    points = None if fractions is None else parse_fractions(fractions)
    if replay_removals is not None:
        check_removals(replay_removals, argument="replay_removals")
    with preserved_state(forward_func, input_devices(inputs)):
        game = CoalitionGame(
            forward_func,
            inputs,
            baselines=baselines,
            target=target,
            additional_forward_args=additional_forward_args,
            feature_mask=feature_mask,
            removal=removal,
            reward=reward,
            perturbations_per_eval=perturbations_per_eval,
        )
        check_fit(game.call, replay_removals or (), argument="replay_removals")
        supported = _check_methods(created_methods, game)
        results = _play_methods(game, supported, parsed_modes, points, show_progress=show_progress)
        replays: list[Replay] = []
        if replay_removals is not None:
            orders = _titled_orders(results, supported)
            replays = play_replays(game, orders, replay_removals, fractions=points, show_progress=show_progress)
    return Comparison(tuple(results), game.targets, game.exists.sum(1), tuple(created_metrics), tuple(replays))


def _titled_orders(results: Sequence[Result], methods: Sequence[Method]) -> dict[str, Tensor]:
    """Return each order once, by its title."""
    searches = {method.title for method in methods if method.depends_on_mode}
    return {
        order_title(result.method, result.mode, depends_on_mode=result.method in searches): result.order
        for result in results
    }


def _check_methods(methods: Sequence[Method], game: CoalitionGame) -> list[Method]:
    """Return the methods that support the game. Raise an error, or warn about optional methods, if some do not."""
    supported: list[Method] = []
    left_out: list[str] = []
    for method in methods:
        try:
            method.check(game)
            supported.append(method)
        except ValueError:
            if not method.is_optional:
                raise
            left_out.append(method.title)
    if left_out:
        warn_user(
            f"these default methods do not support the model and are left out: {', '.join(left_out)}; pass methods to "
            "choose others"
        )
    return supported


def _play_methods(
    game: CoalitionGame, methods: Sequence[Method], modes: Sequence[Mode], points: Tensor | None, *, show_progress: bool
) -> list[Result]:
    """Run each method once for each order that it needs, and evaluate the modes along it."""
    # Players beyond the last fraction need no order.
    n_steps = None if points is None else max(1, int(float(points[-1]) * game.n_players + 0.5))
    runs = [(method, mode) for method in methods for mode in (modes if method.depends_on_mode else modes[:1])]
    results: list[Result] = []
    bar = tqdm(desc="methods", unit=" rows", leave=None, disable=not show_progress)
    with bar, game.report_rows(bar.update):
        for number, (method, mode) in enumerate(runs, start=1):
            bar.set_description_str(f"{method.title} ({number} of {len(runs)})")
            run = play_method(game, method, mode, n_steps=n_steps)
            order = torch.where(run.positions >= 0, game.ids[run.positions], -1)
            for curve_mode in [mode] if method.depends_on_mode else modes:
                curve = play_curve(game, order, curve_mode, fractions=points)
                results.append(Result(method.title, curve_mode, order, curve, run.seconds, run.rows, run.weighted_rows))
    return results
