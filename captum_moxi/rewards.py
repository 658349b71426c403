"""Rewards: the scalar that a game pays, from the model's logits and the target.

A reward is a function ``(logits, target) -> rewards``: logits ``(rows, classes)``, target ``(rows,)`` int64, rewards
``(rows,)``. One class is a sigmoid classifier's single logit: its target is 0 and means the positive class. Where the
user gave no target and there are several classes, a function of the user's gets None. Half precision comes in as
float32. A new reward is one function here and one line in ``REWARDS``.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Reward = Callable[[Tensor, Any], Tensor]


def log_odds(logits: Tensor, target: Tensor) -> Tensor:
    r"""
    :math:`\log \frac{P(y)}{1 - P(y)}`, the reward of the paper (Eq. 3).

    Computed as the target's logit less the log-sum-exp of the other logits, so that it stays finite and exact where
    the confidence itself rounds to 0 or 1.
    """
    logits = _float(logits)
    if logits.shape[1] == 1:
        return logits[:, 0]
    others = logits.scatter(1, target[:, None], -torch.inf)
    return _at(logits, target) - others.logsumexp(1)


def log_probability(logits: Tensor, target: Tensor) -> Tensor:
    r""":math:`\log P(y)`."""
    logits = _float(logits)
    if logits.shape[1] == 1:
        return torch.nn.functional.logsigmoid(logits[:, 0])
    return _at(logits.log_softmax(1), target)


def probability(logits: Tensor, target: Tensor) -> Tensor:
    """P(y): softmax over the classes, or the sigmoid of a single logit."""
    logits = _float(logits)
    if logits.shape[1] == 1:
        return logits[:, 0].sigmoid()
    return _at(logits.softmax(1), target)


def output(logits: Tensor, target: Tensor) -> Tensor:
    """What the model returns at the target, as it is: what Captum's own classes attribute."""
    return _at(logits, target)


def contrast(first: int, second: int) -> Reward:
    r"""
    Why this class rather than that one: :math:`\log \frac{P(first)}{P(second)}`, the difference of their logits.

    Args:
        first (int): The class to speak for.
        second (int): The class to speak against.

    Returns:
        Callable: a reward; it does not look at the target.

    Raises:
        TypeError: classes that are no ints.
        ValueError: equal or negative classes; when the game is played, a class that the model does not have.
    """
    for index in (first, second):
        if isinstance(index, bool) or not isinstance(index, int):
            raise TypeError(f"contrast({first!r}, {second!r}): pass the indices of two classes")
    if first == second or min(first, second) < 0:
        raise ValueError(f"contrast({first}, {second}): pass two different classes, counted from 0")

    def difference(logits: Tensor, target: Tensor) -> Tensor:
        if max(first, second) >= logits.shape[1]:
            raise ValueError(f"contrast({first}, {second}): the model has {logits.shape[1]} classes, counted from 0")
        return logits[:, first] - logits[:, second]

    return difference


# a logit and the raw output are one thing under the two names that users know
REWARDS: dict[str, Reward] = {
    "log_odds": log_odds,
    "log_probability": log_probability,
    "probability": probability,
    "logit": output,
    "output": output,
}


def get_reward(reward: str | Reward) -> Reward:
    """The reward of that name, or the callable itself."""
    if callable(reward):
        return reward
    if not isinstance(reward, str) or reward not in REWARDS:
        raise ValueError(
            f"reward is {reward!r}; pass one of {', '.join(REWARDS)}, or a callable (logits, target) -> (rows,)"
        )
    return REWARDS[reward]


def predicted(logits: Tensor) -> Tensor:
    """The predicted class ``(rows,)`` int64; of a single logit, 0 (its class) where positive and -1 where not."""
    if logits.shape[1] == 1:
        return torch.where(logits[:, 0] > 0, 0, -1)
    return logits.argmax(1)


def _float(logits: Tensor) -> Tensor:
    return logits if logits.is_floating_point() else logits.float()


def _at(values: Tensor, target: Tensor) -> Tensor:
    return values.gather(1, target[:, None])[:, 0]
