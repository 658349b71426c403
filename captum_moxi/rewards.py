"""Rewards: scalars computed from the model's logits and the target.

A reward is a function ``(logits, target) -> rewards``. The logits have shape ``(rows, classes)``, the target has shape
``(rows,)`` and dtype int64, and the rewards have shape ``(rows,)``. Logits in half precision are converted to float32
before the call. If there is one class, its logit is that of a sigmoid classifier, and the target is 0, the positive
class. If there are several classes and the user passed no target, the target is None. If each class has a sigmoid of
its own, :mod:`captum_moxi.heads` passes the logit of the target as that of a single class.

To add a reward, write the function and register it at the end of this file. Decorate it with :func:`traits` unless the
defaults of :class:`Traits` describe it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias, TypeVar

import torch
from torch import Tensor

from captum_moxi.arguments import check_natural
from captum_moxi.registry import Registry, parse_natural

# The target is a Tensor, or None for rewards that need no target.
RewardTarget: TypeAlias = Any
Reward: TypeAlias = Callable[[Tensor, RewardTarget], Tensor]


@dataclass(frozen=True)
class Traits:
    """What the game and the search need to know about a reward.

    Args:
        needs_target (bool, optional): Whether the reward cannot be computed without a target.
            Default: False
        rounds_relatively (bool, optional): Whether the rounding error is proportional to the reward, as it is for
            probabilities. If False, it is proportional to the logits.
            Default: False
        accepts_probabilities (bool, optional): Whether the reward is meaningful if the model returns probabilities.
            Default: True
        compares_classes (bool, optional): Whether the reward is computed from the softmax over the classes. If each
            class has a sigmoid of its own, such a reward receives the logit of the target alone.
            Default: False
    """

    needs_target: bool = False
    rounds_relatively: bool = False
    accepts_probabilities: bool = True
    compares_classes: bool = False


F = TypeVar("F", bound=Callable[..., Tensor])


def traits(
    *,
    needs_target: bool = True,
    rounds_relatively: bool = False,
    accepts_probabilities: bool = False,
    compares_classes: bool = False,
) -> Callable[[F], F]:
    """Return a decorator that declares the traits of a reward function.

    The defaults are those of rewards that are computed from the logits of a target.

    Args:
        needs_target, rounds_relatively, accepts_probabilities, compares_classes (bool, optional): As in
            :class:`Traits`.
            Default: True, False, False and False
    """

    def declare(function: F) -> F:
        function.traits = Traits(  # type: ignore[attr-defined]
            needs_target, rounds_relatively, accepts_probabilities, compares_classes
        )
        return function

    return declare


def traits_of(reward: object) -> Traits:
    """Return the traits of a reward. A function that declares none has the defaults of :class:`Traits`."""
    declared = getattr(reward, "traits", None)
    return declared if isinstance(declared, Traits) else Traits()


class ExampleReward(ABC):
    """A reward that also depends on the example of the batch that a row belongs to."""

    @abstractmethod
    def __call__(self, logits: Tensor, target: RewardTarget, examples: Tensor) -> Tensor:
        """Return the reward of each row.

        Args:
            logits (Tensor): Shape ``(rows, classes)``.
            target (Tensor or None): Shape ``(rows,)``, int64.
            examples (Tensor): Example of each row. Shape ``(rows,)``, int64, on the CPU.

        Returns:
            Tensor: Shape ``(rows,)``.
        """


@traits(compares_classes=True)
def log_odds(logits: Tensor, target: Tensor) -> Tensor:
    r"""
    Compute the log-odds :math:`\log \frac{P(y)}{1 - P(y)}` of the target :math:`y`, as in the paper (Section 3).

    The log-odds are the target's logit minus the log-sum-exp of the other logits. This form stays finite and accurate
    when the confidence itself rounds to 0 or 1. For a single logit, the log-odds are the logit.

    Args:
        logits (Tensor): Shape ``(rows, classes)``.
        target (Tensor): Class of each row. Shape ``(rows,)``, int64.

    Returns:
        Tensor: Shape ``(rows,)``, floating.
    """
    logits = _as_floating(logits)
    if logits.shape[1] == 1:
        return logits[:, 0]
    others = logits.scatter(1, target[:, None], -torch.inf)
    return _select_target(logits, target) - others.logsumexp(1)


@traits(compares_classes=True)
def log_probability(logits: Tensor, target: Tensor) -> Tensor:
    r"""
    Compute the logarithm of the confidence, :math:`\log P(y)` for the target :math:`y`.

    Args:
        logits (Tensor): Shape ``(rows, classes)``.
        target (Tensor): Class of each row. Shape ``(rows,)``, int64.

    Returns:
        Tensor: Shape ``(rows,)``, floating.
    """
    logits = _as_floating(logits)
    if logits.shape[1] == 1:
        return torch.nn.functional.logsigmoid(logits[:, 0])
    return _select_target(logits.log_softmax(1), target)


@traits(rounds_relatively=True, compares_classes=True)
def probability(logits: Tensor, target: Tensor) -> Tensor:
    r"""
    Compute the confidence :math:`P(y)` of the target :math:`y`.

    The confidence is the softmax over the classes, or the sigmoid of a single logit.

    Args:
        logits (Tensor): Shape ``(rows, classes)``.
        target (Tensor): Class of each row. Shape ``(rows,)``, int64.

    Returns:
        Tensor: Shape ``(rows,)``, floating.
    """
    logits = _as_floating(logits)
    if logits.shape[1] == 1:
        return logits[:, 0].sigmoid()
    return _select_target(logits.softmax(1), target)


@traits(accepts_probabilities=True)
def output(logits: Tensor, target: Tensor) -> Tensor:
    """
    Return the model's output at the target, unchanged. Captum's own classes attribute this value.

    Args:
        logits (Tensor): Shape ``(rows, classes)``.
        target (Tensor): Class of each row. Shape ``(rows,)``, int64.

    Returns:
        Tensor: Shape ``(rows,)``, in the dtype of the logits.
    """
    return _select_target(logits, target)


@dataclass(frozen=True)
class Contrast:
    r"""
    The log-ratio :math:`\log \frac{P(first)}{P(second)}`, which explains why the model prefers one class to another.

    It equals the difference of the two logits and ignores the target.

    Args:
        first (int): Index of the class to support.
        second (int): Index of the class to oppose.

    Raises:
        TypeError: If a class is not an int.
        ValueError: If the classes are equal or negative. When the reward is computed: if the model does not have both
            classes.

    Examples::

        >>> # why does the model prefer class 281 to class 207?
        >>> MoXIInsertion(model, reward=contrast(281, 207)).attribute(x)
    """

    first: int
    second: int

    def __post_init__(self) -> None:
        check_natural("first", self.first)
        check_natural("second", self.second)
        if self.first == self.second:
            raise ValueError(f"first and second are both {self.first}; pass two different classes")

    def __call__(self, logits: Tensor, target: RewardTarget) -> Tensor:
        _check_class_exists(self, max(self.first, self.second), logits)
        return logits[:, self.first] - logits[:, self.second]


@dataclass(frozen=True)
class Versus:
    r"""
    The log-ratio :math:`\log \frac{P(y)}{P(other)}` between the target :math:`y` and another class, as in
    :class:`Contrast`.

    Args:
        other (int): Index of the class to oppose.

    Raises:
        TypeError: If ``other`` is not an int.
        ValueError: If ``other`` is negative. When the reward is computed: if the model does not have the class, or if
            the class is the target.
    """

    other: int
    traits: ClassVar[Traits] = Traits(needs_target=True, accepts_probabilities=False)

    def __post_init__(self) -> None:
        check_natural("other", self.other)

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        _check_class_exists(self, self.other, logits)
        if bool((target == self.other).any()):
            raise ValueError(f"{self!r}: class {self.other} is the target; pass another class")
        return _select_target(logits, target) - logits[:, self.other]


# The name of this reward in the style of the other rewards.
contrast = Contrast


def predicted_class(logits: Tensor) -> Tensor:
    """Return the predicted class of each row.

    Args:
        logits (Tensor): Shape ``(rows, classes)``.

    Returns:
        Tensor: Shape ``(rows,)``, int64. For a single logit, 0 (the positive class) if it is positive and -1 otherwise.
    """
    if logits.shape[1] == 1:
        return torch.where(logits[:, 0] > 0, 0, -1)
    return logits.argmax(1)


REWARDS: Registry[Reward] = Registry("reward")


def get_reward(reward: object) -> Reward:
    """Convert the name of a reward to the reward. A callable is returned unchanged.

    Args:
        reward (str or Callable): Name of a registered reward, or a function ``(logits, target) -> rewards``.

    Raises:
        ValueError: If ``reward`` is neither the name of a registered reward nor a callable.
    """
    if callable(reward):
        return reward
    if not isinstance(reward, str):
        raise ValueError(
            f"reward is {reward!r}; pass one of {REWARDS.describe()}, or a callable (logits, target) -> (rows,)"
        )
    return REWARDS.create(reward)


def _check_class_exists(reward: object, index: int, logits: Tensor) -> None:
    classes = logits.shape[1]
    if index >= classes:
        raise ValueError(f"{reward!r}: the model has classes 0 to {classes - 1}; pass one of them")


def _as_floating(logits: Tensor) -> Tensor:
    return logits if logits.is_floating_point() else logits.float()


def _select_target(values: Tensor, target: Tensor) -> Tensor:
    return values.gather(1, target[:, None])[:, 0]


REWARDS.register_value("log_odds", log_odds, help="log P/(1-P) of the target, as in the paper")
REWARDS.register_value("log_probability", log_probability, help="log P of the target")
REWARDS.register_value("probability", probability, help="P of the target")
REWARDS.register_value("logit", output, help="logit of the target")
REWARDS.register_value("output", output, help="output of the model at the target; the same as logit")
REWARDS.register(
    "contrast",
    Versus,
    argument="CLASS",
    parse=parse_natural,
    required=True,
    help="log-odds of the target against CLASS",
)
