"""AttentionRollout: the attention of the class token to each patch, through all layers."""

from collections.abc import Callable, Sequence

import torch
from captum.attr import Attribution
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from captum_moxi import models
from captum_moxi.arguments import (
    ForwardArgs,
    ForwardFunc,
    Model,
    Target,
    check_inputs,
    copy_argument,
    forward_arguments,
)
from captum_moxi.attr.usage import Inputs, log_usage, match_inputs


class AttentionRollout(Attribution):
    r"""
    The attention of the class token to the patches, through all layers of a vision transformer.

    The attention of each layer, averaged over its heads, is mixed in equal parts with the identity, which stands for
    the residual connection. The matrices of all layers are then multiplied (Abnar and Zuidema, 'Quantifying Attention
    Flow in Transformers', ACL 2020):

    .. math::
        \tilde A_l = \tfrac{1}{2} (\bar A_l + I), \qquad R = \tilde A_L \cdots \tilde A_1

    The score of a patch is its entry in the class token's row of :math:`R`. The scores are the same for all classes.

    Examples::

        >>> rollout = AttentionRollout(model)
        >>> attr = rollout.attribute(x)  # (1, 3, 224, 224)
    """

    def __init__(self, forward_func: Model) -> None:
        r"""
        Args:
            forward_func (Callable): The model: a transformers image classifier with patch tokens (ViT, DeiT, ViT-MSN,
                        DINOv2), or another model that calls ``torch.nn.functional.scaled_dot_product_attention`` on a
                        sequence of prefix tokens and one token for each patch.

        Raises:
            ValueError: If the model has no patch tokens.
        """
        forward_func = models.as_forward_func(forward_func)
        super().__init__(forward_func)
        self.patch_size = _patch_size(forward_func)

    @log_usage()
    def attribute(
        self,
        inputs: Inputs,
        target: Target = None,
        additional_forward_args: ForwardArgs = None,
    ) -> Inputs:
        r"""
        Args:
            inputs (Tensor or tuple[Tensor]): Images of shape ``(B, C, H, W)``.
            target (int, tuple, Tensor or list, optional): Ignored, because rollout does not depend on the class. It is
                        accepted so that all attribution methods can be called in the same way.
                        Default: None
            additional_forward_args (Any, optional): Arguments that follow the inputs in the call of ``forward_func``:
                        one argument that is not a tuple, or a tuple of arguments.
                        Default: None

        Returns:
            *Tensor* or *tuple[Tensor]* of **attributions**:
            - **attributions** (*Tensor* or *tuple[Tensor]*): The score of each value's patch, from 0 to 1, in the shape
              of the inputs and in their dtype if it is floating point. Pixels beyond the last whole patch get 0. A
              tuple if ``inputs`` is a tuple.

        Raises:
            ValueError: If the inputs are not one tensor of images, or if the model runs no
                        ``scaled_dot_product_attention`` over a class token and one token for each patch.
            TypeError: If the inputs are not tensors.
        """
        tensors = check_inputs(inputs)
        models.check_images(self.forward_func, tensors)
        images = _check_images(tensors)
        grid = models.PatchGrid.of(images, self.patch_size)
        rollout = self._roll_out(images, forward_arguments(additional_forward_args), grid)
        scores = grid.tokens_to_map(rollout[:, 0, :, None])
        pixels = grid.map_to_pixels(scores, (images.shape[2], images.shape[3]))
        attributions = pixels.expand(-1, images.shape[1], -1, -1).clone()
        if images.is_floating_point():
            attributions = attributions.to(images.dtype)
        return match_inputs((attributions,), inputs)

    def _roll_out(self, images: Tensor, arguments: tuple[ForwardArgs, ...], grid: models.PatchGrid) -> Tensor:
        """Run the model once and return the product of all attention matrices, ``(B, tokens, tokens)``."""
        attention = _AttentionProduct(grid.n_patches)
        # The change of the attention implementation must not affect other callers of the model.
        forward = models.private_view(self.forward_func).forward_func
        with (
            models.preserved_state(self.forward_func, {images.device}),
            torch.no_grad(),
            models.sdpa_attention(forward),
            attention,
        ):
            # The model may change what it receives.
            models.call_model(forward, images.clone(), *copy_argument(arguments))
        if attention.product is None:
            raise ValueError(
                f"forward_func ran no scaled_dot_product_attention over a class token and {grid.rows} x {grid.columns} "
                "patches; pass a model that does, for example a transformers ViT"
            )
        return attention.product


class _AttentionProduct(TorchFunctionMode):
    """Multiplies the attention of all layers that run while the mode is active.

    Args:
        n_patches (int): Number of patches. Attention over other sequences is ignored.
    """

    def __init__(self, n_patches: int) -> None:
        super().__init__()
        self.n_patches = n_patches
        self.product: Tensor | None = None

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        if func is scaled_dot_product_attention:
            multiply: Callable[..., None] = self._multiply
            multiply(*args, **kwargs)
        return func(*args, **kwargs)

    def _multiply(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        **kwargs: object,
    ) -> None:
        """Multiply by the attention of one layer, given the arguments of ``scaled_dot_product_attention``."""
        n_tokens = key.shape[-2]
        # Without a prefix token, no row contains the attention of a class token.
        has_prefix = n_tokens > self.n_patches and models.fits_prefix(n_tokens, self.n_patches)
        if query.shape[-2] != n_tokens or not has_prefix:
            return
        with torch.autocast(query.device.type, enabled=False):
            # Several heads of queries may share one head of keys.
            keys = key.float().repeat_interleave(query.shape[1] // key.shape[1], 1)
            logits = query.float() @ keys.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
            if attn_mask is not None:
                is_bool = attn_mask.dtype is torch.bool
                logits = logits.masked_fill(~attn_mask, -torch.inf) if is_bool else logits + attn_mask
            if is_causal:
                logits = logits.masked_fill(logits.new_ones(n_tokens, n_tokens).triu(1).bool(), -torch.inf)
            mixed = (logits.softmax(-1).mean(1) + torch.eye(n_tokens, device=logits.device)) / 2
            self.product = mixed if self.product is None else mixed @ self.product


def _check_images(tensors: tuple[Tensor, ...]) -> Tensor:
    if len(tensors) != 1 or tensors[0].dim() != 4:
        shapes = [tuple(x.shape) for x in tensors]
        raise ValueError(f"inputs has shapes {shapes}; pass one tensor of images (B, C, H, W)")
    return tensors[0]


def _patch_size(forward_func: ForwardFunc) -> tuple[int, int]:
    size = models.find_patch_size(forward_func)
    if models.needs_grid(forward_func) or size is None:
        name = type(models.module_of(forward_func) or forward_func).__name__
        raise ValueError(
            f"AttentionRollout needs one token for each patch, but forward_func is a {name}, which has none; pass a "
            "ViT, DeiT, ViT-MSN or DINOv2 classifier"
        )
    return size
