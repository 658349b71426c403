"""Benchmark ``kernels``: the exact search with PyTorch's own kernels and with the fastest ones, on the first image.

Both searches evaluate the same rows. They take turns, so that both see the same load of the machine. The table also
contains the floating-point operations per second, as a share of the fastest large matrix product of the machine.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import linear
from torch.utils.flop_counter import FlopCounterMode

from captum_moxi.arguments import Mode, Stop
from captum_moxi.benchmarks.bench import Bench, short_name
from captum_moxi.benchmarks.machine import time_call
from captum_moxi.evaluation.records import Record
from captum_moxi.kernels import KernelSet, measured_choices, onednn, use_kernels
from captum_moxi.models import ImageClassifier
from captum_moxi.search import Selection, greedy
from captum_moxi.tables import markdown_table

# Sizes of the large matrix product: rows, input features, output features.
LARGE = (4096, 1024, 2048)
ATTEMPTS = 5
KERNELS: tuple[KernelSet, ...] = ("torch", "fastest")


@dataclass(frozen=True)
class Extent:
    """A search to measure."""

    mode: Mode
    n_steps: int | None
    stop: Stop

    @property
    def title(self) -> str:
        if self.stop:
            return f"{self.mode} to the flip"
        return f"{self.mode}, {'all steps' if self.n_steps is None else f'steps: {self.n_steps}'}"


def compare_kernels(bench: Bench) -> str:
    """Measure the exact search with both sets of kernels on the first image, and return the tables."""
    extents = (
        Extent("deletion", 1, None),
        Extent("insertion", bench.most_steps, "flip"),
        Extent("insertion", bench.most_steps, None),
    )
    name, image = bench.images[0]
    records: list[Record] = []
    table: list[list[object]] = []
    for classifier in bench.classifiers:
        for extent in extents:
            settings = {"benchmark": "kernels", "model": classifier.name, "image": name, "extent": extent.title}
            measurement = partial(_measure, bench, classifier, image, extent=extent)
            records.append(bench.measure(settings | {"repeats": bench.repeats}, measurement))
            table.append([short_name(classifier.name), extent.title, *_row(records[-1])])
    header = ["model", "search", "rows", "seconds", "PyTorch's kernels, seconds", "speed-up", "of the peak"]
    peak = max(record["peak"] for record in records)
    table_text = markdown_table([*header, "same players"], table)
    return f"Peak: {peak / 1e9:.0f} GFLOP/s\n\n{table_text}\n\n{_describe_choices(records)}"


def _row(record: Record) -> list[object]:
    seconds = {kernels: median(record[kernels]) for kernels in KERNELS}
    speedup = median(own / fast for own, fast in zip(record["torch"], record["fastest"], strict=True))
    share = f"{record['flops'] / seconds['fastest'] / record['peak']:.0%}"
    same = "yes" if record["same_players"] else "NO"
    return [record["rows"], seconds["fastest"], seconds["torch"], speedup, share, same]


def _measure(bench: Bench, classifier: ImageClassifier, image: Image.Image, *, extent: Extent) -> Record:
    """Measure the search with both sets of kernels, and count its operations."""

    def search(kernels: KernelSet) -> Selection:
        with use_kernels(kernels):
            return greedy(game, extent.mode, n_steps=extent.n_steps, stop=extent.stop)

    game = bench.game(classifier, [image])
    with FlopCounterMode(display=False) as counter:
        selections = {"torch": search("torch")}
    rows = game.cost.rows
    selections["fastest"] = search("fastest")
    seconds: dict[str, list[float]] = {kernels: [] for kernels in KERNELS}
    for _ in range(bench.repeats):
        for kernels in KERNELS:
            seconds[kernels].append(time_call(partial(search, kernels), bench.device))
    same_players = torch.equal(selections["torch"].order, selections["fastest"].order)
    return {
        "rows": rows,
        "flops": counter.get_total_flops(),
        "peak": _measure_peak(bench.device),
        "same_players": same_players,
        "choices": [
            f"{shape}: {'alternative' if faster else 'PyTorch'}" for shape, faster in measured_choices().items()
        ],
        **seconds,
    }


def _measure_peak(device: torch.device) -> float:
    """Measure the operations per second of the fastest large matrix product."""
    rows, width, out = LARGE
    inputs, weight = torch.randn(rows, width, device=device), torch.randn(out, width, device=device)
    kernels: list[Callable[[Tensor, Tensor], Tensor]] = [linear]
    if device.type == "cpu" and onednn.is_available():
        kernels.append(_onednn_without_bias)
    with torch.no_grad():
        seconds = min(time_call(partial(kernel, inputs, weight), device) for _ in range(ATTEMPTS) for kernel in kernels)
    return 2 * rows * width * out / seconds


def _onednn_without_bias(inputs: Tensor, weight: Tensor) -> Tensor:
    return onednn.linear(inputs, weight, None)


def _describe_choices(records: Sequence[Record]) -> str:
    """List the shapes for which kernels were measured, and which kernel was chosen for each."""
    choices = dict.fromkeys(choice for record in records for choice in record["choices"])
    return "\n".join(["Kernels that were chosen:", *(f"- {choice}" for choice in choices or ["none was measured"])])
