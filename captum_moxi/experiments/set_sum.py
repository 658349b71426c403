"""The paper's visual set-sum (Figure 2 and Appendix A): how methods order two equal digits.

    python -m captum_moxi.experiments.set_sum --out FOLDER [--epochs 6] [--images 100] [--digits FILE]

A ResNet-18 learns the sum of the distinct digits in a picture of 2 x 2 digits. The sum of 7, 7, 2 and 1 is 10. The loss
is the cross-entropy plus the squared error of the expected sum. During training, random quarters are made black, and
the label is the sum of the remaining digits. The model therefore handles pictures with absent quarters. The paper does
not describe this step.

MoXI, MoXI(-) and exact Shapley values then order the quarters of pictures that contain their largest digit twice. The
quarters are inserted or deleted in that order, and an absent quarter is black. Methods that score each quarter
independently do not see that the second of two equal digits adds nothing to the first. The experiment uses two rewards:
the log-odds of the true sum, and the expected sum.

The script writes the model, table.md, curves.png and gallery.png. It reuses the model of an earlier run and resumes an
interrupted run. The experiment takes about 35 minutes on one core. Most of this time is spent on training.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import Tensor
from transformers import PreTrainedModel, ResNetConfig, ResNetForImageClassification

from captum_moxi.arguments import MODES, ForwardFunc
from captum_moxi.comparison import Comparison, Result, compare
from captum_moxi.experiments.digits import (
    LARGEST_SUM,
    SIDE,
    TRAINING_DIGITS,
    Digits,
    Mnist,
    accuracy,
    add_digits_option,
    composites,
    distinct_sum,
    expected_sum,
    label_maps,
    mnist,
    pixel_values,
    predictions,
    save_processor,
    shifted,
    sum_loss,
)
from captum_moxi.experiments.training import TrainingStep, fit
from captum_moxi.players import patch_mask
from captum_moxi.plot import BLACK, BLUE, VERMILION, describe, save_figure, write_below
from captum_moxi.rewards import Reward
from captum_moxi.tables import markdown_table

BATCH = 64
STEPS = TRAINING_DIGITS // (4 * BATCH)
# Visible quarters of a training picture, drawn uniformly: in half of the pictures, all four are visible.
VISIBLE_QUARTERS = (0, 1, 2, 3, 4, 4, 4, 4)
# Pixel value of the digits' background.
BACKGROUND = -1.0
METHODS = ("moxi", "moxi-minus", "shapley-exact")
REWARDS: dict[str, str | Reward] = {"log-odds of the true sum": "log_odds", "expected sum": expected_sum}
FRACTIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
# Number of composites of test digits on which the accuracy is measured.
MEASURED = 5000
# Maximum number of batches of composites to select from. About one composite in five contains its largest digit twice.
SELECTION_BATCHES = 20
GALLERY_PICTURES = 6
# Color, dash and marker of each method.
STYLES = ((VERMILION, "-", "o"), (BLUE, "--", "s"), (BLACK, ":", "^"))


@dataclass(frozen=True)
class Results:
    """Results of the experiment.

    Args:
        accuracy (float): Accuracy of the model on composites of test digits.
        pictures (Tensor): Explained pictures of shape ``(count, 56, 56)`` and dtype uint8.
        digits (Tensor): Their digits of shape ``(count, 4)``.
        comparisons (dict[str, Comparison]): Comparison of the methods for each reward.
    """

    accuracy: float
    pictures: Tensor
    digits: Tensor
    comparisons: dict[str, Comparison]


def config() -> ResNetConfig:
    """Return the configuration of a ResNet-18 for the sums from 0 to 30."""
    id2label, label2id = label_maps(str(total) for total in range(LARGEST_SUM + 1))
    return ResNetConfig(
        embedding_size=64,
        hidden_sizes=[64, 128, 256, 512],
        depths=[2, 2, 2, 2],
        layer_type="basic",
        id2label=id2label,
        label2id=label2id,
    )


def blanked(pictures: Tensor, visible: Tensor) -> Tensor:
    """Make invisible quarters black.

    Args:
        pictures (Tensor): Pictures of shape ``(count, 56, 56)`` and dtype uint8.
        visible (Tensor): Whether each quarter is visible, of shape ``(count, 4)`` and dtype bool.

    Returns:
        Tensor: Pictures of the same shape.
    """
    quarters = pictures.reshape(-1, 2, SIDE, 2, SIDE)
    return (quarters * visible.reshape(-1, 2, 1, 2, 1)).reshape(pictures.shape)


def has_largest_twice(digits: Tensor) -> Tensor:
    """Return whether each row of digits ``(count, 4)`` contains its largest digit exactly twice: ``(count,)`` bool."""
    return (digits == digits.amax(1, keepdim=True)).sum(1) == 2


def train(digits: Digits, folder: Path, *, epochs: int) -> PreTrainedModel:
    """Train the model and save it to a folder, or load the model that the folder contains."""

    def loss(model: PreTrainedModel, step: TrainingStep) -> Tensor:
        pictures, labels = composites(BATCH, digits, step.generator)
        choice = torch.randint(len(VISIBLE_QUARTERS), (BATCH, 1), generator=step.generator)
        count = torch.tensor(VISIBLE_QUARTERS)[choice]
        if step.epoch < epochs // 5:
            # Training begins with a single digit per picture, because a sum says little about each of its digits.
            count = torch.ones_like(count)
        visible = torch.rand(BATCH, 4, generator=step.generator).argsort(1) < count
        values = pixel_values(blanked(shifted(pictures, step.generator), visible))
        return sum_loss(model(values).logits, distinct_sum(labels, visible))

    model = fit(folder, make=lambda: ResNetForImageClassification(config()), loss=loss, epochs=epochs, steps=STEPS)
    save_processor(folder)
    return model


def select_pictures(model: PreTrainedModel, digits: Digits, count: int) -> tuple[Tensor, Tensor]:
    """Select composites that the model classifies correctly and that contain their largest digit exactly twice.

    Args:
        model (PreTrainedModel): Classifier of the sums.
        digits (Digits): Digits to compose.
        count (int): Number of pictures.

    Returns:
        tuple[Tensor, Tensor]: Pictures of shape ``(count, 56, 56)`` and their digits of shape ``(count, 4)``.

    Raises:
        ValueError: If the model classifies too few pictures correctly.
    """
    generator = torch.Generator().manual_seed(1)
    selected: list[Tensor] = []
    labels_of_selected: list[Tensor] = []
    for _ in range(SELECTION_BATCHES):
        pictures, labels = composites(4 * count, digits, generator)
        twice = has_largest_twice(labels)
        pictures, labels = pictures[twice], labels[twice]
        correct = predictions(model, pictures, batch_size=100) == distinct_sum(labels)
        selected.append(pictures[correct])
        labels_of_selected.append(labels[correct])
        if sum(map(len, selected)) >= count:
            return torch.cat(selected)[:count], torch.cat(labels_of_selected)[:count]
    raise ValueError(f"the model classifies too few pictures correctly to select {count}; train it for more epochs")


def compare_methods(model: ForwardFunc, pictures: Tensor, digits: Tensor) -> dict[str, Comparison]:
    """Compare the methods on pictures ``(count, 56, 56)`` with digits ``(count, 4)``, for each reward."""
    return {
        title: compare(
            model,
            pixel_values(pictures),
            target=distinct_sum(digits),
            methods=METHODS,
            baselines=BACKGROUND,
            feature_mask=patch_mask(2 * SIDE, grid=2),
            reward=reward,
            fractions=FRACTIONS,
            show_progress=True,
        )
        for title, reward in REWARDS.items()
    }


def curve_means(result: Result, target: Tensor) -> dict[str, Tensor]:
    """Return the means over the pictures at each fraction, as float64 tensors of shape ``(5,)`` by title."""
    curve = result.curve
    return {
        "accuracy": curve.accuracy,
        "error of the sum": (curve.predictions - target[:, None]).abs().double().mean(0),
        "confidence": curve.confidences.double().mean(0),
    }


def both_largest_first(order: Tensor, digits: Tensor) -> float:
    """Return the fraction of pictures whose first two quarters both contain the largest digit.

    Args:
        order (Tensor): Quarters in order, of shape ``(count, 4)`` and dtype int64.
        digits (Tensor): Digits of the quarters, of shape ``(count, 4)`` and dtype int64.
    """
    return float((digits.gather(1, order[:, :2]) == digits.amax(1, keepdim=True)).all(1).double().mean())


def run(digits: Mnist, folder: Path, *, epochs: int, images: int) -> Results:
    """Run the experiment.

    Args:
        digits (Mnist): Digits for training and testing.
        folder (Path): Folder of the model, which is trained if the folder does not exist.
        epochs (int): Number of epochs.
        images (int): Number of pictures to explain.

    Returns:
        Results: Accuracy, explained pictures and comparisons.

    Raises:
        ValueError: If the model classifies too few pictures correctly.
    """
    model = train(digits.train, folder, epochs=epochs)
    pictures, labels = composites(MEASURED, digits.test, torch.Generator().manual_seed(0))
    test_accuracy = accuracy(model, pictures, distinct_sum(labels))
    pictures, labels = select_pictures(model, digits.test, images)
    return Results(test_accuracy, pictures, labels, compare_methods(model, pictures, labels))


def report(results: Results) -> str:
    """Return the accuracy and the two tables in Markdown."""
    summary = (
        f"Accuracy on {MEASURED:,} composites of test digits: {results.accuracy:.3f}. Explained pictures: "
        f"{len(results.pictures)}."
    )
    return f"{summary}\n\n{order_table(results)}\n\n{curve_table(results)}\n"


def order_table(results: Results) -> str:
    """Return a Markdown table of how often the two largest digits come first in the order of insertion."""
    rows = [
        [reward, method, both_largest_first(comparison.of(method, "insertion").order, results.digits)]
        for reward, comparison in results.comparisons.items()
        for method in comparison.methods
    ]
    return markdown_table(["reward", "method", "fraction of pictures with both largest digits first"], rows)


def curve_table(results: Results) -> str:
    """Return a Markdown table of the mean accuracy, error and confidence at each fraction of the quarters."""
    target = distinct_sum(results.digits)
    rows: list[list[object]] = []
    for mode in MODES:
        for reward, comparison in results.comparisons.items():
            means = {method: curve_means(comparison.of(method, mode), target) for method in comparison.methods}
            for title in next(iter(means.values())):
                rows += [[mode, reward, title, method, *means[method][title].tolist()] for method in means]
    percentages = [f"{fraction:.0%}" for fraction in FRACTIONS]
    return markdown_table(["quarters", "reward", "mean", "method", *percentages], rows)


def curves_figure(results: Results) -> Figure:
    """Plot the mean insertion curves, with one row of panels per reward."""
    target = distinct_sum(results.digits)
    n_rows = len(results.comparisons)
    figure = Figure(figsize=(10, 2.9 * n_rows + 0.8), layout="constrained")
    axes = figure.subplots(n_rows, 3, squeeze=False)
    for row, (reward, comparison) in zip(axes, results.comparisons.items(), strict=True):
        for method, (color, dash, marker) in zip(comparison.methods, STYLES, strict=True):
            means = curve_means(comparison.of(method, "insertion"), target)
            for ax, (title, values) in zip(row, means.items(), strict=True):
                ax.plot(FRACTIONS, values, color=color, linestyle=dash, marker=marker, markersize=5, label=method)
                ax.set_ylabel(title, fontsize=9)
        for ax in row:
            _format_fractions(ax)
        row[1].set_title(f"reward: {reward}", fontsize=10)
        row[0].legend(fontsize=8, framealpha=0.8)
    describe(
        figure,
        title=f"Predicted sum while the quarters are inserted, in the order of each method: {len(target)} pictures",
        reading="Means over pictures that contain their largest digit twice. A good order raises accuracy and "
        "confidence early, and lowers the error early.",
    )
    return figure


def gallery_figure(results: Results, *, count: int = GALLERY_PICTURES) -> Figure:
    """Show pictures with the order of their quarters, and the predicted sum after each quarter.

    Args:
        results (Results): Results of the experiment.
        count (int, optional): Number of pictures.
            Default: 6

    Returns:
        Figure: One row per picture, one column per reward and method.
    """
    pictures, digits = results.pictures[:count], results.digits[:count]
    columns = [(reward, method) for reward, comparison in results.comparisons.items() for method in comparison.methods]
    shape = (len(pictures), 1 + len(columns))
    figure = Figure(figsize=(1.7 * shape[1], 2.0 * shape[0] + 1.1), layout="constrained")
    axes = figure.subplots(*shape, squeeze=False)
    for example, (picture, row) in enumerate(zip(pictures, digits.tolist(), strict=True)):
        _show_picture(axes[example, 0], picture, caption=f"sum {sum(set(row))}")
        for ax, (reward, method) in zip(axes[example, 1:], columns, strict=True):
            result = results.comparisons[reward].of(method, "insertion")
            sums = result.curve.predictions[example, 1:].tolist()
            _show_picture(ax, picture, caption=" → ".join(map(str, sums)))
            _number_quarters(ax, result.order[example].tolist())
    titles = ["picture", *(f"{method},\n{reward}" for reward, method in columns)]
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title, fontsize=8)
    describe(
        figure,
        title="In which order each method inserts the quarters of a picture",
        reading="The target is the sum of the distinct digits, so the second of two equal digits adds nothing. "
        "Circles: the order. Below each picture: the sum that the model predicts after each quarter.",
    )
    return figure


def save(results: Results, folder: Path) -> None:
    """Save the tables as table.md and the figures as curves.png and gallery.png in a folder."""
    (folder / "table.md").write_text(report(results))
    save_figure(curves_figure(results), folder / "curves.png")
    save_figure(gallery_figure(results), folder / "gallery.png")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, metavar="FOLDER", required=True, help="output folder")
    parser.add_argument("--epochs", type=int, default=6, help="number of epochs; default: 6")
    parser.add_argument("--images", type=int, default=100, help="number of pictures to explain; default: 100")
    add_digits_option(parser)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    results = run(mnist(options.digits), options.out / "model", epochs=options.epochs, images=options.images)
    save(results, options.out)
    print(report(results))


def _format_fractions(ax: Axes) -> None:
    ax.set_xlabel("quarters inserted", fontsize=9)
    ax.set_xticks(FRACTIONS)
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.tick_params(labelsize=8)


def _show_picture(ax: Axes, picture: Tensor, *, caption: str) -> None:
    ax.imshow(picture.numpy(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    ax.axhline(SIDE - 0.5, color="0.5", linewidth=0.6)
    ax.axvline(SIDE - 0.5, color="0.5", linewidth=0.6)
    write_below(ax, caption)
    ax.axis("off")


def _number_quarters(ax: Axes, order: list[int]) -> None:
    """Mark each quarter with its place in the order, in its upper left corner."""
    for place, quarter in enumerate(order, 1):
        x, y = SIDE * (quarter % 2) + 3, SIDE * (quarter // 2) + 3
        ax.plot(x, y, "o", color=VERMILION, markersize=9)
        ax.text(x, y, str(place), ha="center", va="center_baseline", fontsize=7, color="white")


if __name__ == "__main__":
    main()
