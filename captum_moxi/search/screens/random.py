"""RandomScreen: each step evaluates random candidates."""

from operator import index

import numpy as np
import torch
from torch import Tensor

from captum_moxi.arguments import check_natural
from captum_moxi.search.screens.base import Screen, SearchStep


class RandomScreen(Screen):
    r"""
    Evaluate m random candidates at each step. Works with any forward function.

    This is stochastic greedy search (Mirzasoleiman et al., 'Lazier than lazy greedy', AAAI 2015). For the best k of n
    players, draws of :math:`m = \frac{n}{k} \log \frac{1}{\epsilon}` candidates lose at most a fraction epsilon of what
    greedy search guarantees, if the reward is monotone and submodular. K steps need K m rows.

    Args:
        m (int, optional): Number of candidates that a step evaluates.
            Default: 16
        seed (int, optional): Seed of the draws, of any size. The draws of an example depend on the seed, the step and
            the example's own players, so its result does not depend on the batch.
            Default: 0

    Raises:
        TypeError: If ``m`` or ``seed`` is not an int.
        ValueError: If ``m`` is less than 1, or ``seed`` is negative.
    """

    estimates_gains = False

    def __init__(self, m: int = 16, seed: int = 0) -> None:
        super().__init__(m)
        check_natural("seed", seed)
        self.seed = index(seed)

    def estimate(self, step: SearchStep) -> tuple[Tensor, Tensor]:
        draws = torch.zeros(step.candidates.shape, dtype=torch.float64)
        for row, exists in zip(draws, step.game.exists[step.examples], strict=True):
            # Examples with the same number of players share the draws.
            generator = np.random.default_rng((self.seed, step.number))
            row[exists] = torch.from_numpy(generator.random(int(exists.sum())))
        return draws, draws

    def __repr__(self) -> str:
        return f"RandomScreen({self.m}, seed={self.seed})"
