from collections.abc import Callable

import pytest
import torch
import zoo
from torch import nn

from captum_moxi import models

WRAPPERS: dict[str, Callable[[nn.Module], Callable[..., object]]] = {
    "model": lambda model: model,
    "LogitsModel": models.LogitsModel,
    "DataParallel": nn.DataParallel,
    "DataParallel of LogitsModel": lambda model: nn.DataParallel(models.LogitsModel(model)),
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "bound method": lambda model: model.forward,
    "sequence": lambda model: nn.Sequential(nn.Identity(), model),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_the_transformer_inside_a_wrapper_is_found(wrapper: str) -> None:
    model = zoo.token_model("vit")
    assert models.transformer(WRAPPERS[wrapper](model)) is model


@pytest.mark.parametrize("wrapper", ["model", "DataParallel", "compiled", "bound method"])
def test_the_module_that_a_forward_function_runs_is_found(wrapper: str) -> None:
    model = zoo.Classes(4)
    assert models.module_of(WRAPPERS[wrapper](model)) is model


def test_a_function_runs_no_module_and_is_no_transformer() -> None:
    assert models.module_of(lambda x: x) is None
    assert models.transformer(lambda x: x) is None


def test_two_transformers_in_one_module_are_ambiguous() -> None:
    assert models.transformer(nn.ModuleList([zoo.token_model("vit"), zoo.token_model("deit")])) is None


def test_only_data_parallel_and_compiled_modules_are_unwrapped_for_one_device() -> None:
    model = zoo.Classes(4)
    assert models.on_one_device(nn.DataParallel(model)) is model
    assert models.on_one_device(nn.DataParallel(torch.compile(model, backend="eager"))) is model
    sequence = nn.Sequential(model)
    assert models.on_one_device(sequence) is sequence
