"""The typed decorator compared with the method that it decorates, and with Captum's own decorator."""

import inspect
from collections.abc import Callable

import pytest
import torch
from captum import log

from captum_moxi import MoXIDeletion, MoXIInsertion, MoXILocalization
from captum_moxi.attr.usage import log_usage, match_inputs


def test_the_decorated_method_keeps_its_signature_and_documentation() -> None:
    def attribute(inputs: int, *, target: int = 0) -> int:
        """Doubles the inputs."""
        return 2 * inputs

    decorated = log_usage()(attribute)
    assert inspect.signature(decorated) == inspect.signature(attribute)
    assert decorated.__doc__ == attribute.__doc__
    assert decorated(2, target=1) == 4


def test_calls_are_logged_by_captum(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def record_calls() -> Callable[[Callable[..., object]], Callable[..., object]]:
        def decorate(function: Callable[..., object]) -> Callable[..., object]:
            def wrapper(*args: object, **kwargs: object) -> object:
                calls.append(function.__name__)
                return function(*args, **kwargs)

            return wrapper

        return decorate

    monkeypatch.setattr(log, "log_usage", record_calls)

    @log_usage()
    def attribute() -> None:
        pass

    attribute()
    attribute()
    assert calls == ["attribute", "attribute"]


def test_attributions_match_the_form_of_the_inputs() -> None:
    x, y = torch.zeros(1), torch.ones(1)
    assert match_inputs((y,), x) is y
    assert match_inputs((y,), (x,)) == (y,)


@pytest.mark.parametrize("method", [MoXIInsertion, MoXIDeletion, MoXILocalization])
def test_attribute_has_captums_arguments_in_captums_order(method: type) -> None:
    parameters = list(inspect.signature(method.attribute).parameters)
    assert parameters[1:6] == ["inputs", "baselines", "target", "additional_forward_args", "feature_mask"]
    assert {"perturbations_per_eval", "show_progress"} <= set(parameters)
