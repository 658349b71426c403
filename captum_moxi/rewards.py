"""Rewards: scalars computed from the model's logits and the target.

A reward is a function ``(logits, target) -> rewards``. Logits have shape ``(rows, classes)``, the target ``(rows,)``
(int64), and the rewards ``(rows,)``. A single class is the logit of a sigmoid classifier: its target is 0 and stands
for the positive class. If the user passed no target and there are several classes, the target is None. Half precision
arrives as float32.

To add a reward, write the function and register it at the end of this file. Decorate it with :func:`traits` if it needs
a target or rounds relatively.
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
    """What the search has to know about a reward.

    Args:
        needs_target (bool): Whether the reward cannot be computed without a target.
        rounds_relatively (bool): Whether the rounding error is proportional to the reward, as it is for probabilities.
            Otherwise it is proportional to the logits.
        accepts_probabilities (bool): Whether the reward is meaningful if the model returns probabilities.
    """

    needs_target: bool = False
    rounds_relatively: bool = False
    accepts_probabilities: bool = True


F = TypeVar("F", bound=Callable[..., Tensor])


def traits(
    *, needs_target: bool = True, rounds_relatively: bool = False, accepts_probabilities: bool = False
) -> Callable[[F], F]:
    """Declare the traits of a reward function, see :class:`Traits`."""

    def declare(function: F) -> F:
        function.traits = Traits(needs_target, rounds_relatively, accepts_probabilities)  # type: ignore[attr-defined]
        return function

    return declare


def traits_of(reward: object) -> Traits:
    """Return the traits of a reward. A function without :func:`traits` may ignore its target."""
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
            examples (Tensor): The example of each row. Shape ``(rows,)``, int64, on the CPU.

        Returns:
            Tensor: Shape ``(rows,)``.
        """


@traits()
def log_odds(logits: Tensor, target: Tensor) -> Tensor:
    r"""
    :math:`\log \frac{P(y)}{1 - P(y)}`, the reward of the paper (Section 3).

    The log-odds are the target's logit minus the log-sum-exp of the other logits. In this form they remain finite and
    exact where the confidence itself rounds to 0 or 1.
    """
    logits = _as_floating(logits)
    if logits.shape[1] == 1:
        return logits[:, 0]
    others = logits.scatter(1, target[:, None], -torch.inf)
    return _select_target(logits, target) - others.logsumexp(1)


@traits()
def log_probability(logits: Tensor, target: Tensor) -> Tensor:
    r""":math:`\log P(y)`."""
    logits = _as_floating(logits)
    if logits.shape[1] == 1:
        return torch.nn.functional.logsigmoid(logits[:, 0])
    return _select_target(logits.log_softmax(1), target)


@traits(rounds_relatively=True)
def probability(logits: Tensor, target: Tensor) -> Tensor:
    """P(y): the softmax over the classes, or the sigmoid of a single logit."""
    logits = _as_floating(logits)
    if logits.shape[1] == 1:
        return logits[:, 0].sigmoid()
    return _select_target(logits.softmax(1), target)


@traits(accepts_probabilities=True)
def output(logits: Tensor, target: Tensor) -> Tensor:
    """The model's output at the target, unchanged. Captum's own classes attribute this value."""
    return _select_target(logits, target)


@dataclass(frozen=True)
class Contrast:
    r"""
    :math:`\log \frac{P(first)}{P(second)}`, which explains why the model prefers one class to another.

    It is the difference of the two logits. It ignores the target.

    Args:
        first (int): Index of the class to support.
        second (int): Index of the class to oppose.

    Raises:
        TypeError: If a class is not an int.
        ValueError: If the classes are equal or negative. When the reward is computed: if the model does not have one of
            the classes.
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
    :math:`\log \frac{P(y)}{P(other)}`: :class:`Contrast` between the target and another class.

    Args:
        other (int): Index of the class to oppose.

    Raises:
        TypeError: If ``other`` is not an int.
        ValueError: If ``other`` is negative. When the reward is computed: if the model does not have the class, or it
            is the target.
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


def contrast(first: int, second: int) -> Contrast:
    """Create the reward :class:`Contrast`."""
    return Contrast(first, second)


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
