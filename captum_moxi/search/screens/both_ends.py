"""BothEndsScreen: the worst candidate of each step goes to the end of the ranking."""

import torch
from torch import Tensor

from captum_moxi.search.outcomes import as_floating
from captum_moxi.search.screens.base import Screen, SearchStep
from captum_moxi.search.ties import is_best


class BothEndsScreen(Screen):
    r"""
    Build the ranking from both ends: each step chooses the best candidate, and moves the worst one to the end.

    A candidate at the end is not evaluated again until all others are chosen, and the candidates at the end then follow
    without comparisons, the last one first. A full ranking of n players evaluates about n² / 4 candidates, half of
    those of the exact search. The screen works with any forward function.

    It is designed for symmetric search, which maximizes :math:`v(S) = f(S) - f(N \setminus S)`. Since
    :math:`v(N \setminus S) = -v(S)`, the worst candidate for the beginning of the ranking is the one whose absence from
    its complement costs least, and the same rows show both. The bidirectional search of LiMA (Chen et al., 'Less is
    More: Efficient Black-box Attribution via Minimal Interpretable Subset Selection', 2025) saves rows in the same way.

    Gains that differ only by rounding are ties at both ends: of the best candidates, the one with the lowest id is
    chosen, and of the worst candidates, the one with the highest id goes to the end.

    A candidate that becomes useful only after other players are chosen can be missed.

    Examples::

        >>> moxi = MoXISymmetric(model, screen=BothEndsScreen())
    """

    modes = ("symmetric",)
    estimates_gains = False
    # Another screen would hide from this one which candidates are at the end.
    must_be_alone = True

    def __init__(self) -> None:
        # Candidates at the end are evaluated one at a time.
        super().__init__(1)

    def estimate(self, step: SearchStep) -> tuple[Tensor, Tensor]:
        # The estimates are not gains, but the number of the step that evaluated each candidate last.
        last_step = step.estimates
        at_front = step.candidates & (last_step.isnan() | (last_step == step.number - 1))
        worst = _last_lowest(step, at_front & ~step.gains.isnan())
        # All candidates at the front are evaluated. If there are none, the last one that was moved to the end is.
        return torch.full_like(last_step, step.number), last_step.masked_fill(at_front & ~worst, torch.inf)

    def __repr__(self) -> str:
        return "BothEndsScreen()"


def _last_lowest(step: SearchStep, players: Tensor) -> Tensor:
    """Return which of these players ``(S, n)`` bool has the lowest gain, ``(S, n)`` bool.

    If several have it, up to rounding, it is the last one, because the search prefers the first one.
    """
    dtype = as_floating(step.game.full.rewards).dtype
    # The rounding error of a gain is proportional to the rewards from which it was computed.
    falls = (-step.gains).masked_fill(~players, -torch.inf)
    is_lowest = players & is_best(falls, dtype, relative=False, sizes=step.sizes)
    return is_lowest & (is_lowest.flip(1).cumsum(1).flip(1) == 1)
