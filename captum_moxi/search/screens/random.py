"""RandomScreen: each step evaluates random candidates."""

import torch
from torch import Tensor

from captum_moxi.arguments import check_natural
from captum_moxi.search.screens.base import Screen, SearchStep

# Larger than any number of steps, so that two seeds of the user never lead to the same draw.
SEED_STRIDE = 1_000_003


class RandomScreen(Screen):
    r"""
    Evaluate m random candidates at each step. Works with any forward function.

    This is stochastic greedy search (Mirzasoleiman et al., 'Lazier than lazy greedy', AAAI 2015). For the best k of n
    players, draws of :math:`m = \frac{n}{k} \log \frac{1}{\epsilon}` candidates lose at most a fraction epsilon of what
    greedy search guarantees, if the reward is monotone and submodular. K steps need K m rows.

    Args:
        m (int, optional): Number of candidates that a step evaluates.
            Default: 16
        seed (int, optional): Seed of the draws. All examples share the draws, so the result does not depend on the
            batch.
            Default: 0

    Raises:
        TypeError: If ``m`` or ``seed`` is not an int.
        ValueError: If ``m`` is less than 1, or ``seed`` is negative.
    """

    estimates_gains = False

    def __init__(self, m: int = 16, seed: int = 0) -> None:
        super().__init__(m)
        check_natural("seed", seed)
        self.seed = seed

    def estimate(self, step: SearchStep) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(self.seed * SEED_STRIDE + step.number)
        draws = torch.rand(step.candidates.shape[1], generator=generator).expand(step.candidates.shape)
        return draws, draws

    def __repr__(self) -> str:
        return f"RandomScreen({self.m}, seed={self.seed})"
