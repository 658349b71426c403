"""Benchmarks: what the search costs and what it finds, measured on this machine.

Each benchmark is a function of a ``Bench`` and returns a Markdown table. The target is always the predicted class. A
forward is a row through the model; a row that also goes back through it counts as three.
"""

import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from statistics import fmean, median
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import ViTConfig, ViTForImageClassification

from captum_moxi import models
from captum_moxi.comparison import MODES
from captum_moxi.evaluation.records import Record, Records, table
from captum_moxi.game import CoalitionGame
from captum_moxi.methods import (
    Method,
    feature_ablation,
    kernel_shap,
    shapley_sampling,
)
from captum_moxi.metrics import play_curve
from captum_moxi.players import patch_mask
from captum_moxi.screens import GradientScreen, HalfPrecisionScreen, LastGainsScreen, RandomScreen, Screen
from captum_moxi.search import Mode, Selection, greedy, rank

SCREENS_LEGEND = """

A search that did not flip counts with the steps that it took. Against exact: players in all, - is fewer. Mean
confidence in the target until the exact search flipped, held from where a search ended: less is better in deletion,
more in insertion. Times fewer and times faster: forwards and seconds of the exact search over this one's; below 1, it
costs more. With few players, as the demo has, a screen of m or more skips nothing and gains nothing."""
# tokens, and images, of the passes among which the fastest is taken for the bare model
TOKEN_BUDGETS = {"cpu": (1024, 2048, 4096, 8192), "cuda": (2**14, 2**16, 2**18)}
IMAGE_BUDGETS = {"cpu": (2, 4, 8, 16), "cuda": (32, 128, 512)}


@dataclass(frozen=True)
class Bench:
    """What is measured on.

    Args:
        classifiers (Sequence[ImageClassifier]): The models.
        images (Sequence[tuple[str, Image]]): The images and their names.
        grid (int or None): N x N players; None: the model's own patches.
        repeats (int): How often a time is taken, for the median.
        most_steps (int or None): Where searches that go beyond a flip stop.
        searches (Sequence[str]): Names of the searches to compare with the exact one; none: all.
        records (Records): What is measured already.
        machine (str): The machine in words.
    """

    classifiers: Sequence[models.ImageClassifier]
    images: Sequence[tuple[str, Any]]
    grid: int | None
    repeats: int
    most_steps: int | None
    searches: Sequence[str]
    records: Records
    machine: str

    def measure(self, settings: Record, what: Callable[[], Record]) -> Record:
        """The measurement with these settings on this machine and with these versions, from the records or made now."""
        versions = {"captum-moxi": version("captum-moxi"), "transformers": version("transformers")}
        return self.records.get({"machine": self.machine, **versions, "grid": self.grid, **settings}, what)

    def each(self, what: str) -> Any:
        """Models and images, with a progress bar; what only the first pass of a model takes is past."""
        for classifier in self.classifiers:
            greedy(self.game(classifier, [image for _, image in self.images[:1]]), "insertion", 1)
        pairs = [(classifier, *image) for classifier in self.classifiers for image in self.images]
        return tqdm(pairs, desc=what, unit="image", disable=None)

    def call(self, classifier: models.ImageClassifier, images: Sequence[Any]) -> dict[str, Any]:
        """What a game of images is made with, for their predicted classes."""
        x = classifier.preprocess(images)
        with torch.no_grad():
            target = models.call_model(classifier.model, x).argmax(1)
        mask = None if self.grid is None else patch_mask(tuple(x.shape[2:]), grid=self.grid)
        return {"forward_func": classifier.model, "inputs": x, "target": target, "feature_mask": mask}

    def game(self, classifier: models.ImageClassifier, images: Sequence[Any]) -> CoalitionGame:
        return CoalitionGame(**self.call(classifier, images))


def bare(bench: Bench) -> str:
    """Table 1: the exact search against the bare model, for the same rows at the same lengths.

    Of a model with patch tokens the bare model is the encoder and the classifier, on ready-made tokens; of others, the
    model on ready-made images; each in passes of the size that is fastest here.
    """
    most = bench.most_steps
    extents: dict[str, tuple[int | None, str | None]] = {
        "to the flip" + (f", {most} steps at most" if most else ""): (most, "flip"),
        f"{most or 'all'} steps": (most, None),
    }
    rows = []
    for classifier in bench.classifiers:
        name, image = bench.images[0]
        for mode in MODES:
            for extent, (n_steps, stop) in extents.items():

                def measure(
                    mode: Mode = mode,
                    n_steps: int | None = n_steps,
                    stop: str | None = stop,
                    classifier: models.ImageClassifier = classifier,
                    image: Any = image,
                ) -> Record:
                    return _search_against_bare(bench, classifier, image, mode, n_steps, stop)

                settings = {"benchmark": "bare", "model": classifier.name, "image": name, "mode": mode}
                found = bench.measure(settings | {"extent": extent, "repeats": bench.repeats}, measure)
                ratio = median(a / b for a, b in zip(found["search"], found["bare"], strict=True))
                seconds = [median(found["search"]), median(found["bare"])]
                rows.append([_short(classifier.name), mode, extent, found["steps"], found["rows"], *seconds, ratio])
    header = ["model", "search", "extent", "steps", "forwards", "seconds", "bare model, seconds", "ratio"]
    return table(header, rows)


def _search_against_bare(
    bench: Bench, classifier: models.ImageClassifier, image: Any, mode: Mode, n_steps: int | None, stop: str | None
) -> Record:
    model, device = classifier.model, classifier.model.device
    tokens = models.has_patch_tokens(model)
    shapes: Counter[tuple[int, ...]] = Counter()
    watched = models.encoder_layers(model)[0] if tokens else model
    call = bench.call(classifier, [image])

    def search() -> tuple[CoalitionGame, Selection]:
        game = CoalitionGame(**call)
        return game, greedy(game, mode, n_steps, stop)

    def count(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = args[0] if args else kwargs["hidden_states" if tokens else "pixel_values"]
        shapes[tuple(given.shape[1:])] += len(given)

    handle = watched.register_forward_pre_hook(count, with_kwargs=True)
    try:
        game, selection = search()
    finally:
        handle.remove()

    run = _encoder(model) if tokens else lambda images: model(images).logits
    layouts = [torch.contiguous_format] if tokens else [torch.contiguous_format, torch.channels_last]
    budgets = (TOKEN_BUDGETS if tokens else IMAGE_BUDGETS)[device.type]

    def ready(shape: tuple[int, ...], total: int, budget: int, layout: torch.memory_format) -> list[Tensor]:
        size = max(1, budget // shape[0]) if tokens else budget
        batch = torch.randn(min(size, total), *shape, device=device, dtype=model.dtype).contiguous(memory_format=layout)
        return [batch] * (total // len(batch)) + ([batch[: total % len(batch)]] if total % len(batch) else [])

    # the fastest size on a sample of the commonest shape
    shape, total = shapes.most_common(1)[0]
    sample = min(total, max(budgets) // shape[0] + 1 if tokens else 2 * max(budgets))
    times = {
        (budget, layout): min(_seconds(run, ready(shape, sample, budget, layout), device) for _ in range(3))
        for budget in budgets
        for layout in layouts
    }
    best = min(times, key=lambda choice: times[choice])
    batches = [batch for shape, total in shapes.items() for batch in ready(shape, total, *best)]
    search_times, bare_times = [], []
    for _ in range(bench.repeats):
        _synchronize(device)
        start = time.perf_counter()
        search()
        _synchronize(device)
        search_times.append(time.perf_counter() - start)
        bare_times.append(_seconds(run, batches, device))
    return {
        "steps": int(selection.n_steps[0]),
        "rows": game.n_rows,
        "search": search_times,
        "bare": bare_times,
        "budget": best[0],
    }


def _encoder(model: Any) -> Callable[[Tensor], Tensor]:
    """Layers, last norm and classifier of a model with patch tokens, on its sequence."""
    prefix = models.prefix_tokens(model)

    def run(hidden: Tensor) -> Tensor:
        for layer in models.encoder_layers(model):
            out = layer(hidden)
            hidden = out if isinstance(out, Tensor) else out[0]
        hidden = model.base_model.layernorm(hidden)
        if hasattr(model, "cls_classifier"):
            return (model.cls_classifier(hidden[:, 0]) + model.distillation_classifier(hidden[:, 1])) / 2
        if "dinov2" in model.config.model_type:
            return model.classifier(torch.cat([hidden[:, 0], hidden[:, prefix:].mean(1)], 1))
        return model.classifier(hidden[:, 0])

    return run


def methods(bench: Bench) -> str:
    """Table 2: MoXI and what Captum has for the same players, removal and reward."""
    orders: dict[str, Callable[[CoalitionGame], Any]] = {
        "MoXI insertion": lambda game: greedy(game, "insertion"),
        "MoXI deletion": lambda game: greedy(game, "deletion"),
        "MoXI deletion, GradientScreen(8)": lambda game: greedy(game, "deletion", screen=GradientScreen(8)),
        "MoXI insertion, LastGainsScreen(16)": lambda game: greedy(game, "insertion", screen=LastGainsScreen(16)),
        "MoXI(-) insertion": lambda game: rank(game, "insertion"),
        "ShapleyValueSampling, 25": lambda game: _played(shapley_sampling(25), game),
        "ShapleyValueSampling, 200": lambda game: _played(shapley_sampling(200), game),
        "KernelShap, 2n + 2048 samples": lambda game: _played(kernel_shap(2 * game.n_players + 2048), game),
        "FeatureAblation": lambda game: _played(feature_ablation(), game),
    }
    found: dict[tuple[str, str], list[Record]] = {}
    for classifier, name, image in bench.each("methods"):
        for method, order_of in orders.items():

            def measure(
                order_of: Callable[[CoalitionGame], Any] = order_of,
                classifier: models.ImageClassifier = classifier,
                image: Any = image,
            ) -> Record:
                game = bench.game(classifier, [image])
                before = game.n_rows
                start = time.perf_counter()
                order = order_of(game)
                seconds = time.perf_counter() - start
                forwards = _forwards(game) - before
                return {"seconds": seconds, "forwards": forwards} | {
                    mode: float(play_curve(game, order, mode).confidences.mean()) for mode in MODES
                }

            settings = {"benchmark": "methods", "model": classifier.name, "image": name, "method": method}
            found.setdefault((classifier.name, method), []).append(bench.measure(settings, measure))
    columns = ("forwards", "seconds", *MODES)
    rows = [
        [_short(name), method, *(fmean(record[column] for record in records) for column in columns)]
        for (name, method), records in found.items()
    ]
    header = ["model", "method", "forwards", "seconds", "area under insertion (more is better)"]
    return table([*header, "area under deletion (less is better)"], rows)


def _played(method: Method, game: CoalitionGame) -> Any:
    return method.play(game, "insertion", None, None)


def screens(bench: Bench) -> str:
    """Table 3: screened searches and beams against the exact search, to the flip."""
    exact = "exact"
    searches: dict[Mode, dict[str, tuple[Screen | None, int]]] = {
        "deletion": {
            exact: (None, 1),
            **{f"GradientScreen({m})": (GradientScreen(m), 1) for m in (4, 8, 16, 32)},
            **{f"GradientScreen(4), beam of {w}": (GradientScreen(4), w) for w in (2, 4)},
            **{f"GradientScreen({m}), beam of 2": (GradientScreen(m), 2) for m in (6, 8)},
            "LastGainsScreen(16)": (LastGainsScreen(16), 1),
        },
        "insertion": {
            exact: (None, 1),
            **{f"beam of {w}": (None, w) for w in (2, 4, 8)},
            **{f"LastGainsScreen({m})": (LastGainsScreen(m), 1) for m in (4, 8, 16, 32)},
            "GradientScreen(16)": (GradientScreen(16), 1),
            "RandomScreen(16)": (RandomScreen(16), 1),
        },
    }
    if any(classifier.model.device.type == "cuda" for classifier in bench.classifiers):
        for of_mode in searches.values():
            of_mode["HalfPrecisionScreen"] = (HalfPrecisionScreen(), 1)
    known = {search for of_mode in searches.values() for search in of_mode}
    if unknown := set(bench.searches) - known:
        raise ValueError(f"search {', '.join(sorted(unknown))} is unknown; pass of {', '.join(sorted(known))}")
    wanted = {exact, *bench.searches} if bench.searches else known
    found: dict[tuple[str, str, str], list[Record]] = {}
    for classifier, name, image in bench.each("screens"):
        for mode, of_mode in searches.items():
            for search, (screen, width) in of_mode.items():
                if search not in wanted:
                    continue

                def measure(
                    mode: Mode = mode,
                    screen: Screen | None = screen,
                    width: int = width,
                    classifier: models.ImageClassifier = classifier,
                    image: Any = image,
                ) -> Record:
                    start = time.perf_counter()
                    game = bench.game(classifier, [image])
                    selection = greedy(game, mode, bench.most_steps, "flip", screen=screen, beam_width=width)
                    return {
                        "seconds": time.perf_counter() - start,
                        "forwards": _forwards(game),
                        "steps": int(selection.n_steps[0]),
                        "flipped": bool(selection.flipped[0]),
                        "confidences": selection.confidences[0].tolist(),
                    }

                settings = {"benchmark": "screens", "model": classifier.name, "image": name, "mode": mode}
                settings |= {"search": search, "most_steps": bench.most_steps}
                found.setdefault((classifier.name, mode, search), []).append(bench.measure(settings, measure))
    rows = []
    for (model, of, search), records in found.items():
        reference = found[model, of, exact]
        steps, at_best = (sum(record["steps"] for record in some) for some in (records, reference))
        forwards, all_forwards = (sum(record["forwards"] for record in some) for some in (records, reference))
        faster = median(b["seconds"] / a["seconds"] for a, b in zip(records, reference, strict=True))
        # the path to where the exact search flipped; one that flipped sooner stays where it was
        areas = [
            _area(record["confidences"], len(b["confidences"])) for record, b in zip(records, reference, strict=True)
        ]
        # one that did not flip counts with the steps that it took
        flipped = f"{sum(record['flipped'] for record in records)} of {len(records)}"
        players = [
            median(record["steps"] for record in records),
            steps / len(records),
            f"{steps / at_best - 1:+.1%}" if at_best else "-",
        ]
        cost = [forwards / len(records), all_forwards / forwards, fmean(record["seconds"] for record in records)]
        rows.append([_short(model), of, search, flipped, *players, fmean(areas), *cost, faster])
    header = ["model", "search", "candidates", "flipped", "players to flip, median", "mean", "against exact"]
    header += ["mean confidence on the way", "forwards an image", "times fewer", "seconds an image"]
    return table([*header, "times faster, median"], rows) + SCREENS_LEGEND


def _area(confidences: list[float], points: int) -> float:
    held = confidences + confidences[-1:] * points
    return fmean(held[:points])


def growth(bench: Bench) -> str:
    """Table 4: how seconds and memory grow with players, model size and batch, on untrained ViTs.

    Ten insertion steps and one deletion step, each of at most 32 candidates, in a process of its own, whose peak of
    memory is read.
    """
    widths = {"tiny": (192, 3), "small": (384, 6), "base": (768, 12)}
    cases = [(size, side, 1) for size in widths for side in (112, 224, 384)]
    cases += [("tiny", 224, batch) for batch in (4, 16, 64)]
    device = str(bench.classifiers[0].model.device)
    rows = []
    for size, side, batch in tqdm(cases, desc="growth", unit="case", disable=None):
        for mode, steps in (("insertion", 10), ("deletion", 1)):

            def measure(case: tuple[Any, ...] = (*widths[size], side, batch, mode, steps, device)) -> Record:
                # a process of its own, so that its memory is this search's
                context = multiprocessing.get_context("spawn")
                with context.Pool(1) as pool:
                    return pool.apply(_grown, case)

            settings = {"benchmark": "growth", "size": size, "side": side, "batch": batch, "mode": mode}
            found = bench.measure(settings | {"steps": steps, "device": device}, measure)
            gibibytes = found["bytes"] / 2**30
            per_row = 1000 * found["seconds"] / found["rows"]
            rows.append(
                [
                    size,
                    (side // 16) ** 2,
                    batch,
                    f"{mode}, {steps}",
                    found["rows"],
                    found["seconds"],
                    per_row,
                    gibibytes,
                ]
            )
    header = ["ViT", "players", "batch", "search, steps of 32", "forwards", "seconds", "ms a forward"]
    return table([*header, "peak memory, GiB (model and libraries included)"], rows)


def _grown(width: int, heads: int, side: int, batch: int, mode: Mode, steps: int, device: str) -> Record:
    config = ViTConfig(  # type: ignore[call-arg]
        hidden_size=width,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        image_size=side,
        num_labels=1000,
    )
    torch.manual_seed(0)
    model = ViTForImageClassification(config).eval().to(device)
    images = torch.randn(batch, 3, side, side, device=device)
    game = CoalitionGame(model, images, target=0)
    start = time.perf_counter()
    before = game.n_rows
    greedy(game, mode, steps, screen=RandomScreen(32))
    _synchronize(model.device)
    seconds = time.perf_counter() - start
    if model.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(model.device)
    else:
        import resource  # not on Windows, where the rest of this module is wanted

        # macOS counts bytes, others KiB
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"seconds": seconds, "rows": game.n_rows - before, "bytes": peak}


def throughput(bench: Bench) -> str:
    """Table 5: seconds an image, to the flip and for a full ranking, images in batches."""
    rows = []
    for classifier in bench.classifiers:
        device = classifier.model.device
        batch = 16 if device.type == "cuda" else 1
        jobs: dict[str, tuple[Mode, Screen | None, str | None]] = {
            "insertion to the flip": ("insertion", None, "flip"),
            "deletion to the flip": ("deletion", None, "flip"),
            "deletion to the flip, GradientScreen(8)": ("deletion", GradientScreen(8), "flip"),
            "full insertion": ("insertion", None, None),
            "full deletion": ("deletion", None, None),
        }
        for job, (mode, screen, stop) in jobs.items():
            images = bench.images if stop else bench.images[:batch]
            names = [name for name, _ in images]

            def measure(
                mode: Mode = mode,
                screen: Screen | None = screen,
                stop: str | None = stop,
                images: Sequence[tuple[str, Any]] = images,
                classifier: models.ImageClassifier = classifier,
                job: str = job,
                batch: int = batch,
            ) -> Record:
                start = time.perf_counter()
                steps = 0
                for first in tqdm(range(0, len(images), batch), desc=job, unit="batch", disable=None):
                    game = bench.game(classifier, [image for _, image in images[first : first + batch]])
                    steps += int(greedy(game, mode, None, stop, screen=screen).n_steps.sum())
                _synchronize(classifier.model.device)
                return {"seconds": time.perf_counter() - start, "steps": steps}

            settings = {"benchmark": "throughput", "model": classifier.name, "job": job, "images": names}
            found = bench.measure(settings, measure)
            seconds = found["seconds"] / len(images)
            rows.append(
                [_short(classifier.name), job, len(images), batch, found["steps"] / len(images), seconds, 60 / seconds]
            )
    header = ["model", "search", "images", "batch", "steps an image", "seconds an image", "images a minute"]
    return table(header, rows)


BENCHMARKS: dict[str, Callable[[Bench], str]] = {
    "bare": bare,
    "methods": methods,
    "screens": screens,
    "growth": growth,
    "throughput": throughput,
}


def _forwards(game: CoalitionGame) -> int:
    """Rows, one that went back through the model as three."""
    return game.n_rows + 2 * game.n_backward_rows


def _seconds(run: Callable[[Tensor], Any], batches: Sequence[Tensor], device: torch.device) -> float:
    _synchronize(device)
    start = time.perf_counter()
    with torch.no_grad():
        for batch in batches:
            run(batch)
    _synchronize(device)
    return time.perf_counter() - start


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _short(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2]
