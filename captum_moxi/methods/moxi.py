"""MoXI (Sumiyasu, Kawamoto, Kera, CVPR 2024), with and without interactions, and its symmetric search."""

from typing import Protocol

from torch import Tensor

from captum_moxi.arguments import Mode, Stop
from captum_moxi.game import CoalitionGame
from captum_moxi.methods.base import Method, MinimalSearch
from captum_moxi.rewards import Reward
from captum_moxi.search import Selection, greedy, minimal_selection, rank_independently
from captum_moxi.search.screens import AnyScreen, screen_for_mode

# Titles of the methods in tables and figures. The rows of runs contain them.
MOXI = "MoXI"
MOXI_MINUS = "MoXI(-)"
MOXI_SYMMETRIC = "MoXI symmetric"


class Search(Protocol):
    """A search among all players, or among ``candidates`` ``(B, n)`` bool."""

    def __call__(
        self, game: CoalitionGame, mode: Mode, *, n_steps: int | None, stop: Stop, candidates: Tensor | None = None
    ) -> Selection: ...


def moxi(screen: AnyScreen | None = None, *, beam_width: int = 1) -> Method:
    """Return MoXI, the paper's Algorithms 1 and 2.

    Args:
        screen (Screen, optional): Decides which candidates a step evaluates, in the modes that it is meant for:
            ``GradientScreen`` in deletion, the others in both modes.
            Default: None, all candidates
        beam_width (int, optional): Number of groups that the search keeps after each step.
            Default: 1
    """

    def search(
        game: CoalitionGame, mode: Mode, *, n_steps: int | None, stop: Stop, candidates: Tensor | None = None
    ) -> Selection:
        return greedy(
            game,
            mode,
            n_steps=n_steps,
            stop=stop,
            screen=screen_for_mode(screen, mode),
            beam_width=beam_width,
            candidates=candidates,
        )

    return Method(
        MOXI,
        search,
        depends_on_mode=True,
        rescreen=lambda screen: moxi(screen, beam_width=beam_width),
        minimal_search=_minimal_search(search),
    )


def moxi_symmetric(
    screen: AnyScreen | None = None, *, beam_width: int = 1, reward: str | Reward = "probability"
) -> Method:
    """Return symmetric search, which finds one order for both modes. See :class:`captum_moxi.MoXISymmetric`.

    Args:
        screen (Screen, optional): Decides which candidates a step evaluates, if it is meant for symmetric search.
            Default: None, all candidates
        beam_width (int, optional): Number of groups that the search keeps after each step.
            Default: 1
        reward (str or Callable, optional): Reward of the search. It does not depend on the reward of the game, which
            the curves share.
            Default: ``"probability"``
    """

    def attribute(game: CoalitionGame, mode: Mode, *, n_steps: int | None, stop: Stop) -> Tensor:
        selection = greedy(
            game.with_reward(reward),
            "symmetric",
            n_steps=n_steps,
            stop=stop,
            screen=screen_for_mode(screen, "symmetric"),
            beam_width=beam_width,
        )
        # The order serves both modes, and the rewards of the selection are not those of the game.
        return selection.order

    def check(game: CoalitionGame) -> None:
        game.with_reward(reward)

    return Method(
        MOXI_SYMMETRIC,
        attribute,
        check=check,
        rescreen=lambda screen: moxi_symmetric(screen, beam_width=beam_width, reward=reward),
    )


def moxi_minus() -> Method:
    """Return MoXI(-), which ranks each player by its Shapley value, without interactions."""

    def search(
        game: CoalitionGame, mode: Mode, *, n_steps: int | None, stop: Stop, candidates: Tensor | None = None
    ) -> Selection:
        return rank_independently(game, mode, n_steps=n_steps, stop=stop, candidates=candidates)

    return Method(MOXI_MINUS, search, depends_on_mode=True, minimal_search=_minimal_search(search))


def _minimal_search(search: Search) -> MinimalSearch:
    """Return the search of minimal groups that a search defines."""

    def search_minimal(game: CoalitionGame, mode: Mode, *, n_steps: int | None, candidates: Tensor | None) -> Selection:
        def search_among(candidates: Tensor | None) -> Selection:
            return search(game, mode, n_steps=n_steps, stop="flip", candidates=candidates)

        return minimal_selection(search_among, game, mode, candidates=candidates)

    return search_minimal
