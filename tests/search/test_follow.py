import pytest
import torch
from games import MODES, random_game
from paths import path_rewards

from captum_moxi.arguments import Mode, Stop
from captum_moxi.search import follow, rank_independently


@MODES
@pytest.mark.parametrize("stop", [None, "flip"])
def test_following_the_order_of_a_search_gives_its_selection(mode: Mode, stop: Stop) -> None:
    game = random_game()
    game.exists[1, 4] = False
    order = rank_independently(game, mode).order
    followed = follow(game, mode, order, stop=stop)
    ranked = rank_independently(game, mode, stop=stop)
    for name in ("order", "rewards", "confidences", "predictions", "n_steps", "flipped"):
        torch.testing.assert_close(getattr(followed, name), getattr(ranked, name), equal_nan=True)
    # the examples that have all players
    for example in (0, 2):
        steps = int(followed.n_steps[example])
        rewards = path_rewards(game, followed, example)
        assert followed.rewards[example, : steps + 1].tolist() == pytest.approx(rewards[: steps + 1])
        flips = [(reward > 0) == (mode == "insertion") for reward in rewards[: steps + 1]]
        assert stop is None or (not any(flips[:-1]) and flips[-1] == bool(followed.flipped[example]))
    assert followed.shapley.isnan().all()
    assert followed.interactions.isnan().all()
    assert followed.n_evaluated.tolist() == (followed.order >= 0).long().tolist()


@MODES
def test_an_order_can_be_followed_for_some_steps(mode: Mode) -> None:
    game = random_game()
    order = torch.stack([torch.randperm(6) for _ in range(3)])
    selection = follow(game, mode, order, n_steps=4)
    assert torch.equal(selection.order, order[:, :4])
    for example in range(3):
        assert selection.rewards[example].tolist() == pytest.approx(path_rewards(game, selection, example))


@MODES
def test_an_order_may_end_early_and_contains_positions_of_players(mode: Mode) -> None:
    game = random_game(batch=2)
    game.ids = torch.tensor([3, 4, 10, 20, 30, 41])
    positions = torch.tensor([[5, 0, 2], [1, -1, -1]])
    selection = follow(game, mode, positions)
    assert selection.order.tolist() == [[41, 3, 10], [4, -1, -1]]
    assert selection.n_steps.tolist() == [3, 1]
