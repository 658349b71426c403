"""Benchmark ``bare``: the exact search and the bare model, which evaluates the same rows with the same lengths.

The time of the bare model is the lower limit for the time of a search. For models with patch tokens, the bare model
consists of the encoder and the classifier, applied to existing tokens. For other models, it is the whole model, applied
to existing images. In both cases, its passes have the size that is fastest on the machine, and its kernels are those of
the search.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any, ClassVar, TypeAlias

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import PreTrainedModel

from captum_moxi.arguments import MODES, Mode, Stop
from captum_moxi.benchmarks.bench import Bench, GameArguments, short_name
from captum_moxi.benchmarks.machine import time_call
from captum_moxi.evaluation.records import Record
from captum_moxi.game import CoalitionGame
from captum_moxi.kernels import KernelMemory, fast_kernels
from captum_moxi.models import ImageClassifier, PatchGrid, TokenLayout, call_model, token_layout
from captum_moxi.removal import TokenRemoval
from captum_moxi.removal.sequence import KeptTokens
from captum_moxi.search import Selection, greedy
from captum_moxi.tables import markdown_table

# Shape of one row: (tokens, width) or (channels, height, width).
RowShape: TypeAlias = tuple[int, ...]
# Number of times that each pass size is timed. The fastest time is used.
ATTEMPTS = 3


@dataclass(frozen=True)
class Extent:
    """Where a search ends.

    Args:
        title (str): Title in the table.
        n_steps (int or None): Maximum number of steps. None for no limit.
        stop (str or None): ``"flip"`` to stop when the prediction flips. None to continue after the flip.
    """

    title: str
    n_steps: int | None
    stop: Stop


def compare_with_bare_model(bench: Bench) -> str:
    """Measure the exact search and the bare model on the first image, and return the table."""
    limit = f", {bench.most_steps} steps at most" if bench.most_steps else ""
    extents = (
        # The titles identify stored measurements.
        Extent(f"to the flip{limit}", bench.most_steps, "flip"),
        Extent(f"{bench.most_steps or 'all'} steps", bench.most_steps, None),
    )
    name, image = bench.images[0]
    table: list[list[object]] = []
    for classifier in bench.classifiers:
        for mode in MODES:
            for extent in extents:
                settings = {"benchmark": "bare", "model": classifier.name, "image": name, "mode": mode}
                record = bench.measure(
                    settings | {"extent": extent.title, "repeats": bench.repeats},
                    partial(_measure, bench, classifier, image, mode=mode, extent=extent),
                )
                ratio = median(search / bare for search, bare in zip(record["search"], record["bare"], strict=True))
                seconds = [median(record["search"]), median(record["bare"])]
                row = [short_name(classifier.name), mode, extent.title, record["steps"], record["rows"]]
                table.append([*row, *seconds, ratio])
    header = ["model", "mode", "extent", "steps", "rows", "seconds", "bare model, seconds", "ratio"]
    return markdown_table(header, table)


class BareModel(ABC):
    """A model without the work that a search adds.

    Args:
        model (PreTrainedModel): Model to measure.
    """

    # Keyword argument of the watched module that contains the rows.
    argument: ClassVar[str]
    # Sizes of a pass from which the fastest is chosen, by type of device.
    sizes: ClassVar[Mapping[str, tuple[int, ...]]]
    # Memory layouts of the rows from which the fastest is chosen.
    layouts: ClassVar[tuple[torch.memory_format, ...]]

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self._kernel_memory = KernelMemory()

    @property
    @abstractmethod
    def watched(self) -> nn.Module:
        """Module whose inputs are the rows."""

    @abstractmethod
    def __call__(self, rows: Tensor) -> Tensor:
        """Return the logits of rows."""

    @abstractmethod
    def rows_per_pass(self, shape: RowShape, size: int) -> int:
        """Return the number of rows of this shape in a pass of this size."""

    @abstractmethod
    def sample_rows(self, shape: RowShape, largest: int) -> int:
        """Return the number of rows that are needed to compare sizes up to the largest one."""

    @contextmanager
    def recorded_shapes(self) -> Iterator[Counter[RowShape]]:
        """Count the rows of each shape that the model receives."""
        shapes: Counter[RowShape] = Counter()

        def count(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            rows: Tensor = args[0] if args else kwargs[self.argument]
            shapes[tuple(rows.shape[1:])] += len(rows)

        hook = self.watched.register_forward_pre_hook(count, with_kwargs=True)
        try:
            yield shapes
        finally:
            hook.remove()

    def random_passes(self, shape: RowShape, total: int, *, size: int, layout: torch.memory_format) -> list[Tensor]:
        """Return random rows, divided into passes. All full passes share their memory."""
        rows = min(self.rows_per_pass(shape, size), total)
        full = torch.randn(rows, *shape, device=self.model.device, dtype=self.model.dtype)
        full = full.contiguous(memory_format=layout)
        count, rest = divmod(total, rows)
        return [full] * count + ([full[:rest]] if rest else [])

    def evaluate(self, passes: Sequence[Tensor]) -> None:
        """Run the passes and discard the logits."""
        with torch.no_grad(), fast_kernels(self._kernel_memory):
            for rows in passes:
                self(rows)


class BareEncoder(BareModel):
    """Layers and classifier of a model with patch tokens, applied to its token sequence.

    Args:
        model (PreTrainedModel): The model.
        layout (TokenLayout): Where its tokens are.
        image (Tensor): An image of shape ``(1, 3, H, W)``, which the model embeds in each pass.
    """

    argument = "hidden_states"
    # Numbers of tokens.
    sizes: ClassVar[Mapping[str, tuple[int, ...]]] = {
        "cpu": (1024, 2048, 4096, 8192),
        "cuda": (2**14, 2**16, 2**18),
    }
    layouts = (torch.contiguous_format,)

    def __init__(self, model: PreTrainedModel, layout: TokenLayout, image: Tensor) -> None:
        super().__init__(model)
        self.layout = layout
        self.image = image

    @property
    def watched(self) -> nn.Module:
        return self.layout.layers[0]

    def __call__(self, rows: Tensor) -> Tensor:
        n_prefix, patches = self.layout.n_prefix, PatchGrid.of(self.image, self.layout.patch_size)
        kept = KeptTokens(torch.arange(rows.shape[1], device=rows.device)[None], n_prefix, n_prefix + patches.n_patches)
        site = TokenRemoval().site(self.model)
        handles = [site.hook(lambda _tokens: rows), *site.hook_positions(lambda: kept)]
        try:
            logits: Tensor = call_model(self.model, self.image)
        finally:
            for handle in handles:
                handle.remove()
        return logits

    def rows_per_pass(self, shape: RowShape, size: int) -> int:
        return max(1, size // shape[0])

    def sample_rows(self, shape: RowShape, largest: int) -> int:
        return largest // shape[0] + 1


class BareNetwork(BareModel):
    """A whole model, applied to images."""

    argument = "pixel_values"
    # Numbers of images.
    sizes: ClassVar[Mapping[str, tuple[int, ...]]] = {"cpu": (2, 4, 8, 16), "cuda": (32, 128, 512)}
    layouts = (torch.contiguous_format, torch.channels_last)

    @property
    def watched(self) -> nn.Module:
        return self.model

    def __call__(self, rows: Tensor) -> Tensor:
        logits: Tensor = self.model(rows).logits
        return logits

    def rows_per_pass(self, shape: RowShape, size: int) -> int:
        return size

    def sample_rows(self, shape: RowShape, largest: int) -> int:
        return 2 * largest


def bare_model(model: PreTrainedModel, image: Tensor) -> BareModel:
    """Return the bare model of a classifier, given an image of shape ``(1, 3, H, W)``."""
    layout = token_layout(model)
    return BareNetwork(model) if layout is None else BareEncoder(model, layout, image)


def _measure(bench: Bench, classifier: ImageClassifier, image: Image.Image, *, mode: Mode, extent: Extent) -> Record:
    """Measure the search and the bare model alternately, so that both see the same load of the machine."""
    search = partial(_search, bench.game_arguments(classifier, [image]), mode=mode, extent=extent)
    bare = bare_model(classifier.model, classifier.preprocess(image))
    with bare.recorded_shapes() as shapes:
        game, selection = search()
    size, layout = _fastest_pass(bare, shapes)
    passes = [
        rows for shape, total in shapes.items() for rows in bare.random_passes(shape, total, size=size, layout=layout)
    ]
    calls: dict[str, Callable[[], object]] = {"search": search, "bare": partial(bare.evaluate, passes)}
    seconds: dict[str, list[float]] = {"search": [], "bare": []}
    for _ in range(bench.repeats):
        for name, call in calls.items():
            seconds[name].append(time_call(call, classifier.model.device))
    return {"steps": int(selection.n_steps[0]), "rows": game.cost.rows, **seconds, "size": size}


def _search(arguments: GameArguments, *, mode: Mode, extent: Extent) -> tuple[CoalitionGame, Selection]:
    game = CoalitionGame(**arguments)
    return game, greedy(game, mode, n_steps=extent.n_steps, stop=extent.stop)


def _fastest_pass(bare: BareModel, shapes: Counter[RowShape]) -> tuple[int, torch.memory_format]:
    """Return the fastest size and layout of a pass, measured on rows of the most common shape."""
    device = bare.model.device
    sizes = bare.sizes[device.type]
    shape, total = shapes.most_common(1)[0]
    sample = min(total, bare.sample_rows(shape, max(sizes)))

    def seconds(choice: tuple[int, torch.memory_format]) -> float:
        size, layout = choice
        passes = bare.random_passes(shape, sample, size=size, layout=layout)
        return min(time_call(partial(bare.evaluate, passes), device) for _ in range(ATTEMPTS))

    return min(((size, layout) for size in sizes for layout in bare.layouts), key=seconds)
