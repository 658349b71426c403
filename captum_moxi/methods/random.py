"""A random order of the players, the baseline that every method should beat."""

from collections.abc import Callable, Sequence

import torch

from captum_moxi.arguments import Mode, Stop
from captum_moxi.game import CoalitionGame
from captum_moxi.methods.base import Method
from captum_moxi.metrics import Attributions
from captum_moxi.players import scores_to_inputs


def random_order(seed: int = 0) -> Method:
    """Return a method that draws a random order for each example of the batch.

    Args:
        seed (int, optional): Seed of the first example. Example i of the batch uses ``seed + i``.
            Default: 0
    """
    return _seeded(lambda n_examples: range(seed, seed + n_examples))


def _seeded(seeds_for: Callable[[int], Sequence[int]]) -> Method:
    """Build the method from a function that maps the number of examples to their seeds."""

    def attribute(game: CoalitionGame, mode: Mode, *, n_steps: int | None, stop: Stop) -> Attributions:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds_for(game.n_examples)]
        scores = torch.stack([torch.rand(game.n_players, generator=generator) for generator in generators])
        return scores_to_inputs(scores, game.call.players, game.call.inputs)

    return Method("Random", attribute, reseed=_with_seeds)


def _with_seeds(seeds: Sequence[int]) -> Method:
    def seeds_for(n_examples: int) -> Sequence[int]:
        if len(seeds) != n_examples:
            raise ValueError(
                f"seeds has {len(seeds)} entries for {n_examples} examples; pass one seed for each example"
            )
        return seeds

    return _seeded(seeds_for)
