"""LastGainsScreen: estimates the gain of each candidate by its last known gain."""

from torch import Tensor

from captum_moxi.search.screens.base import Screen, SearchStep


class LastGainsScreen(Screen):
    r"""
    Estimate the gain of each candidate by its last known gain. Works with any forward function.

    The first step evaluates all players. Each later step evaluates the m players with the highest last known gain. K
    steps need n + (K - 1) m rows. The order is that of lazy greedy search (Minoux, 'Accelerated greedy algorithms for
    maximizing submodular set functions', 1978), limited to m candidates. If gains never increased as players are
    chosen, the last known gain would be an upper bound of the gain. The rewards of models do not have this property. A
    candidate whose gain increased when other players were chosen can therefore be missed. On 50 photographs and
    ViT-tiny, ``LastGainsScreen(16)`` needed about 50 % more players up to the flip than the exact search.

    Args:
        m (int, optional): Number of candidates that a step evaluates.
            Default: 16

    Raises:
        TypeError: If ``m`` is not an int.
        ValueError: If ``m`` is less than 1.

    Examples::

        >>> moxi = MoXIInsertion(forward_func, screen=LastGainsScreen(16))
    """

    def __init__(self, m: int = 16) -> None:
        super().__init__(m)

    def estimate(self, step: SearchStep) -> tuple[Tensor, Tensor]:
        return step.gains, step.gains
