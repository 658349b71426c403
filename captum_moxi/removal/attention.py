"""Attention masking: from layer k on, no token attends to an absent patch's token."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from captum_moxi import models
from captum_moxi.removal.tokens import SequenceRemoval, known_model, named_module


class AttentionRemoval(SequenceRemoval):
    r"""
    Keep absent patches from being attended to, from layer k to the last (the paper, Appendix D and Figure 10).

    Layers before k see the whole image. From layer k on, nothing but attention brings tokens together, so a token that
    none attends to might as well not be there: it is taken out of the sequence at the input of layer k, which gives
    what masking the attention weights of every later layer gives, in any attention implementation, at the cost of the
    tokens that are left. A classifier that averages patch tokens (DINOv2) averages those present.

    With ``from_layer=0`` this is :class:`captum_moxi.TokenRemoval`.

    Args:
        from_layer (int, optional): The first layer that masks, counted from 0.
            Default: 0
        layers (Sequence[nn.Module] or str, optional): The model's layers, first to last, or the dotted name of the
            module that lists them (``blocks`` in timm's VisionTransformer, ``encoder.layers`` in torchvision's). Each
            takes the sequence ``(B, tokens, width)`` as its first argument. Not needed for the transformers models that
            :class:`captum_moxi.TokenRemoval` knows.
            Default: None
        patch_size (int or tuple[int, int], optional): As in :class:`captum_moxi.TokenRemoval`.
            Default: None
        n_prefix (int, optional): As in :class:`captum_moxi.TokenRemoval`.
            Default: None

    Raises:
        ValueError: a negative layer; at attribution, a layer that the model does not have, and what
            :class:`captum_moxi.TokenRemoval` raises.
    """

    def __init__(
        self,
        from_layer: int = 0,
        layers: Sequence[nn.Module] | str | None = None,
        patch_size: int | tuple[int, int] | None = None,
        n_prefix: int | None = None,
    ) -> None:
        super().__init__(patch_size, n_prefix)
        if not isinstance(from_layer, int) or from_layer < 0:
            raise ValueError(f"from_layer is {from_layer!r}; pass a layer counted from 0")
        self.from_layer = from_layer
        self.layers = layers

    def site(self, forward_func: Callable[..., Any]) -> tuple[nn.Module, bool]:
        layers: list[nn.Module]
        if self.layers is None:
            layers = list(models.encoder_layers(known_model(forward_func, "AttentionRemoval", "layers")))
        elif isinstance(self.layers, str):
            layers = list(named_module(forward_func, self.layers, "layers").children())
        else:
            layers = list(self.layers)
        if self.from_layer >= len(layers):
            raise ValueError(f"from_layer is {self.from_layer}; pass one of the model's, 0 to {len(layers) - 1}")
        return layers[self.from_layer], True

    def _arguments(self) -> dict[str, Any]:
        named = self.layers if isinstance(self.layers, str | None) else type(self.layers).__name__
        return {"from_layer": self.from_layer, "layers": named, **super()._arguments()}
