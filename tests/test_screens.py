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


SCREENS = pytest.mark.parametrize(
    "screen",
    [
        GradientScreen(16),
        LastGainsScreen(16),
        RandomScreen(16),
        HalfPrecisionScreen(),
        HalfPrecisionScreen(torch.float16),
    ],
    ids=repr,
)


@MODES
@SCREENS
@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_a_screen_that_skips_nothing_that_matters_gives_the_exact_selection(
    mode: Mode, screen: Screen, name: str
) -> None:
    model = zoo.token_model("vit") if name == "vit" else zoo.randomised(zoo.resnet())
    method = MoXIInsertion if mode == "insertion" else MoXIDeletion
    options = {"target": 1, "feature_mask": patch_mask(32, 8), "n_steps": 5, "return_selection": True}
    attr, exact = method(model).attribute(image(2), **options)
    screened_attr, screened = method(model, candidates=screen).attribute(image(2), **options)
    assert torch.equal(screened.order, exact.order)
    torch.testing.assert_close(screened.rewards, exact.rewards)
    torch.testing.assert_close(screened.interactions, exact.interactions, rtol=1e-4, atol=1e-5)
    assert torch.equal(screened_attr, attr)


def test_half_precision_evaluates_all_at_first_and_few_from_then_on() -> None:
    _, selection = MoXIDeletion(zoo.token_model("vit"), candidates=HalfPrecisionScreen()).attribute(
        image(), target=1, return_selection=True
    )
    counts = selection.n_evaluated[0].tolist()
    assert counts[0] == 16
    assert sum(counts) < 16 * 17 / 2


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
    look = Look(game, "deletion", 2, torch.zeros(1, dtype=torch.long), rows, rows, torch.zeros(1), known, said)
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


def test_a_selection_with_a_screen_survives_json() -> None:
    selection = greedy(random_game(n=5), "deletion", screen=LastGainsScreen(2))
    again = Selection.from_dict(selection.to_dict())
    assert torch.equal(again.n_evaluated, selection.n_evaluated)
    torch.testing.assert_close(again.skipped, selection.skipped.double(), equal_nan=True)
