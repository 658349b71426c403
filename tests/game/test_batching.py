import os
import subprocess
import sys

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


def cpu_out_of_memory() -> Exception:
    return RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: ...")


OUT_OF_MEMORY = pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), cpu_out_of_memory(), MemoryError()],
    ids=["CUDA", "CPU", "Python"],
)


@OUT_OF_MEMORY
@pytest.mark.parametrize(("per_eval", "batch", "fits"), [(None, 1, 5), (8, 2, 5), (4, 3, 3), (None, 4, 1)])
def test_out_of_memory_halves_the_passes(error: Exception, per_eval: int | None, batch: int, fits: int) -> None:
    model = zoo.Classes(6)

    def small(x: Tensor) -> Tensor:
        if len(x) > fits:
            raise error
        return model(x)

    x, coalitions, examples = torch.randn(batch, 6), torch.rand(33, 6) < 0.5, torch.arange(33) % batch
    expected = single_rewards(model, x, coalitions, examples)
    game = CoalitionGame(small, x, target=0, perturbations_per_eval=per_eval)
    torch.testing.assert_close(game.outcome(coalitions, examples).rewards, expected)
    everyone = torch.ones(batch, 6, dtype=torch.bool)
    torch.testing.assert_close(game.full.rewards, single_rewards(model, x, everyone, torch.arange(batch)))


@OUT_OF_MEMORY
@pytest.mark.parametrize("removal", [None, "attention:1"])
def test_a_batch_of_images_that_does_not_fit_is_split(error: Exception, removal: str | None) -> None:
    model, images = zoo.token_model("vit"), torch.randn(5, 3, 32, 32)
    expected = CoalitionGame(model, images, target=1, removal=removal)

    def fail(_module: nn.Module, args: tuple[Tensor]) -> None:
        if len(args[0]) > 2:
            raise error

    model.register_forward_pre_hook(fail)
    game = CoalitionGame(model, images, target=1, removal=removal)
    torch.testing.assert_close(game.full.rewards, expected.full.rewards, rtol=1e-4, atol=1e-5)
    assert game.cost.rows == 5
    coalitions, examples = torch.rand(9, 16) < 0.5, torch.arange(9) % 5
    rewards, expected_rewards = (g.outcome(coalitions, examples).rewards for g in (game, expected))
    torch.testing.assert_close(rewards, expected_rewards, rtol=1e-4, atol=1e-4)


@OUT_OF_MEMORY
def test_a_single_row_that_does_not_fit_is_one_clear_error(error: Exception, x: Tensor) -> None:
    model = zoo.Classes(6)

    def no_memory(x: Tensor) -> Tensor:
        if x.requires_grad or not x.all():
            raise error
        return model(x)

    game = CoalitionGame(no_memory, x, target=0)
    message = r"^a single row does not fit into memory \(.*\); pass smaller inputs, or a smaller model"
    for run in (game.outcome, game.class_probabilities, game.effects):
        with pytest.raises(torch.OutOfMemoryError, match=message):
            run(torch.zeros(33, 6))
    with pytest.raises(torch.OutOfMemoryError, match=message):
        CoalitionGame(no_memory, torch.zeros(1, 6), target=0)


@OUT_OF_MEMORY
def test_a_batch_that_cannot_be_split_is_one_clear_error(error: Exception) -> None:
    x, memory = torch.randn(3, 6), [3]

    def one_value(x: Tensor) -> Tensor:
        if len(x) > memory[0]:
            raise error
        return x.sum()

    game = CoalitionGame(one_value, x)
    memory[0] = 2
    message = "^a pass of the whole batch of 3 examples does not fit into memory .*; pass fewer examples at once"
    with pytest.raises(torch.OutOfMemoryError, match=message):
        game(torch.zeros(1, 6))
    with pytest.raises(torch.OutOfMemoryError, match=message):
        CoalitionGame(one_value, x)
    # Captum's passes consist of whole copies of the batch.
    model = zoo.Classes(6)
    with pytest.raises(torch.OutOfMemoryError, match=message):
        CoalitionGame(lambda x: model(x) + one_value(x), x, target=0, perturbations_per_eval=1)


def test_other_errors_of_the_model_reach_the_caller_after_one_pass(x: Tensor) -> None:
    passes = []

    def broken(x: Tensor) -> Tensor:
        passes.append(len(x))
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        CoalitionGame(broken, x.repeat(4, 1), target=0)
    assert passes == [4]


UNDER_A_MEMORY_LIMIT = """
import resource
import numpy as np, torch
from captum_moxi import CoalitionGame, MoXIInsertion

def with_torch(mebibytes):
    return lambda x: x.repeat(1, mebibytes * 2**15).mean(1)

def with_numpy(mebibytes):
    return lambda x: torch.from_numpy(np.tile(x.numpy(), (1, mebibytes * 2**15)).mean(1))

torch.set_num_threads(1)
single, batch = torch.arange(8.0)[None], torch.arange(8.0).repeat(16, 1)
with_torch(1)(single), with_numpy(1)(single)  # loads what the libraries load when they are used for the first time
with open("/proc/self/status") as status:
    used = next(int(line.split()[1]) for line in status if line.startswith("VmSize")) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + 200 * 2**20,) * 2)

# 64 rows of 24 MiB, and a batch of 16 of them, do not fit into 200 MiB.
for make, x in ((with_torch, single), (with_numpy, batch)):
    game = CoalitionGame(make(24), x, reward="output")
    coalitions, examples = torch.eye(8).repeat(8, 1).cumsum(1), torch.arange(64) % len(x)
    torch.testing.assert_close(game.outcome(coalitions, examples).rewards, (coalitions * single).mean(1))
    assert game.cost.passes >= 64 * 24 / 200
    _, selection = MoXIInsertion(make(24), reward="output").attribute(x, return_selection=True)
    assert selection.order.tolist() == [[7, 6, 5, 4, 3, 2, 1, 0]] * len(x)

for make in (with_torch, with_numpy):
    try:
        CoalitionGame(make(300), single, reward="output")
    except torch.OutOfMemoryError as error:
        print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space are specific to Linux")
def test_a_search_fits_into_a_real_memory_limit_and_a_larger_row_is_reported_with_its_size() -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    command = [sys.executable, "-c", UNDER_A_MEMORY_LIMIT]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    messages = result.stdout.splitlines()
    assert len(messages) == 2
    for message in messages:
        assert message.startswith("a single row does not fit into memory (an allocation of 300 MiB failed")


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
    first_layer = models.token_layout(model).layers[0]
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
    models.token_layout(model).layers[0].register_forward_pre_hook(count, with_kwargs=True)
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
