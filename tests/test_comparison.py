"""compare against each of its parts called by itself."""

import builtins
from typing import Any

import pytest
import torch
import zoo

from captum_moxi import GradCam, MoXIDeletion, MoXIInsertion, compare, deletion_curve, insertion_curve
from captum_moxi.comparison import join
from captum_moxi.methods import METHODS, Method, moxi

Y = [1, 3, 0]


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return zoo.token_model("vit")


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_is_each_method_and_curve_by_itself(model: torch.nn.Module, x: torch.Tensor) -> None:
    found = compare(model, x, Y, methods=["moxi", "gradcam"])
    assert found.methods == ["MoXI", "Grad-CAM"]
    assert found.targets.tolist() == Y
    attributions: dict[tuple[str, str], Any] = {
        ("MoXI", "insertion"): MoXIInsertion(model).attribute(x, target=Y),
        ("MoXI", "deletion"): MoXIDeletion(model).attribute(x, target=Y),
        ("Grad-CAM", "insertion"): GradCam(model).attribute(x, target=Y),
        ("Grad-CAM", "deletion"): GradCam(model).attribute(x, target=Y),
    }
    assert {(result.method, result.mode) for result in found.results} == set(attributions)
    for (method, mode), attr in attributions.items():
        curve = {"insertion": insertion_curve, "deletion": deletion_curve}[mode](model, x, attr, target=Y)
        result = found.of(method, mode)
        torch.testing.assert_close(result.curve.rewards, curve.rewards, rtol=0, atol=1e-5)
        assert torch.equal(result.curve.predictions, curve.predictions)
        flips = found.players_to_flip(method, mode)
        torch.testing.assert_close(flips, curve.flipped * 16, equal_nan=True)
        scores = attr[:, :1].mean(1) if attr.shape[-1] == 4 else attr[:, 0, ::8, ::8]
        assert torch.equal(result.order, scores.flatten(1).argsort(descending=True, stable=True))


def test_moxi_pays_what_it_takes_and_curves_are_not_counted(model: torch.nn.Module, x: torch.Tensor) -> None:
    found = compare(model, x, Y, methods=["moxi", "shapley:3", "rollout"], fractions=[0, 0.5, 1])
    # n (n + 1) / 2 candidates, and the empty coalition in insertion
    assert found.of("MoXI", "insertion").forwards == 16 * 17 / 2 + 1
    early = compare(model, x, Y, methods=["moxi", "moxi-minus"], fractions=[0, 0.1])
    # two of sixteen players, the nearest to a tenth: their steps alone
    assert early.of("MoXI", "deletion").forwards == 16 + 15
    assert early.of("MoXI(-)", "deletion").forwards == 16 + 2
    assert found.of("MoXI", "deletion").forwards == 16 * 17 / 2
    # the whole input, and of each permutation every prefix; the same run for both modes
    assert found.of("Shapley, 3", "deletion").forwards == found.of("Shapley, 3", "insertion").forwards == 1 + 3 * 16
    assert found.of("Rollout", "insertion").forwards == 0


def test_table(model: torch.nn.Module, x: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    found = compare(model, x, Y, methods="random", modes="deletion", show_progress=True)
    records = found.records()
    assert [(row["example"], row["target"]) for row in records] == [(0, 1), (1, 3), (2, 0)]
    curve = found.of("Random", "deletion").curve
    assert [row["area"] for row in records] == curve.area().tolist()
    assert [row["players"] for row in records] == [16] * 3
    for row, flip in zip(records, curve.flipped.tolist(), strict=True):
        assert row["players to flip"] == (None if flip != flip else round(flip * 16))
    plain = builtins.__import__

    def without_pandas(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "pandas":
            raise ImportError(name)
        return plain(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_pandas)
    assert found.table == records


def test_table_is_a_frame(model: torch.nn.Module, x: torch.Tensor) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    found = compare(model, x, Y, methods=["random", "gradcam"])
    assert isinstance(found.table, pandas.DataFrame)
    assert found.table.to_dict("records")[0].keys() == found.records()[0].keys()


def test_leaves_everything_as_it_was(model: torch.nn.Module, x: torch.Tensor) -> None:
    torch.manual_seed(1)
    state, mode = torch.get_rng_state(), model.training
    names = [name for name in METHODS if name != "shapley-exact"]
    compare(model, x[:1], 1, methods=names, fractions=[0.5])
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training == mode
    assert not any(parameter.grad is not None or not parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_what_cannot_be(model: torch.nn.Module, x: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="method 'magic' is unknown"):
        compare(model, x, Y, methods=["moxi", "magic"])
    for methods in ([], ["moxi", moxi()]):
        with pytest.raises(ValueError, match="pass one or more, of different titles"):
            compare(model, x, Y, methods=methods)
    for modes in ("both", [], ["insertion", "insertion"]):
        with pytest.raises(ValueError, match="modes is"):
            compare(model, x, Y, modes=modes)

    def never(game: object, mode: str, n_steps: int | None) -> None:
        raise AssertionError("played before the others were checked")

    with pytest.raises(ValueError, match="needs one token a patch"):
        compare(zoo.resnet(), x, Y, methods=[Method("first", never), "rollout"])
    for fractions in ([], [0.5, 0.1], [2]):
        with pytest.raises(ValueError, match="fractions"):
            compare(lambda x: pytest.fail("ran"), x, Y, methods="random", fractions=fractions)
    with pytest.raises(ValueError, match="no deletion by 'Random'"):
        compare(model, x, Y, methods="random", modes="insertion").of("Random", "deletion")


def test_joined_is_the_batch(model: torch.nn.Module, x: torch.Tensor) -> None:
    together = compare(model, x, Y, methods=["moxi", "ablation"])
    apart = join(
        [
            compare(model, x[:1], Y[:1], methods=["moxi", "ablation"]),
            compare(model, x[1:], Y[1:], methods=["moxi", "ablation"]),
        ]
    )
    assert apart.targets.tolist() == Y
    for one, other in zip(together.results, apart.results, strict=True):
        assert (one.method, one.mode, one.forwards) == (other.method, other.mode, other.forwards)
        assert torch.equal(one.order, other.order)
        torch.testing.assert_close(one.curve.rewards, other.curve.rewards, rtol=0, atol=1e-4)
        assert torch.equal(one.curve.correct, other.curve.correct)


def test_a_model_in_training_mode_is_as_it_was(x: torch.Tensor) -> None:
    net = zoo.resnet().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    attr = torch.rand(3, 1, 4, 4)
    insertion_curve(net, x, attr, Y, fractions=[0, 0.5])
    compare(net, x, Y, methods=["gradcam", "random"], fractions=[0, 0.5])
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that PyTorch can use")
def test_on_a_gpu_as_on_the_cpu(x: torch.Tensor) -> None:
    names = ["moxi", "ablation", "gradcam", "gradcam++", "rollout", "integrated-gradients", "occlusion"]
    here, there = (
        compare(zoo.token_model("vit").to(device), x.to(device), Y, methods=names, modes="insertion")
        for device in ("cpu", "cuda")
    )
    for one, other in zip(here.results, there.results, strict=True):
        torch.testing.assert_close(one.curve.rewards[:, -1], other.curve.rewards[:, -1], rtol=0, atol=1e-3)
        assert other.order.device.type == "cpu"
