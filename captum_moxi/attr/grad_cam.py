"""Grad-CAM and Grad-CAM++ for convolutional layers and for sequences of patch tokens."""

from collections.abc import Callable
from typing import Any

import torch
from captum._utils.gradient import compute_layer_gradients_and_eval
from captum.attr import LayerGradCam
from captum.log import log_usage
from torch import Tensor, nn

from captum_moxi import models
from captum_moxi.arguments import check_inputs, devices, read_target


class GradCam(LayerGradCam):
    r"""
    Grad-CAM (Selvaraju et al., ICCV 2017): Captum's ``LayerGradCam``, also for vision transformers.

    A layer's activations :math:`A^c` are summed over channels c, each weighed by the mean gradient of the target in
    it. Of a convolutional layer that is what ``LayerGradCam`` returns. Of a sequence of tokens, the prefix tokens
    are put aside and the patches' tokens laid out as the image they are of, their width being the channels.

    Examples::

        >>> attr = GradCam(vit).attribute(x, target=y, relu_attributions=True)  # (1, 1, 14, 14)
        >>> upsampled = LayerAttribution.interpolate(attr, (224, 224))
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layer: nn.Module | None = None,
        device_ids: list[int] | None = None,
        patch_size: int | tuple[int, int] | None = None,
    ) -> None:
        r"""
        Args:
            forward_func (Callable): The model: a transformers image classifier as it is, or any module or function of
                        it that returns logits.
            layer (nn.Module, optional): The layer whose activations are weighed: a convolutional one, or one whose
                        output is a sequence ``(B, tokens, width)`` of prefix tokens and one token a patch.
                        By default, of ViT, DeiT, ViT-MSN and DINOv2, what stands before the first norm of the last
                        block, as in the MoXI paper (after the last block, the class token alone is read, and patches
                        have no gradient); of ResNet, ConvNeXt and other transformers models with stages, the last
                        stage.
                        Default: None
            device_ids (list[int], optional): As in ``captum.attr.LayerGradCam``.
                        Default: None
            patch_size (int or tuple[int, int], optional): Height and width in pixels of the patches that the tokens of
                        a sequence stand for.
                        Default: None, the model's own, where it is a module that tells

        Raises:
            ValueError: no layer given for a model that has no default.
        """
        super().__init__(forward_func, _default_layer(forward_func) if layer is None else layer, device_ids)
        if patch_size is None:
            # layers that need the whole grid hold no token a patch
            self.patch_size = None if models.needs_grid(forward_func) else models.find_patch_size(forward_func)
        else:
            self.patch_size = (patch_size, patch_size) if isinstance(patch_size, int) else patch_size

    @log_usage()
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: Any = None,
        additional_forward_args: Any = None,
        attribute_to_layer_input: bool = False,
        relu_attributions: bool = False,
        attr_dim_summation: bool = True,
        grad_kwargs: dict[str, Any] | None = None,
    ) -> Tensor | tuple[Tensor, ...]:
        r"""
        Args:
            inputs, target, additional_forward_args, attribute_to_layer_input: As in ``captum.attr.LayerGradCam``.
            relu_attributions (bool, optional): Keep what speaks for the target alone, as the original method does.
                        Default: False
            attr_dim_summation (bool, optional): Sum over channels; else return every channel's share.
                        Default: True
            grad_kwargs (dict, optional): More arguments of ``torch.autograd.grad``.
                        Default: None

        Returns:
            *Tensor* or *tuple[Tensor, ...]* of **attributions**: of a convolutional layer ``(B, 1, h, w)``, of a
            sequence of tokens ``(B, 1, rows, columns)`` of patches; with all channels in place of 1 without
            ``attr_dim_summation``. A tuple where the layer has several tensors. See
            ``captum.attr.LayerAttribution.interpolate`` for a map of the input's size.

        Raises:
            ValueError: a target that does not fit, or a sequence of tokens that is not of the inputs' patches.
            TypeError: inputs that are no tensors.
        """
        tensors = check_inputs(inputs)
        read_target(target, len(tensors[0]))
        # a compiled module would not see what watches its layer
        eager = torch.compiler.set_stance("force_eager")
        with models.unchanged(self.forward_func, devices(inputs)), eager:
            gradients, activations = compute_layer_gradients_and_eval(
                lambda *args: models.call_model(self.forward_func, *args),
                self.layer,
                tensors,
                target,
                additional_forward_args,
                device_ids=self.device_ids or getattr(self.forward_func, "device_ids", None),
                attribute_to_layer_input=attribute_to_layer_input,
                grad_kwargs=grad_kwargs,
            )
        maps = []
        for gradient, activation in zip(gradients, activations, strict=True):
            spatial = [self._laid_out(part.detach(), tensors) for part in (gradient, activation)]
            values = self._weights(*spatial) * spatial[1]
            values = values.sum(1, keepdim=True) if attr_dim_summation else values
            maps.append(values.relu() if relu_attributions else values)
        return tuple(maps) if len(maps) > 1 else maps[0]

    def _weights(self, gradients: Tensor, activations: Tensor) -> Tensor:
        """The weight of each channel, ``(B, C, 1, ...)``, from tensors ``(B, C, ...)``."""
        where = tuple(range(2, gradients.dim()))
        return gradients.mean(where, keepdim=True) if where else gradients

    def _laid_out(self, values: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
        """Tokens ``(B, tokens, width)`` of image patches as ``(B, width, rows, columns)``, all else as it is."""
        if values.dim() != 3 or inputs[0].dim() != 4:
            return values
        if self.patch_size is None:
            raise ValueError(
                f"layer {type(self.layer).__name__} has {tuple(values.shape)}, a sequence, and what patches its tokens "
                "stand for is unknown; pass patch_size, or a layer whose output is (B, C, H, W)"
            )
        height, width = self.patch_size
        rows, columns = inputs[0].shape[2] // height, inputs[0].shape[3] // width
        if not models.fits_prefix(values.shape[1], rows * columns):
            raise ValueError(
                f"layer {type(self.layer).__name__} has {tuple(values.shape)}, which is no sequence of {rows} x "
                f"{columns} patches and a few prefix tokens; pass a layer whose tokens are the patches'"
            )
        return values[:, -rows * columns :].mT.unflatten(2, (rows, columns))


class GradCamPlusPlus(GradCam):
    r"""
    Grad-CAM++ (Chattopadhyay et al., WACV 2018): a channel's gradients count by where they matter.

    With :math:`g` the gradient of the target's score S in an activation A, and the derivatives taken of
    :math:`\exp(S)` as in the paper (Eqs. 11, 13 and 19),

    .. math::
        \alpha = \frac{g^2}{2 g^2 + g^3 \sum_{a, b} A_{ab}}, \qquad w_c = \sum_{i, j} \alpha_{ij} \, relu(g_{ij})

    The factor :math:`\exp(S)` that all weights of an example have in common is left out. Several objects of one
    class, or one in several parts, count alike, where Grad-CAM favours the largest. The method was made for activations
    that are not negative; tokens' are of either sign, so that alpha may grow large where its denominator is near 0.
    Arguments as in :class:`GradCam`.

    Examples::

        >>> attr = GradCamPlusPlus(resnet).attribute(x, target=y, relu_attributions=True)  # (1, 1, 7, 7)
    """

    def _weights(self, gradients: Tensor, activations: Tensor) -> Tensor:
        where = tuple(range(2, gradients.dim()))
        # half precision would lose the squares of small gradients, which divide out anyway
        gradients, total = gradients.float(), activations.float()
        total = total.sum(where, keepdim=True) if where else total
        below = 2 + gradients * total
        alpha = torch.where((gradients == 0) | (below == 0), 0, 1 / torch.where(below == 0, 1, below))
        weighed = alpha * gradients.relu()
        return (weighed.sum(where, keepdim=True) if where else weighed).to(activations.dtype)


def _default_layer(forward_func: Callable[..., Any]) -> nn.Module:
    model = models.transformer(forward_func)
    if model is not None and models.has_patch_tokens(model):
        layers = models.encoder_layers(model)
        return layers[-2] if len(layers) > 1 else models.embedding_module(model)
    stages = getattr(getattr(getattr(model, "base_model", None), "encoder", None), "stages", None)
    if isinstance(stages, nn.ModuleList):
        return stages[-1]
    raise ValueError(
        "layer is None, and forward_func is no transformers model with patch tokens or stages; pass the module whose "
        "activations are weighed, such as the last convolution"
    )
