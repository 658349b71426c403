"""Comparisons against each of their parts computed separately."""

import builtins
import warnings
from typing import Any

import pytest
import torch
import zoo

from captum_moxi import (
    CoalitionGame,
    GradCam,
    MoXIDeletion,
    MoXIInsertion,
    compare,
    deletion_curve,
    insertion_curve,
    patch_mask,
)
from captum_moxi.comparison import join, play_method
from captum_moxi.methods import METHODS, Method, moxi
from captum_moxi.metrics import Metric
from captum_moxi.search import Selection

TARGETS = [1, 3, 0]
CURVES = {"insertion": insertion_curve, "deletion": deletion_curve}


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return zoo.token_model("vit")


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_each_result_is_the_method_and_the_curve_computed_separately(model: torch.nn.Module, x: torch.Tensor) -> None:
    comparison = compare(model, x, target=TARGETS, methods=["moxi", "gradcam"])
    assert comparison.methods == ["MoXI", "Grad-CAM"]
    assert comparison.targets is not None
    assert comparison.targets.tolist() == TARGETS
    attributions = {
        ("MoXI", "insertion"): MoXIInsertion(model).attribute(x, target=TARGETS),
        ("MoXI", "deletion"): MoXIDeletion(model).attribute(x, target=TARGETS),
        ("Grad-CAM", "insertion"): GradCam(model).attribute(x, target=TARGETS),
        ("Grad-CAM", "deletion"): GradCam(model).attribute(x, target=TARGETS),
    }
    assert {(result.method, result.mode) for result in comparison.results} == set(attributions)
    for (method, mode), attr in attributions.items():
        curve = CURVES[mode](model, x, attributions=attr, target=TARGETS)
        result = comparison.of(method, mode)
        torch.testing.assert_close(result.curve.rewards, curve.rewards, rtol=0, atol=1e-5)
        assert torch.equal(result.curve.predictions, curve.predictions)
        counts = comparison.players_to_flip(method, mode)
        torch.testing.assert_close(counts, curve.flip_fraction * 16, equal_nan=True)
        scores = attr[:, :1].mean(1) if attr.shape[-1] == 4 else attr[:, 0, ::8, ::8]
        assert torch.equal(result.order, scores.flatten(1).argsort(descending=True, stable=True))


def test_rows_are_those_of_the_order_and_not_of_the_curve(model: torch.nn.Module, x: torch.Tensor) -> None:
    comparison = compare(model, x, target=TARGETS, methods=["moxi", "shapley:3", "rollout"], fractions=[0, 0.5, 1])
    # n (n + 1) / 2 candidates, and the empty coalition for insertion.
    assert comparison.of("MoXI", "insertion").rows == 16 * 17 / 2 + 1
    assert comparison.of("MoXI", "deletion").rows == 16 * 17 / 2
    # The full input and every prefix of each permutation; both modes share one run.
    assert comparison.of("Shapley, 3", "insertion").rows == 1 + 3 * 16
    assert comparison.of("Shapley, 3", "deletion").rows == 1 + 3 * 16
    assert comparison.of("Rollout", "insertion").rows == 1


def test_only_players_up_to_the_last_fraction_are_ordered(model: torch.nn.Module, x: torch.Tensor) -> None:
    comparison = compare(model, x, target=TARGETS, methods=["moxi", "moxi-minus"], fractions=[0, 0.1])
    # A tenth of 16 players rounds to two steps.
    assert comparison.of("MoXI", "deletion").rows == 16 + 15
    assert comparison.of("MoXI(-)", "deletion").rows == 16 + 2


def test_playing_one_method_counts_its_rows(model: torch.nn.Module, x: torch.Tensor) -> None:
    game = CoalitionGame(model, x, target=TARGETS)
    run = play_method(game, moxi(), "deletion", n_steps=2)
    assert isinstance(run.attributions, Selection)
    assert torch.equal(run.positions[:, :2], run.attributions.order)
    assert run.positions.sort().values.tolist() == [list(range(16))] * 3
    assert run.rows == 16 + 15
    assert run.seconds > 0
    assert play_method(game, METHODS.create("rollout"), "deletion").rows == 1


def test_records_have_a_column_for_each_metric(model: torch.nn.Module, x: torch.Tensor) -> None:
    comparison = compare(model, x, target=TARGETS, methods="random", modes="deletion", show_progress=True)
    records = comparison.records()
    columns = ["example", "target", "method", "mode", "players", "players to flip", "area", "reward area"]
    assert list(records[0]) == [*columns, "seconds", "rows", "weighted rows"]
    assert [(record["example"], record["target"]) for record in records] == [(0, 1), (1, 3), (2, 0)]
    curve = comparison.of("Random", "deletion").curve
    assert [record["area"] for record in records] == curve.area().tolist()
    assert [record["reward area"] for record in records] == curve.area("rewards").tolist()
    assert [record["players"] for record in records] == [16] * 3
    for record, fraction in zip(records, curve.flip_fraction.tolist(), strict=True):
        assert record["players to flip"] == (None if fraction != fraction else round(fraction * 16))


def test_methods_with_one_order_have_an_srg(model: torch.nn.Module, x: torch.Tensor) -> None:
    comparison = compare(model, x, target=TARGETS, methods=["moxi", "gradcam"])
    attr = GradCam(model).attribute(x, target=TARGETS)
    insertion, deletion = (curve(model, x, attributions=attr, target=TARGETS).area() for curve in CURVES.values())
    srg = comparison.srg("Grad-CAM")
    assert srg is not None
    torch.testing.assert_close(srg, insertion - deletion, rtol=0, atol=1e-6)
    # MoXI has one order for each mode.
    assert comparison.srg("MoXI") is None
    for record in comparison.records():
        expected = float(srg[record["example"]]) if record["method"] == "Grad-CAM" else float("nan")
        assert record["SRG"] == pytest.approx(expected, nan_ok=True)
    assert "SRG" in comparison._repr_html_()


def test_truncated_orders_and_single_modes_have_no_srg(model: torch.nn.Module, x: torch.Tensor) -> None:
    for options in ({"fractions": [0, 0.5]}, {"fractions": [0.5, 1]}, {"modes": "insertion"}):
        comparison = compare(model, x, target=TARGETS, methods="gradcam", **options)
        assert comparison.srg("Grad-CAM") is None
        assert all("SRG" not in record for record in comparison.records())
        assert "SRG" not in comparison._repr_html_()


def test_metrics_can_be_chosen(model: torch.nn.Module, x: torch.Tensor) -> None:
    last = Metric("last", lambda curve: curve.confidences[:, -1].double(), better={"insertion": "higher"})
    comparison = compare(model, x[:1], target=1, methods="random", modes="insertion", metrics=["area", last])
    record = comparison.records()[0]
    assert list(record)[5:-3] == ["area", "last"]
    with torch.no_grad():
        assert record["last"] == pytest.approx(float(model(x[:1]).logits.softmax(1)[0, 1]), abs=1e-6)
    assert join([comparison, comparison]).metrics == comparison.metrics


def test_the_table_is_a_list_without_pandas(
    model: torch.nn.Module, x: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparison = compare(model, x[:1], target=1, methods="random", modes="deletion")
    original_import = builtins.__import__

    def import_without_pandas(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "pandas":
            raise ImportError(name)
        return original_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", import_without_pandas)
    table = comparison.table
    assert table == comparison.records()
    assert isinstance(table, list)
    header, row = repr(table).splitlines()
    assert header.split()[:4] == ["example", "target", "method", "mode"]
    assert row.split()[:4] == ["0", "1", "Random", "deletion"]


def test_the_table_is_a_data_frame_with_pandas(model: torch.nn.Module, x: torch.Tensor) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    comparison = compare(model, x, target=TARGETS, methods=["random", "gradcam"])
    assert isinstance(comparison.table, pandas.DataFrame)
    assert comparison.table.to_dict("records")[0].keys() == comparison.records()[0].keys()


def test_the_model_and_the_random_state_are_unchanged(model: torch.nn.Module, x: torch.Tensor) -> None:
    state, training = torch.get_rng_state(), model.training
    names = [name for name in METHODS if name != "shapley-exact"]
    compare(model, x[:1], target=1, methods=names, fractions=[0.5])
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training == training
    assert not any(parameter.grad is not None or not parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_model_in_training_mode_keeps_its_buffers(x: torch.Tensor) -> None:
    resnet = zoo.resnet().train()
    before = {name: value.clone() for name, value in resnet.state_dict().items()}
    compare(resnet, x, target=TARGETS, methods=["gradcam", "random"], fractions=[0, 0.5])
    assert resnet.training
    assert all(torch.equal(value, before[name]) for name, value in resnet.state_dict().items())


def test_unknown_or_repeated_methods_and_modes(model: torch.nn.Module, x: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="method 'magic' is unknown"):
        compare(model, x, target=TARGETS, methods=["moxi", "magic"])
    with pytest.raises(ValueError, match="metric 'magic' is unknown"):
        compare(model, x, target=TARGETS, methods="random", metrics="magic")
    for methods in ([], ["moxi", moxi()]):
        with pytest.raises(ValueError, match="pass one or more methods with different titles"):
            compare(model, x, target=TARGETS, methods=methods)
    modes: Any
    for modes in ("both", [], ["insertion", "insertion"]):
        with pytest.raises(ValueError, match=r"modes is .*; pass 'insertion', 'deletion' or both"):
            compare(model, x, target=TARGETS, modes=modes)


def plain(images: torch.Tensor) -> torch.Tensor:
    return images.flatten(1)[:, :4]


DEFAULTS = ["MoXI", "MoXI(-)", "Shapley, 5", "Grad-CAM", "Grad-CAM++", "Rollout", "Random"]


@pytest.mark.parametrize(
    ("forward_func", "unsupported"),
    [
        (zoo.token_model("vit"), []),
        (zoo.resnet().eval(), ["Rollout"]),
        (zoo.swin(), ["Rollout"]),
        (plain, ["Grad-CAM", "Grad-CAM++", "Rollout"]),
    ],
)
def test_default_methods_that_do_not_support_the_model_are_left_out(
    forward_func: Any, unsupported: list[str], x: torch.Tensor
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        comparison = compare(
            forward_func, x, target=TARGETS, feature_mask=patch_mask(32, 16), fractions=[0, 0.5], modes="deletion"
        )
    assert comparison.methods == [title for title in DEFAULTS if title not in unsupported]
    messages = [str(warning.message) for warning in caught]
    assert [f"left out: {', '.join(unsupported)}; pass methods" in message for message in messages] == (
        [True] if unsupported else []
    )
    assert all(warning.filename == __file__ for warning in caught)


def test_a_method_that_the_user_asked_for_is_never_left_out(x: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"AttentionRollout needs one token for each patch.*; pass a ViT"):
        compare(zoo.resnet(), x, target=TARGETS, methods=["random", "rollout"])


def test_few_fractions_show_few_numbers_of_players_to_flip(model: torch.nn.Module, x: torch.Tensor) -> None:
    """As the documentation says, the flip is one of the evaluated numbers of players, or None."""
    fine = compare(model, x, target=TARGETS, methods="random", modes="insertion")
    coarse = compare(model, x, target=TARGETS, methods="random", modes="insertion", fractions=[0, 0.5])
    assert "17 fractions of the players up to 100%" in repr(fine)
    assert "2 fractions of the players up to 50%" in repr(coarse)
    for curve, record in zip(fine.results[0].curve.correct, coarse.records(), strict=True):
        flipped = [count for count in (0, 8) if curve[count]]
        assert record["players to flip"] == (flipped[0] if flipped else None)


def test_methods_are_checked_before_any_runs(x: torch.Tensor) -> None:
    def fail(game: object, mode: str, *, n_steps: int | None, stop: str | None) -> torch.Tensor:
        raise AssertionError("ran before all methods were checked")

    with pytest.raises(ValueError, match="patch"):
        compare(zoo.resnet(), x, target=TARGETS, methods=[Method("first", fail), "rollout"])


@pytest.mark.parametrize("fractions", [[], [0.5, 0.1], [2]])
def test_fractions_are_checked_before_the_model_runs(fractions: list[float], x: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="fractions"):
        compare(lambda x: pytest.fail("the model ran"), x, target=TARGETS, methods="random", fractions=fractions)


def test_a_missing_result_names_the_available_ones(model: torch.nn.Module, x: torch.Tensor) -> None:
    comparison = compare(model, x, target=TARGETS, methods="random", modes="insertion")
    with pytest.raises(ValueError, match="no result of method 'Random' in mode 'deletion'; pass one of 'Random' in"):
        comparison.of("Random", "deletion")


def test_joined_comparisons_are_the_comparison_of_the_batch(model: torch.nn.Module, x: torch.Tensor) -> None:
    batch = compare(model, x, target=TARGETS, methods=["moxi", "ablation"])
    joined = join(
        [
            compare(model, x[:1], target=TARGETS[:1], methods=["moxi", "ablation"]),
            compare(model, x[1:], target=TARGETS[1:], methods=["moxi", "ablation"]),
        ]
    )
    assert joined.targets is not None
    assert joined.targets.tolist() == TARGETS
    assert joined.n_players.tolist() == [16] * 3
    for result, expected in zip(joined.results, batch.results, strict=True):
        assert (result.method, result.mode, result.rows) == (expected.method, expected.mode, expected.rows)
        assert torch.equal(result.order, expected.order)
        torch.testing.assert_close(result.curve.rewards, expected.curve.rewards, rtol=0, atol=1e-4)
        assert torch.equal(result.curve.correct, expected.curve.correct)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no GPU")
def test_a_gpu_gives_the_same_rewards_as_the_cpu(x: torch.Tensor) -> None:
    names = ["moxi", "ablation", "gradcam", "gradcam++", "rollout", "integrated-gradients", "occlusion"]
    cpu, cuda = (
        compare(zoo.token_model("vit").to(device), x.to(device), target=TARGETS, methods=names, modes="insertion")
        for device in ("cpu", "cuda")
    )
    for expected, result in zip(cpu.results, cuda.results, strict=True):
        torch.testing.assert_close(result.curve.rewards[:, -1], expected.curve.rewards[:, -1], rtol=0, atol=1e-3)
        assert result.order.device.type == "cpu"


def test_each_order_is_computed_once_and_replayed_under_each_removal(model: torch.nn.Module, x: torch.Tensor) -> None:
    comparison = compare(
        model, x, target=TARGETS, methods=["moxi", "gradcam"], replay_removals=["token", "zero"], show_progress=True
    )
    plain = compare(model, x, target=TARGETS, methods=["moxi", "gradcam"])
    assert [result.rows for result in comparison.results] == [result.rows for result in plain.results]
    orders = {
        "MoXI, insertion order": comparison.of("MoXI", "insertion").order,
        "MoXI, deletion order": comparison.of("MoXI", "deletion").order,
        "Grad-CAM": comparison.of("Grad-CAM", "deletion").order,
    }
    records = comparison.replay_records()
    assert [(record["removal"], record["order"]) for record in records] == [
        (removal, order) for removal in ("token", "zero") for order in orders
    ]
    for record in records:
        areas = [
            curve(
                model, x, attributions=orders[str(record["order"])], target=TARGETS, removal=str(record["removal"])
            ).area()
            for curve in CURVES.values()
        ]
        assert record["insertion area"] == pytest.approx(float(areas[0].mean()), abs=1e-6)
        assert record["SRG"] == pytest.approx(float((areas[0] - areas[1]).mean()), abs=1e-6)
    assert "Each order under each removal" in comparison._repr_html_()
    joined = join([comparison, comparison])
    assert [len(replay.insertion) for replay in joined.replays] == [6] * 6


def test_a_single_mode_is_replayed_in_both(model: torch.nn.Module, x: torch.Tensor) -> None:
    options: dict[str, Any] = {"modes": "insertion", "fractions": [0, 0.5], "replay_removals": ["zero"]}
    comparison = compare(model, x[:1], target=1, methods="gradcam", baselines=0.5, **options)
    (replay,) = comparison.replays
    order = comparison.of("Grad-CAM", "insertion").order
    curve = deletion_curve(model, x[:1], attributions=order, target=1, removal="zero", fractions=[0, 0.5])
    assert replay.deletion.tolist() == pytest.approx(curve.area().tolist(), abs=1e-6)
    assert replay.srg is None and comparison.replay_records()[0]["area difference"] is not None
    plain = compare(model, x[:1], target=1, methods="random", modes="deletion", fractions=[0, 0.5])
    assert plain.replays == () and plain.replay_html() == "" and not plain.replay_records()


def test_wrong_replay_removals_are_rejected_before_any_method_runs(x: torch.Tensor) -> None:
    for removals, message in ((["hail"], "'hail' is unknown"), ([], "replay_removals is"), (["zero"] * 2, "different")):
        with pytest.raises(ValueError, match=message):
            compare(lambda x: pytest.fail("the model ran"), x, target=TARGETS, replay_removals=removals)

    def fail(game: object, mode: str, *, n_steps: int | None, stop: str | None) -> torch.Tensor:
        raise AssertionError("ran before the removals were checked")

    with pytest.raises(ValueError, match="replay_removals='token' does not fit the model"):
        compare(zoo.resnet(), x, target=TARGETS, methods=[Method("first", fail)], replay_removals=["zero", "token"])
