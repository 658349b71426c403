"""Benchmark ``alternatives``: how many disjoint groups flip the prediction of an image by themselves."""

import time
from functools import partial
from statistics import fmean, median

from PIL import Image
from torch import Tensor

from captum_moxi.arguments import MODES, Mode
from captum_moxi.benchmarks.bench import Bench, short_name
from captum_moxi.benchmarks.groups import search_group
from captum_moxi.evaluation.records import Record
from captum_moxi.models import ImageClassifier
from captum_moxi.search import Selection, disjoint_selections, minimal_selection
from captum_moxi.tables import markdown_table

# Maximum number of groups of an image, as in ``explain --alternatives 5``.
AT_MOST = 5


def count_alternatives(bench: Bench) -> str:
    """Count the disjoint minimal groups of every image, at most five, and return the table."""
    records = bench.measure_variants(
        "alternatives",
        MODES,
        settings=lambda mode: {"mode": mode, "most_steps": bench.most_steps},
        measurement=partial(_measure, bench),
    )
    header = ["model", "mode", "groups, mean", "median"]
    header += ["no group", "1 group", *(f"{count} groups" for count in range(2, AT_MOST)), f"{AT_MOST} or more"]
    header += ["players of the first group, mean", "of the second", "rows per image", "seconds per image"]
    rows = [[short_name(model), mode, *_summary(measured)] for (model, mode), measured in records.items()]
    return markdown_table(header, rows)


def _measure(bench: Bench, classifier: ImageClassifier, image: Image.Image, mode: Mode) -> Record:
    start = time.perf_counter()
    game = bench.game(classifier, [image])

    def search(candidates: Tensor | None) -> Selection:
        return search_group(game, mode, most_steps=bench.most_steps, refine=minimal_selection, candidates=candidates)

    groups = disjoint_selections(search, game, at_most=AT_MOST)
    return {
        "seconds": time.perf_counter() - start,
        "rows": game.cost.weighted_rows,
        "sizes": [int(group.n_steps[0]) for group in groups],
    }


def _summary(records: list[Record]) -> list[object]:
    """Return the cells after the mode."""
    counts = [len(record["sizes"]) for record in records]
    return [
        fmean(counts),
        median(counts),
        *(counts.count(count) for count in range(AT_MOST + 1)),
        *(_mean_size(records, position) for position in range(2)),
        fmean(record["rows"] for record in records),
        fmean(record["seconds"] for record in records),
    ]


def _mean_size(records: list[Record], position: int) -> object:
    """Return the mean number of players of the groups at a position, over the images that have such a group."""
    sizes = [record["sizes"][position] for record in records if len(record["sizes"]) > position]
    return fmean(sizes) if sizes else "-"
