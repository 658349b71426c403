"""Training of a small model, epoch by epoch, that goes on where it was interrupted."""

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import AutoModelForImageClassification, PreTrainedModel

# the state of what trains, beside the weights in the folder of a checkpoint
STATE = "training.pt"

LossOf = Callable[[PreTrainedModel, int, torch.Generator], Tensor]


def fit(
    folder: Path,
    make: Callable[[], PreTrainedModel],
    loss_of: LossOf,
    epochs: int,
    steps: int,
    rate: float = 1e-3,
    seed: int = 0,
) -> PreTrainedModel:
    """The model in a folder, trained and saved there where there is none yet.

    A checkpoint an epoch stands beside the folder until the model is whole. A run that finds one goes on from it, and
    ends with the weights of one that was never interrupted.

    Args:
        folder (Path): Where the model is, or will be, in the form of Hugging Face.
        make (Callable): Makes the model to begin with, from torch's random numbers.
        loss_of (Callable): ``(model, epoch, rng)`` to the loss of one batch, drawn with the generator.
        epochs, steps (int): How many epochs of how many steps.
        rate (float, optional): The highest learning rate, of AdamW. Default: 1e-3
        seed (int, optional): Of the first weights and of the batches. Default: 0

    Raises:
        ValueError: a checkpoint of a run of other epochs or steps.
    """
    if folder.is_dir():
        print(f"{folder} is there already; remove it to train anew")
        return AutoModelForImageClassification.from_pretrained(folder).eval()
    torch.manual_seed(seed)
    model = make()
    begun = _checkpoints(folder)
    if begun:
        model = AutoModelForImageClassification.from_pretrained(begun[-1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * steps, pct_start=0.1)
    first = 0
    if begun:
        state = torch.load(begun[-1] / STATE, weights_only=True)
        if state["of"] != [epochs, steps]:
            raise ValueError(
                f"{begun[-1]} is of a run of {state['of'][0]} epochs of {state['of'][1]} steps; pass as many, or "
                "another folder"
            )
        first = state["epoch"]
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
    model.train()
    for epoch in range(first, epochs):
        # a generator an epoch, so that a run that goes on draws what the whole one would have
        rng = torch.Generator().manual_seed(1000 * seed + epoch)
        bar = tqdm(range(steps), desc=f"{folder.name}, epoch {epoch + 1} of {epochs}")
        for step in bar:
            loss = loss_of(model, epoch, rng)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if step % 20 == 0:
                bar.set_postfix(loss=f"{loss.item():.3f}")
        state = {"epoch": epoch + 1, "of": [epochs, steps]}
        state |= {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
        _save(model, folder.with_name(f"{folder.name}-epoch-{epoch + 1:04}"), state)
        for old in _checkpoints(folder)[:-1]:
            shutil.rmtree(old)
    _save(model, folder)
    for old in _checkpoints(folder):
        shutil.rmtree(old)
    return model.eval()


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.parent.glob(f"{folder.name}-epoch-????"))


def _save(model: PreTrainedModel, folder: Path, state: dict[str, object] | None = None) -> None:
    """The whole folder or none of it: under its name only when all is written."""
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    model.save_pretrained(part)
    if state is not None:
        torch.save(state, part / STATE)
    part.rename(folder)
