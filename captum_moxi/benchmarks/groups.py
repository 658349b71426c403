"""Benchmark ``groups``: the size of groups found by greedy search and by beams, of minimal groups, and after swaps.

Deletion uses ``GradientScreen(8)``, as ``evaluate`` does by default, and insertion evaluates all candidates.
"""

import time
from dataclasses import dataclass
from functools import partial
from itertools import product
from statistics import fmean, median
from typing import Protocol

from PIL import Image
from torch import Tensor

from captum_moxi.arguments import MODES, Mode
from captum_moxi.benchmarks.bench import Bench, short_name
from captum_moxi.evaluation.records import Record
from captum_moxi.game import CoalitionGame
from captum_moxi.models import ImageClassifier
from captum_moxi.search import SearchAmong, Selection, greedy, minimal_selection, swapped_selection
from captum_moxi.search.screens import GradientScreen, screen_for_mode
from captum_moxi.tables import markdown_table


class Refinement(Protocol):
    """A function that searches a group up to the flip and makes it smaller, such as ``minimal_selection``."""

    def __call__(
        self, search: SearchAmong, game: CoalitionGame, mode: Mode, *, candidates: Tensor | None = None
    ) -> Selection: ...


@dataclass(frozen=True)
class GroupSearch:
    """One way to search a group.

    Args:
        title (str): Title in the table.
        beam_width (int, optional): Number of groups that the search keeps.
            Default: 1
        refine (Callable, optional): Makes the groups smaller: ``minimal_selection`` or ``swapped_selection``.
            Default: None, the groups stay as they are
    """

    title: str
    beam_width: int = 1
    refine: Refinement | None = None


SEARCHES = (
    GroupSearch("greedy"),
    GroupSearch("greedy, minimal", refine=minimal_selection),
    GroupSearch("beam of 4", beam_width=4),
    GroupSearch("beam of 4, minimal", beam_width=4, refine=minimal_selection),
    GroupSearch("greedy, minimal, swaps", refine=swapped_selection),
    GroupSearch("beam of 4, minimal, swaps", beam_width=4, refine=swapped_selection),
)


def compare_groups(bench: Bench) -> str:
    """Search the groups of every image in the selected ways, and return the table."""
    selected = bench.selected_searches([search.title for search in SEARCHES])
    records = bench.measure_variants(
        "groups",
        list(product(MODES, [search for search in SEARCHES if search.title in selected])),
        settings=lambda variant: {"mode": variant[0], "search": variant[1].title, "most_steps": bench.most_steps},
        measurement=partial(_measure, bench),
    )
    header = ["model", "mode", "search", "flipped", "players to flip, mean", "median", "largest", "smaller groups"]
    header += ["rows per image", "seconds per image"]
    rows = [
        [short_name(model), mode, search.title, *_summary(measured)]
        for (model, (mode, search)), measured in records.items()
    ]
    return markdown_table(header, rows)


def search_group(
    game: CoalitionGame,
    mode: Mode,
    *,
    most_steps: int | None,
    beam_width: int = 1,
    refine: Refinement | None = None,
    candidates: Tensor | None = None,
) -> Selection:
    """Search a group that flips the prediction.

    Args:
        game (CoalitionGame): Game of the images.
        mode (str): ``"insertion"`` or ``"deletion"``.
        most_steps (int or None): Maximum number of steps.
        beam_width, refine: As in :class:`GroupSearch`.
        candidates (Tensor, optional): Players that the search may choose. Shape ``(B, n)``, bool.
            Default: None, all players
    """

    def search(candidates: Tensor | None) -> Selection:
        return greedy(
            game,
            mode,
            n_steps=most_steps,
            stop="flip",
            screen=screen_for_mode(GradientScreen(8), mode),
            beam_width=beam_width,
            candidates=candidates,
        )

    return search(candidates) if refine is None else refine(search, game, mode, candidates=candidates)


def _measure(
    bench: Bench, classifier: ImageClassifier, image: Image.Image, variant: tuple[Mode, GroupSearch]
) -> Record:
    mode, search = variant
    start = time.perf_counter()
    game = bench.game(classifier, [image])
    selection = search_group(
        game, mode, most_steps=bench.most_steps, beam_width=search.beam_width, refine=search.refine
    )
    return {
        "seconds": time.perf_counter() - start,
        "rows": game.cost.weighted_rows,
        "players": int(selection.n_steps[0]),
        "left_out": selection.left_out.shape[1],
        "flipped": bool(selection.flipped[0]),
    }


def _summary(records: list[Record]) -> list[object]:
    """Return the cells after the title of a search. If a search does not flip the prediction, its steps are counted."""
    players = [record["players"] for record in records]
    count = len(records)
    return [
        f"{sum(record['flipped'] for record in records)} of {count}",
        fmean(players),
        median(players),
        max(players),
        f"{sum(record['left_out'] > 0 for record in records)} of {count}",
        fmean(record["rows"] for record in records),
        fmean(record["seconds"] for record in records),
    ]
