from typing import Any

import pytest
import torch
import zoo
from games import MODES, random_game

from captum_moxi import BaselineRemoval, CoalitionGame, GradientScreen, MoXIDeletion, MoXIInsertion, patch_mask
from captum_moxi.arguments import Mode
from captum_moxi.search import greedy
from captum_moxi.search.screens import SearchStep

METHODS = {"insertion": MoXIInsertion, "deletion": MoXIDeletion}


@MODES
@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_a_search_evaluates_the_candidates_that_the_definition_names(mode: Mode, name: str) -> None:
    model = zoo.token_model("vit") if name == "vit" else zoo.randomised(zoo.resnet())
    image, mask = torch.randn(1, 3, 32, 32), patch_mask(32, 8)
    _, selection = METHODS[mode](model, screen=GradientScreen(3)).attribute(
        image, target=1, feature_mask=mask, n_steps=6, return_selection=True
    )
    game = CoalitionGame(model, image, target=1, feature_mask=mask)
    group: list[int] = []
    corrections: dict[int, float] = {}
    for chosen, reward in zip(selection.order[0].tolist(), selection.rewards[0, 1:].tolist(), strict=True):
        present = torch.tensor([(i in group) == (mode == "insertion") for i in range(16)])
        effects = game.effects(present[None])[0]
        current = float(game.outcome(present[None]).rewards)
        priorities = {
            b: float(effects[:, b].sum()) + corrections[b]
            if b in corrections
            else float(effects[:, b].clamp(min=0).sum())
            for b in range(16)
            if b not in group
        }
        gains = {}
        for b in sorted(priorities, key=lambda b: -priorities[b])[:3]:
            coalition = present.clone()
            coalition[b] = not coalition[b]
            changed = float(game.outcome(coalition[None]).rewards)
            gains[b] = changed - current if mode == "insertion" else current - changed
            corrections[b] = gains[b] - float(effects[:, b].sum())
        assert chosen == max(gains, key=lambda b: gains[b])
        group.append(chosen)
        present[chosen] = not present[chosen]
        assert float(game.outcome(present[None]).rewards) == pytest.approx(reward, rel=1e-5, abs=1e-5)


@MODES
def test_one_candidate_per_step_is_enough_in_a_linear_model(mode: Mode) -> None:
    weights = torch.tensor([3.0, -1.0, 0.5, 2.0, -4.0, 1.0])
    x, baseline = torch.tensor([[1.0, 2.0, 3.0, -1.0, 0.5, 4.0]]), torch.tensor([[0.5, 0.0, 1.0, 1.0, 0.0, 2.0]])
    game = CoalitionGame(lambda x: x @ weights, x, baselines=baseline, reward="output", removal=BaselineRemoval())
    best = ((x - baseline) * weights)[0].argsort(descending=True)[:3].tolist()
    assert greedy(game, mode, n_steps=3, screen=GradientScreen(1)).order[0].tolist() == best


def test_estimates_are_corrected_once_known_and_optimistic_before() -> None:
    game = random_game(batch=1, n=4)
    # two stages, four players: the effects of player 1 have different signs, and those of player 2 are negative
    effects = torch.tensor([[[1.0, 5.0, -1.0, 2.0], [1.0, -6.0, -2.0, -0.5]]])
    game.effects = lambda coalitions, examples: effects
    coalition = torch.ones(1, 4, dtype=torch.bool)
    step = SearchStep(
        game=game,
        mode="deletion",
        number=2,
        examples=torch.zeros(1, dtype=torch.long),
        present=coalition,
        candidates=coalition,
        rewards=torch.zeros(1),
        gains=torch.tensor([[4.0, torch.nan, torch.nan, 3.0]]),
        sizes=torch.zeros(1, 4),
        estimates=torch.tensor([[2.5, torch.nan, torch.nan, 1.0]]),
    )
    estimates, priorities = GradientScreen(2).estimate(step)
    assert estimates.tolist() == [[2.0, -1.0, -3.0, 1.5]]
    # the gain of player 0 exceeded its estimate by 1.5, and that of player 3 by 2.0
    assert priorities.tolist() == [[3.5, 5.0, 0.0, 3.5]]


class Wrapper:
    """A game that passes everything on to another game."""

    def __init__(self, game: CoalitionGame) -> None:
        self.game = game

    def __getattr__(self, name: str) -> Any:
        return getattr(self.game, name)


def test_a_wrapper_of_a_game_has_the_effects_of_the_game() -> None:
    game = CoalitionGame(zoo.token_model("vit"), torch.randn(1, 3, 32, 32), target=1)
    orders = [greedy(g, "deletion", n_steps=3, screen=GradientScreen(2)).order for g in (game, Wrapper(game))]
    assert torch.equal(*orders)


def test_a_game_without_effects_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"GradientScreen needs .* effects, but game is a TableGame; pass a"):
        greedy(random_game(), "insertion", screen=GradientScreen(2))
