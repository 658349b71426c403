from collections.abc import Callable

import pytest
from games import MODES, TableGame, random_game

from captum_moxi import LastGainsScreen
from captum_moxi.arguments import Mode
from captum_moxi.search import greedy


def screened_greedy(
    game: TableGame, mode: Mode, steps: int, shortlist: Callable[[int, list[int], dict[int, float]], list[int]]
) -> tuple[list[int], list[int]]:
    """Greedy search of the first example among ``shortlist(step, remaining players, last known gains)``.

    Returns the order and the number of candidates of each step.
    """
    value, n = game.value(0), game.n_players
    group: list[int] = []
    known: dict[int, float] = {}
    counts = []

    def signed_reward(players: list[int]) -> float:
        group = frozenset(players)
        return value(group) if mode == "insertion" else -value(frozenset(range(n)) - group)

    for step in range(1, steps + 1):
        remaining = [b for b in range(n) if b not in group]
        candidates = shortlist(step, remaining, known)
        known |= {b: signed_reward([*group, b]) - signed_reward(group) for b in candidates}
        group.append(max(candidates, key=lambda b: known[b]))
        counts.append(len(candidates))
    return group, counts


@MODES
@pytest.mark.parametrize("m", [1, 2, 3])
def test_each_step_evaluates_the_players_with_the_highest_last_known_gain(mode: Mode, m: int) -> None:
    game = random_game(batch=1, n=7, seed=3)

    def shortlist(step: int, remaining: list[int], known: dict[int, float]) -> list[int]:
        return remaining if step == 1 else sorted(remaining, key=lambda b: -known[b])[:m]

    order, counts = screened_greedy(game, mode, 6, shortlist)
    selection = greedy(game, mode, n_steps=6, screen=LastGainsScreen(m))
    assert selection.order[0].tolist() == order
    assert selection.n_evaluated[0].tolist() == counts
    # and the empty coalition in insertion; deletion starts from the full one, which the game has evaluated
    assert game.rows == sum(counts) + (mode == "insertion")
