"""Private views: they compute what the model computes, and what is done to them does not reach the model."""

import pytest
import torch
import zoo
from captum.attr import GuidedBackprop
from torch import Tensor, nn
from transformers import PreTrainedModel

from captum_moxi import GradCam, MoXIInsertion, compare, models, patch_mask


class Chain(nn.Module):
    """A network that calls its modules by their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.relu = nn.ReLU()
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.relu(self.convolution(x)).mean((2, 3)))


class ListedChain(Chain):
    """The same network, which calls its modules through a list and a stored method."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = [self.convolution, self.relu]
        self.pool = self._pool

    def _pool(self, x: Tensor) -> Tensor:
        return self.head(x.mean((2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step(x)
        return self.pool(x)


def networks() -> dict[str, nn.Module]:
    chain, listed = Chain().eval(), ListedChain().eval()
    listed.load_state_dict(chain.state_dict())
    return {"chain": chain, "listed": listed, "traced": torch.fx.symbolic_trace(chain), "vit": zoo.token_model("vit")}


def logits(output: object) -> Tensor:
    return output if isinstance(output, Tensor) else output.logits


def count_hooks(model: nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules())


@pytest.mark.parametrize("name", ["chain", "listed", "traced", "vit"])
def test_a_view_computes_what_the_model_computes_with_the_same_weights(name: str) -> None:
    model, x = networks()[name], torch.randn(2, 3, 32, 32)
    view = models.private_view(model)
    assert torch.equal(logits(view.forward_func(x)), logits(model(x)))
    assert {id(p) for p in view.forward_func.parameters()} == {id(p) for p in model.parameters()}
    with torch.no_grad():
        next(iter(model.parameters())).add_(1)
    assert torch.equal(logits(view.forward_func(x)), logits(model(x)))


@pytest.mark.parametrize("name", ["chain", "listed", "traced", "vit"])
def test_hooks_on_a_view_do_not_reach_the_model(name: str) -> None:
    model, x = networks()[name], torch.randn(2, 3, 32, 32)
    expected = logits(model(x))
    view = models.private_view(model)
    first = next(part for part in model.modules() if isinstance(part, nn.Conv2d))
    view.module(first).register_forward_hook(lambda module, args, output: output + 1)
    assert torch.equal(logits(model(x)), expected)
    assert not torch.equal(logits(view.forward_func(x)), expected)
    assert count_hooks(model) == 0


def test_the_users_hooks_act_in_the_view() -> None:
    model, seen = Chain(), []
    model.relu.register_forward_hook(lambda module, args, output: seen.append(len(output)))
    models.private_view(model).forward_func(torch.randn(2, 3, 8, 8))
    assert seen == [2]


def test_captured_outputs_of_transformers_do_not_accumulate_on_the_model() -> None:
    vit, x = zoo.token_model("vit"), torch.randn(2, 3, 32, 32)
    vit.config.output_hidden_states = True
    states, hooks = len(vit(x).hidden_states), count_hooks(vit)
    for _ in range(3):
        GradCam(vit).attribute(x, target=[1, 1])
        MoXIInsertion(vit).attribute(x, target=[1, 1], n_steps=2)
    assert (len(vit(x).hidden_states), count_hooks(vit)) == (states, hooks)


def test_modules_in_lists_are_those_of_the_view() -> None:
    chain, listed = networks()["chain"], networks()["listed"]
    listed.load_state_dict(chain.state_dict())
    x, mask = torch.randn(2, 3, 32, 32), patch_mask(32, grid=4)
    orders = [
        compare(net, x, target=[0, 1], methods=[GuidedBackprop], feature_mask=mask, fractions=[0, 0.5]).results[0].order
        for net in (chain, listed)
    ]
    assert torch.equal(orders[0], orders[1])


def test_nested_configurations_belong_to_the_view() -> None:
    vit = zoo.token_model("vit")
    vit.config.inner = type(vit.config)()
    view = models.private_view(vit).forward_func
    assert isinstance(view, PreTrainedModel)
    assert view.config is not vit.config
    assert view.config.inner is not vit.config.inner
    assert view.vit.config is view.config
