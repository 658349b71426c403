"""The same images with 10, 20, 100 and 1000 classes (Section 5.4 of the paper, Figures 7 and 17).

    python -m captum_moxi.experiments.class_counts --out FOLDER [--epochs N] [--images 200] [--digits FILE]

The images are pictures of 2 x 2 handwritten digits. With 1000 classes, the class is the number that the first three
digits form in reading order. The fourth digit is irrelevant. :func:`coarsen` maps this number to 100 classes (the first
two digits), 20 classes (the first digit and the parity of the second) or 10 classes (the first digit). A small ViT
learns each labeling from the same pictures. During training, random patches are removed.

On test pictures that all four models classify correctly, MoXI then selects the patches that make each model predict the
class (insertion), and the patches without which the prediction fails (deletion). The more classes there are, the more
digits insertion has to show. Deletion only needs to hide one of them.

Two measures make many classes learnable in a few epochs. First, a model starts from the body of another model, as
listed in ``LABELINGS``. Second, the initial weights of classes whose numbers share a digit have a common part, so that
the model learns a digit from all these classes at once.

The script writes the models, table.md and gallery.png. It reuses the models of an earlier run and resumes an
interrupted run. The experiment takes half an hour on one core. Most of this time is spent on training.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel, ViTConfig, ViTForImageClassification

from captum_moxi.arguments import MODES, Mode
from captum_moxi.attr import MoXIDeletion, MoXIInsertion
from captum_moxi.experiments.digits import (
    PATCH_SIZE,
    PATCHES_PER_SIDE,
    SIDE,
    TRAINING_DIGITS,
    Digits,
    Mnist,
    accuracy,
    add_digits_option,
    composites,
    mnist,
    pixel_values,
    predictions,
    save_processor,
    shifted,
    vit_config,
)
from captum_moxi.experiments.training import TrainingStep, fit, logits_of_patches
from captum_moxi.players import patch_mask
from captum_moxi.plot import UNFLIPPED_NOTE, describe, save_figure, show_patches, write_below
from captum_moxi.search import Selection
from captum_moxi.tables import markdown_table


@dataclass(frozen=True)
class Labeling:
    """How the model of one labeling is trained.

    Args:
        classes (int): Number of classes.
        epochs (int): Number of epochs.
        body (int or None): Number of classes of the model whose body initializes this one. None for random weights.
    """

    classes: int
    epochs: int
    body: int | None


# In the order of training. Digits come before their parity, because they are easier to learn.
LABELINGS = (
    Labeling(10, epochs=2, body=None),
    Labeling(100, epochs=3, body=10),
    Labeling(20, epochs=2, body=100),
    Labeling(1000, epochs=6, body=100),
)
PATCHES = PATCHES_PER_SIDE**2
BATCH = 128
STEPS = TRAINING_DIGITS // BATCH
# Number of composites of test digits on which the accuracy is measured.
MEASURED = 5000
GALLERY_PICTURES = 6
LEGEND = f"""

Test accuracy: on {MEASURED:,} composites of test digits with all patches present. If a search does not flip the
prediction, it counts as {PATCHES} patches. The last columns contain the mean number of selected patches in each
quarter."""


@dataclass(frozen=True)
class Results:
    """Results of the experiment.

    Args:
        accuracies (dict[int, float]): Test accuracy of the model with each number of classes.
        pictures (Tensor): Explained pictures of shape ``(count, 56, 56)`` and dtype uint8.
        numbers (Tensor): Their numbers of shape ``(count,)``, from 0 to 999.
        selections (dict[tuple[str, int], Selection]): Selection up to the flip, by mode and number of classes.
    """

    accuracies: dict[int, float]
    pictures: Tensor
    numbers: Tensor
    selections: dict[tuple[Mode, int], Selection]


def config(classes: int) -> ViTConfig:
    """Return the configuration of a ViT with 4 layers of width 128 and patches of 14 x 14 pixels."""
    return vit_config((class_name(label, classes) for label in range(classes)), layers=4)


def number_of(digits: Tensor) -> Tensor:
    """Return the number that the first three digits form, from 0 to 999: ``(count, 4)`` -> ``(count,)``."""
    return 100 * digits[:, 0] + 10 * digits[:, 1] + digits[:, 2]


def coarsen(numbers: Tensor, classes: int) -> Tensor:
    """Map numbers from 0 to 999 to the labels of a labeling.

    Args:
        numbers (Tensor): Numbers of any shape.
        classes (int): Number of classes: 10, 20, 100 or 1000.

    Returns:
        Tensor: Labels of the same shape.
    """
    first, second = numbers // 100, numbers // 10 % 10
    return {1000: numbers, 100: 10 * first + second, 20: 2 * first + second % 2, 10: first}[classes]


def class_name(label: int, classes: int) -> str:
    """Return the name of a class: its digits, or with 20 classes the first digit and the parity of the second."""
    if classes == 20:
        return f"{label // 2}, {('even', 'odd')[label % 2]}"
    return str(label).zfill(len(str(classes - 1)))


def initial_model(classes: int, body: PreTrainedModel | None = None) -> PreTrainedModel:
    """Create an untrained model.

    Args:
        classes (int): Number of classes.
        body (PreTrainedModel, optional): Model whose body the new model starts from.
            Default: None, random weights

    Returns:
        PreTrainedModel: ViT in training mode.
    """
    model = ViTForImageClassification(config(classes))
    if body is not None:
        model.base_model.load_state_dict(body.base_model.state_dict())
    numbers = torch.arange(1000)
    digits = torch.stack([numbers // 100, numbers // 10 % 10, numbers % 10], 1)
    digit_weights = torch.randn(3, 10, model.config.hidden_size)
    # The weight of a number is the sum over its digits. The weight of a class is the mean over its numbers.
    number_weights = digit_weights[0][digits[:, 0]] + digit_weights[1][digits[:, 1]] + digit_weights[2][digits[:, 2]]
    is_member = functional.one_hot(coarsen(numbers, classes), classes).T.float()
    with torch.no_grad():
        _classifier(model).weight.copy_(0.02 * is_member @ number_weights / is_member.sum(1, keepdim=True))
    return model


def train(
    digits: Digits, folder: Path, *, classes: int, epochs: int, body: PreTrainedModel | None = None
) -> PreTrainedModel:
    """Train the model of one labeling and save it to a folder, or load the model that the folder contains."""

    def loss(model: PreTrainedModel, step: TrainingStep) -> Tensor:
        pictures, labels = composites(BATCH, digits, step.generator)
        patches = draw_patches(step.generator)
        values = pixel_values(shifted(pictures, step.generator))
        return functional.cross_entropy(logits_of_patches(model, values, patches), coarsen(number_of(labels), classes))

    model = fit(folder, make=lambda: initial_model(classes, body), loss=loss, epochs=epochs, steps=STEPS)
    save_processor(folder)
    return model


def draw_patches(generator: torch.Generator) -> Tensor:
    """Draw the patches that the pictures of a batch keep, as indices of shape ``(B, k)``.

    Half of the batches keep all patches. All pictures of a batch keep the same number of patches.
    """
    removed = int(torch.randint(PATCHES, (1,), generator=generator)) * int(torch.randint(2, (1,), generator=generator))
    return torch.rand(BATCH, PATCHES, generator=generator).argsort(1)[:, : PATCHES - removed]


def train_all(digits: Digits, folder: Path, *, epochs: int | None = None) -> dict[int, PreTrainedModel]:
    """Train the models of all labelings, or load those that exist.

    Args:
        digits (Digits): Training digits.
        folder (Path): Folder of the models' folders.
        epochs (int, optional): Number of epochs of every model.
            Default: None, the numbers in ``LABELINGS``

    Returns:
        dict[int, PreTrainedModel]: Models by number of classes, in ascending order.
    """
    models: dict[int, PreTrainedModel] = {}
    for labeling in LABELINGS:
        models[labeling.classes] = train(
            digits,
            folder / f"model-{labeling.classes}",
            classes=labeling.classes,
            epochs=epochs or labeling.epochs,
            body=None if labeling.body is None else models[labeling.body],
        )
    return dict(sorted(models.items()))


def select_pictures(models: dict[int, PreTrainedModel], digits: Digits, count: int) -> tuple[Tensor, Tensor]:
    """Select composites that all models classify correctly.

    Args:
        models (dict[int, PreTrainedModel]): Models by number of classes.
        digits (Digits): Digits to compose.
        count (int): Number of pictures.

    Returns:
        tuple[Tensor, Tensor]: Pictures of shape ``(count, 56, 56)`` and their numbers of shape ``(count,)``.

    Raises:
        ValueError: If the models classify too few pictures correctly.
    """
    pictures, labels = composites(4 * count, digits, torch.Generator().manual_seed(1))
    numbers = number_of(labels)
    correct = torch.ones(len(pictures), dtype=torch.bool)
    for classes, model in models.items():
        correct &= predictions(model, pictures) == coarsen(numbers, classes)
    if int(correct.sum()) < count:
        raise ValueError(
            f"the models classify only {int(correct.sum())} of {len(correct)} pictures correctly, but {count} are "
            "needed; train for more epochs"
        )
    return pictures[correct][:count], numbers[correct][:count]


def select_patches(
    models: dict[int, PreTrainedModel], pictures: Tensor, numbers: Tensor
) -> dict[tuple[Mode, int], Selection]:
    """Run both searches up to the flip with each model.

    Args:
        models (dict[int, PreTrainedModel]): Models by number of classes.
        pictures (Tensor): Pictures of shape ``(count, 56, 56)``.
        numbers (Tensor): Their numbers of shape ``(count,)``.

    Returns:
        dict[tuple[str, int], Selection]: Selections by mode and number of classes.
    """
    selections: dict[tuple[Mode, int], Selection] = {}
    for mode in MODES:
        for classes, model in models.items():
            moxi = MoXIInsertion(model) if mode == "insertion" else MoXIDeletion(model)
            target = coarsen(numbers, classes)
            _, selection = moxi.attribute(pixel_values(pictures), target=target, stop="flip", return_selection=True)
            selections[mode, classes] = selection
    return selections


def patches_per_quarter(order: Tensor) -> Tensor:
    """Return the mean number of selected patches in each quarter, as a float64 tensor of shape ``(4,)``.

    Args:
        order (Tensor): Ids of the selected patches of each picture, of shape ``(count, K)`` and dtype int64. Entries
            after the last step of a picture are -1.
    """
    row, column = order // PATCHES_PER_SIDE, order % PATCHES_PER_SIDE
    half = PATCHES_PER_SIDE // 2
    quarter = 2 * (row // half) + column // half
    return torch.stack([((quarter == i) & (order >= 0)).sum(1).double().mean() for i in range(4)])


def run(digits: Mnist, folder: Path, *, epochs: int | None, images: int) -> Results:
    """Run the experiment.

    Args:
        digits (Mnist): Digits for training and testing.
        folder (Path): Folder of the models, which are trained if they do not exist.
        epochs (int or None): Number of epochs of every model. None for the numbers in ``LABELINGS``.
        images (int): Number of pictures to explain.

    Returns:
        Results: Accuracies, explained pictures and selections.

    Raises:
        ValueError: If the models classify too few pictures correctly.
    """
    models = train_all(digits.train, folder, epochs=epochs)
    pictures, labels = composites(MEASURED, digits.test, torch.Generator().manual_seed(0))
    accuracies = {
        classes: accuracy(model, pictures, coarsen(number_of(labels), classes)) for classes, model in models.items()
    }
    pictures, numbers = select_pictures(models, digits.test, images)
    return Results(accuracies, pictures, numbers, select_patches(models, pictures, numbers))


def report(results: Results) -> str:
    """Return a Markdown table with one row per mode and number of classes, followed by its legend."""
    rows: list[list[object]] = []
    for (mode, classes), selection in results.selections.items():
        steps = selection.n_steps.double()
        flipped = f"{int(selection.flipped.sum())} of {len(steps)}"
        quarters = patches_per_quarter(selection.order).tolist()
        size = [float(steps.median()), float(steps.mean())]
        rows.append([mode, str(classes), results.accuracies[classes], flipped, *size, *quarters])
    header = ["search", "classes", "test accuracy", "flipped", "patches to flip, median", "mean"]
    return markdown_table([*header, "first quarter, mean", "second", "third", "fourth"], rows) + LEGEND + "\n"


def gallery_figure(results: Results, *, count: int = GALLERY_PICTURES) -> Figure:
    """Show the selected patches up to the flip, with one row per picture and one column per search.

    The caption below each picture is the class and the number of patches. If the prediction does not flip, the number
    is marked with ``>``.

    Args:
        results (Results): Results of the experiment.
        count (int, optional): Number of pictures.
            Default: 6

    Returns:
        Figure: The figure.
    """
    pictures, numbers = results.pictures[:count], results.numbers[:count]
    shape = (len(pictures), 1 + len(results.selections))
    figure = Figure(figsize=(1.3 * shape[1], 1.6 * shape[0] + 1.1), layout="constrained")
    axes = figure.subplots(*shape, squeeze=False)
    for example, (picture, number) in enumerate(zip(pictures, numbers, strict=True)):
        image = (picture / 255)[:, :, None].expand(-1, -1, 3)
        axes[example, 0].imshow(image.numpy(), interpolation="nearest")
        axes[example, 0].axis("off")
        write_below(axes[example, 0], "class: patches to flip")
        for ax, ((_, classes), selection) in zip(axes[example, 1:], results.selections.items(), strict=True):
            name = class_name(int(coarsen(number, classes)), classes)
            _show_group(ax, image, selection, example=example, name=name)
    axes[0, 0].set_title("picture", fontsize=9)
    for ax, (mode, classes) in zip(axes[0, 1:], results.selections, strict=True):
        ax.set_title(f"{mode},\n{classes} classes", fontsize=9)
    sentences = [
        "Below each picture: the number of patches inserted until the class is predicted, or deleted until it is lost",
        "Gray patches are absent",
    ]
    if not all(bool(selection.flipped[:count].all()) for selection in results.selections.values()):
        sentences.append(UNFLIPPED_NOTE)
    describe(
        figure,
        title="Patches that flip the prediction of the same picture, by number of classes",
        reading=". ".join(sentences) + ".",
    )
    return figure


def save(results: Results, folder: Path) -> None:
    """Save the table as table.md and the gallery as gallery.png in a folder."""
    (folder / "table.md").write_text(report(results))
    save_figure(gallery_figure(results), folder / "gallery.png")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, metavar="FOLDER", required=True, help="output folder")
    parser.add_argument("--epochs", type=int, help="number of epochs of every model; default: 2 to 6, by model")
    parser.add_argument("--images", type=int, default=200, help="number of pictures to explain; default: 200")
    add_digits_option(parser)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    results = run(mnist(options.digits), options.out, epochs=options.epochs, images=options.images)
    save(results, options.out)
    print(report(results))


def _classifier(model: ViTForImageClassification) -> nn.Linear:
    layer = model.classifier
    assert isinstance(layer, nn.Linear)
    return layer


def _show_group(ax: Axes, image: Tensor, selection: Selection, *, example: int, name: str) -> None:
    """Show the selected patches of one picture, with the class and the number of patches as caption."""
    count = int(selection.n_steps[example])
    mask = patch_mask(2 * SIDE, PATCH_SIZE)[0, 0]
    show_patches(image, mask, selection.order[example, :count].tolist(), keep=selection.mode == "insertion", ax=ax)
    caption = f"{name}: {count}" if selection.flipped[example] else f"{name}: > {count}"
    write_below(ax, caption)


if __name__ == "__main__":
    main()
