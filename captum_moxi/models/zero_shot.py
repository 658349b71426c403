"""Zero-shot image classifiers: models with an image encoder and a text encoder, whose classes are texts.

The texts are encoded once. The model is then an ordinary image classifier, and the encoded texts are the weights of its
last layer.

To support another type of model, add an entry to ``FAMILIES``.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BatchFeature, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import ImageClassifierOutput
from transformers.models.auto.modeling_auto import MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES

# Place of the class in a template.
PLACE = "{}"


def _exponential_scale(model: Any) -> Tensor:
    scale: Tensor = model.logit_scale.exp()
    return scale


def _inverse_temperature(model: Any) -> Tensor:
    scale: Tensor = 1 / model.temperature
    return scale


def _image_features(model: Any, pixel_values: Tensor) -> Any:
    return model.get_image_features(pixel_values=pixel_values)


def _features_of_patches(model: Any, pixel_values: Tensor) -> Any:
    patches, shapes = split_patches(pixel_values, model.config.vision_config.patch_size)
    # No patch is padding, so no mask is needed.
    return model.get_image_features(pixel_values=patches, pixel_attention_mask=None, spatial_shapes=shapes)


def split_patches(images: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Cut images into the patches that SigLIP 2 receives, in its order: rows, columns, channels.

    Args:
        images (Tensor): Shape ``(B, C, H, W)``.
        side (int): Height and width of a patch in pixels.

    Returns:
        tuple[Tensor, Tensor]: Patches ``(B, patches, side * side * C)``, and the number of rows and columns of patches
        of each image ``(B, 2)``, int64.
    """
    rows, columns = images.shape[2] // side, images.shape[3] // side
    blocks = images[:, :, : rows * side, : columns * side].unflatten(3, (columns, side)).unflatten(2, (rows, side))
    patches = blocks.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
    return patches, torch.tensor([[rows, columns]], device=images.device).expand(len(images), -1)


def join_patches(patches: Tensor, shapes: Tensor) -> Tensor:
    """Arrange the patches that the image processor of SigLIP 2 returns as images, without the padding.

    Args:
        patches (Tensor): Square patches in three colors. Shape ``(B, patches, side * side * 3)``.
        shapes (Tensor): Number of rows and columns of patches of each image. Shape ``(B, 2)``, int64.

    Returns:
        Tensor: Images of shape ``(B, 3, H, W)``.

    Raises:
        ValueError: If the images differ in their shapes.
    """
    if bool((shapes != shapes[:1]).any()):
        raise ValueError(
            f"the images have different shapes, in patches: {shapes.unique(dim=0).tolist()}; preprocess images of one "
            "shape at a time"
        )
    rows, columns = shapes[0].tolist()
    side = math.isqrt(patches.shape[2] // 3)
    blocks = patches[:, : rows * columns].unflatten(1, (rows, columns)).unflatten(3, (side, side, -1))
    images: Tensor = blocks.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
    return images


@dataclass(frozen=True)
class ZeroShotFamily:
    """A family of models that compare the features of an image with the features of texts.

    A logit is the cosine of the two features, multiplied by a scale, plus a bias if the model has one.

    Args:
        scale (Callable, optional): Maps the model to the scale.
            Default: exp of ``logit_scale``
        image_features (Callable, optional): Maps the model and images ``(B, C, H, W)`` to the features of the images.
            Default: ``get_image_features``
        has_sigmoids (bool, optional): Whether the probability of each class is the sigmoid of its logit. Otherwise, the
            probabilities are the softmax over the classes.
            Default: False
        max_tokens (int, optional): Length to which texts are padded, as in training.
            Default: None, the length of the longest text
    """

    scale: Callable[[Any], Tensor] = _exponential_scale
    image_features: Callable[[Any, Tensor], Any] = _image_features
    has_sigmoids: bool = False
    max_tokens: int | None = None


# Families by ``config.model_type``.
FAMILIES: dict[str, ZeroShotFamily] = {
    "align": ZeroShotFamily(_inverse_temperature, max_tokens=64),
    "altclip": ZeroShotFamily(),
    "blip": ZeroShotFamily(),
    "chinese_clip": ZeroShotFamily(),
    "clip": ZeroShotFamily(),
    "clipseg": ZeroShotFamily(),
    "metaclip_2": ZeroShotFamily(),
    "siglip": ZeroShotFamily(has_sigmoids=True, max_tokens=64),
    "siglip2": ZeroShotFamily(image_features=_features_of_patches, has_sigmoids=True, max_tokens=64),
    "tipsv2": ZeroShotFamily(_inverse_temperature, max_tokens=64),
}


def is_zero_shot(config: PreTrainedConfig) -> bool:
    """Return whether a configuration is that of a zero-shot image classifier.

    Models such as CLIP also exist with a trained classification head. Their class is another one.
    """
    classes = MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES.get(config.model_type, ())
    names = {classes} if isinstance(classes, str) else set(classes)
    return bool(names & set(config.architectures or ()))


def check_classes(
    config: PreTrainedConfig, name: str, classes: Sequence[str] | None, template: str | None
) -> list[str] | None:
    """Check the texts for a model, before its weights are loaded.

    Args:
        config (PreTrainedConfig): Configuration of the model.
        name (str): Name of the model, for messages.
        classes (Sequence[str] or None): Names of the classes.
        template (str or None): Text with a place ``{}`` for the name of a class.

    Returns:
        list[str] or None: Text of each class, or None for a model with classes of its own.

    Raises:
        ValueError: If a zero-shot classifier has no classes or is not supported, if another classifier has classes, if
            a class is empty or repeated, if there is only one and the model has no sigmoids, or if the template has no
            place for the class.
        TypeError: If ``classes`` is not a list of str, or ``template`` is not a str.
    """
    if not is_zero_shot(config):
        if classes is not None or template is not None:
            raise ValueError(
                f"model {name!r} is a {config.model_type} classifier with classes of its own; leave out "
                f"{'template' if classes is None else 'classes'}, or pass a zero-shot classifier such as CLIP"
            )
        return None
    if config.model_type not in FAMILIES:
        raise ValueError(
            f"model {name!r} is a zero-shot classifier of type {config.model_type}, which does not encode images and "
            f"texts separately; pass a model of one of the types {', '.join(FAMILIES)}"
        )
    if classes is None:
        raise ValueError(
            f"model {name!r} is a zero-shot classifier, whose classes are texts; pass classes, for example "
            "'a photo of a cat' and 'a photo of a dog'"
        )
    check_class_names(classes)
    if len(classes) == 1 and not FAMILIES[config.model_type].has_sigmoids:
        raise ValueError(
            f"classes contains only {classes[0]!r}, but {config.model_type} compares classes with each other; pass at "
            "least two, for example the text and 'a photo', or use SigLIP"
        )
    return class_texts(classes, template)


def check_class_names(classes: object) -> None:
    """Check the names of the classes of a zero-shot classifier.

    Raises:
        ValueError: If there is none, or if one is empty or repeated.
        TypeError: If ``classes`` is not a list of str.
    """
    if isinstance(classes, str) or not isinstance(classes, Sequence) or not all(isinstance(c, str) for c in classes):
        raise TypeError(f"classes is {classes!r}; pass a list of texts, for example ['a photo of a cat']")
    if not classes or not all(text.strip() for text in classes):
        raise ValueError(f"classes is {list(classes)!r}; pass at least one text, and no empty text")
    repeated = sorted({text for text in classes if list(classes).count(text) > 1})
    if repeated:
        raise ValueError(f"classes contains {repeated[0]!r} more than once; pass different texts")


def class_texts(classes: Sequence[str], template: str | None) -> list[str]:
    """Return the text of each class: the template with the name of the class, or the name if there is no template.

    Raises:
        ValueError: If the template does not have exactly one place for the class.
        TypeError: If the template is not a str.
    """
    if template is None:
        return list(classes)
    if not isinstance(template, str):
        raise TypeError(f"template is {template!r}; pass a text such as 'a photo of a {PLACE}'")
    if template.count(PLACE) != 1:
        raise ValueError(
            f"template is {template!r}; pass a text with one {PLACE} for the class, such as 'a photo of a {PLACE}'"
        )
    return [template.replace(PLACE, name) for name in classes]


class ZeroShotForImageClassification(PreTrainedModel):
    r"""
    A zero-shot classifier with fixed classes, which is an ordinary image classifier.

    The logits are :math:`s \cdot \cos(\text{image}, \text{text}) + b`, with the scale :math:`s` and the bias :math:`b`
    of the model. The features of the texts, multiplied by the scale, are the weights of the layer ``classifier``.

    Args:
        encoder (PreTrainedModel): Model with an image encoder. Its text encoder is no longer needed.
        text_features (Tensor): Features of the text of each class. Shape ``(classes, width)``.
        labels (Sequence[str]): Names of the classes.
    """

    main_input_name = "pixel_values"
    base_model_prefix = "encoder"
    # The encoder was checked when it was loaded.
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True

    def __init__(self, encoder: PreTrainedModel, text_features: Tensor, labels: Sequence[str]) -> None:
        family = FAMILIES[encoder.config.model_type]
        # The parts of the configuration are those of the encoder, so that a change of the attention affects both.
        config = copy.copy(encoder.config)
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: index for index, label in enumerate(labels)}
        config.problem_type = "multi_label_classification" if family.has_sigmoids else "single_label_classification"
        super().__init__(config)
        self.encoder = encoder
        self.image_features = family.image_features
        bias = getattr(encoder, "logit_bias", None)
        self.classifier = nn.Linear(
            text_features.shape[1],
            len(labels),
            bias=bias is not None,
            device=text_features.device,
            # Some text encoders in half precision return float32.
            dtype=encoder.dtype,
        )
        with torch.no_grad():
            self.classifier.weight.copy_(family.scale(encoder) * _normalized(text_features))
            if bias is not None:
                self.classifier.bias.copy_(bias.expand(len(labels)))

    def forward(self, pixel_values: Tensor) -> ImageClassifierOutput:
        """Return the logits ``(B, classes)`` of pixel values ``(B, C, H, W)``."""
        features = _as_tensor(self.image_features(self.encoder, pixel_values))
        return ImageClassifierOutput(logits=self.classifier(_normalized(features)))


def with_classes(
    model: Any, tokenizer: PreTrainedTokenizerBase, *, labels: Sequence[str], texts: Sequence[str]
) -> ZeroShotForImageClassification:
    """Turn a zero-shot classifier into an ordinary image classifier.

    The texts are encoded once. The text encoder of the model is removed afterwards.

    Args:
        model (PreTrainedModel): A model of one of the types in ``FAMILIES``, in evaluation mode.
        tokenizer (PreTrainedTokenizerBase): Tokenizer of the model.
        labels (Sequence[str]): Names of the classes.
        texts (Sequence[str]): Text of each class.

    Returns:
        ZeroShotForImageClassification: The classifier, in evaluation mode.

    Raises:
        ValueError: If a text has more tokens than the model accepts.
    """
    tokens = _tokenize(model, tokenizer, texts)
    with torch.no_grad():
        features = _as_tensor(model.get_text_features(**tokens.to(model.device)))
    del model.text_model
    classifier = ZeroShotForImageClassification(model, features, labels)
    classifier.train(False)
    return classifier


def _tokenize(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> BatchFeature:
    """Convert texts to the arguments of the text encoder."""
    family, config = FAMILIES[model.config.model_type], model.config.text_config
    most = config.max_position_embeddings
    length = most if family.max_tokens is None else min(family.max_tokens, most)
    longest = max((len(tokenizer(text)["input_ids"]), text) for text in texts)
    if longest[0] > length:
        raise ValueError(
            f"classes contains {longest[1][:60]!r} with {longest[0]} tokens, but the model accepts {length}; pass a "
            "shorter text"
        )
    padding = {"padding": True} if family.max_tokens is None else {"padding": "max_length", "max_length": length}
    tokens = tokenizer(list(texts), return_tensors="pt", **padding)
    # The tokenizer of SigLIP returns no mask of the padding, because SigLIP was trained without one.
    return BatchFeature({name: tokens[name] for name in ("input_ids", "attention_mask") if name in tokens})


def _as_tensor(features: Any) -> Tensor:
    """Return the pooled features. Older versions of transformers return them as a tensor."""
    pooled: Tensor = features if isinstance(features, Tensor) else features.pooler_output
    return pooled


def _normalized(features: Tensor) -> Tensor:
    """Divide features by their norm. Features of norm 0 stay 0 in every dtype: 1e-12 would be 0 in float16."""
    return nn.functional.normalize(features, dim=-1, eps=max(1e-12, torch.finfo(features.dtype).tiny))
