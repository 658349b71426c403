"""Hugging Face image classifiers: loading, preprocessing, logits, and which players and tokens a model has."""

import difflib
import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import AutoImageProcessor, AutoModelForImageClassification, PreTrainedModel

from captum_moxi.players import patch_mask

# Models whose classifier reads a sequence of prefix tokens and patch tokens, and whose layers take a sequence of any
# length: tokens can be taken out of it. Others (Swin, BEiT, DINOv3, convolutional networks) need the whole grid.
TOKEN_MODELS = ("vit", "deit", "vit_msn", "dinov2", "dinov2_with_registers")


@dataclass(frozen=True)
class ImageClassifier:
    """A Hugging Face image classifier and what goes with it.

    Args:
        model (PreTrainedModel): In evaluation mode, on its device.
        processor (BaseImageProcessor): Makes pixel values of images.
        name (str): The hub name or folder that it was loaded from.
    """

    model: PreTrainedModel
    processor: Any
    name: str

    @property
    def labels(self) -> list[str]:
        """The class names, by index."""
        names: dict[Any, str] = self.model.config.id2label or {}
        return [names.get(i, str(i)) for i in range(len(names))]

    def preprocess(self, images: Image.Image | Sequence[Image.Image]) -> Tensor:
        """Pixel values ``(B, 3, H, W)`` of one or more PIL images, in the model's dtype and on its device."""
        images = [images] if isinstance(images, Image.Image) else list(images)
        values = self.processor([image.convert("RGB") for image in images], return_tensors="pt")["pixel_values"]
        return values.to(self.model.device, self.model.dtype)

    def to_images(self, pixel_values: Tensor) -> Tensor:
        """The images that pixel values stand for, to look at: ``(B, 3, H, W)`` -> ``(B, H, W, 3)`` in [0, 1]."""
        values = pixel_values.detach().float().cpu()
        if getattr(self.processor, "do_normalize", False):
            mean, std = torch.tensor(self.processor.image_mean), torch.tensor(self.processor.image_std)
            values = values * std[:, None, None] + mean[:, None, None]
        return values.permute(0, 2, 3, 1).clamp(0, 1)

    def class_index(self, name: str | int) -> int:
        """The index of a class given as index, name, one of a name's comma-separated synonyms, or an unambiguous part.

        Raises:
            ValueError: no such class, or several; the message names the nearest.
        """
        labels = self.labels
        text = str(name).strip()
        if text.isdecimal() and text not in labels:
            if int(text) >= len(labels):
                raise ValueError(f"class {text}: the model has {len(labels)} classes, 0 to {len(labels) - 1}")
            return int(text)
        folded = [label.casefold() for label in labels]
        synonyms = [[part.strip() for part in label.split(",")] for label in folded]
        wanted = text.casefold()
        for matches in (
            [i for i, label in enumerate(folded) if label == wanted],
            [i for i, parts in enumerate(synonyms) if wanted in parts],
            [i for i, label in enumerate(folded) if wanted and wanted in label],
        ):
            if len(matches) == 1:
                return matches[0]
            if matches:
                found = "; ".join(f"{i} ({labels[i]})" for i in matches[:5])
                raise ValueError(f"class {text!r} fits {len(matches)} classes: {found}; pass an index")
        near = difflib.get_close_matches(wanted, [part for parts in synonyms for part in parts], 3, 0.5)
        hint = f"; near it are {', '.join(near)}" if near else f", such as {labels[0]!r}"
        raise ValueError(f"class {text!r} is not one of the model's {len(labels)} classes{hint}")


def load(
    name: str | os.PathLike[str], device: str | torch.device | None = None, dtype: torch.dtype = torch.float32
) -> ImageClassifier:
    r"""
    Load an image classifier with its preprocessing, from the Hugging Face hub or a folder.

    Args:
        name (str or path): A hub name such as ``google/vit-base-patch16-224``, or a folder that ``save_pretrained``
            wrote: config.json, safetensors weights and preprocessor_config.json.
        device (str or torch.device, optional): Where the model goes. Default: CUDA if there, else the CPU
        dtype (torch.dtype, optional): What the weights are loaded as. Default: torch.float32

    Returns:
        ImageClassifier: the model in evaluation mode, its image processor and its name.

    Raises:
        ValueError: no such folder or hub model, not an image classifier, or weights that are not safetensors.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if Path(name).exists() and not (Path(name) / "config.json").is_file():
        raise ValueError(
            f"model {str(name)!r} holds no config.json; pass a hub name or a folder that save_pretrained wrote"
        )
    try:
        processor = AutoImageProcessor.from_pretrained(name)
        model = AutoModelForImageClassification.from_pretrained(name, dtype=dtype, use_safetensors=True)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"model {str(name)!r} could not be loaded as an image classifier ({reason}); "
            "pass a hub name that can be reached or a folder that save_pretrained wrote"
        ) from error
    return ImageClassifier(model.to(device).eval(), processor, str(name))


class LogitsModel(nn.Module):
    r"""
    A Hugging Face classifier that returns its logits, so that Captum's own classes take it.

    Args:
        model (nn.Module): A model whose output has ``logits``.

    Examples::

        >>> net = LogitsModel(ViTForImageClassification.from_pretrained(folder))
        >>> FeatureAblation(net).attribute(x, target=y, feature_mask=patch_mask(224, 16))
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor, *args: Any) -> Tensor:
        return call_model(self.model, pixel_values, *args)


def call_model(forward_func: Callable[..., Any], *args: Any) -> Any:
    """Call a forward function; of a transformers model read the logits.

    A ViT or DeiT that sees an image of another size than its own interpolates its position embeddings.
    """
    kwargs = {}
    model = module_of(forward_func)
    if isinstance(model, PreTrainedModel) and len(args) == 1:
        size = getattr(model.config, "image_size", None)
        if size is not None and "interpolate_pos_encoding" in inspect.signature(model.forward).parameters:
            height_width = (size, size) if isinstance(size, int) else tuple(size)
            if args[0].dim() == 4 and tuple(args[0].shape[-2:]) != height_width:
                kwargs["interpolate_pos_encoding"] = True
    output = forward_func(*args, **kwargs)
    return output if isinstance(output, Tensor) else getattr(output, "logits", output)


def eager(forward_func: Callable[..., Any]) -> Callable[..., Any]:
    """The same model on one device and uncompiled, where forward hooks act."""
    inner = _inner(forward_func)
    if isinstance(inner, nn.Module) and inner._compiled_call_impl is not None:
        return inner._call_impl
    return inner


def module_of(forward_func: Callable[..., Any]) -> Any:
    """The module that a forward function runs, inside DataParallel, torch.compile and bound methods."""
    inner = _inner(forward_func)
    return getattr(inner, "__self__", inner)


def transformer(forward_func: Callable[..., Any]) -> PreTrainedModel | None:
    """The transformers image model that a forward function is or, being a module, holds."""
    module = module_of(forward_func)
    if not isinstance(module, nn.Module):
        return None
    model = next((part for part in module.modules() if isinstance(part, PreTrainedModel)), None)
    return model if model is not None and model.main_input_name == "pixel_values" else None


def num_classes(forward_func: Callable[..., Any]) -> int | None:
    """How many classes a transformers classifier returns, or a wrapper of this package around it; None for others."""
    module = module_of(forward_func)
    if isinstance(module, LogitsModel):
        module = module_of(module.model)
    if isinstance(module, PreTrainedModel) and "Classification" in type(module).__name__:
        return module.config.num_labels
    return None


def random_layer(forward_func: Callable[..., Any]) -> str | None:
    """A layer of the model in training mode that makes one forward pass differ from the next, for a warning."""
    module = module_of(forward_func)
    dropout = nn.modules.dropout._DropoutNd
    for part in module.modules() if isinstance(module, nn.Module) else ():
        if part.training and (
            (isinstance(part, dropout) and part.p > 0) or isinstance(part, nn.modules.batchnorm._BatchNorm)
        ):
            return type(part).__name__
    return None


def has_patch_tokens(model: PreTrainedModel | None) -> bool:
    """Whether tokens can be taken out of the model's sequence."""
    return model is not None and model.config.model_type in TOKEN_MODELS


def patch_size(model: PreTrainedModel) -> tuple[int, int]:
    """Height and width of the patches that the model's tokens stand for, or 16 x 16 where it has none."""
    if not has_patch_tokens(model):
        return 16, 16
    size = model.config.patch_size
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def default_feature_mask(forward_func: Callable[..., Any], inputs: tuple[Tensor, ...]) -> Tensor | None:
    """The model's own patches as players, for images given to an image model that is known; else None."""
    model = transformer(forward_func)
    if model is None or len(inputs) != 1 or inputs[0].dim() != 4:
        return None
    return patch_mask(tuple(inputs[0].shape[-2:]), patch_size(model))


def embedding_module(model: PreTrainedModel) -> nn.Module:
    """The module that makes the sequence of tokens."""
    return model.base_model.get_submodule("embeddings")


def encoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The layers that the sequence goes through, first to last."""
    count = model.config.num_hidden_layers
    lists = (module for module in model.base_model.modules() if isinstance(module, nn.ModuleList))
    return next(layers for layers in lists if len(layers) == count)


def _inner(forward_func: Any) -> Any:
    """What stands inside DataParallel and torch.compile."""
    while True:
        if isinstance(forward_func, nn.DataParallel | nn.parallel.DistributedDataParallel):
            forward_func = forward_func.module
        elif isinstance(forward_func, torch._dynamo.OptimizedModule):
            forward_func = forward_func._orig_mod
        else:
            return forward_func
