import pytest
import torch
from games import TableGame, random_game

from captum_moxi import BothEndsScreen, Cascade, LastGainsScreen
from captum_moxi.search import greedy
from captum_moxi.search.screens import SCREENS, screen_for_mode


def from_both_ends(game: TableGame, example: int) -> tuple[list[int], list[int]]:
    """The best candidate of each step for the head and the worst for the tail; and the candidates of each step."""
    value = game.value(example)
    everyone = frozenset(game.exists[example].nonzero().flatten().tolist())
    head: list[int] = []
    tail: list[int] = []
    counts = []
    while len(head) + len(tail) < len(everyone):
        candidates = sorted(everyone - {*head, *tail})
        values = {b: value(frozenset([*head, b])) - value(everyone - {*head, b}) for b in candidates}
        counts.append(len(candidates))
        head.append(max(candidates, key=lambda b: values[b]))
        if len(candidates) > 1:
            tail.append(min(candidates, key=lambda b: values[b]))
    return head + tail[::-1], counts + [1] * len(tail)


@pytest.mark.parametrize("n", [1, 2, 5, 6, 7])
def test_the_worst_candidate_of_each_step_goes_to_the_end(n: int) -> None:
    game = random_game(batch=3, n=n, seed=n)
    selection = greedy(game, "symmetric", screen=BothEndsScreen())
    for example in range(3):
        order, counts = from_both_ends(game, example)
        assert selection.order[example].tolist() == order
        assert selection.n_evaluated[example].tolist() == counts


def test_examples_with_different_players_have_their_own_ends() -> None:
    exists = torch.tensor([[True] * 6, [True, False, True, True, False, True]])
    game = TableGame(random_game(batch=2, n=6, seed=8).logits, exists=exists)
    selection = greedy(game, "symmetric", screen=BothEndsScreen())
    for example, n_players in enumerate((6, 4)):
        assert selection.order[example, :n_players].tolist() == from_both_ends(game, example)[0]


def test_a_full_ranking_needs_half_of_the_rows() -> None:
    game = random_game(batch=1, n=7)
    greedy(game, "symmetric", screen=BothEndsScreen())
    # The empty coalition; 7, 5, 3 and 1 candidates; then the 3 players at the end.
    assert game.rows == 1 + 2 * (7 + 5 + 3 + 1 + 3)


def test_players_with_equal_gains_go_to_the_end_in_the_order_of_their_ids() -> None:
    game = TableGame(torch.zeros(1, 2**5, 2))
    assert greedy(game, "symmetric", screen=BothEndsScreen()).order[0].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("difference", "order"), [(2.0**-48, [2, 3, 4, 0, 1]), (2.0**-40, [3, 2, 4, 1, 0])])
def test_gains_that_differ_by_rounding_are_ties_at_both_ends(difference: float, order: list[int]) -> None:
    """The rewards are sums of weights. All rewards are about 10 in size, so 8 epsilons of 10 are about 2**-46.

    Players 0 and 1 are the worst, and players 2 and 3 the best. If both are ties, players 2 and 3 are chosen and 1 and
    0 go to the end in the order of their ids, and otherwise in the order of their weights.
    """
    weights = torch.tensor([1, 1 + difference, 3, 3 + difference, 2], dtype=torch.float64)
    logits = torch.zeros(1, 2**5, 2, dtype=torch.float64)
    logits[0, :, 0] = (torch.arange(2**5)[:, None] >> torch.arange(5) & 1).double() @ weights
    assert greedy(TableGame(logits), "symmetric", screen=BothEndsScreen()).order[0].tolist() == order


def test_it_is_meant_for_symmetric_search_alone() -> None:
    screen = SCREENS.create("both-ends")
    assert isinstance(screen, BothEndsScreen) and repr(screen) == "BothEndsScreen()"
    assert [screen_for_mode(screen, mode) for mode in ("insertion", "deletion", "symmetric")] == [None, None, screen]
    for stages in ((BothEndsScreen(), LastGainsScreen(2)), (LastGainsScreen(2), BothEndsScreen())):
        with pytest.raises(ValueError, match=r"pass BothEndsScreen\(\) alone"):
            Cascade(*stages)
