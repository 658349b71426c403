"""Attention masking: from layer k on, no token attends to the token of an absent patch."""

from collections.abc import Sequence
from operator import index

from torch import nn

from captum_moxi import models
from captum_moxi.arguments import ForwardFunc, check_natural
from captum_moxi.removal.sequence import SequenceRemoval, Site, find_module, known_layout


class AttentionRemoval(SequenceRemoval):
    r"""
    Mask the attention to absent patches from layer k to the last layer (the paper, Appendix D and Figure 10).

    Layers before k see the whole image. From layer k on, tokens interact only through attention, so a token that no
    other token attends to has no effect. The tokens of absent patches are therefore removed from the sequence at the
    input of layer k. The result equals that of masking the attention weights of layer k and all later layers, in any
    attention implementation, and the cost is that of the remaining tokens. A classifier that averages the patch tokens
    (DINOv2) averages the present ones.

    ``from_layer=0`` is equivalent to :class:`captum_moxi.TokenRemoval`.

    Args:
        from_layer (int, optional): Index k of the first layer whose attention is masked, counted from 0.
            Default: 0
        layers (Sequence[nn.Module] or str, optional): Layers of the model, first to last, or the dotted name of the
            module that lists them (``"blocks"`` in timm's VisionTransformer, ``"encoder.layers"`` in torchvision's).
            Each layer receives the sequence ``(B, tokens, width)`` as its first argument. Not needed for the
            transformers models that :class:`captum_moxi.TokenRemoval` supports.
            Default: None
        patch_size (int or tuple[int, int], optional): As in :class:`captum_moxi.TokenRemoval`.
            Default: None
        n_prefix (int, optional): As in :class:`captum_moxi.TokenRemoval`.
            Default: None

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an int is out of range, or ``layers`` is empty. When the removal is used: if the model does not
            have the layer, and as in :class:`captum_moxi.TokenRemoval`.
    """

    def __init__(
        self,
        from_layer: int = 0,
        layers: Sequence[nn.Module] | str | None = None,
        patch_size: int | tuple[int, int] | None = None,
        n_prefix: int | None = None,
    ) -> None:
        super().__init__(patch_size, n_prefix)
        check_natural("from_layer", from_layer)
        self.from_layer = index(from_layer)
        self.layers = _check_layers(layers)

    def site(self, forward_func: ForwardFunc) -> Site:
        layers = self._layers_of(forward_func)
        if self.from_layer >= len(layers):
            raise ValueError(
                f"from_layer is {self.from_layer}, but the model has layers 0 to {len(layers) - 1}; pass one of them"
            )
        layout = models.token_layout(forward_func)
        return Site(
            layers[self.from_layer],
            at_input=True,
            last=layers[-1],
            positions={} if layout is None else self._positions(layout, layers),
            arguments={} if layout is None else layout.arguments(layers[self.from_layer :]),
            adds_pairs=layout is not None and layout.family.adds_pairs,
        )

    def _layers_of(self, forward_func: ForwardFunc) -> list[nn.Module]:
        if self.layers is None:
            return known_layout(forward_func, "AttentionRemoval", "layers").layers
        if isinstance(self.layers, str):
            layers = list(find_module(forward_func, self.layers, "layers").children())
            if not layers:
                raise ValueError(
                    f"layers is {self.layers!r}, a module that contains no other modules; pass the name of the module "
                    "that lists the layers"
                )
            return layers
        return self.layers

    def _positions(self, layout: models.TokenLayout, layers: list[nn.Module]) -> dict[nn.Module, models.Positions]:
        """Return the modules in the masked layers that return values of positions."""
        positions = layout.positions()
        inside = [{part: positions[part] for part in layer.modules() if part in positions} for layer in layers]
        if len(positions) > sum(map(len, inside)):
            raise ValueError(
                f"AttentionRemoval cannot mask only some layers of {type(layout.model).__name__}, because all of them "
                "use the same values of positions; pass removal=TokenRemoval(), which is equivalent to masking all of "
                "them"
            )
        return {part: values for layer in inside[self.from_layer :] for part, values in layer.items()}

    def _arguments(self) -> dict[str, object]:
        name = self.layers if isinstance(self.layers, str | None) else type(self.layers).__name__
        return {"from_layer": self.from_layer, "layers": name, **super()._arguments()}


def _check_layers(layers: Sequence[nn.Module] | str | None) -> list[nn.Module] | str | None:
    """Return the layers as a list. A name or None is returned unchanged."""
    if layers is None or isinstance(layers, str):
        return layers
    is_list = isinstance(layers, Sequence | nn.ModuleList | nn.Sequential)
    if not is_list or not all(isinstance(layer, nn.Module) for layer in layers):
        raise TypeError(f"layers is {layers!r}; pass a list of modules, or the name of the module that lists them")
    if not len(layers):
        raise ValueError("layers is empty; pass the layers of the model, first to last")
    return list(layers)
