"""Replays: the areas and the SRG of the same orders under several removals.

A search finds its order under one removal. Its areas under other removals show whether the order is also good if absent
players are removed in another way.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from captum_moxi.arguments import Mode
from captum_moxi.game import CoalitionGame
from captum_moxi.metrics.bootstrap import MIN_IMAGES, mean_with_interval
from captum_moxi.metrics.curves import Curve, play_curve
from captum_moxi.metrics.srg import covers_all_players
from captum_moxi.removal import REMOVALS, ForwardCall
from captum_moxi.tables import Record

# Removals of a replay if the user passes none. Those that do not fit the model are left out.
DEFAULT_REMOVALS = ("token", "zero", "mean", "blur")
# Name of the difference between the areas if an order does not contain all players. Otherwise, it is the SRG.
PARTIAL = "area difference"
# Quantities of a table, and whether higher or lower values are better.
QUANTITIES = {"insertion area": "higher", "deletion area": "lower", "SRG": "higher", PARTIAL: "higher"}

REPLAYS_LEGEND = f"""
**Insertion area**, **deletion area**: mean confidence in the target as patches are inserted or deleted in this order.
**SRG** (symmetric relevance gain): insertion area minus deletion area; higher is better. If the orders end before the
last patch, this is only an **area difference**, which depends on where they end. **Low**, **high**: ends of the 95 %
bootstrap interval over images, from {MIN_IMAGES} images on. MoXI and MoXI(-) have one order for each mode. Both curves
of an order use the same patches.""".strip()


@dataclass(frozen=True, eq=False)
class Replay:
    """The areas of one order under one removal, for N images.

    Args:
        removal (str): Name of the removal.
        order (str): Title of the order.
        insertion (ndarray): Area under the insertion curve of each image. Shape ``(N,)``, float64.
        deletion (ndarray): Area under the deletion curve of each image. Shape ``(N,)``, float64.
        fraction (float): Fraction of the players at which both curves end.
        is_complete (bool): Whether both curves extend from no players to all players.
    """

    removal: str
    order: str
    insertion: NDArray[np.float64]
    deletion: NDArray[np.float64]
    fraction: float
    is_complete: bool

    @classmethod
    def of_curves(cls, insertion: Curve, deletion: Curve, *, removal: str, order: str) -> "Replay":
        """Compute the areas of an order from its two curves.

        Args:
            insertion (Curve): Insertion curve along the order.
            deletion (Curve): Deletion curve along the same order.
            removal (str): Name of the removal.
            order (str): Title of the order.

        Returns:
            Replay: The areas.
        """
        areas = (insertion.area().numpy(), deletion.area().numpy())
        fraction = float(insertion.fractions[-1])
        return cls(removal, order, *areas, fraction=fraction, is_complete=covers_all_players(insertion))

    @property
    def gain(self) -> NDArray[np.float64]:
        """Insertion area minus deletion area of each image. Shape ``(N,)``, float64. SRG if the curves are complete."""
        return self.insertion - self.deletion

    @property
    def srg(self) -> NDArray[np.float64] | None:
        """SRG of each image. Shape ``(N,)``, float64. None if the curves do not extend over all players."""
        return self.gain if self.is_complete else None


def order_title(method: str, mode: Mode, *, depends_on_mode: bool) -> str:
    """Return the title of an order: that of its method, with the mode if the method has one order for each mode."""
    return f"{method}, {mode} order" if depends_on_mode else method


def check_removals(removals: Sequence[str], *, argument: str) -> None:
    """Check the names of removals. No model is needed.

    Args:
        removals (Sequence[str]): Names in ``captum_moxi.removal.REMOVALS``.
        argument (str): Name of the argument in error messages.

    Raises:
        ValueError: If a name is unknown or repeated, or if there is none.
        TypeError: If ``removals`` is not a sequence of names.
    """
    if isinstance(removals, str) or not all(isinstance(name, str) for name in removals):
        raise TypeError(f"{argument} is {removals!r}; pass a list of names, such as ['zero', 'blur']")
    if not removals or len(set(removals)) < len(removals):
        raise ValueError(f"{argument} is {list(removals)}; pass one or more different names")
    for name in removals:
        REMOVALS.create(name)


def check_fit(call: ForwardCall, removals: Iterable[str], *, argument: str) -> None:
    """Check that removals fit a model, its inputs and their players. The model does not run.

    Args:
        call (ForwardCall): Call of the model. Its baselines are not used.
        removals (Iterable[str]): Names of removals.
        argument (str): Name of the argument in error messages.

    Raises:
        ValueError: If one of the removals does not fit.
    """
    for name in removals:
        try:
            REMOVALS.create(name).bind(replace(call, baselines=None))
        except ValueError as error:
            reason = str(error).partition(";")[0]
            raise ValueError(f"{argument}='{name}' does not fit the model ({reason}); pass other removals") from None


def play_replays(
    game: CoalitionGame,
    orders: Mapping[str, Tensor],
    removals: Iterable[str],
    *,
    fractions: Tensor | None = None,
    show_progress: bool = False,
) -> list[Replay]:
    """Insert and delete the players of a game in each order under each removal.

    Args:
        game (CoalitionGame): Game of B examples. Its own removal and baselines are not used.
        orders (Mapping[str, Tensor]): Rankings of the players by title, as in :func:`captum_moxi.insertion_curve`.
        removals (Iterable[str]): Names of removals that fit the game.
        fractions (Tensor, optional): As in :func:`captum_moxi.insertion_curve`.
            Default: None, every number of players
        show_progress (bool, optional): Whether to show a progress bar that counts the evaluated rows.
            Default: False

    Returns:
        list[Replay]: Areas of each order under each removal.
    """
    replays = []
    bar = tqdm(desc="replays", unit=" rows", leave=None, disable=not show_progress)
    with bar, game.report_rows(bar.update):
        for name in removals:
            replayed = game.with_removal(name)
            for title, order in orders.items():
                insertion = play_curve(replayed, order, "insertion", fractions=fractions)
                deletion = play_curve(replayed, order, "deletion", fractions=fractions)
                replays.append(Replay.of_curves(insertion, deletion, removal=name, order=title))
    return replays


def join_replays(replays: Sequence[Replay]) -> Replay:
    """Join the replays of one order under one removal for different images.

    Args:
        replays (Sequence[Replay]): One or more replays with the same removal, order and fractions.

    Returns:
        Replay: Replay of all images.
    """
    return replace(
        replays[0],
        insertion=np.concatenate([replay.insertion for replay in replays]),
        deletion=np.concatenate([replay.deletion for replay in replays]),
    )


def replay_records(replays: Sequence[Replay], *, resamples: int = 2000) -> list[Record]:
    """Return the rows of a table: means over the images with 95 % bootstrap intervals.

    Args:
        replays (Sequence[Replay]): Areas of each order under each removal.
        resamples (int, optional): Number of bootstrap resamples for the intervals.
            Default: 2000

    Returns:
        list[dict]: One row for each order and removal. Values that are not known are None: the ends of an interval if
        there are fewer than 10 images, and all values if the model has no confidences. The difference of the areas is
        called SRG only if all orders contain all players.
    """
    gain = gain_title(replays)
    records: list[Record] = []
    for replay in replays:
        record: Record = {
            "removal": replay.removal,
            "order": replay.order,
            "images": len(replay.insertion),
            "fraction of patches": replay.fraction,
        }
        quantities = {"insertion area": replay.insertion, "deletion area": replay.deletion, gain: replay.gain}
        for name, values in quantities.items():
            numbers = (None if math.isnan(x) else x for x in mean_with_interval(values, resamples=resamples))
            record |= dict(zip((name, f"{name}, low", f"{name}, high"), numbers, strict=True))
        records.append(record)
    return records


def gain_title(replays: Iterable[Replay]) -> str:
    """Return the name of the difference between the areas: SRG if all orders contain all players."""
    return "SRG" if all(replay.is_complete for replay in replays) else PARTIAL


def replay_rows(records: Sequence[Record]) -> tuple[list[str], list[list[object]]]:
    """Return the header and the cells of a table of replays, without empty columns. Unknown values are empty cells.

    Args:
        records (Sequence[dict]): Rows of the table, as returned by :func:`replay_records`.

    Returns:
        tuple[list[str], list[list]]: Header, and the cells of each row.
    """
    header = [name for name in records[0] if any(record[name] is not None for record in records)]
    return header, [["" if record[name] is None else record[name] for name in header] for record in records]
