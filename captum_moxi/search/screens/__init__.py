"""Screens: which candidates a step of the search evaluates.

A screen estimates the gain of each candidate. The search evaluates the most promising candidates exactly and chooses
among them. A player that was chosen without being evaluated at the first step needs one more row at the end, for its
Shapley value.

To add a screen, write a subclass of :class:`Screen` in a file of this folder and register it below.
"""

from captum_moxi.arguments import SearchMode
from captum_moxi.registry import MAX_INT, Registry, parse_positive_int
from captum_moxi.search.screens.audited import AuditedScreen
from captum_moxi.search.screens.base import AnyScreen, Cascade, Screen, SearchStep
from captum_moxi.search.screens.both_ends import BothEndsScreen
from captum_moxi.search.screens.gradient import GradientScreen
from captum_moxi.search.screens.half_precision import HalfPrecisionScreen
from captum_moxi.search.screens.last_gains import LastGainsScreen
from captum_moxi.search.screens.random import RandomScreen

__all__ = [
    "SCREENS",
    "AnyScreen",
    "AuditedScreen",
    "BothEndsScreen",
    "Cascade",
    "GradientScreen",
    "HalfPrecisionScreen",
    "LastGainsScreen",
    "RandomScreen",
    "Screen",
    "SearchStep",
    "get_screen",
    "screen_for_mode",
]


class ScreenRegistry(Registry[AnyScreen | None]):
    """Screens by name. Names joined by ``+`` are the stages of a cascade. A last part ``audit:N`` adds an audit."""

    def create(self, spec: str) -> AnyScreen | None:
        *names, last = spec.split("+")
        is_audited = _is_audit(last)
        if any(map(_is_audit, names)):
            raise ValueError(f"screen is {spec!r}; pass audit once, as the last part")
        screen = self._create_stages(spec, names if is_audited else [*names, last])
        return _add_audit(spec, screen, last) if is_audited else screen

    def _create_stages(self, spec: str, names: list[str]) -> AnyScreen | None:
        screens = [super(ScreenRegistry, self).create(name) for name in names]
        if len(screens) < 2:
            return screens[0] if screens else None
        stages = [stage for screen in screens if screen is not None for stage in screen.stages]
        if len(stages) < len(screens):
            raise ValueError(f"screen is {spec!r}, but 'all' cannot be part of a cascade; pass the other screens only")
        return Cascade(*stages)


def _is_audit(name: str) -> bool:
    return name.partition(":")[0] == "audit"


def _add_audit(spec: str, screen: AnyScreen | None, audit: str) -> AuditedScreen:
    """Audit a screen as the last part of its spec says, ``audit`` or ``audit:N``."""
    if screen is None:
        raise ValueError(f"screen is {spec!r}, but an audit needs a screen; pass for example gradient:8+audit:16")
    _, colon, text = audit.partition(":")
    if not colon:
        return AuditedScreen(screen)
    try:
        n = parse_positive_int(text)
    except ValueError:
        n = 0
    if n < 2:
        raise ValueError(f"screen {spec!r} is not valid; pass SCREEN+audit:N, where N is an int from 2 to {MAX_INT}")
    return AuditedScreen(screen, n)


# "all" stands for the exact search, which needs no screen.
SCREENS = ScreenRegistry("screen")
SCREENS.register("all", lambda: None, help="all candidates: the exact search")
SCREENS.register("gradient", GradientScreen, argument="M", help="M candidates by gradient, only for deletion")
SCREENS.register("last-gains", LastGainsScreen, argument="M", help="M candidates by last gain; groups are larger")
SCREENS.register("random", RandomScreen, argument="M", help="M random candidates")
SCREENS.register("both-ends", BothEndsScreen, help="the worst candidate of each step comes last, only for symmetric")
SCREENS.register(
    "half-precision",
    HalfPrecisionScreen,
    help="all candidates in half precision, then the best again in full precision",
)


def get_screen(screen: object) -> AnyScreen | None:
    """Convert the name of a screen to the screen. A screen or None is returned unchanged.

    Args:
        screen (Screen, Cascade, str or None): Screen, or its name in ``SCREENS``. Names that are joined by ``+`` are
            the stages of a cascade, and a last part ``audit:N`` stands for :class:`AuditedScreen`. None evaluates all
            candidates.

    Raises:
        ValueError: If a name is unknown, or if the screens cannot form a cascade.
        TypeError: If ``screen`` is neither a screen, a name nor None.
    """
    if isinstance(screen, str):
        return SCREENS.create(screen)
    if screen is None or isinstance(screen, AnyScreen):
        return screen
    raise TypeError(
        f"screen is {screen!r}; pass an instance of Screen, such as GradientScreen(8), one of the names "
        f"{SCREENS.describe()}, or None for all candidates"
    )


def screen_for_mode(screen: AnyScreen | None, mode: SearchMode) -> AnyScreen | None:
    """Return the screen that a search uses if the user chose one screen for all modes.

    A screen is used only in the modes that it is meant for, ``screen.used_in``. :class:`GradientScreen` is meant for
    deletion, :class:`BothEndsScreen` for symmetric search, and the others for all modes. Other searches evaluate all
    candidates.

    Args:
        screen (Screen, Cascade or None): The screen for all modes.
        mode (str): Mode of the search: ``"insertion"``, ``"deletion"`` or ``"symmetric"``.

    Returns:
        Screen, Cascade or None: ``screen``, or None if it is not meant for the mode.
    """
    return screen if screen is not None and mode in screen.used_in else None
