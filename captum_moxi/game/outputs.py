"""Reads model output: converts it to tensors, checks its shape, and computes rewards, confidences and predictions."""

from dataclasses import dataclass

import torch
from torch import Tensor

from captum_moxi.arguments import ModelOutput, warn_user
from captum_moxi.heads import Head
from captum_moxi.rewards import ExampleReward, Reward

# Status of a row: which of its values are not finite.
FINITE, LOGITS_NOT_FINITE, REWARD_NOT_FINITE = 0, 1, 2


@dataclass(frozen=True, eq=False)
class Outcome:
    """Rewards, confidences and predictions of M coalitions.

    Args:
        rewards (Tensor): Shape ``(M,)``, in the dtype of the reward.
        confidences (Tensor): P(target). Shape ``(M,)``, floating. NaN if there is no target.
        predictions (Tensor): Predicted class. Shape ``(M,)``, int64. For a single logit, 0 if positive and -1
            otherwise. If each class has a sigmoid of its own, the target if its logit is positive and -1 otherwise.
    """

    rewards: Tensor
    confidences: Tensor
    predictions: Tensor


def as_tensor(output: ModelOutput) -> Tensor:
    """Return the output of a forward function as a tensor.

    Raises:
        TypeError: If the output is neither a tensor nor a number.
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(output, int | float):
        # Captum also converts numbers to int64 and float64, the precision of Python numbers.
        return torch.tensor(output, dtype=torch.int64 if isinstance(output, int) else torch.float64)
    raise TypeError(f"forward_func returned a {type(output).__name__}; return a tensor of logits, or a number")


def check_row_count(output: Tensor, rows: int) -> None:
    """Check that the model returned one row for each row of its input.

    Raises:
        ValueError: If the number of rows is different.
    """
    if output.shape[:1] != (rows,):
        raise ValueError(
            f"forward_func returned shape {tuple(output.shape)} for {rows} rows; return one row for each example, or "
            "pass perturbations_per_eval=1 if it returns one value for the whole batch"
        )


def warn_if_probabilities(output: Tensor) -> None:
    """Warn if the output looks like that of a softmax, which would be mistaken for logits."""
    if output.dim() != 2 or output.shape[1] < 2 or not output.is_floating_point():
        return
    sums = output.float().sum(1)
    if bool((output >= 0).all()) and bool((sums - 1).abs().max() < 1e-3):
        warn_user(
            "forward_func seems to return probabilities, because its outputs are non-negative and sum to 1. Rewards, "
            "confidences and predictions are computed from logits; pass the model without its softmax, or a function "
            "that returns the logarithm of the probabilities"
        )


def read_outcome(
    logits: Tensor, target: Tensor | None, examples: Tensor, reward: Reward | ExampleReward, head: Head
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the reward, confidence, prediction and status of each row, on the device of the logits.

    Args:
        logits (Tensor): Shape ``(rows, classes)``.
        target (Tensor or None): Shape ``(rows,)``, int64.
        examples (Tensor): Example of each row. Shape ``(rows,)``, int64.
        reward (Callable): Reward.
        head (Head): Head of the model.

    Returns:
        tuple[Tensor, Tensor, Tensor, Tensor]: Rewards, confidences, predictions, and the status (``FINITE``,
        ``LOGITS_NOT_FINITE`` or ``REWARD_NOT_FINITE``). Shape ``(rows,)`` each.

    Raises:
        ValueError: If ``reward`` does not return a tensor of shape ``(rows,)``.
    """
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    # A reward may change what it receives.
    own_logits = logits.clone()
    rewards = reward(own_logits, target, examples) if isinstance(reward, ExampleReward) else reward(own_logits, target)
    if not isinstance(rewards, Tensor) or rewards.shape != (len(logits),):
        returned = tuple(rewards.shape) if isinstance(rewards, Tensor) else type(rewards).__name__
        raise ValueError(
            f"reward returned {returned} for logits of shape {tuple(logits.shape)}; return one value for each row"
        )
    if target is None:
        confidences = torch.full((len(logits),), torch.nan, device=logits.device)
    else:
        confidences = head.confidences(logits, target)
    reward_status = torch.where(rewards.isfinite(), FINITE, REWARD_NOT_FINITE)
    status = torch.where(logits.isfinite().all(1), reward_status, LOGITS_NOT_FINITE)
    return rewards, confidences, head.predictions(logits, target), status


def read_probabilities(logits: Tensor, head: Head) -> tuple[Tensor, Tensor]:
    """Compute the probabilities of all classes, or the sigmoid of a single logit, and the status of each row.

    Args:
        logits (Tensor): Shape ``(rows, classes)``.
        head (Head): Head of the model.

    Returns:
        tuple[Tensor, Tensor]: Probabilities of shape ``(rows, classes)``, float32. Status, ``FINITE`` or
        ``LOGITS_NOT_FINITE``. Shape ``(rows,)``.
    """
    status = torch.where(logits.isfinite().all(1), FINITE, LOGITS_NOT_FINITE)
    return head.probabilities(logits.float()), status
