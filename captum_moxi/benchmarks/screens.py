"""Benchmark ``screens``: searches with screens and beams compared with the exact search, up to the flip."""

import time
from dataclasses import dataclass
from functools import partial
from statistics import fmean, median

from PIL import Image

from captum_moxi.arguments import Mode
from captum_moxi.benchmarks.bench import Bench, short_name
from captum_moxi.evaluation.records import Record
from captum_moxi.models import ImageClassifier
from captum_moxi.search import greedy
from captum_moxi.search.screens import SCREENS, screen_for_mode
from captum_moxi.tables import markdown_table

LEGEND = """

If a search does not flip the prediction, its steps are counted. Against exact: total number of players relative to the
exact search; a negative value means fewer players. Mean confidence on the way: mean confidence in the target up to the
step at which the exact search flipped. If the search ended earlier, its last value is repeated. Lower is better in
deletion, higher in insertion. Same order: images on which the search chose the same players in the same order as the
exact search. Times fewer and times faster: rows and seconds of the exact search divided by those of
this search; a value below 1 means a higher cost. If there are no more players than a screen evaluates, as in the demo,
the screen skips none and saves nothing."""


@dataclass(frozen=True)
class Search:
    """One way to search.

    Args:
        screen (str, optional): Name in ``captum_moxi.search.screens.SCREENS`` with its argument, for example
            ``"gradient:8"``. ``"all"`` evaluates all candidates.
            Default: ``"all"``
        beam_width (int, optional): Number of groups that the search keeps.
            Default: 1
        promises_exact (bool, optional): Whether the search is meant to choose the same players as the exact search. The
            benchmark lists the first step at which it does not.
            Default: False
    """

    screen: str = "all"
    beam_width: int = 1
    promises_exact: bool = False

    @property
    def title(self) -> str:
        """Title in the table, and value of the option ``--search``."""
        parts = [self.screen] if self.screen != "all" else []
        if self.beam_width > 1:
            parts.append(f"beam of {self.beam_width}")
        return ", ".join(parts) or "exact"


EXACT = Search()
# Searches that are compared in each mode.
STUDIED: dict[Mode, tuple[Search, ...]] = {
    "deletion": (
        *(Search(f"gradient:{m}") for m in (4, 8, 16, 32)),
        *(Search("gradient:4", beam_width=width) for width in (2, 4)),
        *(Search(f"gradient:{m}", beam_width=2) for m in (6, 8)),
        Search("last-gains:16"),
        Search("half-precision", promises_exact=True),
        Search("gradient:32+half-precision"),
    ),
    "insertion": (
        *(Search(beam_width=width) for width in (2, 4, 8)),
        *(Search(f"last-gains:{m}") for m in (4, 8, 16, 32)),
        Search("gradient:16"),
        Search("random:16"),
        Search("half-precision", promises_exact=True),
    ),
}


def compare_screens(bench: Bench) -> str:
    """Measure every search on every image, and return the table."""
    chosen = _chosen_searches(bench)
    records = bench.measure_variants(
        "screens",
        [(mode, search) for mode, searches_of_mode in chosen.items() for search in searches_of_mode],
        settings=lambda variant: {"mode": variant[0], "search": variant[1].title, "most_steps": bench.most_steps},
        measurement=partial(_measure, bench),
    )
    header = ["model", "mode", "search", "flipped", "players to flip, median", "mean", "against exact"]
    header += ["mean confidence on the way", "same order", "rows per image", "times fewer", "seconds per image"]
    rows = [
        [short_name(model), mode, search.title, *_summary(measured, exact=records[model, (mode, EXACT)])]
        for (model, (mode, search)), measured in records.items()
    ]
    return markdown_table([*header, "times faster, median"], rows) + LEGEND + _describe_differences(records)


def searches(mode: Mode) -> list[Search]:
    """Return the searches of a mode that are compared.

    They are the exact search, the searches in ``STUDIED``, and all other registered screens that are meant for the
    mode, with default arguments.

    Args:
        mode (str): ``"insertion"`` or ``"deletion"``.
    """
    known = (EXACT, *(search for studied in STUDIED.values() for search in studied))
    names = {search.screen.partition(":")[0] for search in known}
    others = [entry.name for entry in SCREENS.entries if entry.name not in names and not entry.required]
    return [EXACT, *STUDIED[mode], *(Search(name) for name in others if screen_for_mode(SCREENS.create(name), mode))]


def mean_confidence(confidences: list[float], points: int) -> float:
    """Return the mean over the first points of a path. In a shorter path, the last value is repeated."""
    extended = confidences + confidences[-1:] * points
    return fmean(extended[:points])


def _chosen_searches(bench: Bench) -> dict[Mode, list[Search]]:
    """Return the selected searches of each mode. They always include the exact search."""
    available = {mode: searches(mode) for mode in STUDIED}
    titles = {search.title for searches_of_mode in available.values() for search in searches_of_mode}
    selected = {EXACT.title} | bench.selected_searches(titles)
    return {
        mode: [search for search in searches_of_mode if search.title in selected]
        for mode, searches_of_mode in available.items()
    }


def _measure(bench: Bench, classifier: ImageClassifier, image: Image.Image, variant: tuple[Mode, Search]) -> Record:
    mode, search = variant
    start = time.perf_counter()
    game = bench.game(classifier, [image])
    selection = greedy(
        game,
        mode,
        n_steps=bench.most_steps,
        stop="flip",
        screen=SCREENS.create(search.screen),
        beam_width=search.beam_width,
    )
    return {
        "seconds": time.perf_counter() - start,
        "rows": game.cost.weighted_rows,
        "steps": int(selection.n_steps[0]),
        "flipped": bool(selection.flipped[0]),
        "confidences": selection.confidences[0].tolist(),
        "order": selection.order[0].tolist(),
        "rewards": selection.rewards[0].tolist(),
    }


def _describe_differences(records: dict[tuple[str, tuple[Mode, Search]], list[Record]]) -> str:
    """List where searches that promise the exact selection chose another player first, with the rewards of both."""
    lines = []
    for (model, (mode, search)), measured in records.items():
        if not search.promises_exact:
            continue
        for record, exact in zip(measured, records[model, (mode, EXACT)], strict=True):
            if record["order"] == exact["order"]:
                continue
            step = _first_difference(record["order"], exact["order"])
            chosen, best = (_describe_step(found, step) for found in (record, exact))
            lines.append(
                f"- {short_name(model)}, {record['image']}, {mode}, step {step + 1}: {search.title} chose {chosen}, "
                f"the exact search {best}."
            )
    return "\n\n" + "\n".join(
        ["First steps at which searches that promise the exact selection chose another player:", *(lines or ["none"])]
    )


def _first_difference(order: list[int], reference: list[int]) -> int:
    """Return the first index at which two orders differ. Up to this index, the two searches made the same decisions."""
    pairs = enumerate(zip(order, reference, strict=False))
    return next((step for step, (player, other) in pairs if player != other), min(len(order), len(reference)))


def _describe_step(record: Record, step: int) -> str:
    """Return the player and the reward of a step of a search, or that it has ended before."""
    if step >= len(record["order"]):
        return f"no player, because it ended after step {step}"
    return f"player {record['order'][step]} with the reward {record['rewards'][step + 1]:.6g}"


def _summary(records: list[Record], *, exact: list[Record]) -> list[object]:
    """Return the cells after the title of a search. Both lists have one record per image, in the same order."""
    count = len(records)
    steps, exact_steps = (sum(record["steps"] for record in measured) for measured in (records, exact))
    rows, exact_rows = (sum(record["rows"] for record in measured) for measured in (records, exact))
    pairs = list(zip(records, exact, strict=True))
    return [
        f"{sum(record['flipped'] for record in records)} of {count}",
        median(record["steps"] for record in records),
        steps / count,
        f"{steps / exact_steps - 1:+.1%}" if exact_steps else "-",
        fmean(mean_confidence(record["confidences"], len(reference["confidences"])) for record, reference in pairs),
        f"{sum(record['order'] == reference['order'] for record, reference in pairs)} of {count}",
        rows / count,
        exact_rows / rows,
        fmean(record["seconds"] for record in records),
        median(reference["seconds"] / record["seconds"] for record, reference in pairs),
    ]
