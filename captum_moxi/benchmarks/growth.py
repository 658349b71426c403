"""Benchmark ``growth``: time and memory for different numbers of players, model sizes and batch sizes.

The models are untrained ViTs.
"""

import multiprocessing
from dataclasses import asdict, dataclass
from functools import partial
from typing import NamedTuple

import torch
from tqdm.auto import tqdm
from transformers import ViTConfig, ViTForImageClassification

from captum_moxi.arguments import Mode
from captum_moxi.benchmarks.bench import Bench
from captum_moxi.benchmarks.machine import peak_memory, time_call
from captum_moxi.evaluation.records import Record
from captum_moxi.game import CoalitionGame
from captum_moxi.search import greedy
from captum_moxi.search.screens import RandomScreen
from captum_moxi.tables import markdown_table

PATCH_SIZE = 16
# Number of candidates that each step evaluates.
CANDIDATES = 32
# Number of steps in each mode. The first deletion step costs as much as many insertion steps, because their coalitions
# are small.
STEPS: dict[Mode, int] = {"insertion": 10, "deletion": 1}


class Width(NamedTuple):
    """Width of a ViT.

    Args:
        hidden (int): Width of the tokens.
        heads (int): Number of attention heads.
    """

    hidden: int
    heads: int


WIDTHS = {"tiny": Width(192, 3), "small": Width(384, 6), "base": Width(768, 12)}


@dataclass(frozen=True)
class Case:
    """One search on an untrained ViT.

    Args:
        size (str): Model size, a key of ``WIDTHS``.
        side (int): Height and width of the images, in pixels.
        batch (int): Batch size.
        mode (str): ``"insertion"`` or ``"deletion"``.
        steps (int): Number of steps.
        device (str): Device of the model.
    """

    size: str
    side: int
    batch: int
    mode: Mode
    steps: int
    device: str


def measure_growth(bench: Bench) -> str:
    """Measure searches on untrained ViTs, each in its own process, and return the table."""
    table: list[list[object]] = []
    for case in tqdm(cases(str(bench.device)), desc="growth", unit="case", disable=None):
        record = bench.measure({"benchmark": "growth", **asdict(case)}, partial(_measure_in_process, case))
        players = (case.side // PATCH_SIZE) ** 2
        cost = [record["rows"], record["seconds"], 1000 * record["seconds"] / record["rows"]]
        search = f"{case.mode}, {case.steps}"
        table.append([case.size, players, case.batch, search, *cost, record["bytes"] / 2**30])
    header = ["ViT", "players", "batch", f"search, steps of {CANDIDATES}", "rows", "seconds", "ms per row"]
    return markdown_table([*header, "peak memory, GiB (including model and libraries)"], table)


def cases(device: str) -> list[Case]:
    """Return the cases: each model size with each image size, and the smallest model with larger batches."""
    shapes = [(size, side, 1) for size in WIDTHS for side in (112, 224, 384)]
    shapes += [("tiny", 224, batch) for batch in (4, 16, 64)]
    return [Case(*shape, mode, steps, device) for shape in shapes for mode, steps in STEPS.items()]


def measure_case(case: Case) -> Record:
    """Run the search of a case, and return its seconds, its rows and the peak memory of this process in bytes."""
    width = WIDTHS[case.size]
    config = ViTConfig(
        hidden_size=width.hidden,
        num_attention_heads=width.heads,
        intermediate_size=4 * width.hidden,
        image_size=case.side,
        patch_size=PATCH_SIZE,
        id2label={label: str(label) for label in range(1000)},
    )
    torch.manual_seed(0)
    model = ViTForImageClassification(config).eval().to(torch.device(case.device))
    images = torch.randn(case.batch, 3, case.side, case.side, device=case.device)
    game = CoalitionGame(model, images, target=0)
    before = game.cost.rows
    search = partial(greedy, game, case.mode, n_steps=case.steps, screen=RandomScreen(CANDIDATES))
    seconds = time_call(search, model.device)
    return {"seconds": seconds, "rows": game.cost.rows - before, "bytes": peak_memory(model.device)}


def _measure_in_process(case: Case) -> Record:
    """Measure a case in a new process, so that the peak memory of the process is the peak memory of the case."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure_case, (case,))
