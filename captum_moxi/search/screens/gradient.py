"""GradientScreen: one backward pass per step selects the candidates."""

import torch
from torch import Tensor

from captum_moxi.search.screens.base import Screen, SearchStep


class GradientScreen(Screen):
    r"""
    Estimate gains by gradients. A step costs one forward and one backward pass, and evaluates m candidates.

    The estimate is the derivative of the reward with respect to gates on each player (see
    :meth:`captum_moxi.CoalitionGame.effects`). After a player has been evaluated, the error of its estimate is added to
    its later estimates. Before that, only the stages of the model with a positive derivative count, because large terms
    that cancel in the sum often do not cancel in the true gain.

    The screen is designed for deletion, where almost all players are present and the absence of one more player changes
    little. In insertion, few players are present and each new player changes much, so the derivative is not
    informative. Use the exact search there, or :class:`LastGainsScreen`, whose groups are about 50 % larger. The
    forward function and the reward must be differentiable. All removals of this package are supported.

    Args:
        m (int, optional): Number of candidates that a step evaluates. A larger number costs more and misses fewer good
            candidates.
            Default: 8

    Raises:
        TypeError: If ``m`` is not an int.
        ValueError: If ``m`` is less than 1. During the search: if the model cannot be differentiated.

    Examples::

        >>> moxi = MoXIDeletion(model, screen=GradientScreen(8))
        >>> attr = moxi.attribute(x, target=y, stop="flip")
    """

    modes = ("deletion",)

    def __init__(self, m: int = 8) -> None:
        super().__init__(m)

    def estimate(self, step: SearchStep) -> tuple[Tensor, Tensor]:
        game = step.game
        # The method may come from __getattr__, for example in a wrapper of a game.
        if not hasattr(game, "effects"):
            raise ValueError(
                f"GradientScreen needs a game with the method effects, but game is a {type(game).__name__}; "
                "pass a CoalitionGame"
            )
        active = step.candidates.any(1)
        parts = [game.effects(part.present[active], part.examples[active]).double() for part in step.parts]
        effects: Tensor = torch.cat(parts, 1)
        estimates = torch.full(step.candidates.shape, torch.nan, dtype=torch.float64)
        optimistic = estimates.clone()
        estimates[active] = effects.sum(1)
        optimistic[active] = effects.clamp(min=0).sum(1)
        return estimates, torch.where(step.gains.isnan(), optimistic, estimates + step.gains - step.estimates)
