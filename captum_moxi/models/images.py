"""Checks that images fit a transformers image model, before the model runs."""

from torch import Tensor
from transformers import PreTrainedModel

from captum_moxi.arguments import ForwardFunc, warn_user
from captum_moxi.models.huggingface import called_transformer, has_other_size, image_size, interpolates, num_channels

# Normalized pixel values are between -3 and 3. Raw pixels go up to 255.
MAX_PIXEL_VALUE = 20
# Model types that accept only images of the size in their configuration. Other models without an option to interpolate
# their positions are convolutional, or always interpolate.
FIXED_SIZE_MODELS = ("clip", "levit", "metaclip_2", "pvt")


def check_images(forward_func: ForwardFunc, inputs: tuple[Tensor, ...]) -> None:
    """Check that the first input of a transformers image model is a batch of images that the model accepts.

    Args:
        forward_func (Callable): Model. Nothing is checked for functions, and for modules that may change their inputs.
        inputs (tuple[Tensor, ...]): Inputs of the model.

    Raises:
        ValueError: If the input is not a batch of images, or if the model does not accept images, their number of
            channels or their size.
    """
    _check_input_ids(forward_func, inputs[0])
    model = _image_model(forward_func)
    if model is None:
        return
    images, channels, size = inputs[0], num_channels(model), image_size(model)
    shape = tuple(images.shape)
    if images.dim() == 3 and channels in (shape[0], shape[2]):
        raise ValueError(f"inputs has shape {shape}, one image without a batch dimension; pass x[None] instead of x")
    if images.dim() != 4:
        raise ValueError(
            f"inputs has shape {shape}, but {type(model).__name__} expects a batch of images; pass a tensor of shape "
            f"(B, {channels or 'C'}, H, W)"
        )
    if channels is not None and shape[1] != channels:
        advice = "x.permute(0, 3, 1, 2)" if shape[3] == channels else f"images of shape (B, {channels}, H, W)"
        raise ValueError(
            f"inputs has shape {shape}, but {type(model).__name__} expects {channels} channels along dimension 1; "
            f"pass {advice}"
        )
    if size is not None and has_other_size(model, images) and model.config.model_type in FIXED_SIZE_MODELS:
        raise ValueError(f"{_describe_sizes(model, images, size)}; {_RESIZE}")


def warn_about_images(forward_func: ForwardFunc, inputs: tuple[Tensor, ...]) -> None:
    """Warn about images that a transformers image model accepts, but was not trained on.

    These are images of another size, if the model has an option to accept them, and raw pixels.

    Args:
        forward_func (Callable): Model, as in :func:`check_images`.
        inputs (tuple[Tensor, ...]): Inputs of the model.
    """
    model = _image_model(forward_func)
    if model is None or inputs[0].dim() != 4:
        return
    images, size = inputs[0], image_size(model)
    if size is not None and has_other_size(model, images) and interpolates(model):
        # ViT interpolates its positions. The positions of most Swin models do not depend on the size.
        warn_user(f"{_describe_sizes(model, images, size)}, the size that it was trained on; {_RESIZE}")
    largest = float(images.max())
    if largest > MAX_PIXEL_VALUE:
        warn_user(
            f"inputs has values up to {largest:g}, which look like raw pixels; pass normalized pixel values, as "
            "returned by preprocess of the object that load returns, or by the model's image processor"
        )


def _check_input_ids(forward_func: ForwardFunc, images: Tensor) -> None:
    """Check that a classifier whose main input is a sequence of ids receives no images (ImageGPT, ShieldGemma 2)."""
    model = called_transformer(forward_func)
    is_classifier = model is not None and "ForImageClassification" in type(model).__name__
    if model is not None and is_classifier and model.main_input_name == "input_ids" and images.is_floating_point():
        raise ValueError(
            f"inputs has shape {tuple(images.shape)}, but the first input of {type(model).__name__} is input_ids; pass "
            "a function that computes input_ids from images and returns the logits of the model, and a feature_mask, "
            "for example patch_mask(224, 32)"
        )


_RESIZE = "pass images that preprocess or the model's image processor resized"


def _image_model(forward_func: ForwardFunc) -> PreTrainedModel | None:
    model = called_transformer(forward_func)
    if model is None or model.main_input_name != "pixel_values":
        return None
    # The pixel values of a video have a dimension more.
    return None if hasattr(model.config, "num_frames") else model


def _describe_sizes(model: PreTrainedModel, images: Tensor, size: tuple[int, int]) -> str:
    return (
        f"inputs has images of {images.shape[2]} x {images.shape[3]} pixels, but {type(model).__name__} expects "
        f"{size[0]} x {size[1]}"
    )
