"""AttentionRollout: how much of every patch reaches the class token, by the attention of all layers."""

from collections.abc import Callable
from typing import Any

import torch
from captum.attr import Attribution
from captum.log import log_usage
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from captum_moxi import models
from captum_moxi.arguments import check_inputs


class AttentionRollout(Attribution):
    r"""
    Attention followed from the class token back to the patches, through all layers.

    The attention of a layer is averaged over its heads, half of it is made the residual connection's identity, and
    the layers are multiplied (Abnar and Zuidema, 'Quantifying Attention Flow in Transformers', ACL 2020):

    .. math::
        \tilde A_l = \tfrac{1}{2} (\bar A_l + I), \qquad R = \tilde A_L \cdots \tilde A_1

    A patch's score is what the class token's row of R holds of it. It is the same whatever class is asked for.

    Examples::

        >>> rollout = AttentionRollout(model)
        >>> attr = rollout.attribute(x)  # (1, 3, 224, 224)
    """

    def __init__(self, forward_func: Callable[..., Any]) -> None:
        r"""
        Args:
            forward_func (Callable): A transformers ViT, DeiT, ViT-MSN or DINOv2 classifier, or any module whose
                        attention is torch's ``scaled_dot_product_attention`` over a class token, other prefix tokens
                        and one token a patch. A transformers model runs with that attention here, whichever it was
                        loaded with, and is left as it was.

        Raises:
            ValueError: a model without patch tokens.
        """
        super().__init__(forward_func)
        self.patch_size = _patch_size(forward_func)

    @log_usage()
    def attribute(self, inputs: Any, target: Any = None, additional_forward_args: Any = None) -> Any:
        r"""
        Args:
            inputs (Tensor or tuple[Tensor]): Images ``(B, C, H, W)``.
            target (Any, optional): Not looked at, since rollout is of no class; there for calls in common.
                        Default: None
            additional_forward_args (Any, optional): What follows the inputs in the call of forward_func, an argument
                        or a tuple of them.
                        Default: None

        Returns:
            *Tensor* or *tuple[Tensor]* of **attributions**: in the form, shape and floating dtype of the inputs, every
            value having its patch's score, from 0 to 1; 0 where the image reaches beyond the last whole patch.

        Raises:
            ValueError: inputs that are not images, or a model whose attention cannot be read or is not over one
                        sequence of patches.
            TypeError: inputs that are no tensor.
        """
        (images,) = _one(check_inputs(inputs))
        height, width = self.patch_size
        rows, columns = images.shape[2] // height, images.shape[3] // width
        args = () if additional_forward_args is None else additional_forward_args
        args = args if isinstance(args, tuple) else (args,)
        follow = _FollowAttention(rows * columns)
        with (
            models.unchanged(self.forward_func, {images.device}),
            torch.no_grad(),
            models.sdpa_attention(self.forward_func),
            torch.compiler.set_stance("force_eager"),
            follow,
        ):
            models.call_model(models.on_one_device(self.forward_func), images, *args)
        if follow.joint is None:
            raise ValueError(
                f"forward_func ran no scaled_dot_product_attention over a class token and {rows} x {columns} patches; "
                "pass a model that does, such as a transformers ViT"
            )
        scores = follow.joint[:, 0, -rows * columns :].reshape(-1, 1, rows, columns)
        whole = scores.repeat_interleave(height, 2).repeat_interleave(width, 3)
        rest = (0, images.shape[3] - columns * width, 0, images.shape[2] - rows * height)
        attributions = torch.nn.functional.pad(whole, rest).expand(-1, images.shape[1], -1, -1).clone()
        attributions = attributions.to(images.dtype) if images.is_floating_point() else attributions
        return (attributions,) if isinstance(inputs, tuple) else attributions


class _FollowAttention(TorchFunctionMode):
    """Multiplies the attention of every layer that goes by, over a sequence of so many patches."""

    def __init__(self, patches: int) -> None:
        super().__init__()
        self.patches = patches
        self.joint: Tensor | None = None

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is scaled_dot_product_attention:
            self._see(*args, **kwargs)
        return func(*args, **kwargs)

    def _see(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        **kwargs: Any,
    ) -> None:
        tokens = key.shape[-2]
        # without a token before the patches' there is none whose row could be read
        if query.shape[-2] != tokens or tokens == self.patches or not models.fits_prefix(tokens, self.patches):
            return
        with torch.autocast(query.device.type, enabled=False):
            # heads may share keys
            keys = key.float().repeat_interleave(query.shape[1] // key.shape[1], 1)
            scores = query.float() @ keys.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
            if attn_mask is not None:
                hidden = attn_mask.dtype is torch.bool
                scores = scores.masked_fill(~attn_mask, -torch.inf) if hidden else scores + attn_mask
            if is_causal:
                scores = scores.masked_fill(scores.new_ones(tokens, tokens).triu(1).bool(), -torch.inf)
            layer = (scores.softmax(-1).mean(1) + torch.eye(tokens, device=scores.device)) / 2
            self.joint = layer if self.joint is None else layer @ self.joint


def _one(tensors: tuple[Tensor, ...]) -> tuple[Tensor]:
    if len(tensors) != 1 or tensors[0].dim() != 4:
        raise ValueError(
            f"inputs have shapes {[tuple(x.shape) for x in tensors]}; pass one tensor of images (B, C, H, W)"
        )
    return (tensors[0],)


def _patch_size(forward_func: Callable[..., Any]) -> tuple[int, int]:
    size = models.find_patch_size(forward_func)
    if models.needs_grid(forward_func) or size is None:
        raise ValueError(
            f"AttentionRollout needs one token a patch, and {type(models.module_of(forward_func)).__name__} has none; "
            "pass a ViT, DeiT, ViT-MSN or DINOv2 classifier"
        )
    return size
