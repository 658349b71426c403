"""The command ``captum-moxi``."""

import csv
import json
import logging
import math
import platform
import sys
import warnings
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import torch
from matplotlib.figure import Figure
from PIL import Image
from tqdm.auto import tqdm
from transformers.utils import logging as transformers_logging

from captum_moxi import MoXIDeletion, MoXIInsertion, MoXILocalization, __version__
from captum_moxi.comparison import DEFAULT_METHODS, MODES, Comparison, compare, join
from captum_moxi.demo import demo_classifier, demo_images
from captum_moxi.evaluation.benchmarks import BENCHMARKS, Bench
from captum_moxi.evaluation.commands import attack_command, corrupt_command, evaluate, report
from captum_moxi.evaluation.records import Records, machine, table
from captum_moxi.game import CoalitionGame
from captum_moxi.images import IMAGE_SUFFIXES, open_image
from captum_moxi.methods import METHODS, get_methods, of_images
from captum_moxi.metrics import median_flip
from captum_moxi.models import ImageClassifier, LogitsModel, load
from captum_moxi.options import CandidatesType, Refused, RemovalType, check_device
from captum_moxi.page import follow_path, path_page
from captum_moxi.removal import REMOVALS, Removal, default_removal, grid_mask
from captum_moxi.rewards import REWARDS, contrast, predicted, probability
from captum_moxi.screens import CANDIDATES, Screen
from captum_moxi.search import Selection
from captum_moxi.visualization import (
    explanation_figure,
    localization_figure,
    plot_curves,
    save_figure,
    show_comparison,
)

SEARCHES = {"insertion": MoXIInsertion, "deletion": MoXIDeletion}
# images in a gallery
MOST_ROWS = 12


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """The group of image patches that makes a classifier sure (insertion), or without which it fails (deletion)."""
    # transformers reports every weight that it loads, and the hub each of its tries
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)


for command in (evaluate, report, corrupt_command, attack_command):
    main.add_command(command)


@main.command()
@click.argument("images", nargs=-1, metavar="[IMAGE]...")
@click.option(
    "--model", help="Hub name or folder of a Hugging Face image classifier. Without images: the embedded demo."
)
@click.option("--target", help="Class to explain: an index, a name or part of one. Default: the predicted class.")
@click.option("--mode", type=click.Choice(["insertion", "deletion", "both"]), default="both", show_default=True)
@click.option(
    "--stop",
    type=click.Choice(["flip", "never"]),
    default="flip",
    show_default=True,
    help="Stop when the prediction flips, or rank every patch.",
)
@click.option(
    "--min-confidence",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    show_default=True,
    help="Confidence that insertion must exceed to flip.",
)
@click.option("--n-steps", type=click.IntRange(1), help="Choose at most this many patches.")
@click.option(
    "--grid",
    type=click.IntRange(1),
    help="N x N players, of whole patches where tokens are taken out. Default: the model's own patches.",
)
@click.option(
    "--removal",
    type=RemovalType(),
    help=f"How absent patches are taken away: {REMOVALS}. Default: token where the model has patch tokens, else zero.",
)
@click.option(
    "--reward",
    default="log_odds",
    show_default=True,
    help=f"What is raised or lowered: {', '.join(REWARDS)}, or contrast:CLASS, the target against that class.",
)
@click.option("--interactions/--no-interactions", default=True, help="Without: patches ranked one by one, MoXI(-).")
@click.option(
    "--candidates",
    type=CandidatesType(),
    help=f"Which patches a step tries: {CANDIDATES}; M of them, at least 1. Default: all, the exact search.",
)
@click.option(
    "--beam-width",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Groups of patches kept at every step; the best is shown.",
)
@click.option("--html", is_flag=True, help="Write a page for each image, too, with a slider along the path.")
@click.option("--device", help="Such as cpu, cuda or cuda:1. Default: cuda if there is one.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("moxi-out"), show_default=True)
def explain(
    images: tuple[str, ...],
    model: str | None,
    target: str | None,
    mode: str,
    stop: str,
    min_confidence: float,
    n_steps: int | None,
    grid: int | None,
    removal: Removal | None,
    reward: str,
    interactions: bool,
    candidates: Screen | None,
    beam_width: int,
    html: bool,
    device: str | None,
    out: Path,
) -> None:
    """Explain each IMAGE (or the images in a folder): a figure and a JSON for each, in the folder --out.

    Without arguments the embedded model and images are explained: digits, whose class is the sum of the distinct ones.
    """
    _check_sources(images, model)
    if not interactions and (candidates is not None or beam_width > 1):
        raise Refused("--no-interactions ranks all patches at once; pass it without --candidates and --beam-width")
    _check_html(html)
    try:
        classifier = demo_classifier(check_device(device)) if model is None else load(model, check_device(device))
        class_index = None if target is None else classifier.class_index(target)
        job = Job(
            classifier=classifier,
            model_name=model or "embedded demo",
            class_index=class_index,
            modes=("insertion", "deletion") if mode == "both" else (mode,),
            stop=stop,
            min_confidence=min_confidence,
            n_steps=n_steps,
            # the demo's story is told by quarters: one digit each
            grid=2 if model is None and grid is None else grid,
            removal=removal,
            reward=reward,
            against=_contrasted(reward, classifier),
            interactions=interactions,
            candidates=candidates,
            beam_width=beam_width,
            html=html,
            out=out,
        )
        out.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        raise Refused(error) from None
    pictures = {name: image for name, image, _ in demo_images()} if model is None else {}
    names = list(pictures) or _expand(images)
    used: set[str] = set()
    failed = 0
    for name in tqdm(names, desc="images", unit="image", disable=None):
        try:
            line = job.explain(name, pictures.get(name) or open_image(name), _unused(Path(name).stem, used))
        except (ValueError, OSError, RuntimeError, Image.DecompressionBombError) as error:
            tqdm.write(f"{name}: {' '.join(str(error).split())}", file=sys.stderr)
            failed += 1
        else:
            tqdm.write(line)
    if failed:
        raise Refused(f"{failed} of {len(names)} images were not explained")


@main.command("compare")
@click.argument("images", nargs=-1, metavar="[IMAGE]...")
@click.option(
    "--model", help="Hub name or folder of a Hugging Face image classifier. Without images: the embedded demo."
)
@click.option(
    "--target", help="Class to explain: an index, a name or part of one. Default: the predicted class of each."
)
@click.option(
    "--methods",
    default=",".join(DEFAULT_METHODS),
    show_default=True,
    help=f"Of {', '.join(METHODS)}; some take a number, as shapley:100.",
)
@click.option("--mode", type=click.Choice(["insertion", "deletion", "both"]), default="both", show_default=True)
@click.option(
    "--n-steps",
    type=click.IntRange(1),
    default=30,
    show_default=True,
    help="Patches that MoXI chooses, and where the curves end. All of 196 patches take minutes an image.",
)
@click.option("--grid", type=click.IntRange(1), help="N x N players. Default: the model's own patches.")
@click.option("--removal", type=RemovalType(), help=f"{REMOVALS}. Default: token where the model has patch tokens.")
@click.option("--reward", default="log_odds", show_default=True, help=f"{', '.join(REWARDS)}.")
@click.option(
    "--candidates",
    type=CandidatesType(),
    default="gradient:8",
    show_default=True,
    help=f"Which patches a step of MoXI's deletion tries: {CANDIDATES}. Insertion tries all.",
)
@click.option("--html", is_flag=True, help="Write a page for each image, too, with a slider along the path.")
@click.option("--device", help="Such as cpu, cuda or cuda:1. Default: cuda if there is one.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("moxi-out"), show_default=True)
def compare_methods(
    images: tuple[str, ...],
    model: str | None,
    target: str | None,
    methods: str,
    mode: str,
    n_steps: int,
    grid: int | None,
    removal: Removal | None,
    reward: str,
    candidates: Screen | None,
    html: bool,
    device: str | None,
    out: Path,
) -> None:
    """Put MoXI beside other methods on each IMAGE (or the images in a folder), and print a table.

    \b
    In the folder --out:
    insertion.png, deletion.png  the patches that flip the prediction, by method, of the first 12 images
    curves.png                   accuracy and confidence as patches come and go, the mean over images
    comparison.csv               a row an image, method and mode
    IMAGE.html                   with --html: a slider along every method's path
    """
    _check_sources(images, model)
    if reward not in REWARDS:
        raise Refused(f"--reward {reward!r} is unknown; pass {', '.join(REWARDS)}")
    _check_html(html)
    try:
        chosen = get_methods([name.strip() for name in methods.split(",")], candidates)
        classifier = demo_classifier(check_device(device)) if model is None else load(model, check_device(device))
        class_index = None if target is None else classifier.class_index(target)
        out.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        raise Refused(error) from None
    pictures = {name: image for name, image, _ in demo_images()} if model is None else {}
    names = list(pictures) or _expand(images)
    used: set[str] = set()
    shown: list[torch.Tensor] = []
    done: list[Comparison] = []
    mask = torch.empty(0)
    for name in tqdm(names, desc="images", unit="image", disable=None):
        try:
            x = classifier.preprocess(pictures.get(name) or open_image(name))
            how = removal or default_removal(classifier.model, (x,), has_baselines=False)
            mask = grid_mask(classifier.model, x, how, grid)
            n = len(mask.unique())
            with torch.no_grad():
                y = int(predicted(LogitsModel(classifier.model)(x))) if class_index is None else class_index
            found = compare(
                classifier.model,
                x,
                target=max(0, y),
                methods=[of_images(method, [Path(name).name]) for method in chosen],
                modes=MODES if mode == "both" else (mode,),  # type: ignore[arg-type]
                feature_mask=mask,
                removal=how,
                reward=reward,
                fractions=torch.arange(min(n, n_steps) + 1) / n,
            )
            stem = _unused(Path(name).stem, used)
            if html:
                label = classifier.labels[max(0, y)]
                page = _comparison_page(found, classifier, x, mask, how, n_steps, f"{Path(name).name}: {label}")
                (out / f"{stem}.html").write_text(page, encoding="utf-8")
        except (ValueError, OSError, RuntimeError, Image.DecompressionBombError) as error:
            tqdm.write(f"{name}: {' '.join(str(error).split())}", file=sys.stderr)
        else:
            # a row at a time, so that an interrupted run leaves what it did
            _append_rows(out / "comparison.csv", name, found, new=not done)
            done.append(found)
            if len(shown) < MOST_ROWS:
                shown.append(classifier.to_images(x)[0])
    if not done:
        raise Refused(f"none of {len(names)} images could be compared")
    comparison = join(done)
    _draw_comparison(comparison, join(done[:MOST_ROWS]), torch.stack(shown), mask[0], out)
    click.echo(_summary(comparison))
    n = int(comparison.n_players[0])
    screened = f"; MoXI's deletion by {candidates!r}" if candidates and "MoXI" in comparison.methods else ""
    click.echo(f"\n{len(done)} images, {n} players, curves to {min(n, n_steps)} of them{screened}; see {out}")
    if len(done) < len(names):
        raise Refused(f"{len(names) - len(done)} of {len(names)} images were not compared")


@main.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--model", required=True, help="Hub name or folder of a Hugging Face image classifier.")
@click.option(
    "--target",
    "targets",
    multiple=True,
    help="Class to look for: an index, a name or part of one; may be given again. Default: the two most likely.",
)
@click.option("--n-steps", type=click.IntRange(1), help="Take at most this many patches away in each phase.")
@click.option("--grid", type=click.IntRange(1), help="N x N players. Default: the model's own patches.")
@click.option("--removal", type=RemovalType(), help=f"{REMOVALS}. Default: token where the model has patch tokens.")
@click.option(
    "--candidates",
    type=CandidatesType(),
    default="gradient:8",
    show_default=True,
    help=f"Which patches a step tries: {CANDIDATES}.",
)
@click.option("--device", help="Such as cpu, cuda or cuda:1. Default: cuda if there is one.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("moxi-out"), show_default=True)
def localize(
    images: tuple[str, ...],
    model: str,
    targets: tuple[str, ...],
    n_steps: int | None,
    grid: int | None,
    removal: Removal | None,
    candidates: Screen | None,
    device: str | None,
    out: Path,
) -> None:
    """Show where classes are in each IMAGE (or the images in a folder), also ones that are not predicted.

    First what speaks for the predicted class goes, until the one looked for is predicted; then what that one rests on.
    A figure and a JSON for each image, in the folder --out (the paper's Appendix F and Figure 5): what was gone before
    a class was predicted, and what it then held on to.
    """
    try:
        classifier = load(model, check_device(device))
        wanted = [classifier.class_index(target) for target in targets]
        out.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        raise Refused(error) from None
    names = _expand(images)
    used: set[str] = set()
    failed = 0
    for name in tqdm(names, desc="images", unit="image", disable=None):
        try:
            x = classifier.preprocess(open_image(name))
            with torch.no_grad():
                likely = LogitsModel(classifier.model)(x)[0].topk(min(2, len(classifier.labels))).indices.tolist()
            how = removal or default_removal(classifier.model, (x,), has_baselines=False)
            mask = grid_mask(classifier.model, x, how, grid)
            method = MoXILocalization(classifier.model, how, candidates)
            results = []
            for y in wanted or likely:
                attribution, both = method.attribute(
                    x, target=y, feature_mask=mask, n_steps=n_steps, return_selection=True
                )
                results.append((_short(classifier.labels[y]), attribution[0, 0].float().cpu(), both))
            title = f"{Path(name).name}: {_short(classifier.labels[likely[0]])} is predicted"
            figure, _ = localization_figure(classifier.to_images(x)[0], mask[0, 0], results, title)
            path = out / f"{_unused(Path(name).stem, used)}-classes.png"
            save_figure(figure, path)
            report = {
                "image": name,
                "model": model,
                "predicted": {"index": likely[0], "label": classifier.labels[likely[0]]},
                "settings": {
                    "n_steps": n_steps,
                    "grid": grid,
                    "removal": repr(how),
                    "candidates": repr(candidates) if candidates else "all",
                    "device": str(x.device),
                },
                "patches": _boxes(mask[0, 0]),
                "classes": [
                    {"index": y, "label": classifier.labels[y], "gone": gone.to_dict(), "held": held.to_dict()}
                    for y, (_, _, (gone, held)) in zip(wanted or likely, results, strict=True)
                ],
                "versions": _versions(),
            }
            path.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
        except (ValueError, OSError, RuntimeError, Image.DecompressionBombError) as error:
            tqdm.write(f"{name}: {' '.join(str(error).split())}", file=sys.stderr)
            failed += 1
        else:
            told = "; ".join(_located(label, *both) for label, _, both in results)
            tqdm.write(f"{name}: {told}; see {path}")
    if failed:
        raise Refused(f"{failed} of {len(names)} images were not explained")


@main.command()
@click.argument("name", type=click.Choice(list(BENCHMARKS)))
@click.option("--model", "names", multiple=True, help="Hub name or folder; may be given again. Default: the demo's.")
@click.option("--images", "paths", multiple=True, help="Image or folder; may be given again. Default: the demo's.")
@click.option("--limit", type=click.IntRange(1), help="At most this many images, the first by name.")
@click.option("--grid", type=click.IntRange(1), help="N x N players. Default: the model's own patches.")
@click.option(
    "--repeats", type=click.IntRange(1), default=5, show_default=True, help="bare: times taken, for the median."
)
@click.option("--most-steps", type=click.IntRange(1), help="bare, screens: where searches stop. Default: every patch.")
@click.option(
    "--search", "searches", multiple=True, help="screens: compare this one; may be given again. Default: all."
)
@click.option("--device", help="Such as cpu, cuda or cuda:1. Default: cuda if there is one.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Keep what is measured in this file, and go on from it when interrupted. A new version of the package "
    "measures again; after a change of your own, take another file.",
)
def benchmark(
    name: str,
    names: tuple[str, ...],
    paths: tuple[str, ...],
    limit: int | None,
    grid: int | None,
    repeats: int,
    most_steps: int | None,
    searches: tuple[str, ...],
    device: str | None,
    out: Path | None,
) -> None:
    """Measure what a search costs and finds here, and print it as a Markdown table.

    \b
    bare        the exact search against the bare model, for the same rows, on the first image
    methods     MoXI beside Captum's ShapleyValueSampling, KernelShap and FeatureAblation
    screens     screened searches and beams against the exact search
    growth      seconds and memory by players, model size and batch, on untrained ViTs
    throughput  images a minute
    """
    records = None
    try:
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
        records = Records(out)
        images = [(path, _named(path)) for path in _expand(paths)[:limit]]
        classifiers = [load(model, check_device(device)) for model in names]
        classifiers = classifiers or [replace(demo_classifier(check_device(device)), name="demo")]
        if not images:
            images = [(title, image) for title, image, _ in demo_images()][:limit]
        bench = Bench(
            classifiers=classifiers,
            images=images,
            grid=grid,
            repeats=repeats,
            most_steps=most_steps,
            searches=searches,
            records=records,
            machine=machine(classifiers[0].model.device),
        )
        click.echo(f"{bench.machine}\n\n{BENCHMARKS[name](bench)}")
    except (ValueError, OSError, RuntimeError, Image.DecompressionBombError) as error:
        raise Refused(error) from None
    finally:
        if records is not None:
            kept = f"kept in {out}" if out else "not kept, which --out FILE would do"
            click.echo(f"{records.made} measurements made, {records.reused} there already; {kept}", err=True)


@dataclass(frozen=True)
class Job:
    """How to explain one image after another: the options of the command, read."""

    classifier: ImageClassifier
    model_name: str
    class_index: int | None
    modes: tuple[str, ...]
    stop: str
    min_confidence: float
    n_steps: int | None
    grid: int | None
    removal: Removal | None
    reward: str
    against: int | None
    interactions: bool
    candidates: Screen | None
    beam_width: int
    html: bool
    out: Path

    def explain(self, name: str, image: Image.Image, stem: str) -> str:
        """Write the figure and the JSON of an image; the line to print."""
        x = self.classifier.preprocess(image)
        with torch.no_grad():
            logits = LogitsModel(self.classifier.model)(x).float()
        predicted_class = int(predicted(logits))
        # of a single logit, which may be negative, the one class is explained
        y = max(0, predicted_class) if self.class_index is None else self.class_index
        confidence = float(probability(logits, torch.tensor([y], device=logits.device)))
        removal = self.removal or default_removal(self.classifier.model, (x,), has_baselines=False)
        mask = grid_mask(self.classifier.model, x, removal, self.grid)
        results = {mode: self._attribute(mode, x, y, removal, mask) for mode in self.modes}
        label = self.classifier.labels[y]
        said = f"{label} (confidence {confidence:.2f})"
        how = [repr(self.candidates)] if self.candidates else []
        how += [f"beam of {self.beam_width}"] if self.beam_width > 1 else []
        if predicted_class != y and predicted_class >= 0:
            said += f", though {self.classifier.labels[predicted_class]} is predicted"
        figure, _ = explanation_figure(
            self.classifier.to_images(x)[0],
            mask[0, 0],
            list(results.values()),
            y,
            title=f"{Path(name).name}: {said}" + (f"\nby {', '.join(how)}" if how else ""),
            min_confidence=self.min_confidence,
        )
        report = {
            "image": name,
            "model": self.model_name,
            "target": {"index": y, "label": label, "confidence": confidence},
            "predicted": {
                "index": predicted_class,
                "label": self.classifier.labels[predicted_class] if predicted_class >= 0 else None,
            },
            "settings": {
                "stop": self.stop,
                "min_confidence": self.min_confidence,
                "n_steps": self.n_steps,
                "grid": self.grid,
                "removal": repr(removal),
                "reward": self.reward,
                "interactions": self.interactions,
                "candidates": repr(self.candidates) if self.candidates else "all",
                "beam_width": self.beam_width,
                "device": str(x.device),
            },
            "patches": _boxes(mask[0, 0]),
            **{mode: selection.to_dict() for mode, (_, selection) in results.items()},
            "versions": _versions(),
        }
        save_figure(figure, self.out / f"{stem}.png")
        if self.html:
            game = CoalitionGame(self.classifier.model, x, y, feature_mask=mask, removal=removal)
            paths = [
                follow_path(
                    game,
                    selection.order[0].tolist(),
                    selection.mode,
                    self.classifier.to_images,
                    min_confidence=self.min_confidence,
                )
                for _, selection in results.values()
            ]
            page = path_page(paths, self.classifier.labels, f"{Path(name).name}: {said}")
            (self.out / f"{stem}.html").write_text(page, encoding="utf-8")
        (self.out / f"{stem}.json").write_text(json.dumps(report, indent=1) + "\n")
        found = "; ".join(_sentence(selection) for _, selection in results.values())
        found += f" (by {', '.join(how)})" if how else ""
        if "deletion" in results and not int(results["deletion"][1].n_steps[0]):
            found = f"{_instead(predicted_class)}; {found}"
        return f"{name}: {said}; {found}; see {self.out / f'{stem}.png'}"

    def _attribute(
        self, mode: str, x: torch.Tensor, y: int, removal: Removal, mask: torch.Tensor
    ) -> tuple[torch.Tensor, Selection]:
        reward = self.reward if self.against is None else contrast(y, self.against)
        method = SEARCHES[mode](
            self.classifier.model,
            reward=reward,
            removal=removal,
            interactions=self.interactions,
            candidates=self.candidates,
            beam_width=self.beam_width,
        )
        with warnings.catch_warnings():
            # the line that is printed says so
            warnings.filterwarnings("ignore", message="the target is not the predicted class")
            attribution, selection = method.attribute(
                x,
                target=y,
                feature_mask=mask,
                n_steps=self.n_steps,
                stop="flip" if self.stop == "flip" else None,
                min_confidence=self.min_confidence,
                show_progress=sys.stderr.isatty(),
                return_selection=True,
            )
        return attribution[0, 0].float().cpu(), selection


def _instead(predicted_class: int) -> str:
    """What there is to say where the class need not be deleted, for it is not predicted."""
    if predicted_class < 0:
        return "the logit is below 0, so that there is nothing to delete"
    return "captum-moxi localize shows where it is"


def _versions() -> dict[str, str]:
    packages = {package: version(package) for package in ("torch", "captum", "transformers")}
    return {"python": platform.python_version(), "captum-moxi": __version__} | packages


def _check_sources(images: tuple[str, ...], model: str | None) -> None:
    if images and model is None:
        raise Refused("images were given without --model; pass a hub name or a folder, or no image for the demo")
    if model is not None and not images:
        raise Refused("--model was given without an image; pass images, or no --model for the demo")


def _check_html(html: bool) -> None:
    if html and find_spec("bokeh") is None:
        raise Refused("--html needs Bokeh; pip install 'captum-moxi[html]'")


def _append_rows(path: Path, name: str, comparison: Comparison, new: bool) -> None:
    rows = [{"image": name} | row for row in comparison.records()]
    with path.open("w" if new else "a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [key for key in rows[0] if key != "example"], extrasaction="ignore")
        if new:
            writer.writeheader()
        writer.writerows(rows)


def _comparison_page(
    comparison: Comparison,
    classifier: ImageClassifier,
    x: torch.Tensor,
    mask: torch.Tensor,
    removal: Removal,
    n_steps: int,
    title: str,
) -> str:
    game = CoalitionGame(classifier.model, x, comparison.targets, feature_mask=mask, removal=removal)
    paths = [
        follow_path(game, result.order[0, :n_steps].tolist(), result.mode, classifier.to_images, result.method)
        for result in comparison.results
    ]
    return path_page(paths, classifier.labels, title)


def _draw_comparison(
    comparison: Comparison, first: Comparison, images: torch.Tensor, mask: torch.Tensor, out: Path
) -> None:
    """Galleries of the first images, and curves of all."""
    modes = list(dict.fromkeys(result.mode for result in comparison.results))
    columns = 1 + len(comparison.methods)
    for mode in modes:
        figure = Figure(figsize=(1.45 * columns, 1.75 * len(images) + 0.3), layout="constrained")
        show_comparison(images, mask, first, mode, figure.subplots(len(images), columns, squeeze=False))
        save_figure(figure, out / f"{mode}.png")
    figure = Figure(figsize=(4.6 * len(modes), 6.4), layout="constrained")
    for of, row in zip(("correct", "confidences"), figure.subplots(2, len(modes), squeeze=False), strict=True):
        plot_curves(comparison, of, row)
    save_figure(figure, out / "curves.png")


def _summary(comparison: Comparison) -> str:
    """A Markdown table: a row a method and mode, over images."""
    rows: list[list[Any]] = []
    for result in comparison.results:
        flips = comparison.players_to_flip(result.method, result.mode).nan_to_num(nan=math.inf)
        to_flip = median_flip(flips.tolist(), int(result.curve.players[0, -1]))
        area = float(result.curve.area().mean())
        rows.append([result.mode, result.method, to_flip, int(flips.isfinite().sum()), area, result.seconds])
    rows.sort(key=lambda row: row[0], reverse=True)
    return table(["", "method", "patches to flip, median", "images flipped", "area", "seconds an image"], rows)


def _contrasted(reward: str, classifier: ImageClassifier) -> int | None:
    """The class of --reward contrast:CLASS, or None for a named reward."""
    if reward.startswith("contrast:"):
        return classifier.class_index(reward.partition(":")[2])
    if reward not in REWARDS:
        raise ValueError(f"--reward {reward!r} is unknown; pass {', '.join(REWARDS)} or contrast:CLASS")
    return None


def _expand(images: tuple[str, ...]) -> list[str]:
    """The image files named, those in folders among them; a folder without any stays, to be told of."""
    files: list[str] = []
    for image in images:
        inside: list[str] = []
        if Path(image).is_dir():
            inside = sorted(str(p) for p in Path(image).iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        files += inside or [image]
    return files


def _named(path: str) -> Image.Image:
    try:
        return open_image(path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _unused(stem: str, used: set[str]) -> str:
    name, count = stem, 1
    while name in used:
        count += 1
        name = f"{stem}-{count}"
    used.add(name)
    return name


def _short(label: str) -> str:
    """The first of a class's synonyms."""
    return label.partition(",")[0]


def _boxes(mask: torch.Tensor) -> dict[str, list[int]]:
    """Top, left, bottom and right of every player, in pixels of the model's input."""
    boxes = {}
    for player in mask.unique().tolist():
        rows, columns = (mask == player).nonzero(as_tuple=True)
        boxes[str(player)] = [int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1]
    return boxes


def _located(label: str, first: Selection, second: Selection) -> str:
    if not first.flipped[0]:
        return f"{label} is never predicted"
    taken = f"with {int(first.n_steps[0])} patches taken away" if first.n_steps[0] else "as the image is"
    lost = f"lost without {int(second.n_steps[0])} more" if second.flipped[0] else "not lost"
    return f"{label} is predicted {taken}, and {lost}"


def _sentence(selection: Selection) -> str:
    steps = int(selection.n_steps[0])
    patches = f"{steps} patch{'' if steps == 1 else 'es'}"
    if selection.mode == "insertion":
        return f"insertion flips with {patches}" if selection.flipped[0] else f"insertion does not flip in {patches}"
    return f"deletion flips without {patches}" if selection.flipped[0] else f"deletion does not flip in {patches}"


if __name__ == "__main__":
    main()
