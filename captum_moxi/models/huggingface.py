"""Hugging Face image classifiers: loading, preprocessing, class names and logits."""

import difflib
import inspect
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    AutoModelForZeroShotImageClassification,
    AutoTokenizer,
    BaseImageProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from captum_moxi.arguments import ForwardFunc, ModelOutput
from captum_moxi.images import open_image, to_rgb
from captum_moxi.memory import is_out_of_memory, too_large
from captum_moxi.models.hub import is_local
from captum_moxi.models.unwrap import module_of
from captum_moxi.models.zero_shot import check_classes, join_patches, split_patches, with_classes
from captum_moxi.tables import html_table

ImageSource: TypeAlias = Image.Image | str | os.PathLike[str]

# The attention of transformers itself. Other names are packages or kernels, which transformers may download and run.
ATTENTION = (None, "eager", "sdpa", "flex_attention")


@dataclass(frozen=True)
class ImageClassifier:
    """A Hugging Face image classifier with its preprocessing.

    Args:
        model (PreTrainedModel): Model in evaluation mode, on its device.
        processor (BaseImageProcessor): Converts images to pixel values.
        name (str): Hub name or folder that the model was loaded from.
    """

    model: PreTrainedModel
    processor: BaseImageProcessor
    name: str

    def __repr__(self) -> str:
        return f"ImageClassifier({self.name!r}: {type(self.model).__name__} with {len(self.labels)} classes)"

    def _repr_html_(self) -> str:
        """Return a table of what the classifier is, which a notebook shows."""
        size = image_size(self.model)
        rows = [
            ["model", type(self.model).__name__],
            ["classes", f"{len(self.labels)}: {', '.join(self.labels[:3])}{', ...' if len(self.labels) > 3 else ''}"],
            ["image size", "any" if size is None else f"{size[0]} x {size[1]}"],
            ["device", str(self.model.device)],
        ]
        return html_table(self.name, ["", ""], rows)

    @property
    def labels(self) -> list[str]:
        """Class names by index."""
        names = {int(index): label for index, label in (self.model.config.id2label or {}).items()}
        return [names.get(i, str(i)) for i in range(len(names))]

    def preprocess(self, images: ImageSource | Iterable[ImageSource]) -> Tensor:
        """Convert one or more images to pixel values.

        Args:
            images (Image, path or Iterable of these): PIL images of any size and mode, or paths of image files. They
                are converted to RGB as in :func:`captum_moxi.images.to_rgb`: integers of more than 8 bits are scaled by
                their bit depth, floating-point values from 0..1, and transparent pixels are put on white. Files are
                rotated according to their EXIF orientation.

        Returns:
            Tensor: Pixel values of shape ``(B, 3, H, W)``, in the model's dtype and on its device.

        Raises:
            ValueError: If an image cannot be read or converted to RGB, for example because its values are out of range.
            TypeError: If ``images`` contains anything else.
        """
        sources: Iterable[object] = images if isinstance(images, Iterable) and not isinstance(images, str) else [images]
        batch = self.processor([_rgb_image(source) for source in sources], return_tensors="pt")
        pixel_values: Tensor = batch["pixel_values"]
        if "spatial_shapes" in batch:
            pixel_values = join_patches(pixel_values, batch["spatial_shapes"])
        return pixel_values.to(self.model.device, self.model.dtype)

    def to_images(self, pixel_values: Tensor) -> Tensor:
        """Convert pixel values back to images for display.

        Args:
            pixel_values (Tensor): Shape ``(B, 3, H, W)``.

        Returns:
            Tensor: Images in [0, 1] of shape ``(B, H, W, 3)``, float32, on the CPU.
        """
        images = pixel_values.detach().float().cpu()
        normalization = self._normalization(images.device)
        if normalization is not None:
            mean, std = normalization
            images = images * std + mean
        return images.permute(0, 2, 3, 1).clamp(0, 1)

    def to_pixel_values(self, images: Tensor) -> Tensor:
        """Convert images to pixel values without resizing or cropping: the inverse of :meth:`to_images`.

        Gradients flow through the conversion.

        Args:
            images (Tensor): Images in [0, 1] of shape ``(B, H, W, 3)``.

        Returns:
            Tensor: Pixel values of shape ``(B, 3, H, W)``, in the model's dtype and on its device.
        """
        pixel_values = images.permute(0, 3, 1, 2).to(self.model.device, torch.float32)
        normalization = self._normalization(pixel_values.device)
        if normalization is not None:
            mean, std = normalization
            pixel_values = (pixel_values - mean) / std
        return pixel_values.to(self.model.dtype)

    def class_index(self, name: str | int) -> int:
        """Find a class by its index, its name, one of the comma-separated synonyms, or an unambiguous part of the name.

        Full names are preferred to synonyms, synonyms to words of a name, and words to other parts.

        Args:
            name (str or int): Index or name of the class. Case is ignored.

        Returns:
            int: Index of the class.

        Raises:
            ValueError: If no class or more than one class matches. The message lists similar or matching names.
        """
        labels = self.labels
        text = str(name).strip()
        if isinstance(name, int) or (text.isdecimal() and text not in labels):
            if not 0 <= int(text) < len(labels):
                raise ValueError(f"class {text} does not exist; the model has classes 0 to {len(labels) - 1}")
            return int(text)
        lowercase_labels = [label.casefold() for label in labels]
        # Without its parentheses, "crane (n02012849)" also matches "crane", so a user who asks for a crane learns that
        # there are two.
        full_names = [re.sub(r"\s*\(.*\)$", "", label).strip() for label in lowercase_labels]
        synonyms = [[synonym.strip() for synonym in name.split(",")] for name in full_names]
        query = text.casefold()
        whole_words = re.compile(rf"(?<!\w){re.escape(query)}(?!\w)")
        # Better matches first: "cat" is a word of "tabby cat", but only a part of "oystercatcher".
        for matches in (
            [i for i, label in enumerate(lowercase_labels) if query in (label, full_names[i])],
            [i for i, names in enumerate(synonyms) if query in names],
            [i for i, label in enumerate(lowercase_labels) if query and whole_words.search(label)],
            [i for i, label in enumerate(lowercase_labels) if query and query in label],
        ):
            if len(matches) == 1:
                return matches[0]
            if matches:
                listed = "; ".join(f"{i} ({labels[i]})" for i in matches[:5]) + ("; ..." if len(matches) > 5 else "")
                raise ValueError(f"class {text!r} matches {len(matches)} classes: {listed}; pass an index")
        similar = difflib.get_close_matches(query, [name for names in synonyms for name in names], 3, 0.5)
        suggestion = f"a name such as {', '.join(similar)}" if similar else f"an index, or a name such as {labels[0]!r}"
        raise ValueError(f"class {text!r} is not one of the model's {len(labels)} classes; pass {suggestion}")

    def _normalization(self, device: torch.device) -> tuple[Tensor, Tensor] | None:
        """Return mean and standard deviation of shape ``(3, 1, 1)``, or None if the processor does not normalize."""
        if not getattr(self.processor, "do_normalize", False):
            return None
        mean, std = (
            torch.tensor(getattr(self.processor, name), device=device)[:, None, None]
            for name in ("image_mean", "image_std")
        )
        return mean, std


def load(
    name: str | os.PathLike[str],
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    *,
    classes: Sequence[str] | None = None,
    template: str | None = None,
) -> ImageClassifier:
    r"""
    Load an image classifier and its preprocessing from the Hugging Face hub or a folder.

    The classes of a zero-shot classifier, such as CLIP or SigLIP, are texts. They are encoded once, and the result is
    an ordinary image classifier. SigLIP gives each class a probability of its own, so a single class is enough.

    Code from the folder or the hub is never run.

    Args:
        name (str or path): Hub name, for example ``google/vit-base-patch16-224``, or a folder written by
            ``save_pretrained`` that contains config.json, safetensors weights and preprocessor_config.json. The folder
            of a zero-shot classifier also contains its tokenizer.
        device (str or torch.device, optional): Device of the model.
            Default: None, CUDA if it is available, otherwise the CPU
        dtype (torch.dtype, optional): Dtype of the weights.
            Default: torch.float32
        classes (Sequence[str], optional): The classes of a zero-shot classifier, for example ``["cat", "dog"]``.
            Required for these classifiers, and only accepted for them.
            Default: None
        template (str, optional): Text that the model receives for each class, with ``{}`` in the place of the class,
            for example ``"a photo of a {}"``.
            Default: None, the class itself

    Returns:
        ImageClassifier: Model in evaluation mode, image processor and name.

    Raises:
        ValueError: If there is no such folder or hub model, if it is not an image classifier, if its weights are
            incomplete or not in the safetensors format, if its configuration names an implementation of attention that
            is not part of transformers, or if the device is not available. If the hub cannot be reached, the error is
            raised after a few seconds, unless the model is in the cache of the hub. Also if a
            zero-shot classifier has no classes, if another classifier has some, if a class is empty, repeated or too
            long, if there is only one although the model compares classes, or if the template has no place for it.
        TypeError: If ``classes`` is not a list of str, or ``template`` is not a str.
        torch.OutOfMemoryError: If the model does not fit into memory.

    Examples::

        >>> vit = load("google/vit-base-patch16-224")
        >>> x = vit.preprocess(Image.open("cat.jpg"))  # (1, 3, 224, 224)
        >>> clip = load("openai/clip-vit-base-patch32", classes=["cat", "dog"], template="a photo of a {}")
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    check_device(device)
    options = _loading_options(name)
    config = _read_config(name, options)
    texts = check_classes(config, str(name), classes, template)
    with _loading_errors(name):
        processor = AutoImageProcessor.from_pretrained(name, **options)
    tokenizer = None if texts is None else _load_tokenizer(name, **options)
    auto_class = AutoModelForImageClassification if texts is None else AutoModelForZeroShotImageClassification
    model: Any = _load_model(auto_class, name, config=config, dtype=dtype, **options)
    with _loading_errors(name):
        model.to(torch.device(device)).eval()
    if classes is not None and texts is not None and tokenizer is not None:
        model = with_classes(model, tokenizer, labels=classes, texts=texts)
    return ImageClassifier(model, processor, str(name))


def load_config(name: str | os.PathLike[str]) -> PreTrainedConfig:
    """Load the configuration of a Hugging Face model, without its weights.

    Args:
        name (str or path): Hub name, or folder written by ``save_pretrained``.

    Raises:
        ValueError: If the model cannot be found, or if its configuration requests code.
    """
    return _read_config(name, _loading_options(name))


def _read_config(name: str | os.PathLike[str], options: dict[str, bool]) -> PreTrainedConfig:
    with _loading_errors(name):
        config: PreTrainedConfig = AutoConfig.from_pretrained(name, **options)
    _check_attention(config, str(name))
    return config


def _loading_options(name: str | os.PathLike[str]) -> dict[str, bool]:
    """Return options of ``from_pretrained`` with which code in a folder is not run."""
    return {"local_files_only": is_local(name), "trust_remote_code": False}


def _check_attention(config: PreTrainedConfig, name: str) -> None:
    attention = config._attn_implementation
    if attention not in ATTENTION:
        raise ValueError(
            f"model {name!r} requests the attention implementation {attention!r}, which may be code from the hub; "
            "remove attn_implementation from its config.json"
        )
    for part in vars(config).values():
        if isinstance(part, PreTrainedConfig):
            _check_attention(part, name)


def _load_model(auto_class: Any, name: str | os.PathLike[str], **options: Any) -> PreTrainedModel:
    with _loading_errors(name):
        model, loading_info = auto_class.from_pretrained(
            name, use_safetensors=True, output_loading_info=True, **options
        )
    if loading_info["missing_keys"]:
        missing = ", ".join(sorted(loading_info["missing_keys"])[:3])
        raise ValueError(
            f"model {str(name)!r} has no weights for {missing}, so it is not a trained classifier; pass a trained one"
        )
    loaded: PreTrainedModel = model
    return loaded


def _load_tokenizer(name: str | os.PathLike[str], **options: Any) -> PreTrainedTokenizerBase:
    try:
        with _loading_errors(name):
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(name, **options)
    except AttributeError as error:
        # transformers 5.0 raises this error if the tokenizer is based on a package that is not installed.
        raise ValueError(
            f"the tokenizer of model {str(name)!r} could not be loaded ({error}); run pip install sentencepiece, or "
            "pip install --upgrade transformers"
        ) from error
    return tokenizer


@contextmanager
def _loading_errors(name: str | os.PathLike[str]) -> Iterator[None]:
    """Turn the errors of transformers into one ValueError that says what to pass.

    Raises:
        ValueError: If the model cannot be loaded.
        torch.OutOfMemoryError: If the model does not fit into memory.
    """
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, MemoryError, SafetensorError) as error:
        if is_out_of_memory(error):
            advice = "pass a smaller model, or a device with more free memory"
            raise too_large(f"model {str(name)!r}", error, advice=advice) from error
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(
            f"model {str(name)!r} could not be loaded as an image classifier ({reason}); "
            "pass a reachable hub name, or a folder written by save_pretrained"
        ) from error


def _rgb_image(source: object) -> Image.Image:
    if isinstance(source, Image.Image):
        return to_rgb(source)
    if isinstance(source, str | os.PathLike):
        try:
            return open_image(source)
        except ValueError as error:
            raise ValueError(f"image {os.fspath(source)!r}: {error}") from None
    raise TypeError(
        f"images contains a {type(source).__name__}; pass PIL images or paths, for example Image.fromarray(array)"
    )


def check_device(device: str | torch.device) -> None:
    """Check that tensors can be created on a device.

    Args:
        device (str or torch.device): The device, for example ``"cuda:1"``.

    Raises:
        ValueError: If the device is not available.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"device {str(device)!r} is not available ({reason}); pass cpu or an available device"
        ) from None


class LogitsModel(nn.Module):
    r"""
    A Hugging Face classifier that returns its logits, so that Captum's own classes accept it.

    Args:
        model (nn.Module): Model whose output has ``logits``.

    Examples::

        >>> net = LogitsModel(ViTForImageClassification.from_pretrained(folder))
        >>> FeatureAblation(net).attribute(x, target=y, feature_mask=patch_mask(224, 16))
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        # A new module is in training mode, which some packages reject.
        self.training = model.training

    def forward(self, pixel_values: Tensor, *args: Any) -> Tensor:
        """Return the logits ``(B, classes)`` of pixel values ``(B, 3, H, W)``."""
        logits: Tensor = call_model(self.model, pixel_values, *args)
        return logits


def call_model(forward_func: ForwardFunc, *args: Any) -> ModelOutput:
    """Call a forward function. Return the logits if the output is an object with logits, otherwise the output.

    If the size of the images is not the size that the model was trained on, a transformers model that can interpolate
    its position embeddings does so, for example ViT or DeiT. A transformers model whose inputs are patches receives the
    patches of the images (SigLIP 2).
    """
    kwargs: dict[str, Any] = {}
    model = module_of(forward_func)
    if isinstance(model, PreTrainedModel) and len(args) == 1:
        if interpolates(model) and has_other_size(model, args[0]):
            kwargs["interpolate_pos_encoding"] = True
        elif "spatial_shapes" in inspect.signature(model.forward).parameters:
            patches, kwargs["spatial_shapes"] = split_patches(args[0], _vision_config(model, "patch_size"))
            args = (patches,)
    output = forward_func(*args, **kwargs)
    return output if isinstance(output, Tensor) else _logits_of(output)


def _logits_of(output: Any) -> Any:
    """Return the logits of an output object, or the output itself if it has none."""
    # PP-LCNet returns its logits under the name of hidden states, which have more dimensions.
    logits = getattr(output, "logits", getattr(output, "last_hidden_state", None))
    is_hidden = not hasattr(output, "logits") and isinstance(logits, Tensor) and logits.dim() != 2
    return output if logits is None or is_hidden else logits


def image_size(model: PreTrainedModel) -> tuple[int, int] | None:
    """Return height and width of the images that a model was trained on, or None if its configuration has no size."""
    size = _vision_config(model, "image_size")
    if size is None:
        return None
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def num_channels(model: PreTrainedModel) -> int | None:
    """Return the number of channels of a model's images, or None if its configuration does not contain it."""
    channels = _vision_config(model, "num_channels")
    return channels if isinstance(channels, int) else None


def _vision_config(model: PreTrainedModel, name: str) -> Any:
    """Return a value of the configuration, which CLIP and SigLIP keep in a part of their own."""
    return getattr(model.config, name, getattr(getattr(model.config, "vision_config", None), name, None))


def interpolates(model: PreTrainedModel) -> bool:
    """Return whether a model interpolates its position embeddings only on request."""
    return "interpolate_pos_encoding" in inspect.signature(model.forward).parameters


def has_other_size(model: PreTrainedModel, images: Tensor) -> bool:
    """Return whether the size of images ``(B, C, H, W)`` differs from the model's."""
    size = image_size(model)
    return size is not None and images.dim() == 4 and tuple(images.shape[-2:]) != size


def called_transformer(forward_func: ForwardFunc) -> PreTrainedModel | None:
    """Return the transformers model that receives the inputs of a forward function unchanged.

    Returns:
        PreTrainedModel or None: None for other functions, and for modules that may change the inputs first.
    """
    module = module_of(forward_func)
    if isinstance(module, LogitsModel):
        module = module_of(module.model)
    return module if isinstance(module, PreTrainedModel) else None


def num_classes(forward_func: ForwardFunc) -> int | None:
    """Return the number of classes of a transformers classifier.

    Returns:
        int or None: None for other functions, and for models whose classification head does not match their config.
    """
    module = called_transformer(forward_func)
    if module is None or "Classification" not in type(module).__name__:
        return None
    heads = [part for name, part in module.named_modules() if "classifier" in name and isinstance(part, nn.Linear)]
    n_labels = module.config.num_labels
    return n_labels if {head.out_features for head in heads} == {n_labels} else None


def problem_type(forward_func: ForwardFunc) -> str | None:
    """Return ``config.problem_type`` of a transformers classifier, which says how its logits are to be read.

    Returns:
        str or None: ``"multi_label_classification"``, ``"single_label_classification"`` or ``"regression"``. None for
        models that do not say, and for other functions.
    """
    module = called_transformer(forward_func)
    declared = None if module is None else getattr(module.config, "problem_type", None)
    return declared if isinstance(declared, str) else None
