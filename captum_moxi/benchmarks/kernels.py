"""Benchmark ``kernels``: the exact search with PyTorch's own kernels and with the fastest ones, on the first image.

Both searches evaluate the same rows. They take turns, so that both see the same load of the machine. The table also
contains the floating-point operations per second, as a share of the fastest large matrix product of the machine.
"""

from collections.abc import Callable
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
LARGE = (4096, 2048, 4096)
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
    peak = bench.measure({"benchmark": "kernels", "peak": LARGE}, partial(_measure_peak, bench.device))["flops"]
    name, image = bench.images[0]
    table: list[list[object]] = []
    for classifier in bench.classifiers:
        for extent in extents:
            settings = {"benchmark": "kernels", "model": classifier.name, "image": name, "extent": extent.title}
            record = bench.measure(
                settings | {"repeats": bench.repeats}, partial(_measure, bench, classifier, image, extent=extent)
            )
            table.append([short_name(classifier.name), extent.title, *_row(record, peak)])
    header = [
        "model",
        "search",
        "rows",
        "seconds",
        "PyTorch's kernels, seconds",
        "speed-up",
        "of the peak",
        "same players",
    ]
    return f"Peak: {peak / 1e9:.0f} GFLOP/s\n\n{markdown_table(header, table)}\n\n{_describe_choices()}"


def _row(record: Record, peak: float) -> list[object]:
    seconds = {kernels: median(record[kernels]) for kernels in KERNELS}
    speedup = median(own / fast for own, fast in zip(record["torch"], record["fastest"], strict=True))
    share = f"{record['flops'] / seconds['fastest'] / peak:.0%}"
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
    return {"rows": rows, "flops": counter.get_total_flops(), "same_players": same_players, **seconds}


def _measure_peak(device: torch.device) -> Record:
    """Measure the operations per second of the fastest large matrix product."""
    rows, width, out = LARGE
    inputs, weight = torch.randn(rows, width, device=device), torch.randn(out, width, device=device)
    kernels: list[Callable[[Tensor, Tensor], Tensor]] = [linear]
    if device.type == "cpu" and onednn.is_available():
        kernels.append(_onednn_without_bias)
    with torch.no_grad():
        seconds = min(time_call(partial(kernel, inputs, weight), device) for _ in range(ATTEMPTS) for kernel in kernels)
    return {"flops": 2 * rows * width * out / seconds}


def _onednn_without_bias(inputs: Tensor, weight: Tensor) -> Tensor:
    return onednn.linear(inputs, weight, None)


def _describe_choices() -> str:
    """List the shapes that this process measured, and which kernel it chose for each."""
    lines = [f"- {shape}: {'alternative' if faster else 'PyTorch'}" for shape, faster in measured_choices().items()]
    return "\n".join(["Kernels that this process chose:", *(lines or ["- none was measured"])])
