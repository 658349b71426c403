import warnings

import numpy as np
import pytest
import torch
import zoo
from captum.attr import FeatureAblation, KernelShap, Lime, ShapleyValues, ShapleyValueSampling
from torch import Tensor, nn

from captum_moxi import CoalitionGame, interactions
from captum_moxi.rewards import contrast
from captum_moxi.search import greedy


@pytest.fixture
def x() -> Tensor:
    return torch.randn(1, 6, generator=torch.Generator().manual_seed(0))


def by_hand(model: nn.Module, x: Tensor, coalitions: Tensor, target: int) -> Tensor:
    with torch.no_grad():
        p = torch.stack([model(x[0:1] * row)[0].double().softmax(0)[target] for row in coalitions])
    return (p / (1 - p)).log().float()


def test_a_game_is_the_reward_of_every_coalition(x: Tensor) -> None:
    model, coalitions = zoo.Classes(6), torch.rand(20, 6) < 0.5
    game = CoalitionGame(model, x, target=2)
    expected = by_hand(model, x, coalitions, 2)
    torch.testing.assert_close(game(coalitions), expected)
    torch.testing.assert_close(game(coalitions.float()), expected)
    torch.testing.assert_close(torch.from_numpy(game(coalitions.numpy())), expected)
    assert isinstance(game(coalitions.numpy()), np.ndarray)
    assert game(coalitions[0]).shape == (1,)


def test_captum_attributes_on_a_game(x: Tensor) -> None:
    game = CoalitionGame(zoo.Classes(6), x, target=1)
    exact = interactions.shapley_values(game, 6).float()
    ones = torch.ones(1, 6)
    torch.testing.assert_close(
        ShapleyValues(game).attribute(ones, perturbations_per_eval=4)[0], exact, atol=1e-4, rtol=0
    )
    ablation = FeatureAblation(game).attribute(ones)[0]
    torch.testing.assert_close(ablation, interactions.full_context_shapley(game, 6))
    whole = game(ones) - game(torch.zeros(1, 6))
    sampled = ShapleyValueSampling(game).attribute(ones, n_samples=5)
    torch.testing.assert_close(sampled.sum(1), whole, atol=1e-4, rtol=0)
    assert KernelShap(game).attribute(ones, n_samples=30).shape == (1, 6)
    assert Lime(game).attribute(ones, n_samples=30).shape == (1, 6)


@pytest.mark.parametrize("per_eval", [1, 3, 7, None])
def test_the_chunk_does_not_decide(per_eval: int | None) -> None:
    model, x = zoo.Classes(6), torch.randn(3, 6)
    seen = []
    hook = model.register_forward_pre_hook(lambda _m, args: seen.append(len(args[0])))
    game = CoalitionGame(model, x, target=[0, 1, 2], perturbations_per_eval=per_eval)
    coalitions, examples = torch.rand(40, 6) < 0.5, torch.randint(3, (40,))
    got = game.outcome(coalitions, examples).rewards
    hook.remove()
    assert max(seen) <= 3 * (per_eval or 10**9)
    assert game.n_rows == sum(seen)
    if per_eval is None:
        assert sum(seen) == 3 + 40
    else:  # whole copies of the batch, as many as the example with the most coalitions needs
        assert sum(seen) == 3 + 3 * int(examples.bincount().max())
    assert game.n_forwards == len(seen)
    for row, example, value in zip(coalitions, examples.tolist(), got, strict=True):
        torch.testing.assert_close(value, by_hand(model, x[example : example + 1], row[None], example)[0])


def test_too_little_memory_halves_the_chunk_and_goes_on() -> None:
    model = zoo.Classes(6)

    def small(x: Tensor) -> Tensor:
        if len(x) > 5:
            raise torch.OutOfMemoryError("no more than 5 rows")
        return model(x)

    x, coalitions = torch.randn(1, 6), torch.rand(33, 6) < 0.5
    torch.testing.assert_close(CoalitionGame(small, x, target=0)(coalitions), by_hand(model, x, coalitions, 0))

    def none(x: Tensor) -> Tensor:
        if not x.all():
            raise torch.OutOfMemoryError("none")
        return model(x)

    with pytest.raises(torch.OutOfMemoryError):
        CoalitionGame(none, x, target=0)(coalitions)


def test_out_of_memory_halves_the_pass_that_was_and_backward_passes_by_themselves(x: Tensor) -> None:
    model, tried = zoo.Classes(6), []

    def small(x: Tensor) -> Tensor:
        tried.append(len(x))
        if len(x) > (2 if x.requires_grad else 6):
            raise torch.OutOfMemoryError("too many")
        return model(x)

    coalitions = torch.rand(10, 6, generator=torch.Generator().manual_seed(0)) < 0.5
    game = CoalitionGame(small, x, target=0)
    tried.clear()
    game(coalitions)
    # one pass too large, and then none of more than half its rows
    assert tried[0] == 10
    assert max(tried[1:]) <= 5
    assert sum(tried) == 10 + 10
    tried.clear()
    effects = game.effects(coalitions)
    assert max(tried[1:]) <= 5
    assert sum(rows for rows in tried if rows <= 2) == 10
    torch.testing.assert_close(effects, CoalitionGame(model, x, target=0).effects(coalitions))
    assert game.n_backward_rows == 10
    # what a backward pass could not hold does not make forward passes smaller
    tried.clear()
    game(coalitions)
    assert 3 <= max(tried) <= 5
    assert sum(tried) == 10


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_a_sigmoid_classifiers_single_logit(shape: tuple[int, ...], x: Tensor) -> None:
    def single(x: Tensor) -> Tensor:
        return x.sum(1).reshape(shape)

    game = CoalitionGame(single, x)
    outcome = game.outcome(torch.tensor([[1, 1, 0, 0, 0, 0]]))
    logit = float(x[0, :2].sum())
    assert float(outcome.rewards[0]) == pytest.approx(logit)
    assert float(outcome.confidences[0]) == pytest.approx(1 / (1 + np.exp(-logit)))
    assert int(outcome.predictions[0]) == (0 if logit > 0 else -1)


def test_classes_are_the_second_dimension_of_larger_outputs(x: Tensor) -> None:
    weights = torch.randn(6, 3, 2, 2)

    def maps(x: Tensor) -> Tensor:
        return torch.einsum("bi,icyx->bcyx", x, weights)

    game = CoalitionGame(maps, x, target=(2, 0, 1))
    p = maps(x)[0, :, 0, 1].softmax(0)[2]
    assert float(game(torch.ones(6))) == pytest.approx(float((p / (1 - p)).log()), rel=1e-5)
    with pytest.raises(ValueError, match=r"target is \(2,\).*tuple of 3 indices, the class first"):
        CoalitionGame(maps, x, target=2)


def test_a_reward_may_be_any_function_and_need_no_target(x: Tensor) -> None:
    model, rows = zoo.Classes(6), torch.rand(5, 6) < 0.5
    with torch.no_grad():
        logits = model(x * rows)

    def entropy(logits: Tensor, target: Tensor | None) -> Tensor:
        assert target is None
        return -(logits.softmax(1) * logits.log_softmax(1)).sum(1)

    outcome = CoalitionGame(model, x, reward=entropy).outcome(rows)
    torch.testing.assert_close(outcome.rewards, entropy(logits, None))
    assert outcome.confidences.isnan().all()
    torch.testing.assert_close(CoalitionGame(model, x, reward=contrast(0, 2))(rows), logits[:, 0] - logits[:, 2])
    with pytest.raises(ValueError, match="reward returned a value that is not finite"):
        CoalitionGame(model, x, reward=lambda logits, target: logits[:, 0] * torch.inf)
    with pytest.raises(ValueError, match="reward returned"):
        CoalitionGame(model, x, target=0, reward=lambda logits, target: logits)


def test_probabilities_taken_for_logits_are_warned_of(x: Tensor) -> None:
    softmax = nn.Sequential(zoo.Classes(6), nn.Softmax(-1))
    with pytest.warns(UserWarning, match="seems to return probabilities"):
        CoalitionGame(softmax, x, target=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CoalitionGame(softmax, x, target=0, reward="output")
        CoalitionGame(zoo.Classes(6), x, target=0)


def test_half_precision_is_rewarded_in_single(x: Tensor) -> None:
    game = CoalitionGame(lambda x: x.to(torch.bfloat16), x, target=0)
    assert game(torch.ones(6)).dtype is torch.float32


def test_rows_that_are_not_coalitions_are_refused(x: Tensor) -> None:
    game = CoalitionGame(zoo.Classes(6), x, target=0)
    with pytest.raises(ValueError, match=r"pass \(M, 6\)"):
        game(torch.ones(2, 5))
    with pytest.raises(ValueError, match="other than 0 and 1"):
        game(torch.full((1, 6), 0.5))
    with pytest.raises(ValueError, match="of 2 inputs"):
        CoalitionGame(zoo.Classes(6), x.repeat(2, 1), target=0)(torch.ones(1, 6))


def test_no_row_is_no_value(x: Tensor) -> None:
    assert CoalitionGame(zoo.Classes(6), x, target=0)(torch.ones(0, 6)).shape == (0,)


def test_logits_that_are_not_finite_name_the_coalition(x: Tensor) -> None:
    def broken(x: Tensor) -> Tensor:
        return torch.where((x[:, 2:4] == 0).all(1, keepdim=True), torch.nan, x)

    mask = torch.tensor([[4, 8, 15, 16, 23, 42]])
    game = CoalitionGame(broken, x, target=0, feature_mask=mask)
    game(torch.tensor([[1, 1, 0, 1, 1, 1]]))
    with pytest.raises(ValueError, match=r"not finite for example 0 with 2 of 6 players present: \{4, 23\}"):
        game(torch.tensor([[1, 1, 1, 1, 1, 1], [1, 0, 0, 0, 1, 0]]))


@pytest.mark.parametrize("name", ["vit", "deit", "dinov2_with_registers"])
@pytest.mark.parametrize("mode", ["insertion", "deletion"])
def test_a_full_ranking_takes_no_row_and_no_token_too_many(name: str, mode: str) -> None:
    model, n = zoo.token_model(name), 16
    prefix = {"vit": 1, "deit": 2, "dinov2_with_registers": 4}[name]
    seen: dict[int, int] = {}

    def count(_module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        tokens = args[0] if args else kwargs["hidden_states"]
        seen[tokens.shape[1]] = seen.get(tokens.shape[1], 0) + len(tokens)

    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    game = CoalitionGame(model, images, target=1)
    assert game.n_rows == 2
    layers = model.base_model.layers if hasattr(model.base_model, "layers") else model.base_model.encoder.layer
    handle = layers[0].register_forward_pre_hook(count, with_kwargs=True)
    try:
        greedy(game, mode)
    finally:
        handle.remove()
    # step k: n - k + 1 rows of k tokens (insertion) or n - k (deletion), beside the prefix; and the empty start
    if mode == "insertion":
        expected = {k + prefix: 2 * (n - k + 1) for k in range(1, n + 1)} | {prefix: 2}
    else:
        expected = {n - k + prefix: 2 * (n - k + 1) for k in range(1, n + 1)}
    assert seen == expected
    assert game.n_rows == 2 + n * (n + 1) + (2 if mode == "insertion" else 0)
    assert game.n_backward_rows == 0


def test_passes_of_a_step_are_of_even_length() -> None:
    sizes = []

    def forward(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return x.sum(1)

    game = CoalitionGame(forward, torch.ones(1, 10), reward="output", perturbations_per_eval=None)
    game._limit = lambda size: 4
    sizes.clear()
    game.outcome(torch.rand(9, 10) < 0.5)
    assert sorted(sizes) == [3, 3, 3]
