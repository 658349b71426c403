"""Baseline fill: the values of absent players are replaced. Works with any model."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from captum_moxi.arguments import Baseline, ModelOutput
from captum_moxi.models import call_model, needs_grid
from captum_moxi.removal.base import ForwardCall, MaskedModel, Removal, ToImages, memory_per_pass, new_gates


def mean_fill(images: Tensor) -> Tensor:
    """Fill images ``(B, C, H, W)`` with the mean of each image and channel."""
    return images.mean(dim=(2, 3), keepdim=True).expand_as(images)


def blur_fill(images: Tensor) -> Tensor:
    """Blur images ``(B, C, H, W)`` with two one-dimensional Gaussian convolutions, with replicated edges."""
    sigma = min(images.shape[2:]) / 20
    radius = max(1, round(3 * sigma))
    # Half precision would round after each of the two convolutions.
    dtype = torch.promote_types(images.dtype, torch.float32)
    offsets = torch.arange(-radius, radius + 1, device=images.device, dtype=dtype)
    weights = torch.exp(-(offsets**2) / (2 * sigma**2))
    weights = weights / weights.sum()
    blurred, channels = images.to(dtype), images.shape[1]
    for shape, padding in (((1, -1), (radius, radius, 0, 0)), ((-1, 1), (0, 0, radius, radius))):
        kernel = weights.reshape(1, 1, *shape).expand(channels, -1, -1, -1)
        blurred = functional.conv2d(functional.pad(blurred, padding, mode="replicate"), kernel, groups=channels)
    return blurred.to(images.dtype)


FILLS: dict[str, Callable[[Tensor], Tensor]] = {"mean": mean_fill, "blur": blur_fill}

_PICTURE_NOTES = {
    None: "absent patches are filled with the baseline",
    "mean": "absent patches have the mean color of the image",
    "blur": "absent patches are blurred",
}
_EMPTY_NOTES = {None: "the baseline", "mean": "the mean color of the image", "blur": "the blurred image"}


class BaselineRemoval(Removal):
    r"""
    Replace the values of absent players with a baseline: ``where(present, input, baseline)``.

    Args:
        fill (str, optional): Fill for images ``(B, C, H, W)``:

            - None: the ``baselines`` that the user passes to ``attribute``, or 0 if there are none
            - ``"mean"``: the mean of each image and channel
            - ``"blur"``: the image after a Gaussian blur whose standard deviation is 1/20 of the shorter side

            Default: None

    Raises:
        TypeError: If ``fill`` is neither a name nor None.
        ValueError: If ``fill`` is unknown. When the removal is used: if a named fill is combined with ``baselines``, or
            with inputs that are not floating-point images.
    """

    def __init__(self, fill: str | None = None) -> None:
        names = f"{', '.join(map(repr, FILLS))}, or None for the call's baselines"
        if fill is not None and not isinstance(fill, str):
            raise TypeError(f"fill is {fill!r}; pass {names}")
        if fill is not None and fill not in FILLS:
            raise ValueError(f"fill is {fill!r}; pass {names}")
        self.fill = fill

    def bind(self, call: ForwardCall) -> MaskedModel:
        if self.fill is None:
            zeros: tuple[Baseline, ...] = tuple(False if x.dtype is torch.bool else 0 for x in call.inputs)
            return _FilledModel(call, call.baselines or zeros)
        if call.baselines is not None:
            raise ValueError(f"baselines and fill={self.fill!r} were both passed; pass only one of them")
        for x in call.inputs:
            if x.dim() != 4 or not x.is_floating_point():
                raise ValueError(
                    f"fill={self.fill!r} is for floating-point images (B, C, H, W), but an input has shape "
                    f"{tuple(x.shape)} and dtype {x.dtype}; pass baselines instead"
                )
        return _FilledModel(call, tuple(FILLS[self.fill](x) for x in call.inputs))

    @property
    def picture_note(self) -> str:
        return _PICTURE_NOTES.get(self.fill, f"absent patches are filled by {self.fill!r}")

    @property
    def empty_note(self) -> str:
        return f"nothing kept: {_EMPTY_NOTES.get(self.fill, f'the fill {self.fill!r}')}"

    def __repr__(self) -> str:
        return f"BaselineRemoval({self.fill!r})" if self.fill else "BaselineRemoval()"


class _FilledModel(MaskedModel):
    """A model whose absent inputs are filled."""

    copies_batch = True

    def __init__(self, call: ForwardCall, baselines: tuple[Baseline, ...]) -> None:
        super().__init__(call)
        self.baselines = baselines
        # Channels-last is faster for convolutions on a CPU. Only transformers models get it, because other functions
        # may not support its strides.
        self.channels_last = (
            needs_grid(call.forward_func) and call.inputs[0].dim() == 4 and call.inputs[0].device.type == "cpu"
        )

    def __call__(self, coalitions: Tensor, examples: Tensor) -> ModelOutput:
        inputs = self._filled_inputs(coalitions, examples)
        if self.channels_last:
            inputs = tuple(x.contiguous(memory_format=torch.channels_last) for x in inputs)
        return call_model(self.call.forward_func, *inputs, *self.call.arguments(examples))

    def relaxed(self, coalitions: Tensor, examples: Tensor) -> tuple[ModelOutput, list[Tensor]]:
        for x in self.call.inputs:
            if not x.is_floating_point():
                raise ValueError(
                    f"inputs of dtype {x.dtype} have no gradient; "
                    "pass a screen that needs no gradient, such as LastGainsScreen"
                )
        gates = new_gates(coalitions, self.call.inputs[0])
        inputs = []
        for i in range(len(self.call.inputs)):
            x, baseline = self._rows_of_input(i, examples)
            gate = self.call.players.spread(gates, i, examples).to(x.dtype)
            inputs.append(baseline + gate * (x - baseline))
        return call_model(self.call.forward_func, *inputs, *self.call.arguments(examples)), [gates]

    def whole_batch(self, coalition: Tensor) -> ModelOutput:
        coalitions, examples = coalition[None], torch.zeros(1, dtype=torch.long)
        inputs = tuple(
            torch.where(self.call.players.spread(coalitions, i, examples), x, baseline) if x.numel() else x
            for i, (x, baseline) in enumerate(zip(self.call.inputs, self.baselines, strict=True))
        )
        return call_model(self.call.forward_func, *inputs, *self.call.arguments())

    def rows_per_pass(self, size: int) -> int:
        device = self.call.inputs[0].device
        values = max(1, sum(x[:1].numel() for x in self.call.inputs))
        # Activations need tens of times the memory of the input, so 256 bytes are reserved per input value. A CPU is
        # fastest with few images per pass (ResNet-50 at 224 pixels: 4 to 8).
        fits = memory_per_pass(device) // (256 * values)
        fastest = (2**20 if device.type == "cpu" else 2**26) // values
        return max(1, min(fits, fastest, 4096))

    def pictures(self, coalitions: Tensor, examples: Tensor, to_images: ToImages) -> Tensor:
        """Draw the filled images, which are exactly the model's inputs."""
        return to_images(self._filled_inputs(coalitions, examples)[0])

    def _filled_inputs(self, coalitions: Tensor, examples: Tensor) -> tuple[Tensor, ...]:
        filled = []
        for i in range(len(self.call.inputs)):
            present = self.call.players.spread(coalitions, i, examples)
            x, baseline = self._rows_of_input(i, examples)
            filled.append(torch.where(present, x, baseline))
        return tuple(filled)

    def _rows_of_input(self, index: int, examples: Tensor) -> tuple[Tensor, Baseline]:
        """Return the rows of an input tensor and of its baseline for these examples."""
        x, baseline = self.call.inputs[index], self.baselines[index]
        rows = examples.to(x.device)
        if isinstance(baseline, Tensor):
            baseline = baseline.to(x.device)
            if baseline.dim() == x.dim() and baseline.shape[0] == x.shape[0] > 1:
                baseline = baseline[rows]
        return x[rows], baseline
