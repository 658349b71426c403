"""How a search reports its progress: with a progress bar, or with one log message if it will take long."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from tqdm.auto import tqdm

from captum_moxi.arguments import Mode
from captum_moxi.game import CoalitionGame
from captum_moxi.search import Progress

logger = logging.getLogger(__name__)
# Seconds that a search without a progress bar may take without a report.
PATIENCE = 30.0
# Tests replace the clock.
clock: Callable[[], float] = time.perf_counter


@dataclass(frozen=True)
class SearchPlan:
    """What a search will evaluate.

    Args:
        name (str): Name of the method.
        rows (int): Number of rows, or the maximum if it is not known in advance.
        cost (float): Cost of these rows, in units of the cost of a row of the first step.
        is_exact (bool): Whether the search evaluates exactly these rows. It does not if examples may stop early, or if
            candidates may be skipped.
        advice (Sequence[str]): Arguments that shorten the search.
    """

    name: str
    rows: int
    cost: float
    is_exact: bool
    advice: Sequence[str]


def plan_search(
    name: str,
    game: CoalitionGame,
    mode: Mode,
    *,
    n_steps: int | None,
    is_exact: bool,
    advice: Sequence[str],
    interactions: bool = True,
    beam_width: int = 1,
) -> SearchPlan:
    """Count the rows of a search through all players, and estimate their cost.

    Under token removal, the cost of a row grows with its number of players.

    Args:
        name, is_exact, advice: As in :class:`SearchPlan`.
        game, mode, n_steps, beam_width: As in :func:`captum_moxi.search.greedy`.
        interactions (bool, optional): False for MoXI(-).
            Default: True
    """
    rows, cost = 0, 0.0
    full_costs = game.row_costs(game.exists, torch.arange(game.n_examples)).tolist()
    first_costs: list[float] = []
    for n, full_cost in zip(game.exists.sum(1).tolist(), full_costs, strict=True):
        cost_per_player = (full_cost - 1) / max(1, n)
        for step in range(1, min(n, n_steps or n) + 1):
            candidates = n - step + 1 if interactions else n + 1 if step == 1 else 1
            groups = 1 if step == 1 else beam_width
            row_cost = 1 + cost_per_player * (step if mode == "insertion" else n - step)
            if step == 1:
                first_costs.append(row_cost)
            rows += groups * candidates
            cost += groups * candidates * row_cost
    return SearchPlan(name, rows, cost * len(first_costs) / max(1.0, sum(first_costs)), is_exact, advice)


@contextmanager
def search_progress(plan: SearchPlan, *, show: bool) -> Iterator[Progress]:
    """Show a progress bar until exit, or log one message if the search will take long.

    Args:
        plan (SearchPlan): What the search will evaluate.
        show (bool): Whether to show a progress bar.

    Returns:
        Callable: Receives the number of evaluated rows after each step.
    """
    if show:
        with tqdm(total=plan.rows if plan.is_exact else None, desc=plan.name, unit=" rows", leave=None) as bar:
            yield bar.update
    else:
        yield LongSearchReport(plan, clock)


class LongSearchReport:
    """Logs one message if a search takes longer than half a minute.

    The duration is estimated from the first step. If the number of rows is only a maximum, the search may end soon, so
    the message is logged when the half minute is over.

    Args:
        plan (SearchPlan): What the search will evaluate.
        clock (Callable): Returns the time in seconds.
    """

    def __init__(self, plan: SearchPlan, clock: Callable[[], float]) -> None:
        self._plan = plan
        self._clock = clock
        self._start = clock()
        self._rows = 0
        self._estimate: float | None = None
        self._is_reported = False

    def __call__(self, rows: int) -> None:
        """Receive the number of rows that were evaluated since the last call."""
        plan, elapsed = self._plan, self._clock() - self._start
        if self._estimate is None:
            self._estimate = elapsed / rows * plan.cost
        self._rows += rows
        is_long = (self._estimate if plan.is_exact else elapsed) > PATIENCE
        if self._is_reported or not is_long or self._rows >= plan.rows:
            return
        self._is_reported = True
        at_most, about = ("", "about") if plan.is_exact else ("at most ", "up to about")
        logger.warning(
            "%s needs %s%s rows, which takes %s %s. To shorten it, pass %s. show_progress=True shows a progress bar.",
            plan.name,
            at_most,
            f"{plan.rows:,}",
            about,
            format_duration(max(elapsed, self._estimate)),
            ", or ".join(plan.advice),
        )


def format_duration(seconds: float) -> str:
    """Return a duration in the largest unit of which there are at least two."""
    for unit, name in ((3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} seconds"


def search_advice(
    game: CoalitionGame, *, n_steps: int | None, can_stop: bool, has_screen: bool, beam_width: int
) -> list[str]:
    """List the arguments that shorten a search, and that the user does not use yet.

    Args:
        game (CoalitionGame): Game.
        n_steps (int or None): Maximum number of steps.
        can_stop (bool): Whether ``stop="flip"`` is possible and was not passed.
        has_screen (bool): Whether the search has a screen, or cannot have one.
        beam_width (int): Number of groups that the search keeps.
    """
    advice = [f"a feature_mask with fewer than {game.n_players} players"]
    if beam_width > 1:
        advice.insert(0, "a smaller beam_width")
    if not has_screen:
        advice.insert(0, "a screen")
    if n_steps is None:
        advice.insert(0, "n_steps")
    if can_stop:
        advice.insert(0, "stop='flip'")
    return advice
