"""The training loop of the experiments. It resumes an interrupted run from the checkpoint of its last epoch."""

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypedDict

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR
from tqdm.auto import tqdm
from transformers import AutoModelForImageClassification, PreTrainedModel

# File in a checkpoint's folder with the state of the optimizer and the learning rate schedule.
STATE_FILE = "training.pt"
WEIGHT_DECAY = 0.05
# Fraction of the steps during which the learning rate increases.
WARM_UP = 0.1
# Steps between two updates of the loss in the progress bar.
REPORT_EVERY = 20


@dataclass(frozen=True)
class TrainingStep:
    """Position of a training step, and the source of its random numbers.

    Args:
        epoch (int): Epoch, counted from 0.
        index (int): Step within the epoch, counted from 0.
        generator (torch.Generator): Generator to draw the batch with. It is seeded at the start of each epoch, so that
            a resumed run draws the same batches as an uninterrupted one.
    """

    epoch: int
    index: int
    generator: torch.Generator


# Draws a batch and returns its loss.
LossFunction: TypeAlias = Callable[[PreTrainedModel, TrainingStep], Tensor]


def fit(
    folder: Path,
    *,
    make: Callable[[], PreTrainedModel],
    loss: LossFunction,
    epochs: int,
    steps: int,
    rate: float = 1e-3,
    seed: int = 0,
) -> PreTrainedModel:
    """Train a model and save it to a folder, or load the model that the folder contains.

    After each epoch, the function saves a checkpoint next to the folder. A later call with the same arguments resumes
    from this checkpoint and ends with the weights of an uninterrupted run. The optimizer is AdamW with a one-cycle
    learning rate.

    Args:
        folder (Path): Folder of the model in Hugging Face's format. If it exists, no training takes place.
        make (Callable): Creates the initial model. It may draw from torch's global generator, which is seeded.
        loss (Callable): ``(model, step) -> loss`` of one batch, where ``step`` is a :class:`TrainingStep`.
        epochs (int): Number of epochs.
        steps (int): Number of steps per epoch.
        rate (float, optional): Maximum learning rate.
            Default: 1e-3
        seed (int, optional): Seed of the initial weights and of the batches.
            Default: 0

    Returns:
        PreTrainedModel: Trained model in evaluation mode.

    Raises:
        ValueError: If there is a checkpoint of a run with a different number of epochs or steps.
    """
    if folder.is_dir():
        print(f"{folder} contains a trained model; remove the folder to train again")
        return _load(folder)
    checkpoint = max(_checkpoints(folder), default=None)
    torch.manual_seed(seed)
    model = make() if checkpoint is None else _load(checkpoint)
    optimizer = AdamW(model.parameters(), lr=rate, weight_decay=WEIGHT_DECAY)
    schedule = OneCycleLR(optimizer, rate, total_steps=epochs * steps, pct_start=WARM_UP)
    first = 0 if checkpoint is None else _restore(checkpoint, optimizer, schedule, length=[epochs, steps])
    model.train()
    for epoch in range(first, epochs):
        # One generator per epoch makes a resumed run draw the batches of an uninterrupted one.
        generator = torch.Generator().manual_seed(1000 * seed + epoch)
        bar = tqdm(range(steps), desc=f"{folder.name}, epoch {epoch + 1} of {epochs}")
        for index in bar:
            batch_loss = loss(model, TrainingStep(epoch, index, generator))
            _update(batch_loss, optimizer, schedule)
            if index % REPORT_EVERY == 0:
                bar.set_postfix(loss=f"{batch_loss.item():.3f}")
        _save_checkpoint(model, folder, _state(epoch + 1, optimizer, schedule, length=[epochs, steps]))
    _save(model, folder)
    _remove(_checkpoints(folder))
    model.eval()
    return model


def logits_of_patches(model: PreTrainedModel, pixel_values: Tensor, patches: Tensor) -> Tensor:
    """Compute the logits of a ViT that receives only some patches of each image.

    Training with removed patches prepares a model for token removal.

    Args:
        model (PreTrainedModel): ViT with a class token in front of the patches.
        pixel_values (Tensor): Pixel values of shape ``(B, 3, H, W)``.
        patches (Tensor): Indices of the patches to keep, of shape ``(B, k)`` and dtype int64.

    Returns:
        Tensor: Logits of shape ``(B, classes)``, with gradients.
    """

    def keep_patches(module: nn.Module, args: object, tokens: Tensor) -> Tensor:
        kept = tokens[torch.arange(len(tokens))[:, None], patches + 1]
        return torch.cat([tokens[:, :1], kept], 1)

    hook = model.base_model.get_submodule("embeddings").register_forward_hook(keep_patches)
    try:
        logits: Tensor = model(pixel_values).logits
        return logits
    finally:
        hook.remove()


class _State(TypedDict):
    """Contents of the state file of a checkpoint."""

    epoch: int
    length: list[int]
    optimizer: dict[str, Any]
    schedule: dict[str, Any]


def _state(epoch: int, optimizer: AdamW, schedule: OneCycleLR, *, length: list[int]) -> _State:
    return {
        "epoch": epoch,
        "length": length,
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
    }


def _restore(checkpoint: Path, optimizer: AdamW, schedule: OneCycleLR, *, length: list[int]) -> int:
    """Restore the optimizer and the schedule, and return the number of completed epochs."""
    state: _State = torch.load(checkpoint / STATE_FILE, weights_only=True)
    if state["length"] != length:
        epochs, steps = state["length"]
        raise ValueError(
            f"checkpoint {checkpoint} belongs to a run of {epochs} epochs of {steps} steps, but this run has "
            f"{length[0]} epochs of {length[1]} steps; pass the same numbers, or another folder"
        )
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    return state["epoch"]


def _update(loss: Tensor, optimizer: AdamW, schedule: OneCycleLR) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()


def _load(folder: Path) -> PreTrainedModel:
    """Load a model in evaluation mode."""
    model: PreTrainedModel = AutoModelForImageClassification.from_pretrained(
        folder, use_safetensors=True, trust_remote_code=False
    )
    return model


def _checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints next to a folder, the earliest first."""
    return sorted(folder.parent.glob(f"{folder.name}-epoch-????"))


def _save_checkpoint(model: PreTrainedModel, folder: Path, state: _State) -> None:
    """Save a checkpoint, then remove the earlier ones."""
    _save(model, folder.with_name(f"{folder.name}-epoch-{state['epoch']:04}"), state)
    _remove(_checkpoints(folder)[:-1])


def _save(model: PreTrainedModel, folder: Path, state: _State | None = None) -> None:
    """Save a model atomically: the folder gets its name only when it is complete."""
    part = folder.with_name(f"{folder.name}.part")
    _remove([part])
    model.save_pretrained(part)
    if state is not None:
        torch.save(state, part / STATE_FILE)
    part.rename(folder)


def _remove(folders: Iterable[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
