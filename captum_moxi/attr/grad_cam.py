"""Grad-CAM and Grad-CAM++ for convolutional layers and for sequences of patch tokens."""

import torch
from captum._utils.gradient import compute_layer_gradients_and_eval
from captum.attr import LayerGradCam
from torch import Tensor, nn

from captum_moxi import models
from captum_moxi.arguments import (
    ForwardArgs,
    ForwardFunc,
    Model,
    ModelOutput,
    Target,
    TensorOrTuple,
    check_inputs,
    copy_argument,
    input_devices,
    parse_target,
)
from captum_moxi.attr.usage import log_usage
from captum_moxi.players import size_pair


class GradCam(LayerGradCam):
    r"""
    Grad-CAM for convolutional networks and vision transformers.

    Grad-CAM sums the activations :math:`A^c` of a layer over its channels :math:`c`, each weighted by the mean gradient
    of the target with respect to it (Selvaraju et al., 'Grad-CAM: Visual Explanations from Deep Networks via
    Gradient-based Localization', ICCV 2017). For a convolutional layer, the result is that of
    ``captum.attr.LayerGradCam``. For a sequence of tokens, the prefix tokens are left out, the patch tokens are
    arranged as an image, and their features are the channels.

    Examples::

        >>> attr = GradCam(vit).attribute(x, target=y, relu_attributions=True)  # (1, 1, 14, 14)
        >>> upsampled = LayerAttribution.interpolate(attr, (224, 224))
        >>> # a convolutional network that is not from transformers: pass its last convolutional layer
        >>> attr = GradCam(net, net.layer4).attribute(x, target=y)
    """

    layer: nn.Module

    def __init__(
        self,
        forward_func: Model,
        layer: nn.Module | None = None,
        device_ids: list[int] | None = None,
        *,
        patch_size: int | tuple[int, int] | None = None,
    ) -> None:
        r"""
        Args:
            forward_func (Callable): The model: a transformers image classifier, or any module or function that returns
                        logits.
            layer (nn.Module, optional): Layer whose activations are used. Its output is either a feature map
                        ``(B, C, h, w)`` or a sequence ``(B, tokens, features)`` of prefix tokens and one token for each
                        patch. The default depends on the model:

                        - vision transformers whose tokens can be removed: the first layer norm of the last layer of
                          the encoder, as recommended by the package pytorch-grad-cam and used by the authors of MoXI.
                          After the last layer, patches often have no gradient, because the classifier reads only the
                          class token.

                        - other image classifiers of transformers: the last module that returns a feature map, or a
                          sequence of tokens, on which the logits depend at more than one position, for example the last
                          stage of ResNet. A random image goes through the model to find it.

                        Other models have no default.
                        Default: None
            device_ids (list[int], optional): Devices of a DataParallel model, if ``forward_func`` is a function that
                        applies one. See ``captum.attr.LayerGradCam``.
                        Default: None
            patch_size (int or tuple[int, int], optional): Height and width in pixels of the patches that the tokens of
                        a sequence represent. An int means square patches. None reads them from the model if
                        ``forward_func`` is a module.
                        Default: None

        Raises:
            TypeError: If ``layer`` is not a module, or ``patch_size`` is neither an int nor a pair of ints.
            ValueError: If ``layer`` is None and the model has no default layer, or if a size is less than 1.
        """
        forward_func = models.as_forward_func(forward_func)
        if layer is not None and not isinstance(layer, nn.Module):
            raise TypeError(f"layer is {layer!r}; pass the module whose activations are used")
        super().__init__(forward_func, _default_layer(forward_func) if layer is None else layer, device_ids)
        # Whether the tokens of a layer are the cells of a feature map.
        self.has_cells = models.needs_grid(forward_func)
        self.patch_size: tuple[int, int] | None
        if patch_size is not None:
            self.patch_size = size_pair("patch_size", patch_size)
        else:
            # Models that need the whole grid, for example Swin, have layers without one token for each patch.
            self.patch_size = None if self.has_cells else models.find_patch_size(forward_func)

    @log_usage()
    def attribute(
        self,
        inputs: TensorOrTuple,
        target: Target = None,
        additional_forward_args: ForwardArgs = None,
        attribute_to_layer_input: bool = False,
        relu_attributions: bool = False,
        attr_dim_summation: bool = True,
        grad_kwargs: dict[str, object] | None = None,
    ) -> TensorOrTuple:
        r"""
        Args:
            inputs (Tensor or tuple[Tensor, ...]): Examples to explain, with the batch along dimension 0. If
                        ``forward_func`` takes several tensors, pass a tuple.
            target (int, tuple, Tensor or list, optional): Index of the output whose gradients are computed, usually a
                        class, in any form that ``captum.attr.LayerGradCam`` accepts.
                        Default: None
            additional_forward_args (Any, optional): Arguments that follow the inputs in the call of ``forward_func``:
                        one argument that is not a tuple, or a tuple of arguments.
                        Default: None
            attribute_to_layer_input (bool, optional): Whether to use the input of the layer instead of its output.
                        Default: False
            relu_attributions (bool, optional): Whether to keep only positive attributions, as the original method does.
                        Default: False
            attr_dim_summation (bool, optional): Whether to sum over the channels. If False, the contribution of each
                        channel is returned.
                        Default: True
            grad_kwargs (dict[str, Any], optional): Additional keyword arguments of ``torch.autograd.grad``.
                        Default: None

        Returns:
            *Tensor* or *tuple[Tensor, ...]* of **attributions**:
            - **attributions** (*Tensor* or *tuple[Tensor, ...]*): Shape ``(B, 1, h, w)`` for a convolutional layer and
              ``(B, 1, rows, columns)`` for a sequence of patch tokens, in the dtype of the activations. If
              ``attr_dim_summation`` is False, dimension 1 has one entry for each channel. A tuple if the layer has
              several tensors. ``captum.attr.LayerAttribution.interpolate`` upsamples a map to the size of the input.

        Raises:
            ValueError: If the target has the wrong number of entries or a negative index, if the layer returns a
                        sequence whose tokens do not correspond to the patches of the inputs, if activations, gradients
                        or attributions are not finite, or if the model cannot be differentiated because it was created
                        in inference mode.
            TypeError: If the inputs are not tensors.
        """
        check_inputs(inputs)
        with torch.inference_mode(False):  # Nothing can be differentiated in inference mode.
            # The model may change what it receives.
            tensors = tuple(x.detach().clone() for x in (inputs if isinstance(inputs, tuple) else (inputs,)))
            models.check_images(self.forward_func, tensors)
            parse_target(target, len(tensors[0]))
            layer_gradients, layer_activations = self._differentiate(
                tensors,
                target=target,
                additional_forward_args=copy_argument(additional_forward_args),
                attribute_to_layer_input=attribute_to_layer_input,
                grad_kwargs=grad_kwargs,
            )
            maps = []
            for gradients, activations in zip(layer_gradients, layer_activations, strict=True):
                weighted = self._weighted_activations(gradients.detach(), activations.detach(), tensors[0])
                summed = weighted.sum(1, keepdim=True) if attr_dim_summation else weighted
                self._check_finite("attributions", summed)
                maps.append(summed.relu() if relu_attributions else summed)
        return tuple(maps) if len(maps) > 1 else maps[0]

    def _differentiate(
        self,
        inputs: tuple[Tensor, ...],
        *,
        target: Target,
        additional_forward_args: ForwardArgs,
        attribute_to_layer_input: bool,
        grad_kwargs: dict[str, object] | None,
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Return the gradients and the activations of the layer."""
        # Captum reads the layer with hooks. They must not affect other callers of the model, and compiled code would
        # ignore them.
        view = models.private_view(self.forward_func)
        try:
            with models.preserved_state(self.forward_func, input_devices(inputs)):
                return compute_layer_gradients_and_eval(
                    lambda *arguments: models.call_model(view.forward_func, *arguments),
                    view.module(self.layer),
                    inputs,
                    target,
                    additional_forward_args,
                    device_ids=self.device_ids or getattr(self.forward_func, "device_ids", None),
                    attribute_to_layer_input=attribute_to_layer_input,
                    grad_kwargs=grad_kwargs,
                )
        except RuntimeError as error:
            if "nference tensor" in str(error):
                raise ValueError(
                    "forward_func cannot be differentiated, because it was created in inference mode; create the model "
                    "outside torch.inference_mode()"
                ) from error
            raise

    def _weighted_activations(self, gradients: Tensor, activations: Tensor, inputs: Tensor) -> Tensor:
        """Return the activations as maps ``(B, C, ...)``, weighted by channel."""
        self._check_finite("activations", activations)
        self._check_finite("gradients", gradients)
        activation_maps = self._to_map(activations, inputs)
        return self._channel_weights(self._to_map(gradients, inputs), activation_maps) * activation_maps

    def _check_finite(self, name: str, values: Tensor) -> None:
        """Raise a ValueError that names the first example with a value that is not finite, if there is one."""
        finite = values.reshape(len(values), -1).isfinite().all(1)
        if not bool(finite.all()):
            raise ValueError(
                f"the {name} of layer {type(self.layer).__name__} are not finite for example "
                f"{int((~finite).nonzero()[0])}; pass a model and inputs without overflow, for example in float32"
            )

    def _call_model(self, *args: ForwardArgs) -> ModelOutput:
        return models.call_model(self.forward_func, *args)

    def _channel_weights(self, gradients: Tensor, activations: Tensor) -> Tensor:
        """Return the weight of each channel, ``(B, C, 1, ...)``, from tensors ``(B, C, ...)``."""
        spatial = _spatial_dims(gradients)
        return gradients.mean(spatial, keepdim=True) if spatial else gradients

    def _to_map(self, values: Tensor, inputs: Tensor) -> Tensor:
        """Arrange tokens ``(B, tokens, C)`` of images as ``(B, C, rows, columns)``. Return other values unchanged."""
        if values.dim() != 3 or inputs.dim() != 4:
            return values
        layer = f"layer {type(self.layer).__name__} has shape {tuple(values.shape)}, a sequence of tokens"
        if self.patch_size is None:
            grid = models.PatchGrid.of_cells(inputs, values.shape[1]) if self.has_cells else None
            if grid is None:
                raise ValueError(
                    f"{layer}, but the size of their patches is unknown; pass patch_size, or a layer whose output is "
                    "(B, C, H, W)"
                )
            return grid.tokens_to_map(values)
        grid = models.PatchGrid.of(inputs, self.patch_size)
        if not models.fits_prefix(values.shape[1], grid.n_patches):
            raise ValueError(
                f"{layer}, but the inputs have {grid.rows} x {grid.columns} patches and a few prefix tokens; pass a "
                "layer with one token for each patch"
            )
        return grid.tokens_to_map(values)


class GradCamPlusPlus(GradCam):
    r"""
    Grad-CAM++ for convolutional networks and vision transformers.

    Grad-CAM++ weights the gradients at each position of a channel (Chattopadhay et al., 'Grad-CAM++: Generalized
    Gradient-based Visual Explanations for Deep Convolutional Networks', WACV 2018). Let :math:`g` be the gradient of
    the target's score :math:`S` with respect to the activation map :math:`A` of channel c. The higher derivatives are
    those of :math:`\exp(S)`, as in that paper (Eqs. 11, 13 and 19):

    .. math::
        \alpha = \frac{g^2}{2 g^2 + g^3 \sum_{a, b} A_{ab}}, \qquad w_c = \sum_{i, j} \alpha_{ij} \, relu(g_{ij})

    The factor :math:`\exp(S)`, which all weights of an example share, is left out. Grad-CAM favors the largest of
    several objects of one class, or of several parts of one object. Grad-CAM++ gives them equal weight. The method was
    designed for non-negative activations. Activations of tokens have either sign, so :math:`\alpha` can become large
    where its denominator is close to 0.

    The arguments are those of :class:`GradCam`.

    Examples::

        >>> attr = GradCamPlusPlus(resnet).attribute(x, target=y, relu_attributions=True)  # (1, 1, 7, 7)
    """

    def _channel_weights(self, gradients: Tensor, activations: Tensor) -> Tensor:
        spatial = _spatial_dims(gradients)
        # Half precision would lose the squares of small gradients, although they cancel in the quotient.
        gradients, total = gradients.float(), activations.float()
        total = total.sum(spatial, keepdim=True) if spatial else total
        denominator = 2 + gradients * total
        alpha = torch.where((gradients == 0) | (denominator == 0), 0, 1 / torch.where(denominator == 0, 1, denominator))
        weights = alpha * gradients.relu()
        return (weights.sum(spatial, keepdim=True) if spatial else weights).to(activations.dtype)


def _spatial_dims(values: Tensor) -> tuple[int, ...]:
    return tuple(range(2, values.dim()))


def _default_layer(forward_func: ForwardFunc) -> nn.Module:
    layer = models.feature_map_layer(forward_func)
    if layer is not None:
        return layer
    raise ValueError(
        "layer is None, but forward_func is not an image classifier of transformers, or has no feature maps; pass the "
        "module to use, for example the last convolution"
    )
