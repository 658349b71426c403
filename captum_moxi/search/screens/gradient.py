"""GradientScreen: one backward pass per step selects the candidates."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from captum_moxi.search.screens.base import Screen, SearchStep


@runtime_checkable
class HasEffects(Protocol):
    """A game that estimates the effect of each player by gradients."""

    def effects(self, coalitions: Tensor, examples: Tensor) -> Tensor: ...


class GradientScreen(Screen):
    r"""
    Estimate gains by gradients. A step costs one forward and one backward pass, and evaluates m candidates.

    The estimate is the derivative of the reward with respect to gates on each player (see
    :meth:`captum_moxi.CoalitionGame.effects`). Once a player was evaluated, the error of its estimate is added to its
    later estimates. Before that, only the stages of the model with a positive derivative count, because large terms
    that cancel in the sum often do not cancel in the true gain.

    The screen is made for deletion, where almost all players are present and the absence of one more changes little. In
    insertion, few players are present and each new one changes much, so that the derivative is not informative. Use
    :class:`LastGainsScreen` there. The forward function and the reward must be differentiable. All removals of this
    package are supported.

    Args:
        m (int, optional): Number of candidates that a step evaluates. More cost more and miss fewer good candidates.
            Default: 8

    Raises:
        TypeError: If ``m`` is not an int.
        ValueError: If ``m`` is less than 1. During the search: if the model has no gradient.

    Examples::

        >>> moxi = MoXIDeletion(model, screen=GradientScreen(8))
        >>> attr = moxi.attribute(x, target=y, stop="flip")
    """

    def __init__(self, m: int = 8) -> None:
        super().__init__(m)

    def estimate(self, step: SearchStep) -> tuple[Tensor, Tensor]:
        game = step.game
        if not isinstance(game, HasEffects):
            raise ValueError(
                f"GradientScreen needs a game with effects, such as CoalitionGame, not a {type(game).__name__}"
            )
        active = step.candidates.any(1)
        effects = game.effects(step.present[active], step.examples[active]).double()
        estimates = torch.full(step.candidates.shape, torch.nan, dtype=torch.float64)
        optimistic = estimates.clone()
        estimates[active] = effects.sum(1)
        optimistic[active] = effects.clamp(min=0).sum(1)
        return estimates, torch.where(step.gains.isnan(), optimistic, estimates + step.gains - step.estimates)
