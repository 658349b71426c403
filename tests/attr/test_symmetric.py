from typing import Any

import pytest
import torch
from captum.attr import NoiseTunnel
from torch import Tensor, nn

from captum_moxi import (
    BaselineRemoval,
    CoalitionGame,
    GradientScreen,
    HalfPrecisionScreen,
    MoXIInsertion,
    MoXISymmetric,
    patch_mask,
)
from captum_moxi.search.screens import SearchStep

N = 6


@pytest.fixture
def net() -> nn.Module:
    """A classifier of N scalars into three classes."""
    return nn.Sequential(nn.Linear(N, 8), nn.Tanh(), nn.Linear(8, 3)).double().eval()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(4, N, dtype=torch.float64)


def test_the_default_reward_is_the_probability(net: nn.Module, x: Tensor) -> None:
    _, selection = MoXISymmetric(net).attribute(x, target=1, return_selection=True)
    torch.testing.assert_close(selection.rewards, selection.confidences, check_dtype=False)
    assert selection.rewards_without is not None
    torch.testing.assert_close(selection.rewards_without, selection.confidences_without, check_dtype=False)


def test_both_paths_are_plain_forwards(net: nn.Module, x: Tensor) -> None:
    baselines = torch.randn(1, N, dtype=torch.float64)
    _, selection = MoXISymmetric(net).attribute(x, baselines, target=2, return_selection=True)
    for example in range(len(x)):
        for step in range(N + 1):
            chosen = torch.isin(torch.arange(N), selection.order[example, :step])
            for present, suffix in ((chosen, ""), (~chosen, "_without")):
                logits = net(torch.where(present, x[example], baselines[0])[None])[0].detach()
                probability = float(logits.softmax(0)[2])
                assert float(getattr(selection, f"rewards{suffix}")[example, step]) == pytest.approx(probability)
                assert int(getattr(selection, f"predictions{suffix}")[example, step]) == int(logits.argmax())


@pytest.mark.parametrize("options", [{}, {"interactions": False}, {"beam_width": 3}, {"screen": "last-gains:2"}])
def test_it_is_insertion_of_the_difference_of_two_forwards(net: nn.Module, x: Tensor, options: dict[str, Any]) -> None:
    """With baselines 0, the complement of a coalition is the input minus the masked input."""
    for example in range(len(x)):
        row = x[example : example + 1]

        def difference(masked: Tensor, row: Tensor = row) -> Tensor:
            return net(masked).softmax(1)[:, 1] - net(row - masked).softmax(1)[:, 1]

        _, expected = MoXIInsertion(difference, reward="output", **options).attribute(row, return_selection=True)
        _, selection = MoXISymmetric(net, **options).attribute(row, target=1, return_selection=True)
        assert selection.order.tolist() == expected.order.tolist()
        torch.testing.assert_close(selection.gains, expected.gains)
        torch.testing.assert_close(selection.shapley, expected.shapley)
        torch.testing.assert_close(selection.interactions, expected.interactions)


def test_a_batch_equals_its_single_examples(net: nn.Module, x: Tensor) -> None:
    target = [0, 1, 2, 1]
    options: dict[str, Any] = {"stop": "flip", "minimal": True, "return_selection": True}
    attr, selection = MoXISymmetric(net).attribute(x, target=target, **options)
    for example in range(len(x)):
        single_attr, single = MoXISymmetric(net).attribute(x[example : example + 1], target=target[example], **options)
        torch.testing.assert_close(attr[example : example + 1], single_attr)
        steps = int(single.n_steps[0])
        assert selection.order[example, :steps].tolist() == single.order[0].tolist()
        assert bool(selection.flipped[example]) == bool(single.flipped[0])
        assert single.rewards_without is not None and selection.rewards_without is not None
        torch.testing.assert_close(selection.rewards_without[example, : steps + 1], single.rewards_without[0])


def test_gains_sum_to_twice_the_change_of_the_reward(net: nn.Module, x: Tensor) -> None:
    moxi = MoXISymmetric(net)
    attr, delta = moxi.attribute(x, target=1, score="gain", return_convergence_delta=True)
    change = net(x).softmax(1)[:, 1] - net(torch.zeros_like(x)).softmax(1)[:, 1]
    torch.testing.assert_close(attr.sum(1), 2 * change)
    torch.testing.assert_close(delta, torch.zeros_like(delta), atol=1e-9, rtol=0)
    torch.testing.assert_close(moxi.compute_convergence_delta(attr, x, target=1), delta)


def test_alternatives_are_disjoint_sufficient_and_necessary(net: nn.Module) -> None:
    x = torch.randn(1, N, dtype=torch.float64)
    target = int(net(x).argmax())
    groups = MoXISymmetric(net).alternatives(x, target=target, at_most=3)
    chosen = [player for group in groups for player in group.order[0].tolist()]
    assert len(chosen) == len(set(chosen))
    for group in groups:
        present = torch.isin(torch.arange(N), group.order[0])
        assert int(net(x * present).argmax()) == target != int(net(x * ~present).argmax())


def test_noise_tunnel_averages_the_attributions_of_noisy_inputs(net: nn.Module, x: Tensor) -> None:
    seen: list[Tensor] = []

    class Recorded(MoXISymmetric):
        def attribute(self, *args: Any, **kwargs: Any) -> Any:
            result = super().attribute(*args, **kwargs)
            seen.append(result)
            return result

        # NoiseTunnel calls the function inside the decorator of Captum's own classes.
        attribute.__wrapped__ = attribute

    attr = NoiseTunnel(Recorded(net)).attribute(x, target=1, nt_samples=3, stdevs=0.1)
    assert attr.shape == x.shape
    torch.testing.assert_close(attr, torch.cat(seen).reshape(len(x), 3, N).mean(1).to(attr.dtype))


def symmetric_step(game: CoalitionGame, chosen: Tensor) -> SearchStep:
    examples = torch.arange(game.n_examples)
    unknown = torch.full(game.exists.shape, torch.nan, dtype=torch.float64)
    return SearchStep(
        game=game,
        mode="symmetric",
        number=2,
        examples=examples,
        present=chosen,
        candidates=~chosen,
        rewards=game.outcome(chosen, examples).rewards.double(),
        gains=unknown,
        sizes=torch.zeros_like(unknown),
        estimates=unknown,
        rewards_without=game.outcome(~chosen, examples).rewards.double(),
    )


def test_gradient_estimates_are_exact_for_a_linear_reward(x: Tensor) -> None:
    """A linear reward has no interactions: each player changes both paths by weight times value."""
    linear = nn.Linear(N, 2).double()
    game = CoalitionGame(linear, x, target=1, reward="logit", removal=BaselineRemoval())
    chosen = torch.zeros(4, N, dtype=torch.bool)
    chosen[:, 2] = True
    estimates, _ = GradientScreen(2).estimate(symmetric_step(game, chosen))
    expected = 2 * (linear.weight[1] * x).detach()
    torch.testing.assert_close(estimates[:, [0, 1, 3, 4, 5]], expected[:, [0, 1, 3, 4, 5]], check_dtype=False)


def test_half_precision_estimates_are_close_to_the_gains(net: nn.Module, x: Tensor) -> None:
    net, x = net.float(), x.float()
    game = CoalitionGame(net, x, target=1, reward="probability")
    chosen = torch.zeros(4, N, dtype=torch.bool)
    chosen[:, 2] = True
    step = symmetric_step(game, chosen)
    estimates, _ = HalfPrecisionScreen().estimate(step)
    assert estimates[:, 2].isnan().all()
    for part in step.parts:
        starts, positions, coalitions, examples = part.candidate_coalitions()
        sign = 1 if part.mode == "insertion" else -1
        change = game.outcome(coalitions, examples).rewards.double() - part.rewards[starts]
        estimates[starts, positions] -= sign * change
    # bfloat16 has 8 bits of precision.
    assert float(estimates[:, [0, 1, 3, 4, 5]].abs().max()) < 0.05


@pytest.mark.parametrize("screen", ["half-precision", "gradient:6", "last-gains:6", "random:6"])
def test_a_screen_that_skips_nobody_finds_the_exact_ranking(net: nn.Module, x: Tensor, screen: str) -> None:
    net, x = net.float(), x.float()
    exact = MoXISymmetric(net).attribute(x, target=1)
    assert torch.equal(MoXISymmetric(net, screen=screen).attribute(x, target=1), exact)


def test_a_patch_grid_and_a_removal_are_accepted() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(2 * 6 * 6, 3))
    images = torch.randn(2, 3, 8, 8)
    moxi = MoXISymmetric(model, removal="blur")
    attr, selection = moxi.attribute(
        images, target=0, feature_mask=patch_mask(8, grid=2), n_steps=2, return_selection=True
    )
    assert attr.shape == images.shape
    assert selection.order.shape == (2, 2)
    assert sorted(attr[0, 0].unique().tolist()) == [0, 0.5, 1]
    assert str(moxi.get_name()) == "MoXISymmetric"


def test_known_groups_must_be_symmetric(net: nn.Module, x: Tensor) -> None:
    _, other = MoXIInsertion(net).attribute(x, target=1, stop="flip", return_selection=True)
    with pytest.raises(ValueError, match="known contains a selection of insertion; pass selections of symmetric"):
        MoXISymmetric(net).alternatives(x, target=1, known=[other])
