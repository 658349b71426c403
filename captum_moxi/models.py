"""Hugging Face image classifiers: loading, preprocessing, logits, and which players and tokens a model has."""

import difflib
import inspect
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoImageProcessor, AutoModelForImageClassification, PreTrainedModel

# Models whose classifier reads a sequence of prefix tokens and patch tokens, and whose layers take a sequence of any
# length: tokens can be taken out of it. Others (Swin, BEiT, DINOv3, convolutional networks) need the whole grid.
TOKEN_MODELS = ("vit", "deit", "vit_msn", "dinov2", "dinov2_with_registers")

# Classifiers that read the first token of the last layer and no other
FIRST_TOKEN_CLASSIFIERS = ("ViTForImageClassification", "DeiTForImageClassification", "ViTMSNForImageClassification")


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

    def to_pixel_values(self, images: Tensor) -> Tensor:
        """The opposite of ``to_images``, nothing resized or cropped: ``(B, H, W, 3)`` in [0, 1] -> ``(B, 3, H, W)``.

        In the model's dtype and on its device, as ``preprocess`` makes them; gradients pass.
        """
        values = images.permute(0, 3, 1, 2).to(self.model.device, torch.float32)
        if getattr(self.processor, "do_normalize", False):
            mean, std = (
                torch.tensor(given, device=values.device)[:, None, None]
                for given in (self.processor.image_mean, self.processor.image_std)
            )
            values = (values - mean) / std
        return values.to(self.model.dtype)

    def class_index(self, name: str | int) -> int:
        """The index of a class given as index, name, one of a name's comma-separated synonyms, or an unambiguous part.

        Raises:
            ValueError: no such class, or several; the message names the nearest.
        """
        labels = self.labels
        text = str(name).strip()
        if isinstance(name, int) or (text.isdecimal() and text not in labels):
            if not 0 <= int(text) < len(labels):
                raise ValueError(f"class {text}: the model has {len(labels)} classes, 0 to {len(labels) - 1}")
            return int(text)
        folded = [label.casefold() for label in labels]
        # 'crane (n02012849)' is a crane, and so is 'crane': who asks for one is told of both
        synonyms = [[re.sub(r"\s*\(.*\)$", "", part).strip() for part in label.split(",")] for label in folded]
        wanted = text.casefold()
        for matches in (
            [i for i, parts in enumerate(synonyms) if wanted in (folded[i], *parts)],
            [i for i, label in enumerate(folded) if wanted and wanted in label],
        ):
            if len(matches) == 1:
                return matches[0]
            if matches:
                found = "; ".join(f"{i} ({labels[i]})" for i in matches[:5]) + ("; ..." if len(matches) > 5 else "")
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
    if not Path(name).exists() and (Path(name).is_absolute() or str(name).startswith(".")):
        raise ValueError(f"model {str(name)!r} is no folder; pass one that save_pretrained wrote, or a hub name")
    if Path(name).exists() and not (Path(name) / "config.json").is_file():
        raise ValueError(
            f"model {str(name)!r} holds no config.json; pass a hub name or a folder that save_pretrained wrote"
        )
    try:
        processor = AutoImageProcessor.from_pretrained(name)
        model, loading = AutoModelForImageClassification.from_pretrained(
            name, dtype=dtype, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(
            f"model {str(name)!r} could not be loaded as an image classifier ({reason}); "
            "pass a hub name that can be reached or a folder that save_pretrained wrote"
        ) from error
    if loading["missing_keys"]:
        missing = ", ".join(sorted(loading["missing_keys"])[:3])
        raise ValueError(
            f"model {str(name)!r} has no weights for {missing}, so it is no trained classifier; pass one that is"
        )
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
        # a module is made in training mode, which other packages refuse
        self.training = model.training

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


def on_one_device(forward_func: Callable[..., Any]) -> Callable[..., Any]:
    """The same model outside DataParallel, which would scatter rows that belong together."""
    return _inner(forward_func)


def module_of(forward_func: Callable[..., Any]) -> Any:
    """The module that a forward function runs, inside DataParallel, torch.compile and bound methods."""
    inner = _inner(forward_func)
    return getattr(inner, "__self__", inner)


def transformer(forward_func: Callable[..., Any]) -> PreTrainedModel | None:
    """The one transformers image model that a forward function is or, being a module, holds; None for several."""
    module = module_of(forward_func)
    if not isinstance(module, nn.Module):
        return None
    found = [part for part in module.modules() if isinstance(part, PreTrainedModel)]
    inside = {id(part) for model in found for part in model.modules() if part is not model}
    outermost = [model for model in found if id(model) not in inside]
    return outermost[0] if len(outermost) == 1 and outermost[0].main_input_name == "pixel_values" else None


def num_classes(forward_func: Callable[..., Any]) -> int | None:
    """How many classes a transformers classifier returns, or a wrapper of this package around it; None if unsure."""
    module = module_of(forward_func)
    if isinstance(module, LogitsModel):
        module = module_of(module.model)
    if not isinstance(module, PreTrainedModel) or "Classification" not in type(module).__name__:
        return None
    heads = [part for name, part in module.named_modules() if "classifier" in name and isinstance(part, nn.Linear)]
    classes = {head.out_features for head in heads}
    return module.config.num_labels if classes == {module.config.num_labels} else None


def random_layer(forward_func: Callable[..., Any]) -> str | None:
    """A layer of the model in training mode that makes one forward pass differ from the next, for a warning."""
    module = module_of(forward_func)
    for part in module.modules() if isinstance(module, nn.Module) else ():
        # the rates of dropout that layers of transformers apply by function, and of stochastic depth
        rates = [getattr(part, name, 0) for name in ("attention_dropout", "dropout_prob", "drop_prob")]
        if isinstance(part, nn.modules.dropout._DropoutNd):
            rates.append(part.p)
        drops = any(isinstance(rate, float) and rate > 0 for rate in rates)
        if part.training and (drops or isinstance(part, nn.modules.batchnorm._BatchNorm)):
            return type(part).__name__
    return None


@contextmanager
def unchanged(forward_func: Callable[..., Any], devices: Iterable[torch.device]) -> Iterator[None]:
    """Leave the random state of these devices, and what batch norm counts in training mode, as they were."""
    module = module_of(forward_func)
    parts = module.modules() if isinstance(module, nn.Module) else ()
    norms = [part for part in parts if part.training and isinstance(part, nn.modules.batchnorm._BatchNorm)]
    kept = [[(buffer, buffer.clone()) for buffer in norm.buffers()] for norm in norms]
    with torch.random.fork_rng(devices=[device for device in devices if device.type == "cuda"]):
        try:
            yield
        finally:
            for buffer, value in (pair for pairs in kept for pair in pairs):
                buffer.copy_(value)


def has_patch_tokens(model: PreTrainedModel | None) -> bool:
    """Whether tokens can be taken out of the model's sequence."""
    return model is not None and model.config.model_type in TOKEN_MODELS


def patch_size(model: PreTrainedModel) -> tuple[int, int]:
    """Height and width of the patches that the model's tokens stand for."""
    size = model.config.patch_size
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def find_patch_size(forward_func: Callable[..., Any]) -> tuple[int, int] | None:
    """Height and width of the patches that a forward function's tokens stand for; None where nothing tells."""
    model = transformer(forward_func)
    if model is not None and has_patch_tokens(model):
        return patch_size(model)
    module = module_of(forward_func)
    for part in module.modules() if isinstance(module, nn.Module) else ():
        # a patch projection
        if isinstance(part, nn.Conv2d) and part.stride == part.kernel_size != (1, 1):
            return part.kernel_size[0], part.kernel_size[1]
    return None


def fits_prefix(tokens: int, patches: int) -> bool:
    """Whether a sequence of that many tokens can be that of so many patches, and a few prefix tokens before them."""
    return 0 <= tokens - patches < min(17, patches)


def prefix_tokens(model: PreTrainedModel) -> int:
    """How many tokens stand before those of the patches: class, distillation, registers."""
    return {"deit": 2}.get(model.config.model_type, 1) + getattr(model.config, "num_register_tokens", 0)


def needs_grid(forward_func: Callable[..., Any]) -> bool:
    """Whether a forward function is a transformers image model out of whose sequence no token can be taken."""
    model = transformer(forward_func)
    return model is not None and not has_patch_tokens(model)


def embedding_module(model: PreTrainedModel) -> nn.Module:
    """The module that makes the sequence of tokens."""
    return model.base_model.get_submodule("embeddings")


def encoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The layers that the sequence goes through, first to last."""
    count = model.config.num_hidden_layers
    lists = (module for module in model.base_model.modules() if isinstance(module, nn.ModuleList))
    return next(layers for layers in lists if len(layers) == count)


def first_token_module(forward_func: Callable[..., Any]) -> nn.Module | None:
    """The module of the last layer that nothing but the first token need go through; None if more of them is read.

    None also where someone watches that layer by hooks, and where a function other than the model's own is called.
    """
    inner = _inner(forward_func)
    if getattr(inner, "__name__", None) in ("forward", "__call__"):
        inner = getattr(inner, "__self__", None)
    if isinstance(inner, LogitsModel):
        inner = _inner(inner.model)
    if not isinstance(inner, PreTrainedModel) or type(inner).__name__ not in FIRST_TOKEN_CLASSIFIERS:
        return None
    last = encoder_layers(inner)[-1]
    if any(part._forward_hooks or part._forward_pre_hooks or part._backward_hooks for part in last.modules()):
        return None
    return getattr(last, "layernorm_after", None)


@contextmanager
def sdpa_attention(forward_func: Callable[..., Any]) -> Iterator[None]:
    """Have a transformers model compute attention by torch's scaled_dot_product_attention, and then as before."""
    model = transformer(forward_func)
    if model is None:
        yield
        return
    before = model.config._attn_implementation
    model.config._attn_implementation = "sdpa"
    try:
        yield
    finally:
        model.config._attn_implementation = before


def _inner(forward_func: Any) -> Any:
    """What stands inside DataParallel and torch.compile."""
    while True:
        if isinstance(forward_func, nn.DataParallel | nn.parallel.DistributedDataParallel):
            forward_func = forward_func.module
        elif isinstance(forward_func, torch._dynamo.OptimizedModule):
            forward_func = forward_func._orig_mod
        else:
            return forward_func
