"""Rewards: scalars computed from the model's logits and the target.

A reward is a function ``(logits, target) -> rewards``. Logits have shape ``(rows, classes)``, the target ``(rows,)``
(int64), and the rewards ``(rows,)``. A single class is the logit of a sigmoid classifier: its target is 0 and stands
for the positive class. If the user passed no target and there are several classes, the target is None. Half precision
arrives as float32.

To add a reward, write the function and register it at the end of this file.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from captum_moxi.registry import Registry, parse_natural

# The target is a Tensor, or None for rewards that need no target.
RewardTarget: TypeAlias = Any
Reward: TypeAlias = Callable[[Tensor, RewardTarget], Tensor]


class ExampleReward(ABC):
    """A reward that also depends on the example of the batch that a row belongs to."""

    @abstractmethod
    def __call__(self, logits: Tensor, target: RewardTarget, examples: Tensor) -> Tensor:
        """Return the reward of each row.

        Args:
            logits (Tensor): Shape ``(rows, classes)``.
            target (Tensor or None): Shape ``(rows,)``, int64.
            examples (Tensor): The example of each row. Shape ``(rows,)``, int64, on the CPU.

        Returns:
            Tensor: Shape ``(rows,)``.
        """


def log_odds(logits: Tensor, target: Tensor) -> Tensor:
    r"""
    :math:`\log \frac{P(y)}{1 - P(y)}`, the reward of the paper (Eq. 3).

    The log-odds are the target's logit minus the log-sum-exp of the other logits. In this form they remain finite and
    exact where the confidence itself rounds to 0 or 1.
    """
    logits = _as_floating(logits)
    if logits.shape[1] == 1:
        return logits[:, 0]
    others = logits.scatter(1, target[:, None], -torch.inf)
    return _select_target(logits, target) - others.logsumexp(1)


def log_probability(logits: Tensor, target: Tensor) -> Tensor:
    r""":math:`\log P(y)`."""
    logits = _as_floating(logits)
    if logits.shape[1] == 1:
        return torch.nn.functional.logsigmoid(logits[:, 0])
    return _select_target(logits.log_softmax(1), target)


def probability(logits: Tensor, target: Tensor) -> Tensor:
    """P(y): the softmax over the classes, or the sigmoid of a single logit."""
    logits = _as_floating(logits)
    if logits.shape[1] == 1:
        return logits[:, 0].sigmoid()
    return _select_target(logits.softmax(1), target)


def output(logits: Tensor, target: Tensor) -> Tensor:
    """The model's output at the target, unchanged. Captum's own classes attribute this value."""
    return _select_target(logits, target)


def contrast(first: int, second: int) -> Reward:
    r"""
    Create the reward :math:`\log \frac{P(first)}{P(second)}`, which explains why the model prefers one class to
    another.

    It is the difference of the two logits. It ignores the target.

    Args:
        first (int): Index of the class to support.
        second (int): Index of the class to oppose.

    Returns:
        Callable: Reward.

    Raises:
        TypeError: If a class is not an int.
        ValueError: If the classes are equal or negative. Also when the reward is computed, if the model does not have
            one of the classes.
    """
    for index in (first, second):
        _check_class(f"contrast({first!r}, {second!r})", index)
    if first == second:
        raise ValueError(f"contrast({first}, {second}): pass two different classes")

    def difference(logits: Tensor, target: RewardTarget) -> Tensor:
        _check_class_exists(f"contrast({first}, {second})", max(first, second), logits)
        return logits[:, first] - logits[:, second]

    return difference


def versus(other: int) -> Reward:
    r"""
    Create the reward :math:`\log \frac{P(y)}{P(other)}`: :func:`contrast` between the target and another class.

    Args:
        other (int): Index of the class to oppose.

    Returns:
        Callable: Reward.

    Raises:
        TypeError: If ``other`` is not an int.
        ValueError: If ``other`` is negative. Also when the reward is computed, if the model does not have the class or
            it is the target.
    """
    _check_class(f"versus({other!r})", other)

    def difference(logits: Tensor, target: Tensor) -> Tensor:
        _check_class_exists(f"versus({other})", other, logits)
        if bool((target == other).any()):
            raise ValueError(f"versus({other}): class {other} is the target; pass another class")
        return _select_target(logits, target) - logits[:, other]

    return difference


def predicted_class(logits: Tensor) -> Tensor:
    """Return the predicted class of each row.

    Args:
        logits (Tensor): Shape ``(rows, classes)``.

    Returns:
        Tensor: Shape ``(rows,)``, int64. For a single logit, 0 (its class) if positive and -1 otherwise.
    """
    if logits.shape[1] == 1:
        return torch.where(logits[:, 0] > 0, 0, -1)
    return logits.argmax(1)


REWARDS: Registry[Reward] = Registry("reward")


def get_reward(reward: object) -> Reward:
    """Return the reward of that name, or the callable itself.

    Raises:
        ValueError: If ``reward`` is neither a registered reward nor a callable.
    """
    if callable(reward):
        return reward
    if not isinstance(reward, str):
        raise ValueError(
            f"reward is {reward!r}; pass one of {REWARDS.describe()}, or a callable (logits, target) -> (rows,)"
        )
    return REWARDS.create(reward)


def rounds_relatively(reward: Reward | ExampleReward) -> bool:
    """Return whether the reward's rounding error is proportional to the reward.

    This holds for probabilities. The rounding error of the other rewards is proportional to the logits.
    """
    return reward is probability


def _check_class(call: str, index: object) -> None:
    if isinstance(index, bool) or not isinstance(index, int):
        raise TypeError(f"{call}: {index!r} is not an int; pass class indices")
    if index < 0:
        raise ValueError(f"{call}: {index} is negative; pass class indices of at least 0")


def _check_class_exists(call: str, index: int, logits: Tensor) -> None:
    classes = logits.shape[1]
    if index >= classes:
        raise ValueError(f"{call}: the model has classes 0 to {classes - 1}; pass one of them")


def _as_floating(logits: Tensor) -> Tensor:
    return logits if logits.is_floating_point() else logits.float()


def _select_target(values: Tensor, target: Tensor) -> Tensor:
    return values.gather(1, target[:, None])[:, 0]


REWARDS.register("log_odds", lambda: log_odds, help="log P/(1-P) of the target, as in the paper")
REWARDS.register("log_probability", lambda: log_probability, help="log P of the target")
REWARDS.register("probability", lambda: probability, help="P of the target")
REWARDS.register("logit", lambda: output, help="logit of the target")
REWARDS.register("output", lambda: output, help="output of the model at the target; the same as logit")
REWARDS.register(
    "contrast",
    versus,
    argument="CLASS",
    parse=parse_natural,
    required=True,
    help="log-odds of the target against CLASS",
)
