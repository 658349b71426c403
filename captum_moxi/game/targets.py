"""Targets: checks them against the model's output, and selects the logits and the class that they refer to."""

from dataclasses import dataclass

import torch
from torch import Tensor

from captum_moxi.arguments import TargetIndex


@dataclass(frozen=True)
class Targets:
    """The targets of a batch.

    Args:
        indices (list[tuple[int, ...]] or None): Target of each example, the class first. None if there is no target.
    """

    indices: list[TargetIndex] | None

    def check_classes(self, n_classes: int, *, required: bool) -> None:
        """Check the targets against the number of classes.

        Args:
            n_classes (int): Number of classes of the model.
            required (bool): Whether the reward needs a target.

        Raises:
            ValueError: If a target is out of range or has several indices, or if it is missing although required.
        """
        if self.indices is None:
            if n_classes > 1 and required:
                raise ValueError(
                    f"target is None, but the model returns {n_classes} classes and the reward needs one; pass the "
                    "class to explain"
                )
            return
        for target in self.indices:
            if len(target) > 1:
                raise ValueError(
                    f"target is {target}, but the model's output has no dimensions after the classes; pass one index "
                    "for each example"
                )
            if target[0] >= n_classes:
                hint = "; to explain the negative class of a single logit, negate the logit" if n_classes == 1 else ""
                raise ValueError(
                    f"target is {target[0]}, but the model has classes 0 to {n_classes - 1}; pass one of them{hint}"
                )

    def check_output(self, output: Tensor, *, required: bool) -> None:
        """Check the targets against the model's output.

        Args:
            output (Tensor): Output of the model, with the batch along dimension 0.
            required (bool): Whether the reward needs a target.

        Raises:
            ValueError: If a target is out of range or has the wrong number of indices, or if it is missing although
                required.
        """
        if output.dim() <= 2:
            self.check_classes(1 if output.dim() == 1 else output.shape[1], required=required)
        elif self.indices is not None or required:
            shape = tuple(output.shape[1:])
            for target in self.indices or [()]:
                if len(target) != len(shape) or any(i >= size for i, size in zip(target, shape, strict=True)):
                    raise ValueError(
                        f"target is {target or None}, but the model returns {shape} for each example; pass a tuple of "
                        f"{len(shape)} indices, the class first"
                    )

    def select(self, output: Tensor, examples: Tensor) -> tuple[Tensor, Tensor | None]:
        """Select the logits and the target class of each row.

        Args:
            output (Tensor): Output of the model, one row per coalition.
            examples (Tensor): Example of each row. Shape ``(rows,)``, int64.

        Returns:
            tuple[Tensor, Tensor or None]: Logits of shape ``(rows, classes)``, and classes of shape ``(rows,)``, int64.
            The classes are None if the user passed no target and the model does not return a single logit.
        """
        if output.dim() == 1:
            output = output[:, None]
        if self.indices is None:
            if output.dim() == 2 and output.shape[1] == 1:
                return output, torch.zeros(len(output), dtype=torch.long, device=output.device)
            return output.flatten(1), None
        rows = [self.indices[i] for i in examples.tolist()]
        classes = torch.tensor([index[0] for index in rows], device=output.device)
        if output.dim() > 2:
            other_indices = torch.tensor([index[1:] for index in rows], device=output.device)
            output = output.movedim(1, -1)[(torch.arange(len(output), device=output.device), *other_indices.unbind(1))]
        return output, classes
