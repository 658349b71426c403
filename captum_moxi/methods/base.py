"""The interface of a method, and the two ways to build one from a class with Captum's ``attribute``."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from captum_moxi.arguments import ForwardFunc, Mode, Stop, TensorOrTuple
from captum_moxi.game import CoalitionGame
from captum_moxi.methods.counting import counted_view
from captum_moxi.methods.seeded import seeded_draws
from captum_moxi.metrics import Attributions
from captum_moxi.players import scores_to_inputs
from captum_moxi.removal import ForwardCall
from captum_moxi.search import Selection
from captum_moxi.search.screens import AnyScreen

# Number of coalitions that Captum passes to the game at once. The game splits them into passes.
COALITIONS_PER_CALL = 64


class Attribute(Protocol):
    """The function ``attribute`` of a :class:`Method`, which computes attributions of the players of a game."""

    def __call__(self, game: CoalitionGame, mode: Mode, *, n_steps: int | None, stop: Stop) -> Attributions: ...


class MinimalSearch(Protocol):
    """The function ``minimal_search`` of a :class:`Method`, which searches minimal groups of players."""

    def __call__(
        self, game: CoalitionGame, mode: Mode, *, n_steps: int | None, candidates: Tensor | None
    ) -> Selection: ...


class CaptumAttribution(Protocol):
    """An object with Captum's ``attribute(inputs, ...)``."""

    @property
    def attribute(self) -> Callable[..., Any]: ...


def accept_all(game: CoalitionGame) -> None:
    """Accept every game."""


@dataclass(frozen=True)
class Method:
    """A way to order the players of a game.

    Args:
        title (str): Name of the method in tables and figures.
        attribute (Callable): Function ``(game, mode, *, n_steps, stop) -> attributions``. The attributions have any
            form that :func:`captum_moxi.insertion_curve` accepts. Only the first ``n_steps`` players are used, or all
            players if ``n_steps`` is None. If ``stop`` is ``"flip"``, players after the one that flips the prediction
            are not used either. The order of unused players is arbitrary.
        depends_on_mode (bool, optional): Whether insertion and deletion need different orders.
            Default: False
        check (Callable, optional): Function of a game that raises ValueError if the method does not support the game.
            It is called before any method runs.
            Default: accepts every game
        reseed (Callable, optional): Maps seeds, one for each example, to the method with these seeds. Only for methods
            that draw random orders.
            Default: None
        rescreen (Callable, optional): Maps a screen, or None, to the method with this screen. Only for methods that
            search. They use it in the modes that it is meant for.
            Default: None
        minimal_search (Callable, optional): Function ``(game, mode, *, n_steps, candidates) -> selection`` that
            searches a minimal group up to the flip. ``candidates`` are the players that it may choose, ``(B, n)`` bool,
            or None for all. Only for methods that search.
            Default: None
        is_optional (bool, optional): Whether :func:`captum_moxi.compare` leaves the method out, instead of raising an
            error, if it does not support the game.
            Default: False

    Examples::

        >>> def brightest(game, mode, *, n_steps, stop):
        ...     return game.call.inputs[0].mean(1, keepdim=True)
        >>> METHODS.register("brightest", lambda: Method("Brightest first", brightest))
        >>> compare(model, x, target=y, methods=["moxi", "brightest"]).table
    """

    title: str
    attribute: Attribute
    depends_on_mode: bool = False
    check: Callable[[CoalitionGame], None] = accept_all
    reseed: Callable[[Sequence[int]], "Method"] | None = None
    rescreen: Callable[[AnyScreen | None], "Method"] | None = None
    minimal_search: MinimalSearch | None = None
    is_optional: bool = False

    def for_images(self, names: Sequence[str]) -> "Method":
        """Seed random orders with the name of each image, so that they do not depend on the batch.

        Args:
            names (Sequence[str]): Name of each example.

        Returns:
            Method: Method seeded by the names, or this method if it does not draw random orders.
        """
        if self.reseed is None:
            return self
        seeded = self.reseed([zlib.crc32(name.encode()) for name in names])
        return replace(seeded, is_optional=self.is_optional)

    def with_screen(self, screen: AnyScreen | None) -> "Method":
        """Return the method with another screen.

        Args:
            screen (Screen or None): Decides which candidates a step evaluates, in the modes that it is meant for. None
                evaluates all.

        Returns:
            Method: Method with the screen, or this method if it does not search.
        """
        return self if self.rescreen is None else self.rescreen(screen)

    def with_minimal_groups(self) -> "Method":
        """Return the method that searches a minimal group up to the flip, whatever ``stop`` is.

        Returns:
            Method: Method that searches minimal groups, or this method if it does not search.
        """
        search = self.minimal_search
        if search is None:
            return self

        def attribute(game: CoalitionGame, mode: Mode, *, n_steps: int | None, stop: Stop) -> Selection:
            return search(game, mode, n_steps=n_steps, candidates=None)

        return replace(self, attribute=attribute)


def on_game(
    title: str,
    make: Callable[[ForwardFunc], CaptumAttribution],
    *,
    check: Callable[[CoalitionGame], None] = accept_all,
    **options: Any,
) -> Method:
    """Build a method from a perturbation class of Captum, which runs on the game of each example.

    Args:
        title (str): Name of the method in tables and figures.
        make (Callable): Constructs the attribution object from a forward function that maps coalitions ``(M, n)`` to
            rewards ``(M,)``, for example ``captum.attr.FeatureAblation``.
        check (Callable, optional): As in :class:`Method`.
            Default: accepts every game
        **options (Any): Keyword arguments of ``attribute``. Random numbers start from seed 0 for each example.

    Returns:
        Method: Method whose order is the same in both modes.

    Examples::

        >>> on_game("Ablation", FeatureAblation, perturbations_per_eval=64)
    """

    def attribute(game: CoalitionGame, mode: Mode, *, n_steps: int | None, stop: Stop) -> Attributions:
        scores: list[Tensor] = []
        full_coalition = torch.ones(1, game.n_players)
        for example in range(game.n_examples):

            def value(coalitions: Tensor, example: int = example) -> Tensor:
                return game.outcome(coalitions, torch.full((len(coalitions),), example)).rewards

            attribution = make(value)
            with seeded_draws(attribution, 0):
                scores.append(attribution.attribute(full_coalition, **options).detach().double())
        # Unlike scores of players, a map of the inputs cannot be mistaken for another form of attributions.
        return scores_to_inputs(torch.cat(scores), game.call.players, game.call.inputs)

    return Method(title, attribute, check=check)


def on_model(
    title: str,
    make: Callable[[ForwardFunc], CaptumAttribution],
    *,
    check: Callable[[CoalitionGame], None] = accept_all,
    options: Callable[[ForwardCall], Mapping[str, Any]] = lambda call: {},
) -> Method:
    """Build a method from a class that attributes the model's output to the inputs, with gradients enabled.

    Random numbers start from seed 0, as in :func:`from_attribution`.

    Args:
        title (str): Name of the method in tables and figures.
        make (Callable): Constructs the attribution object from a model that returns logits ``(B, classes)``, for
            example :class:`captum_moxi.GradCam`. It raises ValueError for models that it does not support. When the
            method runs, the model is a private view that counts its rows.
        check (Callable, optional): As in :class:`Method`. It is called in addition to ``make``.
            Default: accepts every game
        options (Callable, optional): Maps the :class:`captum_moxi.removal.ForwardCall` of a game to keyword arguments
            of ``attribute``, in addition to ``target`` and ``additional_forward_args``.
            Default: no keyword arguments

    Returns:
        Method: Method whose order is the same in both modes.

    Examples::

        >>> on_model("Saliency", captum.attr.Saliency)
    """

    def attribute(game: CoalitionGame, mode: Mode, *, n_steps: int | None, stop: Stop) -> Attributions:
        call = game.call
        attribution = make(counted_view(call.forward_func, game.add_cost).forward_func)
        return attribute_inputs(
            attribution,
            game,
            target=game.captum_target,
            additional_forward_args=call.arguments() or None,
            **options(call),
        )

    def check_all(game: CoalitionGame) -> None:
        make(game.call.forward_func)
        check(game)

    return Method(title, attribute, check=check_all)


def attribute_inputs(attribution: CaptumAttribution, game: CoalitionGame, **options: Any) -> Attributions:
    """Attribute the inputs of a game, with gradients enabled and random numbers from seed 0.

    The user's tensors are not changed.

    Args:
        attribution (object): Object with Captum's ``attribute``.
        game (CoalitionGame): Game.
        **options (Any): Keyword arguments of ``attribute``.

    Returns:
        Tensor, tuple[Tensor, ...] or Selection: The attributions, without gradients.
    """
    inputs = copy_inputs(game.call)
    for x in inputs if isinstance(inputs, tuple) else (inputs,):
        # Captum would do the same, but with a warning.
        x.requires_grad_(x.is_floating_point())
    with torch.enable_grad(), seeded_draws(attribution, 0):
        attributions: Attributions = attribution.attribute(inputs, **options)
    if isinstance(attributions, Selection):
        return attributions
    return tuple(x.detach() for x in attributions) if isinstance(attributions, tuple) else attributions.detach()


def copy_inputs(call: ForwardCall) -> TensorOrTuple:
    """Return a copy of the inputs: a tensor, or a tuple if there are several."""
    inputs = tuple(x.detach().clone() for x in call.inputs)
    return inputs if len(inputs) > 1 else inputs[0]
