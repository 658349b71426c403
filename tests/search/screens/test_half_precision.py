from typing import Any

import pytest
import torch
import zoo
from games import MODES, TableGame, random_game
from torch import Tensor

from captum_moxi import BaselineRemoval, CoalitionGame, HalfPrecisionScreen, MoXIDeletion, MoXIInsertion, patch_mask
from captum_moxi.arguments import Mode
from captum_moxi.search import greedy

METHODS = {"insertion": MoXIInsertion, "deletion": MoXIDeletion}


@MODES
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_the_selection_is_that_of_the_exact_search(mode: Mode, dtype: torch.dtype, name: str) -> None:
    model = zoo.token_model("vit") if name == "vit" else zoo.randomised(zoo.resnet())
    images = torch.randn(2, 3, 32, 32)
    options = {"target": 1, "feature_mask": patch_mask(32, 8), "return_selection": True}
    attr, exact = METHODS[mode](model).attribute(images, **options)
    screened_attr, screened = METHODS[mode](model, screen=HalfPrecisionScreen(dtype)).attribute(images, **options)
    assert torch.equal(screened.order, exact.order)
    torch.testing.assert_close(screened.rewards, exact.rewards)
    torch.testing.assert_close(screened.interactions, exact.interactions, rtol=1e-4, atol=1e-5)
    assert torch.equal(screened_attr, attr)
    if name == "vit":
        # some candidates were not evaluated in full precision
        assert (screened.n_evaluated < exact.n_evaluated).any()


class NoisyGame:
    """A game whose approximations have the given errors, one tensor for each call."""

    def __init__(self, game: TableGame | CoalitionGame, errors: list[Tensor]) -> None:
        self.game, self.errors = game, iter(errors)

    def __getattr__(self, name: str) -> object:
        return getattr(self.game, name)

    def approximate(self, coalitions: Tensor, examples: Tensor, dtype: torch.dtype) -> Tensor:
        rewards = self.game.outcome(coalitions, examples).rewards
        return rewards + next(self.errors)[: len(rewards)]


def test_the_largest_error_of_earlier_steps_widens_the_bound() -> None:
    """Player 19 is best at the second step but estimated lowest; the first step had an error of that size."""
    gains = torch.linspace(1, 2, 20, dtype=torch.float64)
    weights = gains.flip(0).clone()
    weights[19] = 1.99
    game = CoalitionGame(lambda x: x @ weights, torch.ones(1, 20).double(), reward="output", removal=BaselineRemoval())
    first = torch.zeros(20, dtype=torch.float64)
    first[3] = 1.5
    second = torch.zeros(19, dtype=torch.float64)
    second[18] = -1.5
    noisy = NoisyGame(game, [first, second, *[torch.zeros(20, dtype=torch.float64)] * 20])
    assert greedy(noisy, "insertion", n_steps=3, screen=HalfPrecisionScreen()).order.tolist() == [[0, 19, 1]]


def test_candidates_that_overflow_are_evaluated_in_full_precision() -> None:
    game = random_game(batch=1, n=6)
    overflow = torch.zeros(6)
    overflow[2], overflow[4] = torch.nan, torch.inf
    noisy = NoisyGame(game, [overflow] * 6)
    screened = greedy(noisy, "deletion", screen=HalfPrecisionScreen())
    assert torch.equal(screened.order, greedy(game, "deletion").order)


@pytest.mark.parametrize(
    ("dtype", "error"), [("bfloat16", TypeError), (torch.float32, ValueError), (torch.int64, ValueError)]
)
def test_only_half_precision_dtypes_are_accepted(dtype: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"dtype is .*{str(dtype).removeprefix('torch.')}.*; pass torch.bfloat16"):
        HalfPrecisionScreen(dtype)


def test_a_game_without_approximations_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"HalfPrecisionScreen needs .* approximate, but game is a TableGame; pass"):
        greedy(random_game(n=12), "insertion", screen=HalfPrecisionScreen())


class MixesDtypes(torch.nn.Module):
    """Multiplies by a float32 tensor that is not a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(12, 3)
        self.matrix = torch.randn(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) @ self.matrix


def test_a_model_that_does_not_run_with_converted_weights_runs_under_autocast() -> None:
    model, x = MixesDtypes(), torch.randn(2, 12)
    exact = MoXIInsertion(model).attribute(x, target=1)
    assert torch.equal(MoXIInsertion(model, screen=HalfPrecisionScreen()).attribute(x, target=1), exact)


def test_the_rows_of_approximations_are_counted_pass_by_pass() -> None:
    model = zoo.token_model("vit")
    game = CoalitionGame(model, torch.randn(1, 3, 32, 32), target=1, perturbations_per_eval=4)
    coalitions, examples = torch.ones(20, game.n_players, dtype=torch.bool), torch.zeros(20, dtype=torch.long)
    game.approximate(coalitions[:4], examples[:4], torch.bfloat16)
    rows, before = [], game.cost
    with game.report_rows(rows.append):
        game.approximate(coalitions, examples, torch.bfloat16)
    assert rows == [4] * 5
    assert (game.cost - before).rows == 20
