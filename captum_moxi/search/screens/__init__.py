"""Screens: which candidates a step of the search evaluates.

A screen estimates the gain of each candidate. The search evaluates the most promising candidates exactly and chooses
among them. A player that was chosen without being evaluated at the first step needs one more row at the end, for its
Shapley value.

To add a screen, write a subclass of :class:`Screen` in a file of this folder and register it below.
"""

from captum_moxi.registry import Registry
from captum_moxi.search.screens.base import Screen, SearchStep
from captum_moxi.search.screens.gradient import GradientScreen
from captum_moxi.search.screens.half_precision import HalfPrecisionScreen
from captum_moxi.search.screens.last_gains import LastGainsScreen
from captum_moxi.search.screens.random import RandomScreen

__all__ = [
    "SCREENS",
    "GradientScreen",
    "HalfPrecisionScreen",
    "LastGainsScreen",
    "RandomScreen",
    "Screen",
    "SearchStep",
    "get_screen",
]

# "all" stands for the exact search, which needs no screen.
SCREENS: Registry[Screen | None] = Registry("screen")
SCREENS.register("all", lambda: None, help="all candidates: the exact search")
SCREENS.register("gradient", GradientScreen, argument="M", help="M candidates by gradient, for deletion")
SCREENS.register("last-gains", LastGainsScreen, argument="M", help="M candidates by their last gain, for insertion")
SCREENS.register("random", RandomScreen, argument="M", help="M random candidates")
SCREENS.register("half-precision", HalfPrecisionScreen, help="all candidates in half precision, for GPUs")


def get_screen(screen: object) -> Screen | None:
    """Convert the name of a screen to the screen. A screen or None is returned unchanged.

    Args:
        screen (Screen, str or None): Screen, or its name in ``SCREENS``. None evaluates all candidates.

    Raises:
        ValueError: If the name is unknown.
        TypeError: If ``screen`` is neither a screen, a name nor None.
    """
    if isinstance(screen, str):
        return SCREENS.create(screen)
    if screen is None or isinstance(screen, Screen):
        return screen
    raise TypeError(
        f"screen is {screen!r}; pass an instance of Screen, such as GradientScreen(8), one of the names "
        f"{SCREENS.describe()}, or None for all candidates"
    )
