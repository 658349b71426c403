"""The command ``captum-moxi``."""

import json
import platform
import re
import sys
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import torch
from PIL import Image, UnidentifiedImageError
from tqdm.auto import tqdm

from captum_moxi import MoXIDeletion, MoXIInsertion, __version__, patch_mask
from captum_moxi.demo import demo_classifier, demo_images
from captum_moxi.models import load
from captum_moxi.players import make_players
from captum_moxi.removal import AttentionRemoval, BaselineRemoval, Removal, TokenRemoval, choose_removal
from captum_moxi.rewards import REWARDS, Reward, contrast
from captum_moxi.search import Selection
from captum_moxi.visualization import explanation_figure

METHODS = {"insertion": MoXIInsertion, "deletion": MoXIDeletion}
REMOVALS = "token, attention:LAYER, zero, mean or blur"
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")


class RemovalType(click.ParamType):
    name = "removal"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Removal:
        if isinstance(value, Removal):
            return value
        if value == "token":
            return TokenRemoval()
        if value == "zero":
            return BaselineRemoval()
        if value in ("mean", "blur"):
            return BaselineRemoval(value)
        if match := re.fullmatch(r"attention(?::(\d+))?", value):
            return AttentionRemoval(int(match[1] or 0))
        self.fail(f"{value!r} is not a removal; pass {REMOVALS}.", param, ctx)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """The group of image patches that makes a classifier sure (insertion), or without which it fails (deletion)."""
    warnings.filterwarnings("ignore", message=".*use_fast.*")
    # transformers reports every weight that it loads
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


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
@click.option("--grid", type=click.IntRange(1), help="N x N patches as players. Default: the model's own.")
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
    device: str | None,
    out: Path,
) -> None:
    """Explain each IMAGE (or the images in a folder): a figure and a JSON for each, in the folder --out.

    Without arguments the embedded model and images are explained: digits, whose class is the sum of the distinct ones.
    """
    if images and model is None:
        raise click.UsageError(
            "images were given without --model; pass a hub name or a folder, or no image for the demo."
        )
    if model is not None and not images:
        raise click.UsageError("--model was given without an image; pass images, or no --model for the demo.")
    demo = model is None
    try:
        classifier = demo_classifier(_device(device)) if model is None else load(model, _device(device))
        class_index = None if target is None else classifier.class_index(target)
        other = classifier.class_index(reward.partition(":")[2]) if reward.startswith("contrast:") else None
        if other is None and reward not in REWARDS:
            raise ValueError(f"--reward {reward!r} is unknown; pass {', '.join(REWARDS)} or contrast:CLASS")
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    # the demo's story is told by quarters: one digit each
    grid = 2 if demo and grid is None else grid
    modes = ("insertion", "deletion") if mode == "both" else (mode,)
    out.mkdir(parents=True, exist_ok=True)

    sources = [(name, image) for name, image, _ in demo_images()] if demo else _expand(images)
    names: set[str] = set()
    failed = 0
    settings = {
        "stop": stop,
        "min_confidence": min_confidence,
        "n_steps": n_steps,
        "grid": grid,
        "removal": repr(removal or choose_removal(None, classifier.model, has_baselines=False)),
        "reward": reward,
        "interactions": interactions,
    }
    for name, source in tqdm(sources, desc="images", unit="image", disable=len(sources) == 1):
        try:
            image = _open(name) if source is None else source
            x = classifier.preprocess(image)
            confidences = classifier.model(pixel_values=x).logits.detach().float().softmax(1)[0]
            predicted = int(confidences.argmax())
            y = predicted if class_index is None else class_index
            mask = None if grid is None else patch_mask(tuple(x.shape[2:]), grid=grid)
            if mask is None:
                mask = (removal or choose_removal(None, classifier.model, False)).default_mask(classifier.model, (x,))
            assert mask is not None  # images always have one
            what: str | Reward = reward if other is None else contrast(y, other)
            results = []
            for each in modes:
                method = METHODS[each](classifier.model, reward=what, removal=removal, interactions=interactions)
                attribution, selection = method.attribute(
                    x,
                    target=y,
                    feature_mask=mask,
                    n_steps=n_steps,
                    stop="flip" if stop == "flip" else None,
                    min_confidence=min_confidence,
                    show_progress=sys.stderr.isatty(),
                    return_selection=True,
                )
                results.append((attribution[0, 0].float().cpu(), selection))
        except (ValueError, OSError) as error:
            tqdm.write(f"{name}: {' '.join(str(error).split())}", file=sys.stderr)
            failed += 1
            continue
        label = classifier.labels[y]
        figure, _ = explanation_figure(
            classifier.to_images(x)[0],
            mask[0, 0],
            results,
            y,
            title=f"{Path(name).name}: {label} (confidence {float(confidences[y]):.2f})",
            min_confidence=min_confidence,
        )
        stem = _unused(Path(name).stem, names)
        figure.savefig(out / f"{stem}.png", dpi=150)
        report = {
            "image": name,
            "model": "embedded demo" if demo else classifier.name,
            "target": {"index": y, "label": label, "confidence": float(confidences[y])},
            "predicted": {"index": predicted, "label": classifier.labels[predicted]},
            "settings": settings,
            "patches": _boxes(mask[0, 0]),
            **{each: selection.to_dict() for each, (_, selection) in zip(modes, results, strict=True)},
            "versions": {"python": platform.python_version(), "captum-moxi": __version__}
            | {package: version(package) for package in ("torch", "captum", "transformers")},
        }
        (out / f"{stem}.json").write_text(json.dumps(report, indent=1) + "\n")
        found = "; ".join(_sentence(selection) for _, selection in results)
        tqdm.write(f"{name}: {label}; {found}; see {out / f'{stem}.png'}")
    if failed:
        click.echo(f"{failed} of {len(sources)} images were not explained", err=True)
        sys.exit(2)


def _device(name: str | None) -> str | None:
    if name is not None:
        try:
            torch.empty(0, device=name)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"--device {name!r} cannot be used ({reason}); pass cpu, or a device that is there"
            ) from None
    return name


def _expand(images: tuple[str, ...]) -> list[tuple[str, None]]:
    def files() -> Iterator[str]:
        for image in images:
            if Path(image).is_dir():
                found = sorted(str(p) for p in Path(image).iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
                yield from found or [image]
            else:
                yield image

    return [(file, None) for file in files()]


def _open(path: str) -> Image.Image:
    if not Path(path).exists():
        raise ValueError("no such file; pass the path of an image")
    if Path(path).is_dir():
        raise ValueError("this folder holds no image; pass image files, or a folder of them")
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except UnidentifiedImageError:
        raise ValueError("this is no image that Pillow can read; pass a JPEG, PNG or the like") from None
    except (OSError, SyntaxError) as error:
        raise ValueError(f"the image cannot be read ({error}); it may be truncated: pass a whole file") from None


def _unused(stem: str, used: set[str]) -> str:
    name, count = stem, 1
    while name in used:
        count += 1
        name = f"{stem}-{count}"
    used.add(name)
    return name


def _boxes(mask: torch.Tensor) -> dict[str, list[int]]:
    """Top, left, bottom and right of every player, in pixels of the model's input."""
    boxes = {}
    for player in make_players(mask[None, None], (mask[None, None].float(),)).ids.tolist():
        rows, columns = (mask == player).nonzero(as_tuple=True)
        boxes[str(player)] = [int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1]
    return boxes


def _sentence(selection: Selection) -> str:
    steps = int(selection.n_steps[0])
    patches = f"{steps} patch{'' if steps == 1 else 'es'}"
    if selection.mode == "insertion":
        return f"insertion flips with {patches}" if selection.flipped[0] else f"insertion does not flip in {patches}"
    return f"deletion flips without {patches}" if selection.flipped[0] else f"deletion does not flip in {patches}"


if __name__ == "__main__":
    main()
