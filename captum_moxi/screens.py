"""Screens: which candidates a step of the search evaluates, of all that are left.

A screen estimates what each candidate would change, and the search evaluates the most promising ones exactly and
chooses among these. Beside the rows that screens tell of, a player that was chosen unevaluated at the first step takes
one more at the end, for its Shapley value.

A screen knows a game and where the search stands, and keeps nothing itself, so that one can be used again, also for
several inputs at once. A new screen is a class with one method, ``estimate``.
"""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from captum_moxi.arguments import check_positive_int

# how screens are named on the command line and in what it writes
CANDIDATES = "all, gradient:M (for deletion), last-gains:M (for insertion), random:M or half-precision"


@dataclass(frozen=True)
class Look:
    r"""
    Where a search stands: S coalitions, each of one example, and the candidates to join or leave them.

    Args:
        game (BatchGame): The game.
        mode (str): ``"insertion"`` or ``"deletion"``.
        step (int): The step to be taken, counted from 1.
        examples (Tensor): ``(S,)`` int64: which example of the batch each coalition is of.
        present (Tensor): ``(S, n)`` bool: the coalitions.
        candidates (Tensor): ``(S, n)`` bool: the players that may be chosen next.
        rewards (Tensor): ``(S,)`` float64: the rewards of the coalitions.
        gains (Tensor): ``(S, n)`` float64: what each player was found to change when last evaluated on the way
            here, the rise in reward in insertion and the fall in deletion; NaN where it never was.
        estimates (Tensor): ``(S, n)`` float64: what the screen had estimated for that evaluation.
        error (Tensor): ``(S,)`` float64: the largest difference of the two so far.
    """

    game: Any
    mode: str
    step: int
    examples: Tensor
    present: Tensor
    candidates: Tensor
    rewards: Tensor
    gains: Tensor
    estimates: Tensor
    error: Tensor

    def coalitions(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Every candidate taken: its state and player ``(M,)``, the coalition ``(M, n)`` and its example ``(M,)``."""
        states, players = self.candidates.nonzero(as_tuple=True)
        coalitions = self.present[states]
        coalitions[torch.arange(len(states)), players] = self.mode == "insertion"
        return states, players, coalitions, self.examples[states]


class Screen(ABC):
    """Evaluates the m most promising candidates of each step; a subclass says in ``estimate`` which they are.

    Args:
        m (int): The candidates that a step evaluates, at least 1.

    Raises:
        TypeError: m is no whole number.
        ValueError: m is less than 1.
    """

    # Whether what ``estimate`` returns are gains; if not, the selection records none for those skipped
    estimates_gains: ClassVar[bool] = True

    def __init__(self, m: int) -> None:
        check_positive_int("m", m)
        self.m = m

    @abstractmethod
    def estimate(self, look: Look) -> tuple[Tensor, Tensor]:
        """What each candidate would change, larger is better.

        Returns:
            Two tensors ``(S, n)`` floating: the estimates, which ``look.estimates`` shows to later steps; and what
            each candidate promises, which the search sorts by and of which it records the largest that it skipped.
            Candidates of which nothing is known (inf or NaN) are evaluated.
        """

    def more(self, look: Look, promise: Tensor, gains: Tensor) -> Tensor:
        """Which candidates to evaluate next; the search asks until there is none.

        Args:
            look (Look): Where the search stands.
            promise (Tensor): ``(S, n)`` float64, -inf where there is no candidate.
            gains (Tensor): ``(S, n)`` float64: what this step has found so far; NaN where not evaluated.

        Returns:
            Tensor: ``(S, n)`` bool.
        """
        if not bool(gains.isnan().all()):
            return torch.zeros_like(look.candidates)
        return self._largest(promise, look)

    def _largest(self, promise: Tensor, look: Look) -> Tensor:
        top = promise.argsort(dim=1, descending=True, stable=True)[:, : self.m]
        chosen = torch.zeros_like(look.candidates).scatter(1, top, True)
        return (chosen | promise.isposinf()) & look.candidates

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.m})"


class GradientScreen(Screen):
    r"""
    Estimate by gradient: one forward and one backward pass a step, then m candidates evaluated.

    The estimate is the derivative of the reward in gates on each player, see :meth:`CoalitionGame.effects`. Once a
    player was evaluated, how far the estimate was off is added to it from then on. Before that, only the stages of the
    model count whose derivative says that the player matters: large parts that cancel in the sum often do not in truth.

    Made for deletion, where nearly all players are there and one more absent changes little. In insertion, few players
    are there, each new one changes much, and the derivative says little: use :class:`LastGainsScreen`. Needs a forward
    function and a reward that can be differentiated, under any of the package's removals.

    Args:
        m (int): The candidates that a step evaluates; more cost more, and miss fewer.
            Default: 8
    """

    def __init__(self, m: int = 8) -> None:
        super().__init__(m)

    def estimate(self, look: Look) -> tuple[Tensor, Tensor]:
        going = look.candidates.any(1)
        effects = look.game.effects(look.present[going], look.examples[going]).double()
        estimates = torch.full(look.candidates.shape, torch.nan, dtype=torch.float64)
        hopes = estimates.clone()
        estimates[going] = effects.sum(1)
        hopes[going] = effects.clamp(min=0).sum(1)
        return estimates, torch.where(look.gains.isnan(), hopes, estimates + look.gains - look.estimates)


class LastGainsScreen(Screen):
    r"""
    Estimate by what each candidate changed when it was last evaluated; for any forward function.

    The first step evaluates all players, each later one the m whose last known gain is largest, so that K steps take
    n + (K - 1) m rows. It is the order of lazy greedy search (Minoux, 'Accelerated greedy algorithms for maximizing
    submodular set functions', 1978), cut off after m: were gains never to rise as the coalition grows, a known gain
    would bound the gain. Rewards of models are not so, and a candidate that gains from others chosen can be passed by.

    Args:
        m (int): The candidates that a step evaluates.
            Default: 16
    """

    def __init__(self, m: int = 16) -> None:
        super().__init__(m)

    def estimate(self, look: Look) -> tuple[Tensor, Tensor]:
        return look.gains, look.gains


class RandomScreen(Screen):
    r"""
    Evaluate m candidates drawn at random; for any forward function.

    Stochastic greedy search (Mirzasoleiman et al., 'Lazier than lazy greedy', AAAI 2015): for the best k of n players,
    draws of :math:`m = \frac{n}{k} \log \frac{1}{\epsilon}` lose at most a share epsilon of what greedy search
    guarantees, if the reward is monotone and submodular. K steps take K m rows.

    Args:
        m (int): The candidates that a step evaluates.
            Default: 16
        seed (int, optional): The draws; the same in every example, so that a batch does not decide.
            Default: 0

    Raises:
        TypeError: m or the seed is no whole number.
        ValueError: m is less than 1.
    """

    estimates_gains = False

    def __init__(self, m: int = 16, seed: int = 0) -> None:
        super().__init__(m)
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise TypeError(f"seed is {seed!r}; pass an int")
        self.seed = seed

    def estimate(self, look: Look) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + look.step)
        drawn = torch.rand(look.candidates.shape[1], generator=generator).expand(look.candidates.shape)
        return drawn, drawn

    def __repr__(self) -> str:
        return f"RandomScreen({self.m}, seed={self.seed})"


class HalfPrecisionScreen(Screen):
    r"""
    Evaluate all candidates in half precision, and again in full those that may be the best; made for GPUs.

    The first step evaluates all players in both precisions, which shows how far half precision is off. From then on, a
    step evaluates in full precision those whose estimate, given twice the largest error seen so far on the way here,
    may reach the best value found. Unless an error is larger than that, the selection is that of the exact search, but
    for players that tie within rounding. On a CPU half precision is rarely faster, and this screen then costs time.

    Args:
        dtype (torch.dtype, optional): What ``torch.autocast`` computes in. Candidates that overflow in float16 are
            evaluated in full.
            Default: torch.bfloat16

    Raises:
        TypeError: no dtype.
        ValueError: another dtype.
    """

    # the candidates that a step begins with, to learn the error from
    FIRST = 8

    def __init__(self, dtype: torch.dtype = torch.bfloat16) -> None:
        super().__init__(self.FIRST)
        if not isinstance(dtype, torch.dtype):
            raise TypeError(f"dtype is {dtype!r}; pass torch.bfloat16 or torch.float16")
        if dtype not in (torch.bfloat16, torch.float16):
            raise ValueError(f"dtype is {dtype}; pass torch.bfloat16 or torch.float16")
        self.dtype = dtype

    def estimate(self, look: Look) -> tuple[Tensor, Tensor]:
        states, players, coalitions, examples = look.coalitions()
        rewards = look.game.approximate(coalitions, examples, self.dtype).double()
        gains = rewards - look.rewards[states]
        estimates = torch.full(look.candidates.shape, torch.nan, dtype=torch.float64)
        estimates[states, players] = gains if look.mode == "insertion" else -gains
        estimates = estimates.masked_fill(estimates.isinf(), torch.nan)
        return estimates, estimates

    def more(self, look: Look, promise: Tensor, gains: Tensor) -> Tensor:
        left = look.candidates & gains.isnan()
        if look.step == 1:
            return left
        if bool(gains.isnan().all()):
            return self._largest(promise, look)
        here = (gains - promise).masked_fill(gains.isnan() | promise.isinf(), 0).abs().amax(1)
        best = gains.masked_fill(gains.isnan(), -torch.inf).amax(1)
        bound = 2 * torch.maximum(look.error, here)
        return left & (promise + bound[:, None] >= best[:, None])

    def __repr__(self) -> str:
        return f"HalfPrecisionScreen({self.dtype})"


def get_screen(name: str) -> Screen | None:
    """The screen of a name, of those that ``CANDIDATES`` lists; None for all candidates.

    Raises:
        ValueError: another name.
    """
    if name == "all":
        return None
    if name == "half-precision":
        return HalfPrecisionScreen()
    match = re.fullmatch(r"(gradient|last-gains|random)(?::([1-9]\d*))?", name)
    if match is None:
        raise ValueError(f"{name!r} is not a choice of candidates; pass {CANDIDATES}")
    screen = {"gradient": GradientScreen, "last-gains": LastGainsScreen, "random": RandomScreen}[match[1]]
    return screen(int(match[2])) if match[2] else screen()
