"""Heads: how the logits of a model become probabilities and predictions.

The head of a transformers model follows ``config.problem_type``. To support another type, add an entry to ``HEADS``.
"""

import functools
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from captum_moxi import models
from captum_moxi.arguments import ForwardFunc
from captum_moxi.rewards import Reward, log_odds, output, predicted_class, probability, traits_of


class Head(ABC):
    """The last layer of a model."""

    # Whether the model predicts classes.
    has_classes: ClassVar[bool] = True
    # Whether the probability of each class is independent of the logits of the others.
    is_independent: ClassVar[bool] = False

    @abstractmethod
    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the probability of each class.

        Args:
            logits (Tensor): Shape ``(rows, classes)``, floating.

        Returns:
            Tensor: Shape ``(rows, classes)``.
        """

    @abstractmethod
    def confidences(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the probability of the target.

        Args:
            logits (Tensor): Shape ``(rows, classes)``.
            target (Tensor): Class of each row. Shape ``(rows,)``, int64.

        Returns:
            Tensor: Shape ``(rows,)``, floating. NaN if the model has no classes.
        """

    @abstractmethod
    def predictions(self, logits: Tensor, target: Tensor | None = None, *, threshold: float = 0.0) -> Tensor:
        """Return the predicted class.

        Args:
            logits (Tensor): Shape ``(rows, classes)``.
            target (Tensor, optional): Class of each row that is explained. Shape ``(rows,)``, int64.
                Default: None
            threshold (float, optional): Logit at which the sigmoid is 0.5. Pass 0.5 with probabilities in the place of
                logits.
                Default: 0

        Returns:
            Tensor: Shape ``(rows,)``, int64. -1 if no class is predicted.
        """

    def reward(self, reward: Reward) -> Reward:
        """Return a reward in terms of the probabilities of this head.

        Args:
            reward (Callable): Reward, which assumes the softmax over the classes.

        Raises:
            ValueError: If the reward needs probabilities, and the model has none.
        """
        return reward


class Softmax(Head):
    """The probabilities are the softmax over the classes, or the sigmoid of a single logit.

    The predicted class has the largest logit. A single logit predicts class 0 if it is positive and -1 otherwise.
    """

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)

    def confidences(self, logits: Tensor, target: Tensor) -> Tensor:
        return probability(logits, target)

    def predictions(self, logits: Tensor, target: Tensor | None = None, *, threshold: float = 0.0) -> Tensor:
        return predicted_class(logits - threshold) if logits.shape[1] == 1 else logits.argmax(1)


class Sigmoids(Head):
    """The probability of each class is the sigmoid of its logit, so a model may predict any number of classes.

    A class is predicted if its probability is above 0.5. With a target, the prediction is the target or -1. Without a
    target, it is the most likely class, or -1 if no class is predicted.
    """

    is_independent = True

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()

    def confidences(self, logits: Tensor, target: Tensor) -> Tensor:
        return probability(_target_logit(logits, target), torch.zeros_like(target))

    def predictions(self, logits: Tensor, target: Tensor | None = None, *, threshold: float = 0.0) -> Tensor:
        classes = logits.argmax(1) if target is None else target
        return torch.where(_target_logit(logits, classes)[:, 0] > threshold, classes, -1)

    def reward(self, reward: Reward) -> Reward:
        if not traits_of(reward).compares_classes:
            return reward

        @functools.wraps(reward)
        def of_sigmoid(logits: Tensor, target: Tensor) -> Tensor:
            return reward(_target_logit(logits, target), torch.zeros_like(target))

        return of_sigmoid


class Values(Head):
    """The outputs of a regression, which are neither probabilities nor predictions of classes.

    The log-odds of a single logit are the logit, so the reward ``"log_odds"``, the default, is the output itself.
    """

    has_classes = False

    def probabilities(self, logits: Tensor) -> Tensor:
        raise ValueError("the model is a regression (config.problem_type), which has no probabilities")

    def confidences(self, logits: Tensor, target: Tensor) -> Tensor:
        return torch.full((len(logits),), torch.nan, device=logits.device)

    def predictions(self, logits: Tensor, target: Tensor | None = None, *, threshold: float = 0.0) -> Tensor:
        return torch.full((len(logits),), -1, device=logits.device)

    def reward(self, reward: Reward) -> Reward:
        if reward is log_odds:
            return output
        if traits_of(reward).compares_classes:
            raise ValueError(
                f"reward is {getattr(reward, '__name__', reward)!r}, but the model is a regression "
                "(config.problem_type), which has no probabilities; pass reward='output'"
            )
        return reward


# Heads by ``config.problem_type``. All other models have the head ``Softmax``.
HEADS: dict[str, Head] = {"multi_label_classification": Sigmoids(), "regression": Values()}
_DEFAULT = Softmax()


def head_of(forward_func: ForwardFunc) -> Head:
    """Return the head of a model.

    Args:
        forward_func (Callable): Model. Functions, and models that do not say which problem they solve, are assumed to
            return the logits of a softmax.
    """
    problem = models.problem_type(forward_func)
    return _DEFAULT if problem is None else HEADS.get(problem, _DEFAULT)


def _target_logit(logits: Tensor, target: Tensor) -> Tensor:
    """Return the logit of the target as the output of a model with a single logit. Shape ``(rows, 1)``."""
    return logits.gather(1, target[:, None])
