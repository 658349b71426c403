"""Counts the rows of models that methods use directly, in addition to the rows of the game.

Nothing is attached to the user's model, so other threads notice nothing.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from captum_moxi.arguments import ForwardFunc, ModelOutput
from captum_moxi.game import Cost
from captum_moxi.models import LogitsModel, PrivateView, call_model, module_of, private_view

# Receives the cost of each forward and backward pass.
Record: TypeAlias = Callable[[Cost], None]

# The first operation of a pass, which may use the same parameter as the last one.
EMBEDDINGS = (nn.functional.embedding, torch.embedding)


class CountedModel(LogitsModel):
    """A model that returns logits ``(B, classes)``, or ``(B, 1)`` for a single logit, and records its cost.

    Args:
        model (nn.Module): Model.
        method (str): Name of the model's method that returns its output.
        record (Callable): Receives the cost of each forward and backward pass.
    """

    def __init__(self, model: nn.Module, method: str, record: Record) -> None:
        super().__init__(model)
        self.method = method
        self.record = record

    def forward(self, pixel_values: Tensor, *args: Any) -> Tensor:
        """Return the logits of the inputs."""
        logits: Tensor = _counted_logits(getattr(self.model, self.method), (pixel_values, *args), self.record)
        return logits


def counted_view(forward_func: ForwardFunc, record: Record) -> PrivateView:
    """Create a private view of a model that returns logits ``(B, classes)`` and records its cost.

    Methods may register hooks on every module of the view.

    Args:
        forward_func (Callable): Model, a method of a model, or any function.
        record (Callable): Receives the cost of each forward and backward pass.

    Returns:
        PrivateView: View of the model. Its forward function is a module if ``forward_func`` is a module or a method of
        one.
    """
    view = private_view(forward_func)
    for module in view.copies:
        view.module(module)
    inner = view.forward_func
    owner = inner if isinstance(inner, nn.Module) else getattr(inner, "__self__", None)
    if isinstance(owner, nn.Module) and view.copies:
        method = "__call__" if owner is inner else inner.__name__
        return PrivateView(CountedModel(owner, method, record), view.copies)
    return PrivateView(lambda *args: _counted_logits(inner, args, record), {})


class ParameterUses(TorchFunctionMode):
    """Counts the rows of a model in this thread, however it is called, while the mode is active.

    A function of the user may call the model in any way. The mode therefore observes the operations that use parameters
    of the model. Each pass ends with an operation on the same parameter, usually that of the classifier. The rows of
    its outputs are the rows of the model.

    Rows remain unknown if no operation uses a parameter. The function may evaluate no model, or one that the mode
    cannot observe: a copy of the model, ``torch.func.functional_call``, a compiled model, or another thread.

    Args:
        forward_func (Callable): Model. If it is a plain function, the parameters of all models are observed.
    """

    def __init__(self, forward_func: ForwardFunc) -> None:
        super().__init__()
        module = module_of(forward_func)
        self._parameters = None if module is None else {id(parameter) for parameter in module.parameters()}
        # By the id of the parameter that was used.
        self._costs: dict[int, Cost] = {}
        self._last: int | None = None

    @property
    def cost(self) -> Cost:
        """Cost so far, with one uncounted call if no parameter was used."""
        return Cost(uncounted=1) if self._last is None else self._costs[self._last]

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        operands = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        parameters = [value for value in operands if isinstance(value, nn.Parameter)]
        # Operations on a parameter alone, such as access to its gradient, are not part of a forward pass.
        is_forward = 0 < len(parameters) < len(operands) and isinstance(output, Tensor) and output.dim() > 0
        is_forward = is_forward and func not in EMBEDDINGS
        if is_forward and (self._parameters is None or id(parameters[0]) in self._parameters):
            self._last = id(parameters[0])
            _record_pass(output, len(output), self._recorder(self._last))
        return output

    def _recorder(self, parameter: int) -> Record:
        def record(cost: Cost) -> None:
            self._costs[parameter] = self._costs.get(parameter, Cost()) + cost

        return record


def _counted_logits(forward_func: ForwardFunc, args: tuple[Any, ...], record: Record) -> ModelOutput:
    output = call_model(forward_func, *args)
    if not isinstance(output, Tensor) or output.dim() == 0:
        # One value for the whole batch.
        record(Cost(rows=len(args[0]), passes=1))
        return output
    _record_pass(output, len(output), record)
    return output[:, None] if output.dim() == 1 else output


def _record_pass(output: Tensor, rows: int, record: Record) -> None:
    """Record a forward pass, and each backward pass through its output."""
    record(Cost(rows=rows, passes=1))
    if output.requires_grad:
        output.register_hook(lambda gradient: record(Cost(backward_rows=rows)))
