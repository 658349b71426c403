"""Games given by tables of logits, on which a search can be compared with the paper's plain algorithm, and a screen."""

from types import SimpleNamespace

import pytest
import reference
import torch
from torch import Tensor

from captum_moxi import Selection
from captum_moxi.arguments import Mode
from captum_moxi.search import has_flipped
from captum_moxi.search.screens import Screen, SearchStep

MODES = pytest.mark.parametrize("mode", ["insertion", "deletion"])


class TableGame:
    """A batch of games whose reward is the logit of class 0, the target, minus the logit of class 1.

    Args:
        logits (Tensor): ``(B, 2**n, 2)`` floating. Bit i of the second index says whether player i is present.
        ids (Tensor, optional): ``(n,)`` int64, the ids of the players. Default: 0 to n - 1
        exists (Tensor, optional): ``(B, n)`` bool, the players of each example. Default: all

    Attributes:
        rows (int): Number of coalitions evaluated so far.
    """

    def __init__(self, logits: Tensor, ids: Tensor | None = None, exists: Tensor | None = None) -> None:
        self.logits = logits
        self.n_examples, size, _ = logits.shape
        self.n_players = size.bit_length() - 1
        self.ids = torch.arange(self.n_players) if ids is None else ids
        self.exists = torch.ones(self.n_examples, self.n_players, dtype=torch.bool) if exists is None else exists
        self.targets = torch.zeros(self.n_examples, dtype=torch.long)
        self.rounds_relatively = False
        self.rows = 0
        self.full = self.outcome(self.exists, torch.arange(self.n_examples))
        self.rows = 0

    def outcome(self, coalitions: Tensor, examples: Tensor | None = None) -> SimpleNamespace:
        """The outcome of coalitions ``(M, n)`` of the examples ``(M,)``; of the first example by default."""
        if examples is None:
            examples = torch.zeros(len(coalitions), dtype=torch.long)
        self.rows += len(coalitions)
        logits = self.logits[examples, (coalitions.long() << torch.arange(self.n_players)).sum(1)]
        return SimpleNamespace(
            rewards=logits[:, 0] - logits[:, 1],
            confidences=logits.softmax(1)[:, 0],
            predictions=logits.argmax(1),
        )

    def value(self, example: int) -> reference.Value:
        """The reward of one example as a function of the set of its players."""

        def reward(players: frozenset[int]) -> float:
            logits = self.logits[example, sum(1 << player for player in players)]
            return float(logits[0] - logits[1])

        return reward

    def single(self, example: int) -> "TableGame":
        """The game of one example."""
        return TableGame(self.logits[example : example + 1], self.ids, self.exists[example : example + 1])


def random_game(batch: int = 3, n: int = 6, seed: int = 0) -> TableGame:
    """A game of normally distributed logits."""
    return TableGame(torch.randn(batch, 2**n, 2, generator=torch.Generator().manual_seed(seed)))


def group_of(selection: Selection, example: int) -> set[int]:
    """The players that a selection contains."""
    return {player for player in selection.order[example].tolist() if player >= 0}


def teams_game(seed: int, *, batch: int = 16, n: int = 8) -> TableGame:
    """Games with players that are useless until their whole team is present, or until it is absent.

    Greedy search then chooses players before it finds a team without which they are not needed.
    """
    generator = torch.Generator().manual_seed(seed)
    present = torch.arange(2**n)[:, None] >> torch.arange(n) & 1
    logits = torch.zeros(batch, 2**n, 2)
    for example in range(batch):
        for combine in (torch.amin, torch.amax):
            for _ in range(n):
                team = torch.randperm(n, generator=generator)[: int(torch.randint(1, 5, (), generator=generator))]
                logits[example, :, 0] += len(team) * torch.rand((), generator=generator) * combine(present[:, team], 1)
        logits[example, :, 1] = logits[example].max() * (0.3 + 0.4 * torch.rand((), generator=generator))
    return TableGame(logits)


def outcome(game: TableGame, mode: Mode, example: int, group: set[int]) -> SimpleNamespace:
    """The outcome of one coalition, evaluated by itself."""
    present = torch.tensor([[(player in group) == (mode == "insertion") for player in game.ids.tolist()]])
    return game.outcome(present & game.exists[example], torch.tensor([example]))


def flips(game: TableGame, mode: Mode, example: int, group: set[int], confidence: float, flip: Mode | None) -> bool:
    result = outcome(game, mode, example, group)
    return bool(
        has_flipped(
            flip or mode,
            result.predictions,
            result.confidences,
            target=int(game.targets[example]),
            min_confidence=confidence,
        )
    )


class FixedScreen(Screen):
    """Always has the estimates that it was created with."""

    def __init__(self, m: int, estimates: Tensor) -> None:
        super().__init__(m)
        self.estimates = estimates

    def estimate(self, step: SearchStep) -> tuple[Tensor, Tensor]:
        return self.estimates[step.examples], self.estimates[step.examples]
