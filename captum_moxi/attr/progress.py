"""How a search reports its progress: with a progress bar, or with one log message if it will take long."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean

import torch
from tqdm.auto import tqdm

from captum_moxi.arguments import SearchMode, paths_of
from captum_moxi.game import CoalitionGame
from captum_moxi.search import Progress

logger = logging.getLogger(__name__)
# Seconds that a search without a progress bar may take without a report.
PATIENCE = 30.0
# Screens that shorten a search, and what they cost (tutorials/performance.md).
_SCREEN_ADVICE: dict[SearchMode, str] = {
    "insertion": "screen='last-gains:16' (chooses up to 50 % more players)",
    "deletion": "screen='gradient:8' (chooses about 10 % more players)",
    "symmetric": "screen='both-ends' (half of the rows of a full ranking)",
}
# Tests replace the clock.
clock: Callable[[], float] = time.perf_counter


@dataclass(frozen=True)
class SearchPlan:
    """What a search will evaluate.

    Args:
        name (str): Name of the method.
        rows_of_step (Sequence[int]): Number of rows of each step, or the maximum if it is not known in advance.
        cost_of_row (Sequence[float]): Relative cost of a row at each step.
        is_exact (bool): Whether the search evaluates exactly these rows. It does not if examples may stop early, or if
            candidates may be skipped.
        advice (Sequence[str]): Arguments that shorten the search.
        may_skip (bool, optional): Whether steps may skip candidates. The rows are then far more than the search needs.
            Default: False
    """

    name: str
    rows_of_step: Sequence[int]
    cost_of_row: Sequence[float]
    is_exact: bool
    advice: Sequence[str]
    may_skip: bool = False

    @property
    def rows(self) -> int:
        """Number of rows, or the maximum."""
        return sum(self.rows_of_step)

    @property
    def has_equal_costs(self) -> bool:
        """Whether all rows cost the same."""
        return len(set(self.cost_of_row)) == 1

    def cost(self, rows: int) -> float:
        """Return the relative cost of the first rows of the search."""
        total = 0.0
        for rows_of_step, cost_of_row in zip(self.rows_of_step, self.cost_of_row, strict=True):
            total += max(0, min(rows, rows_of_step)) * cost_of_row
            rows -= rows_of_step
        return total


def plan_search(
    name: str,
    game: CoalitionGame,
    mode: SearchMode,
    *,
    n_steps: int | None,
    is_exact: bool,
    advice: Sequence[str],
    may_skip: bool = False,
    interactions: bool = True,
    beam_width: int = 1,
) -> SearchPlan:
    """Count the rows of each step of a search, and estimate their cost.

    Under token removal, the cost of a row grows with its number of players.

    Args:
        name, is_exact, advice, may_skip: As in :class:`SearchPlan`.
        game, mode, n_steps, beam_width: As in :func:`captum_moxi.search.greedy`.
        interactions (bool, optional): False for MoXI(-).
            Default: True
    """
    n_players = game.exists.sum(1)
    full_costs = game.row_costs(game.exists, torch.arange(game.n_examples))
    cost_of_player = float(((full_costs - 1) / n_players.clamp(min=1)).mean())
    rows_of_step: list[int] = []
    cost_of_row: list[float] = []
    for step in range(1, min(int(n_players.max()), n_steps or game.n_players) + 1):
        players = n_players[n_players >= step]
        candidates = players - step + 1
        if not interactions:
            # All players are evaluated at the first step. Each step then needs one more row.
            candidates = players + 1 if step == 1 else torch.ones_like(players)
        paths = paths_of(mode)
        rows_of_step.append(int(candidates.sum()) * (1 if step == 1 else beam_width) * len(paths))
        present = fmean(step if path == "insertion" else float(players.double().mean()) - step for path in paths)
        cost_of_row.append(1 + cost_of_player * present)
    return SearchPlan(name, rows_of_step, cost_of_row, is_exact, advice, may_skip)


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

    If all rows cost the same, the first step shows how long the search will take. Otherwise, short sequences of tokens
    say little about longer ones, so the estimate is trusted only after a third of the half minute. If the number of
    rows is only a maximum, the search may end at any step, so the message is logged when the half minute is over.

    Args:
        plan (SearchPlan): What the search will evaluate.
        clock (Callable): Returns the time in seconds.
    """

    def __init__(self, plan: SearchPlan, clock: Callable[[], float]) -> None:
        self._plan = plan
        self._clock = clock
        self._start = self._last = clock()
        self._rows = 0
        self._is_reported = False

    def __call__(self, rows: int) -> None:
        """Receive the number of rows that were evaluated since the last call."""
        plan, now = self._plan, self._clock()
        elapsed, seconds = now - self._start, now - self._last
        before, self._rows, self._last = self._rows, self._rows + rows, now
        if self._is_reported or rows == 0 or self._rows >= plan.rows:
            return
        cost_so_far = plan.cost(self._rows)
        remaining_cost = plan.cost(plan.rows) - cost_so_far
        estimate = elapsed + seconds * remaining_cost / (cost_so_far - plan.cost(before))
        is_sure = plan.has_equal_costs or elapsed > PATIENCE / 3
        if elapsed > PATIENCE or (plan.is_exact and is_sure and estimate > PATIENCE):
            self._is_reported = True
            self._report(elapsed, estimate)

    def _report(self, elapsed: float, estimate: float) -> None:
        plan = self._plan
        if plan.is_exact:
            cost = f"{plan.name} needs {plan.rows:,} rows, which takes about {format_duration(estimate)}."
        else:
            bound = "" if plan.may_skip else f", which take about {format_duration(estimate)}"
            cost = (
                f"{plan.name} has evaluated {self._rows:,} rows in {format_duration(elapsed)}, and continues. It needs "
                f"at most {plan.rows:,} rows{bound}, and often far fewer."
            )
        advice = f"For a shorter search, pass {', or '.join(plan.advice)}. show_progress=True shows a progress bar."
        logger.warning(f"{cost} {advice}")


def format_duration(seconds: float) -> str:
    """Return a duration in hours or minutes if it lasts at least two of them, otherwise in seconds."""
    for unit, name in ((3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} seconds"


def search_advice(
    game: CoalitionGame, mode: SearchMode, *, n_steps: int | None, can_stop: bool, has_screen: bool, beam_width: int
) -> list[str]:
    """List the arguments that shorten a search, and that the user does not use yet.

    Args:
        game (CoalitionGame): Game.
        mode (str): ``"insertion"``, ``"deletion"`` or ``"symmetric"``.
        n_steps (int or None): Maximum number of steps.
        can_stop (bool): Whether ``stop="flip"`` is possible and was not passed.
        has_screen (bool): Whether the search has a screen, or cannot have one.
        beam_width (int): Number of groups that the search keeps.
    """
    advice = [f"a feature_mask with fewer than {game.n_players} players"]
    if beam_width > 1:
        advice.insert(0, "a smaller beam_width")
    # Both-ends search saves rows only in long rankings.
    if not has_screen and (mode != "symmetric" or (n_steps is None and can_stop)):
        advice.insert(0, _SCREEN_ADVICE[mode])
    if n_steps is None:
        advice.insert(0, "n_steps")
    if can_stop:
        advice.insert(0, "stop='flip'")
    return advice
