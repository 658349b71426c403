from itertools import pairwise

import pytest
import reference
import torch
import zoo
from test_search import MODES, TableGame, random_game
from torch import Tensor, nn

from captum_moxi import (
    AttentionRemoval,
    BaselineRemoval,
    CoalitionGame,
    GradientScreen,
    HalfPrecisionScreen,
    LastGainsScreen,
    MoXIDeletion,
    MoXIInsertion,
    RandomScreen,
    TokenRemoval,
    patch_mask,
)
from captum_moxi.screens import Look, Screen
from captum_moxi.search import Mode, Selection, greedy


class Told(Screen):
    """Expects what it is told."""

    def __init__(self, m: int, estimates: Tensor) -> None:
        super().__init__(m)
        self.estimates = estimates

    def estimate(self, look: Look) -> tuple[Tensor, Tensor]:
        return (self.estimates[look.examples],) * 2


def image(batch: int = 1) -> Tensor:
    return torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def by_definition(game: TableGame, mode: Mode, steps: int, shortlist: object) -> tuple[list[int], list[int]]:
    """Greedy search of the first example among the candidates that shortlist(step, left, known gains) names."""
    value, n = game.value(0), game.n_players
    group: list[int] = []
    known: dict[int, float] = {}
    counts = []

    def reward(taken: list[int]) -> float:
        players = frozenset(taken) if mode == "insertion" else frozenset(range(n)) - frozenset(taken)
        return value(players) if mode == "insertion" else -value(players)

    for step in range(1, steps + 1):
        left = [b for b in range(n) if b not in group]
        some = shortlist(step, left, known)
        known |= {b: reward([*group, b]) - reward(group) for b in some}
        group.append(max(some, key=lambda b: known[b]))
        counts.append(len(some))
    return group, counts


@MODES
@pytest.mark.parametrize("m", [1, 2, 3])
def test_last_gains_are_those_of_the_last_evaluation(mode: Mode, m: int) -> None:
    game = random_game(batch=1, n=7, seed=3)

    def shortlist(step: int, left: list[int], known: dict[int, float]) -> list[int]:
        return left if step == 1 else sorted(left, key=lambda b: -known[b])[:m]

    order, counts = by_definition(game, mode, 6, shortlist)
    game.rows = 0
    selection = greedy(game, mode, 6, screen=LastGainsScreen(m))
    assert selection.order[0].tolist() == order
    assert selection.n_evaluated[0].tolist() == counts
    # and the game's first value, which deletion has already
    assert game.rows == sum(counts) + (mode == "insertion")


def test_selection_tells_the_most_that_was_expected_of_what_it_skipped() -> None:
    game = random_game(batch=1, n=5)
    expected = torch.tensor([[3.0, 1.0, 5.0, 4.0, 2.0]], dtype=torch.float64)
    selection = greedy(game, "insertion", 4, screen=Told(2, expected))
    left = {0, 1, 2, 3, 4}
    for player, skipped, count in zip(
        selection.order[0].tolist(), selection.skipped[0].tolist(), selection.n_evaluated[0].tolist(), strict=True
    ):
        by_promise = sorted(left, key=lambda b: -float(expected[0, b]))
        assert player in by_promise[:2]
        assert count == 2
        if len(left) > 2:
            assert skipped == expected[0, by_promise[2]]
        else:
            assert skipped != skipped  # NaN: none was
        left.remove(player)


@MODES
def test_exact_search_evaluates_all_and_skips_none(mode: Mode) -> None:
    selection = greedy(random_game(n=5), mode)
    assert selection.n_evaluated.tolist() == [[5, 4, 3, 2, 1]] * 3
    assert selection.skipped.isnan().all()


@MODES
def test_shapley_terms_are_those_of_the_chosen_also_where_the_screen_passed_them_by(mode: Mode) -> None:
    game = random_game(n=6)
    estimates = torch.rand(3, 6, generator=torch.Generator().manual_seed(1)).double()
    selection = greedy(game, mode, screen=Told(2, estimates))
    everyone = frozenset(range(6))
    for example in range(3):
        value = game.value(example)
        for player, shapley in zip(selection.order[example].tolist(), selection.shapley[example].tolist(), strict=True):
            if mode == "insertion":
                assert shapley == pytest.approx(value(frozenset([player])) - value(frozenset()), abs=1e-6)
            else:
                assert shapley == pytest.approx(value(everyone) - value(everyone - {player}), abs=1e-6)
    torch.testing.assert_close(selection.shapley + selection.interactions, selection.gains)


METHODS = {"insertion": MoXIInsertion, "deletion": MoXIDeletion}


@MODES
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_half_precision_gives_the_exact_selection(mode: Mode, dtype: torch.dtype, name: str) -> None:
    model = zoo.token_model("vit") if name == "vit" else zoo.randomised(zoo.resnet())
    options = {"target": 1, "feature_mask": patch_mask(32, 8), "return_selection": True}
    attr, exact = METHODS[mode](model).attribute(image(2), **options)
    screened_attr, screened = METHODS[mode](model, candidates=HalfPrecisionScreen(dtype)).attribute(image(2), **options)
    assert torch.equal(screened.order, exact.order)
    torch.testing.assert_close(screened.rewards, exact.rewards)
    torch.testing.assert_close(screened.interactions, exact.interactions, rtol=1e-4, atol=1e-5)
    assert torch.equal(screened_attr, attr)
    if name == "vit":
        # it did skip some
        assert (screened.n_evaluated < exact.n_evaluated).any()


class Noisy:
    """A game with estimates that are off by as much as they are told, in turn."""

    def __init__(self, game: TableGame, errors: list[Tensor]) -> None:
        self.game, self.errors = game, iter(errors)

    def __getattr__(self, name: str) -> object:
        return getattr(self.game, name)

    def approximate(self, coalitions: Tensor, examples: Tensor, dtype: torch.dtype) -> Tensor:
        rewards = self.game.outcome(coalitions, examples).rewards
        return rewards + next(self.errors)[: len(rewards)]


def test_half_precision_remembers_its_largest_error() -> None:
    """Player 19's gain is best at the second step, and estimated as the least; the first step was off by as much."""
    gains = torch.linspace(1, 2, 20, dtype=torch.float64)
    weights = gains.flip(0).clone()
    weights[19] = 1.99
    game = CoalitionGame(lambda x: x @ weights, torch.ones(1, 20).double(), reward="output", removal=BaselineRemoval())
    first = torch.zeros(20, dtype=torch.float64)
    first[3] = 1.5
    second = torch.zeros(19, dtype=torch.float64)
    second[18] = -1.5
    noisy = Noisy(game, [first, second, *[torch.zeros(20, dtype=torch.float64)] * 20])
    assert greedy(noisy, "insertion", 3, screen=HalfPrecisionScreen()).order.tolist() == [[0, 19, 1]]


def test_half_precision_evaluates_what_overflows() -> None:
    game = random_game(batch=1, n=6)
    broken = torch.zeros(6)
    broken[2], broken[4] = torch.nan, torch.inf
    noisy = Noisy(game, [broken] * 6)
    assert torch.equal(greedy(noisy, "deletion", screen=HalfPrecisionScreen()).order, greedy(game, "deletion").order)


@MODES
@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_gradient_screen_is_its_definition(mode: Mode, name: str) -> None:
    model = zoo.token_model("vit") if name == "vit" else zoo.randomised(zoo.resnet())
    mask = patch_mask(32, 8)
    _, selection = METHODS[mode](model, candidates=GradientScreen(3)).attribute(
        image(), target=1, feature_mask=mask, n_steps=6, return_selection=True
    )
    game = CoalitionGame(model, image(), target=1, feature_mask=mask)
    group: list[int] = []
    off: dict[int, float] = {}
    for taken, reward in zip(selection.order[0].tolist(), selection.rewards[0, 1:].tolist(), strict=True):
        present = torch.tensor([(i in group) == (mode == "insertion") for i in range(16)])
        stages = game.effects(present[None])[0]
        now = float(game.outcome(present[None]).rewards)
        promise = {
            b: float(stages[:, b].sum()) + off[b] if b in off else float(stages[:, b].clamp(min=0).sum())
            for b in range(16)
            if b not in group
        }
        gains = {}
        for b in sorted(promise, key=lambda b: -promise[b])[:3]:
            row = present.clone()
            row[b] = not row[b]
            then = float(game.outcome(row[None]).rewards)
            gains[b] = then - now if mode == "insertion" else now - then
            off[b] = gains[b] - float(stages[:, b].sum())
        assert taken == max(gains, key=lambda b: gains[b])
        group.append(taken)
        present[taken] = not present[taken]
        assert float(game.outcome(present[None]).rewards) == pytest.approx(reward, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("per_eval", [None, 1, 3])
@pytest.mark.parametrize("width", [1, 3])
def test_a_screened_batch_is_its_examples(per_eval: int | None, width: int) -> None:
    """Masks of their own, with different numbers of players, and stopping at different steps."""
    model = zoo.randomised(zoo.resnet())
    masks = torch.cat([patch_mask(32, 8), patch_mask(32, 16), patch_mask(32, 8)])
    options = {"stop": "flip", "return_selection": True, "perturbations_per_eval": per_eval}
    method = MoXIDeletion(model, candidates=GradientScreen(2), beam_width=width)
    target = model(image(3)).logits.argmax(1)
    _, together = method.attribute(image(3), target=target, feature_mask=masks, **options)
    for i in range(3):
        _, alone = method.attribute(
            image(3)[i : i + 1], target=target[i : i + 1], feature_mask=masks[i : i + 1], **options
        )
        steps = int(alone.n_steps[0])
        assert int(together.n_steps[i]) == steps
        assert torch.equal(together.order[i, :steps], alone.order[0])
        assert torch.equal(together.n_evaluated[i, :steps], alone.n_evaluated[0])
        # the network's logits are in the hundreds
        close = {"rtol": 1e-4, "atol": 1e-2, "equal_nan": True}
        torch.testing.assert_close(together.skipped[i, :steps], alone.skipped[0], **close)
        torch.testing.assert_close(together.shapley[i, :steps], alone.shapley[0], **close)


@pytest.mark.parametrize("name", ["vit", "resnet"])
@pytest.mark.parametrize("own", [False, True])
def test_gradients_of_a_batch_are_those_of_its_examples(name: str, own: bool) -> None:
    model = zoo.token_model("vit") if name == "vit" else zoo.randomised(zoo.resnet())
    other = patch_mask(32, 8).flip(3)
    masks = torch.cat([patch_mask(32, 8), other, other]) if own else patch_mask(32, 8)
    rows = torch.rand(7, 16, generator=torch.Generator().manual_seed(1)) < 0.5
    examples = torch.tensor([2, 0, 0, 1, 2, 0, 0])
    game = CoalitionGame(model, image(3), target=1, feature_mask=masks, perturbations_per_eval=2)
    together = game.effects(rows, examples)
    for row, example, got in zip(rows, examples.tolist(), together, strict=True):
        mask = masks[example : example + 1] if own else masks
        alone = CoalitionGame(model, image(3)[example : example + 1], target=1, feature_mask=mask)
        torch.testing.assert_close(got, alone.effects(row[None])[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("present", [0.0, 1.0])
def test_gradients_survive_half_precision(dtype: torch.dtype, present: float) -> None:
    model, rows = zoo.token_model("vit"), torch.full((1, 16), present)
    expected = CoalitionGame(model, image(), target=1).effects(rows)[0].sum(0)
    got = CoalitionGame(model.to(dtype), image().to(dtype), target=1).effects(rows)[0].sum(0)
    assert torch.corrcoef(torch.stack([got.float(), expected]))[0, 1] > 0.9


def test_gradients_fit_as_many_rows_into_a_pass_as_there_are_tokens_in_all() -> None:
    model, sizes = zoo.token_model("vit"), []
    model.vit.embeddings.register_forward_hook(lambda module, args, output: None)
    game = CoalitionGame(model, image(), target=1)
    game._model.rows_at_once = lambda size: sizes.append(size) or 64
    game.effects(torch.cat([torch.zeros(4, 16), torch.ones(4, 16)]))
    # whole sequences, whoever is absent, and the eighth part of the rows
    assert set(sizes) == {16}


def test_attention_is_as_it_was_also_after_an_exception() -> None:
    model = zoo.token_model("vit")
    model.set_attn_implementation("eager")
    game = CoalitionGame(model, image(), target=1)

    def fail(*_args: object) -> None:
        raise KeyboardInterrupt

    handle = model.classifier.register_forward_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        game.effects(torch.ones(1, 16))
    handle.remove()
    assert model.config._attn_implementation == "eager"
    assert not model.vit.embeddings._forward_hooks
    plain = zoo.token_model("vit")
    torch.testing.assert_close(model(image()).logits, plain(image()).logits)


def test_random_draws_are_the_same_whatever_the_batch_and_leave_the_random_state() -> None:
    game = random_game(batch=3, n=6)
    before = torch.get_rng_state()
    together = greedy(game, "insertion", screen=RandomScreen(2, seed=5))
    assert torch.equal(torch.get_rng_state(), before)
    alone = [greedy(game.alone(i), "insertion", screen=RandomScreen(2, seed=5)) for i in range(3)]
    assert torch.equal(together.order, torch.cat([selection.order for selection in alone]))
    others = [greedy(game, "insertion", screen=RandomScreen(2, seed=seed)).order for seed in range(4)]
    assert any(not torch.equal(a, b) for a, b in pairwise(others))
    assert together.n_evaluated.tolist() == [[2, 2, 2, 2, 2, 1]] * 3
    assert together.skipped.isnan().all()


@MODES
def test_gradient_of_a_linear_model_is_what_each_player_changes(mode: Mode) -> None:
    weights = torch.tensor([3.0, -1.0, 0.5, 2.0, -4.0, 1.0])
    x, baseline = torch.tensor([[1.0, 2.0, 3.0, -1.0, 0.5, 4.0]]), torch.tensor([[0.5, 0.0, 1.0, 1.0, 0.0, 2.0]])
    game = CoalitionGame(lambda x: x @ weights, x, baselines=baseline, reward="output", removal=BaselineRemoval())
    rows = torch.tensor([[True] * 6, [False] * 6, [True, False] * 3])
    expected = (x - baseline) * weights
    torch.testing.assert_close(game.effects(rows), expected.expand(3, 1, -1))
    assert (game.n_backward_rows, game.n_rows) == (3, 4)
    # of a linear model they are the truth, and one candidate a step is enough
    best = expected[0].argsort(descending=True)[:3].tolist()
    assert greedy(game, mode, 3, screen=GradientScreen(1)).order[0].tolist() == best


@pytest.mark.parametrize("fill", ["mean", "blur"])
def test_gradient_under_fill_is_that_of_the_input_on_its_way_to_the_fill(fill: str) -> None:
    # smooth everywhere, as a ReLU or a maximum over a constant patch is not
    layers = nn.Conv2d(3, 4, 5, 3), nn.Tanh(), nn.Flatten(), nn.Linear(400, 3)
    model, x = zoo.randomised(nn.Sequential(*layers)).double(), image().double()
    game = CoalitionGame(
        model, x, target=1, reward="output", feature_mask=patch_mask(32, 16), removal=BaselineRemoval(fill)
    )
    filling = game._model.baselines[0]
    present = torch.tensor([True, False, True, True])
    mask = patch_mask(32, 16)[0, 0]

    def value(gates: Tensor) -> float:
        part = gates[mask]
        with torch.no_grad():
            return float(model(part * x + (1 - part) * filling)[0, 1])

    _check_derivatives(game.effects(present[None])[0, 0], value, present.double())


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["vit", "deit", "deit_with_teacher", "vit_msn", "dinov2", "dinov2_with_registers"])
def test_gradient_of_tokens_is_that_of_their_share_of_attention(name: str, attention: str) -> None:
    model = zoo.token_model(name).double()
    model.set_attn_implementation(attention)
    x = image().double()
    game = CoalitionGame(model, x, target=2, reward="output")
    present = torch.rand(16, generator=torch.Generator().manual_seed(2)) < 0.7

    got = game.effects(present[None])[0]
    assert got.shape == (3, 16)
    for layer in range(3):

        def value(gates: Tensor, layer: int = layer) -> float:
            of_layers = present.double().repeat(3, 1)
            of_layers[layer] = gates
            return float(reference.gated_logits(model, x, of_layers)[2])

        _check_derivatives(got[layer], value, present.double())
    assert model.config._attn_implementation == attention


def _check_derivatives(got: Tensor, value: object, gates: Tensor) -> None:
    step = 1e-6
    for player in range(len(gates)):
        aside = torch.zeros(len(gates), dtype=torch.float64)
        aside[player] = step
        slope = (value(gates + aside) - value(gates - aside)) / (2 * step)
        assert float(got[player]) == pytest.approx(slope, rel=2e-3, abs=2e-4)


def as_torchvision(timm: zoo.TimmLayout) -> zoo.TorchvisionLayout:
    """The same network in the other layout."""
    other = zoo.TorchvisionLayout()
    pairs = [(other.conv_proj, timm.patch_embed), (other.encoder.ln, timm.norm), (other.heads, timm.head)]
    for theirs, ours in zip(other.encoder.layers, timm.blocks, strict=True):
        pairs += [(theirs.ln_1, ours.norm1), (theirs.ln_2, ours.norm2), (theirs.mlp, ours.mlp)]
        pairs += [(theirs.self_attention.out_proj, ours.attn.proj)]
        theirs.self_attention.in_proj_weight.data = ours.attn.qkv.weight.data.clone()
        theirs.self_attention.in_proj_bias.data = ours.attn.qkv.bias.data.clone()
    for theirs, ours in pairs:
        theirs.load_state_dict(ours.state_dict())
    other.class_token.data, other.encoder.pos_embedding.data = timm.cls_token.data, timm.pos_embed.data
    return other.eval()


@pytest.mark.parametrize("frozen", [False, True])
def test_gradient_of_other_layouts_is_that_of_their_share_of_attention(
    frozen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    timm = zoo.randomised(zoo.TimmLayout("token")).double()
    torchvision = as_torchvision(timm).double()
    x, everyone = image().double(), torch.ones(1, 16, dtype=torch.bool)
    options = {"target": 1, "feature_mask": patch_mask(32, 8), "reward": "output"}
    got = {}
    for model, site in ((timm, "norm_pre"), (torchvision, "encoder.dropout")):
        model.requires_grad_(not frozen)
        game = CoalitionGame(model, x, removal=TokenRemoval(site), **options)
        got[site] = game.effects(everyone)[0].sum(0)
        assert all(parameter.grad is None for parameter in model.parameters())
    torch.testing.assert_close(got["norm_pre"], got["encoder.dropout"])

    def value(gates: Tensor) -> float:
        weights = torch.cat([torch.ones(1), gates]).double()

        def attention(query: Tensor, key: Tensor, values: Tensor) -> Tensor:
            shares = weights * (query @ key.transpose(2, 3) / query.shape[-1] ** 0.5).exp()
            return shares / shares.sum(-1, keepdim=True) @ values

        with monkeypatch.context() as patched, torch.no_grad():
            patched.setattr(nn.functional, "scaled_dot_product_attention", attention)
            return float(timm(x)[0, 1])

    _check_derivatives(got["norm_pre"], value, torch.ones(16, dtype=torch.float64))


def test_gradients_start_at_the_layer_from_which_attention_is_masked() -> None:
    model = zoo.token_model("vit")
    late, early = (
        CoalitionGame(model, image(), target=1, removal=AttentionRemoval(layer)).effects(torch.ones(1, 16))[0]
        for layer in (2, 0)
    )
    of_tokens = CoalitionGame(model, image(), target=1, removal=TokenRemoval()).effects(torch.ones(1, 16))[0]
    torch.testing.assert_close(early, of_tokens)
    torch.testing.assert_close(late, early[2:])
    # the last layer alone is nearly linear in a gate: taking the token is a finite step of it
    game = CoalitionGame(model, image(), target=1, removal=AttentionRemoval(2))
    absent = ~torch.eye(16, dtype=torch.bool)
    losses = game.full.rewards - game.outcome(absent).rewards
    assert torch.corrcoef(torch.stack([late[0], losses]))[0, 1] > 0.9


def test_gradients_are_found_also_where_the_caller_has_turned_them_off() -> None:
    model = zoo.token_model("vit")
    game = CoalitionGame(model, image(), target=1)
    expected = game.effects(torch.ones(2, 16))
    with torch.no_grad():
        torch.testing.assert_close(game.effects(torch.ones(2, 16)), expected)
    with torch.inference_mode():
        method = MoXIDeletion(model, candidates=GradientScreen(2))
        assert method.attribute(image(), target=1, n_steps=2).shape == (1, 3, 32, 32)


def test_players_never_evaluated_count_by_the_stages_that_speak_for_the_target() -> None:
    game = random_game(batch=1, n=4)
    # by stage and player: 1 is torn between its stages, 2 is against in both
    game.effects = lambda coalitions, examples: torch.tensor([[[1.0, 5.0, -1.0, 2.0], [1.0, -6.0, -2.0, -0.5]]])
    known = torch.tensor([[4.0, torch.nan, torch.nan, 3.0]])
    said = torch.tensor([[2.5, torch.nan, torch.nan, 1.0]])
    rows = torch.ones(1, 4, dtype=torch.bool)
    look = Look(game, "deletion", 2, torch.zeros(1, dtype=torch.long), rows, rows, torch.zeros(1), known, said, known)
    estimates, promise = GradientScreen(2).estimate(look)
    assert estimates.tolist() == [[2.0, -1.0, -3.0, 1.5]]
    # player 0 was worth 1.5 more than was said, and player 3 2.0 more
    assert promise.tolist() == [[3.5, 5.0, 0.0, 3.5]]


class Detached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return (x.detach() * self.weight).sum(1)


class NoAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 4, 8, 8)
        self.tokens = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.tokens(self.embed(x).flatten(2).transpose(1, 2)).mean(1)


@pytest.mark.parametrize(
    ("forward", "inputs", "options", "message"),
    [
        (lambda x: torch.tensor(x.numpy().sum(1)), torch.ones(1, 4), {}, "cannot be differentiated"),
        (Detached(), torch.ones(1, 4), {}, "no gradient"),
        (lambda x: x.detach().sum(1), torch.ones(1, 4), {}, "no gradient"),
        (lambda x: x.float().sum(1), torch.ones(1, 4, dtype=torch.long), {}, "dtype torch.int64"),
        (lambda x: x.sum(), torch.ones(2, 4), {}, "one value for the whole batch"),
        (NoAttention(), image(), {"target": 0, "removal": TokenRemoval("tokens", n_prefix=0)}, "no attention"),
    ],
)
def test_what_has_no_gradient_is_told_so_and_what_to_pass(
    forward: object, inputs: Tensor, options: dict[str, object], message: str
) -> None:
    removal = options.get("removal")
    method = MoXIDeletion(forward, reward="output", removal=removal, candidates=GradientScreen(2))
    mask = patch_mask(32, 8) if inputs.dim() == 4 else None
    with pytest.raises(ValueError, match=message) as error:
        method.attribute(inputs, target=options.get("target"), feature_mask=mask)
    assert "screen" in str(error.value)
    # and the others need none
    other = MoXIDeletion(forward, reward="output", removal=removal, candidates=LastGainsScreen(2))
    other.attribute(inputs, target=options.get("target"), feature_mask=mask)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: GradientScreen(0), ValueError, "m is 0"),
        (lambda: LastGainsScreen(1.5), TypeError, "m is 1.5"),
        (lambda: RandomScreen(4, seed=1.5), TypeError, "seed is 1.5"),
        (lambda: HalfPrecisionScreen("bfloat16"), TypeError, "dtype is 'bfloat16'"),
        (lambda: HalfPrecisionScreen(torch.float32), ValueError, "dtype is torch.float32"),
        (lambda: MoXIInsertion(zoo.Classes(4), candidates=8), TypeError, "candidates is 8"),
        (lambda: MoXIInsertion(zoo.Classes(4), candidates=GradientScreen), TypeError, "candidates is"),
        (lambda: MoXIInsertion(zoo.Classes(4), beam_width=0), ValueError, "beam_width is 0"),
        (lambda: MoXIInsertion(zoo.Classes(4), beam_width=2.0), TypeError, "beam_width is 2.0"),
        (lambda: MoXIInsertion(zoo.Classes(4), interactions=False, beam_width=2), ValueError, "interactions is False"),
        (
            lambda: MoXIDeletion(zoo.Classes(4), interactions=False, candidates=GradientScreen()),
            ValueError,
            "interactions is False",
        ),
    ],
)
def test_bad_screens_and_beams_are_refused(make: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


class Mute(Screen):
    """Names nobody in the second example."""

    def estimate(self, look: Look) -> tuple[Tensor, Tensor]:
        return (torch.zeros(look.candidates.shape),) * 2

    def more(self, look: Look, promise: Tensor, gains: Tensor) -> Tensor:
        return look.candidates & gains.isnan() & (look.examples != 1)[:, None]


class Narrow(Screen):
    def estimate(self, look: Look) -> tuple[Tensor, Tensor]:
        return (torch.zeros(6),) * 2


class Single(Screen):
    def estimate(self, look: Look) -> Tensor:
        return torch.zeros(look.candidates.shape)


@pytest.mark.parametrize(
    ("screen", "message"),
    [(Mute, "named no candidate at step 1"), (Narrow, "not one number"), (Single, "returned a Tensor")],
)
@pytest.mark.parametrize("batch", [2, 3])
def test_screens_of_others_are_told_what_they_did_wrong(screen: type[Screen], message: str, batch: int) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        greedy(random_game(batch=batch), "insertion", screen=screen(2))


class Halves(Screen):
    """Evaluates one candidate, and then the others: groups that two states reach in different passes."""

    def estimate(self, look: Look) -> tuple[Tensor, Tensor]:
        drawn = torch.rand(look.candidates.shape, generator=torch.Generator().manual_seed(look.step))
        return drawn, drawn

    def more(self, look: Look, promise: Tensor, gains: Tensor) -> Tensor:
        if bool(gains.isnan().all()):
            return self._largest(promise, look)
        return look.candidates & gains.isnan()


@MODES
def test_a_beam_keeps_a_group_once_in_however_many_passes_it_is_reached(mode: Mode) -> None:
    game = random_game(batch=4, n=6, seed=9)
    for k in range(1, 7):
        exact, passes = greedy(game, mode, k, beam_width=4), greedy(game, mode, k, screen=Halves(1), beam_width=4)
        torch.testing.assert_close(passes.rewards[:, -1], exact.rewards[:, -1])


def test_a_selection_with_a_screen_survives_json() -> None:
    selection = greedy(random_game(n=5), "deletion", screen=LastGainsScreen(2))
    again = Selection.from_dict(selection.to_dict())
    assert torch.equal(again.n_evaluated, selection.n_evaluated)
    torch.testing.assert_close(again.skipped, selection.skipped.double(), equal_nan=True)
