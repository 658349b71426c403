import pytest
from games import MODES, random_game

from captum_moxi.arguments import Mode
from captum_moxi.search import rank_independently


@MODES
def test_players_are_ranked_by_their_shapley_values_alone(mode: Mode) -> None:
    game = random_game()
    selection = rank_independently(game, mode)
    for example in range(3):
        value, everyone = game.value(example), frozenset(range(6))
        shapley = [
            value(frozenset([i])) - value(frozenset())
            if mode == "insertion"
            else value(everyone) - value(everyone - {i})
            for i in range(6)
        ]
        order = sorted(range(6), key=lambda i: -shapley[i])
        assert selection.order[example].tolist() == order
        assert selection.shapley[example].tolist() == pytest.approx([shapley[i] for i in order], abs=1e-5)
        path = [frozenset(order[:k]) if mode == "insertion" else everyone - set(order[:k]) for k in range(7)]
        assert selection.rewards[example].tolist() == pytest.approx([value(coalition) for coalition in path])


@MODES
def test_a_full_ranking_needs_one_row_per_player_and_one_per_step(mode: Mode) -> None:
    game = random_game(batch=2, n=5)
    selection = rank_independently(game, mode)
    start = 2 if mode == "insertion" else 0
    assert game.rows == start + 2 * (5 + 5)
    assert selection.n_evaluated.tolist() == [[5, 1, 1, 1, 1]] * 2
