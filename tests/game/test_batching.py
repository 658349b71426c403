import pytest
import torch
import zoo
from limited import LimitedRemoval
from torch import Tensor, nn

from captum_moxi import BaselineRemoval, CoalitionGame, TokenRemoval, models
from captum_moxi.arguments import Mode
from captum_moxi.game import Cost
from captum_moxi.search import greedy


@pytest.fixture
def x() -> Tensor:
    return torch.randn(1, 6)


def single_rewards(model: nn.Module, x: Tensor, coalitions: Tensor, examples: Tensor) -> Tensor:
    """The log-odds of class 0, each in a pass of its own."""
    with torch.no_grad():
        p = torch.stack(
            [model(x[e][None] * row)[0].double().softmax(0)[0] for row, e in zip(coalitions, examples, strict=True)]
        )
    return (p / (1 - p)).log().float()


@pytest.mark.parametrize("per_eval", [1, 3, 7, None])
def test_results_do_not_depend_on_the_size_of_a_pass(per_eval: int | None) -> None:
    model, x, passes = zoo.Classes(6), torch.randn(3, 6), []
    game_model = nn.Sequential(model)
    game_model.register_forward_pre_hook(lambda _module, args: passes.append(len(args[0])))
    game = CoalitionGame(game_model, x, target=0, perturbations_per_eval=per_eval)
    coalitions, examples = torch.rand(40, 6) < 0.5, torch.randint(3, (40,))
    rewards = game.outcome(coalitions, examples).rewards
    torch.testing.assert_close(rewards, single_rewards(model, x, coalitions, examples))
    assert max(passes) <= 3 * (per_eval or 10**9)
    assert game.cost.rows == sum(passes)
    assert game.cost.passes == len(passes)
    if per_eval is None:
        assert sum(passes) == 3 + 40
    else:
        # whole copies of the batch, as many as the example with the most coalitions needs
        assert sum(passes) == 3 + 3 * int(examples.bincount().max())


def test_the_passes_of_a_step_have_equal_length() -> None:
    passes = []

    def forward(x: Tensor) -> Tensor:
        passes.append(len(x))
        return x.sum(1)

    removal = LimitedRemoval(BaselineRemoval(), rows=4)
    game = CoalitionGame(forward, torch.ones(1, 10), reward="output", removal=removal)
    passes.clear()
    game.outcome(torch.rand(9, 10) < 0.5)
    assert sorted(passes) == [3, 3, 3]


def test_out_of_memory_halves_the_passes() -> None:
    model = zoo.Classes(6)

    def small(x: Tensor) -> Tensor:
        if len(x) > 5:
            raise torch.OutOfMemoryError("no more than 5 rows")
        return model(x)

    x, coalitions = torch.randn(1, 6), torch.rand(33, 6) < 0.5
    expected = single_rewards(model, x, coalitions, torch.zeros(33, dtype=torch.long))
    torch.testing.assert_close(CoalitionGame(small, x, target=0)(coalitions), expected)


def test_out_of_memory_for_a_single_row_reaches_the_caller(x: Tensor) -> None:
    model = zoo.Classes(6)

    def no_memory(x: Tensor) -> Tensor:
        if not x.all():
            raise torch.OutOfMemoryError("no memory")
        return model(x)

    with pytest.raises(torch.OutOfMemoryError):
        CoalitionGame(no_memory, x, target=0)(torch.zeros(33, 6))


def test_forward_and_backward_passes_are_halved_independently(x: Tensor) -> None:
    model, passes = zoo.Classes(6), []

    def small(x: Tensor) -> Tensor:
        passes.append(len(x))
        if len(x) > (2 if x.requires_grad else 6):
            raise torch.OutOfMemoryError("too many")
        return model(x)

    coalitions = torch.rand(10, 6) < 0.5
    game = CoalitionGame(small, x, target=0)
    passes.clear()
    game(coalitions)
    # one pass that is too large, and then none with more than half its rows
    assert passes[0] == 10
    assert max(passes[1:]) <= 5
    assert sum(passes) == 10 + 10
    passes.clear()
    effects = game.effects(coalitions)
    assert max(passes[1:]) <= 5
    assert sum(rows for rows in passes if rows <= 2) == 10
    torch.testing.assert_close(effects, CoalitionGame(model, x, target=0).effects(coalitions))
    assert game.cost.backward_rows == 10
    # the memory of a backward pass does not limit forward passes
    passes.clear()
    game(coalitions)
    assert 3 <= max(passes) <= 5
    assert sum(passes) == 10


def test_backward_passes_have_fewer_rows_because_all_tokens_stay() -> None:
    model, passes = zoo.token_model("vit"), []
    removal = LimitedRemoval(TokenRemoval(), rows=64)
    game = CoalitionGame(model, torch.randn(1, 3, 32, 32), target=1, removal=removal)
    first_layer = models.encoder_layers(model)[0]
    first_layer.register_forward_pre_hook(lambda _module, args: passes.append(tuple(args[0].shape[:2])))
    removal.sizes.clear()
    game.effects(torch.cat([torch.zeros(20, 16), torch.ones(20, 16)]))
    # all 16 patches are in the sequence of every row, absent or not
    assert set(removal.sizes) == {16}
    # a row that also goes backward needs the memory of several that do not
    assert passes == [(8, 17)] * 5


def test_the_cost_counts_rows_passes_and_backward_rows(x: Tensor) -> None:
    game = CoalitionGame(zoo.Classes(6), x, target=0)
    assert game.cost == Cost(rows=1, passes=1, backward_rows=0)
    start = game.cost
    game(torch.ones(5, 6))
    game.effects(torch.ones(2, 6))
    assert start == Cost(rows=1, passes=1, backward_rows=0)
    difference = game.cost - start
    assert difference == Cost(rows=7, passes=2, backward_rows=2)
    # a row that also goes backward counts as three
    assert difference.weighted_rows == 5 + 3 * 2


def test_a_function_that_returns_one_value_for_the_batch_is_a_game_of_one_example() -> None:
    x = torch.randn(3, 4)
    game = CoalitionGame(lambda x: x.sum(), x)
    assert game.n_examples == 1
    coalitions = torch.rand(5, 4) < 0.5
    torch.testing.assert_close(game(coalitions), torch.stack([(x * row).sum() for row in coalitions]))


def test_one_value_for_a_batch_of_one_is_recognized_at_the_first_pass_of_several_rows() -> None:
    x = torch.randn(1, 4)
    game = CoalitionGame(lambda x: x.sum()[None], x)
    coalitions = torch.rand(5, 4) < 0.5
    torch.testing.assert_close(game(coalitions), (x * coalitions).sum(1))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"perturbations_per_eval": 2}, "perturbations_per_eval is 2; pass 1"),
        ({"feature_mask": torch.tensor([[0, 0], [0, 1]])}, "pass one mask for all"),
        ({"target": 0}, "pass target=None"),
        ({"removal": None, "perturbations_per_eval": 0}, "perturbations_per_eval is 0"),
    ],
)
def test_options_that_need_one_value_per_example_are_rejected(kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CoalitionGame(lambda x: x.sum(), torch.randn(2, 2), **kwargs)


@pytest.mark.parametrize(
    ("forward", "error", "message"),
    [
        (lambda x: x.repeat(2, 1), ValueError, r"returned shape \(4, 3\) for a batch of 2"),
        (lambda x: [x], TypeError, "forward_func returned a list; return a tensor of logits, or a number"),
        (lambda x: x if bool(x.all()) else x[:1], ValueError, r"returned shape \(1, 3\) for 2 rows"),
    ],
)
def test_output_without_one_row_per_example_is_rejected(forward: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        CoalitionGame(forward, torch.ones(2, 3), target=0).outcome(torch.zeros(2, 3), torch.arange(2))


@pytest.mark.parametrize("name", ["vit", "deit", "dinov2_with_registers"])
@pytest.mark.parametrize("mode", ["insertion", "deletion"])
def test_a_full_ranking_processes_no_unneeded_row_and_no_unneeded_token(name: str, mode: Mode) -> None:
    model, n = zoo.token_model(name), 16
    prefix = {"vit": 1, "deit": 2, "dinov2_with_registers": 4}[name]
    rows_by_length: dict[int, int] = {}

    def count(_module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        tokens = args[0] if args else kwargs["hidden_states"]
        rows_by_length[tokens.shape[1]] = rows_by_length.get(tokens.shape[1], 0) + len(tokens)

    game = CoalitionGame(model, torch.randn(2, 3, 32, 32), target=1)
    assert game.cost.rows == 2
    models.encoder_layers(model)[0].register_forward_pre_hook(count, with_kwargs=True)
    greedy(game, mode)
    # step k of insertion evaluates n - k + 1 rows of k patches, in addition to the empty start; step k of deletion
    # evaluates as many rows of n - k patches
    if mode == "insertion":
        expected = {k + prefix: 2 * (n - k + 1) for k in range(1, n + 1)} | {prefix: 2}
    else:
        expected = {n - k + prefix: 2 * (n - k + 1) for k in range(1, n + 1)}
    assert rows_by_length == expected
    assert game.cost.rows == 2 + n * (n + 1) + (2 if mode == "insertion" else 0)
    assert game.cost.backward_rows == 0
