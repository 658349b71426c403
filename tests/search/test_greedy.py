import pytest
import reference
import torch
from games import MODES, TableGame, random_game
from torch import Tensor

from captum_moxi import interactions
from captum_moxi.arguments import Mode
from captum_moxi.search import greedy, rank_independently


@MODES
def test_greedy_is_the_papers_algorithm(mode: Mode) -> None:
    game = random_game()
    selection = greedy(game, mode)
    for example in range(3):
        order, values = getattr(reference, mode)(game.value(example), 6, 6)
        assert selection.order[example].tolist() == order
        assert selection.rewards[example].tolist() == pytest.approx(values)


@MODES
def test_each_step_maximizes_shapley_value_plus_interaction(mode: Mode) -> None:
    game = random_game(batch=1)
    selection = greedy(game, mode)

    def value(coalitions: Tensor) -> Tensor:
        return game.outcome(coalitions).rewards

    context = "self" if mode == "insertion" else "full"
    shapley = getattr(interactions, f"{context}_context_shapley")(value, 6)
    group = torch.zeros(6, dtype=torch.bool)
    for step, player in enumerate(selection.order[0].tolist()):
        interaction = torch.zeros(6)
        if step:
            interaction = getattr(interactions, f"{context}_context_interactions")(value, group)
        assert int((shapley + interaction).masked_fill(group, -torch.inf).argmax()) == player
        assert selection.shapley[0, step] == pytest.approx(float(shapley[player]), abs=1e-5)
        assert selection.interactions[0, step] == pytest.approx(float(interaction[player]), abs=1e-5)
        group[player] = True


@MODES
def test_greedy_evaluates_each_remaining_player_once_per_step(mode: Mode) -> None:
    game = random_game(batch=2, n=5)
    rows = []
    selection = greedy(game, mode, n_steps=3, progress=rows.append)
    start = 2 if mode == "insertion" else 0  # deletion starts from the full coalition, which the game has evaluated
    assert game.rows == start + 2 * (5 + 4 + 3)
    assert rows == [2 * 5, 2 * 4, 2 * 3]
    assert selection.n_evaluated.tolist() == [[5, 4, 3]] * 2
    assert selection.skipped.isnan().all()


def test_set_sum_ranks_duplicates_last_although_their_shapley_values_are_high() -> None:
    """Section 4.1 of the paper: the reward is the sum of the distinct integers in the coalition."""
    integers = [9, 9, 4, 3]
    sums = [float(sum({integers[i] for i in range(4) if r >> i & 1})) for r in range(16)]
    game = TableGame(torch.tensor([[[value, 0.0] for value in sums]]))
    assert greedy(game, "insertion").order[0].tolist() == [0, 2, 3, 1]
    # the Shapley values rank both nines, at 4.5 each, before the four and the three
    shapley = interactions.shapley_values(lambda coalitions: game.outcome(coalitions).rewards, 4)
    assert shapley.tolist() == pytest.approx([4.5, 4.5, 4.0, 3.0])
    assert rank_independently(game, "insertion").order[0].tolist() == [0, 1, 2, 3]
