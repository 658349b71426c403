"""Benchmarks: the cost of a search and the quality of its result, measured on the current machine.

A benchmark is a function that takes a :class:`Bench` and returns a Markdown table. The target is always the predicted
class. Rows are coalitions evaluated by the model. A row with a backward pass counts as three rows.

To add a benchmark, write its function in a file of this folder and register it here. Call ``Bench.measure`` for each
slow measurement, so that an interrupted benchmark continues where it stopped.
"""

from captum_moxi.benchmarks.alternatives import count_alternatives
from captum_moxi.benchmarks.bare import compare_with_bare_model
from captum_moxi.benchmarks.bench import Bench, Benchmark
from captum_moxi.benchmarks.groups import compare_groups
from captum_moxi.benchmarks.growth import measure_growth
from captum_moxi.benchmarks.kernels import compare_kernels
from captum_moxi.benchmarks.methods import compare_methods
from captum_moxi.benchmarks.screens import compare_screens
from captum_moxi.benchmarks.throughput import measure_throughput
from captum_moxi.registry import Registry

BENCHMARKS: Registry[Benchmark] = Registry("benchmark")
BENCHMARKS.register(
    "bare",
    lambda: compare_with_bare_model,
    help="time of the exact search and of the model alone on the same rows, for the first image",
)
BENCHMARKS.register(
    "kernels",
    lambda: compare_kernels,
    help="time of the exact search with PyTorch's own kernels and with the fastest ones, for the first image",
)
BENCHMARKS.register(
    "methods",
    lambda: compare_methods,
    help="cost and areas of MoXI and of Captum's ShapleyValueSampling, KernelShap and FeatureAblation",
)
BENCHMARKS.register(
    "screens", lambda: compare_screens, help="cost and results of screens and beams, compared with the exact search"
)
BENCHMARKS.register(
    "groups",
    lambda: compare_groups,
    help="size and cost of greedy groups, minimal groups, groups found by beams, and groups after swaps",
)
BENCHMARKS.register(
    "alternatives", lambda: count_alternatives, help="number of disjoint groups that flip the prediction by themselves"
)
BENCHMARKS.register(
    "growth",
    lambda: measure_growth,
    help="time and memory for different numbers of players, model sizes and batch sizes, on untrained ViTs",
)
BENCHMARKS.register(
    "throughput", lambda: measure_throughput, help="images per minute, up to the flip and for a full ranking"
)

__all__ = ["BENCHMARKS", "Bench", "Benchmark"]
