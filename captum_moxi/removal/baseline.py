"""Baseline fill: an absent player's values are replaced. Works with any model."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from captum_moxi.models import call_model, needs_grid
from captum_moxi.removal.base import ForwardCall, MaskedModel, Removal, free_memory, new_gates

FILLS = ("mean", "blur")


class BaselineRemoval(Removal):
    r"""
    Replace absent values by a baseline: ``where(present, input, baseline)``.

    Args:
        fill (str, optional): What to fill images ``(B, C, H, W)`` with:

            - None: the ``baselines`` of the call, or 0 where there are none
            - ``"mean"``: the mean of each image and channel
            - ``"blur"``: the image blurred by a Gaussian whose standard deviation is a twentieth of its shorter side

            Default: None

    Raises:
        ValueError: an unknown fill; at attribution, a named fill together with ``baselines`` or with inputs that are
            not floating-point images.
    """

    def __init__(self, fill: str | None = None) -> None:
        if fill is not None and fill not in FILLS:
            raise ValueError(f"fill is {fill!r}; pass one of {', '.join(FILLS)}, or None for the call's baselines")
        self.fill = fill

    def bind(self, call: ForwardCall) -> MaskedModel:
        if self.fill is None:
            baselines = call.baselines or tuple(False if x.dtype is torch.bool else 0 for x in call.inputs)
        else:
            if call.baselines is not None:
                raise ValueError(f"baselines were given beside fill={self.fill!r}; pass one of them")
            for x in call.inputs:
                if x.dim() != 4 or not x.is_floating_point():
                    raise ValueError(
                        f"fill={self.fill!r} is for floating-point images (B, C, H, W), and an input has shape "
                        f"{tuple(x.shape)} and dtype {x.dtype}; pass baselines instead"
                    )
            baselines = tuple(_mean(x) if self.fill == "mean" else _blur(x) for x in call.inputs)
        return _FilledModel(call, baselines)

    def __repr__(self) -> str:
        return f"BaselineRemoval({self.fill!r})" if self.fill else "BaselineRemoval()"


class _FilledModel(MaskedModel):
    copies_batch = True

    def __init__(self, call: ForwardCall, baselines: tuple[Any, ...]) -> None:
        self.call = call
        self.baselines = baselines
        # convolutions on a CPU are faster so; a user's own function may not take such strides
        self.channels_last = (
            needs_grid(call.forward_func) and call.inputs[0].dim() == 4 and call.inputs[0].device.type == "cpu"
        )

    def __call__(self, coalitions: Tensor, examples: Tensor) -> Any:
        inputs = tuple(
            self._fill(i, x, baseline, coalitions, examples)
            for i, (x, baseline) in enumerate(zip(self.call.inputs, self.baselines, strict=True))
        )
        return call_model(self.call.forward_func, *inputs, *self.call.arguments(examples))

    def relaxed(self, coalitions: Tensor, examples: Tensor) -> tuple[Any, list[Tensor]]:
        """One stage, the input: ``baseline + gate * (input - baseline)``."""
        for x in self.call.inputs:
            if not x.is_floating_point():
                raise ValueError(f"inputs of dtype {x.dtype} have no gradient; pass a screen that needs none")
        gates = new_gates(coalitions, self.call.inputs[0])
        inputs = []
        for i, (x, baseline) in enumerate(zip(self.call.inputs, self.baselines, strict=True)):
            whole, filling = self._rows(x, baseline, examples)
            inputs.append(filling + self.call.players.spread(gates, i, examples).to(x.dtype) * (whole - filling))
        return call_model(self.call.forward_func, *inputs, *self.call.arguments(examples)), [gates]

    def whole_batch(self, coalition: Tensor) -> Any:
        coalitions, examples = coalition[None], torch.zeros(1, dtype=torch.long)
        inputs = tuple(
            torch.where(self.call.players.spread(coalitions, i, examples), x, baseline) if x.numel() else x
            for i, (x, baseline) in enumerate(zip(self.call.inputs, self.baselines, strict=True))
        )
        return call_model(self.call.forward_func, *inputs, *self.call.additional_forward_args)

    def _fill(self, index: int, x: Tensor, baseline: Any, coalitions: Tensor, examples: Tensor) -> Tensor:
        present = self.call.players.spread(coalitions, index, examples)
        filled = torch.where(present, *self._rows(x, baseline, examples))
        return filled.contiguous(memory_format=torch.channels_last) if self.channels_last else filled

    def _rows(self, x: Tensor, baseline: Any, examples: Tensor) -> tuple[Tensor, Any]:
        """The inputs of these examples, and what fills them."""
        rows = examples.to(x.device)
        if isinstance(baseline, Tensor):
            baseline = baseline.to(x.device)
            if baseline.dim() == x.dim() and baseline.shape[0] == x.shape[0] > 1:
                baseline = baseline[rows]
        return x[rows], baseline

    def rows_at_once(self, size: int) -> int:
        device = self.call.inputs[0].device
        values = max(1, sum(x[:1].numel() for x in self.call.inputs))
        # activations take some tens of times the input; a CPU is fastest at few images (ResNet-50, 224 pixels: 4 to 8)
        fits = free_memory(device) // (256 * values)
        wanted = (2**20 if device.type == "cpu" else 2**26) // values
        return max(1, min(fits, wanted, 4096))


def _mean(image: Tensor) -> Tensor:
    return image.mean(dim=(2, 3), keepdim=True).expand_as(image)


def _blur(image: Tensor) -> Tensor:
    """Two one-dimensional Gaussian convolutions, edges replicated."""
    sigma = min(image.shape[2:]) / 20
    reach = max(1, round(3 * sigma))
    weights = torch.exp(-(torch.arange(-reach, reach + 1, device=image.device) ** 2) / (2 * sigma**2))
    weights = (weights / weights.sum()).to(image.dtype)
    channels = image.shape[1]
    for shape, pad in (((1, -1), (reach, reach, 0, 0)), ((-1, 1), (0, 0, reach, reach))):
        kernel = weights.reshape(1, 1, *shape).expand(channels, -1, -1, -1)
        image = functional.conv2d(functional.pad(image, pad, mode="replicate"), kernel, groups=channels)
    return image
