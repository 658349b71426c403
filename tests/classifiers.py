"""A small random model of each type of image classifier in transformers, and how its players are removed.

A new type needs an entry in ``CLASSIFIERS``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import transformers
import zoo
from torch import nn
from transformers import PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES as MAPPING

# How the players of a type are removed: tokens, tokens with their values of positions, pixels, or not at all.
Group = Literal["tokens", "positions", "fill", "unsupported"]

N_CLASSES = 5


@dataclass(frozen=True)
class Classifier:
    """A type of image classifier.

    Args:
        group (str): How its players are removed.
        config (Mapping): Arguments of a small configuration.
        vision (Mapping or None): Arguments of the vision part of the configuration, if it is separate.
        image_size (int): Height and width in pixels of the images.
        n_players (int): Number of players of such an image.
        note (str): Why a type is not supported: a part of the message.
    """

    group: Group
    config: Mapping[str, Any] = field(default_factory=dict)
    vision: Mapping[str, Any] | None = None
    image_size: int = 32
    n_players: int = 36
    note: str = ""


_ENCODER = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
_PATCHES = {"image_size": 32, "patch_size": 8}
_BIASES = {"use_relative_position_bias": True, "use_shared_relative_position_bias": True, "layer_scale_init_value": 1.0}
_WINDOWS = {"patch_size": 2, "embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2], "window_size": 4}
_STAGES = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}


def _tokens(**config: Any) -> Classifier:
    return Classifier("tokens", _ENCODER | _PATCHES | config, n_players=16)


def _vision(**config: Any) -> Classifier:
    return Classifier("tokens", {}, _ENCODER | _PATCHES | config, n_players=16)


def _positions() -> Classifier:
    return Classifier("positions", _ENCODER | _PATCHES | _BIASES, n_players=16)


def _fill(image_size: int = 32, **config: Any) -> Classifier:
    return Classifier("fill", config, image_size=image_size)


CLASSIFIERS: dict[str, Classifier] = {
    "vit": _tokens(),
    "deit": _tokens(),
    "vit_msn": _tokens(),
    "dinov2": _tokens(mlp_ratio=2),
    "dinov2_with_registers": _tokens(mlp_ratio=2, num_register_tokens=3),
    "ijepa": _tokens(),
    "clip": _vision(),
    "metaclip_2": _vision(),
    "siglip": _vision(),
    "siglip2": Classifier("tokens", {}, _ENCODER | {"patch_size": 8, "num_patches": 16}, n_players=16),
    # mask units of 4 x 4 tokens, each a patch of 2 x 2 pixels
    "hiera": Classifier(
        "tokens",
        {
            "embed_dim": 8,
            "image_size": [32, 32],
            "depths": [1, 1, 2],
            "num_heads": [1, 1, 2],
            "patch_stride": [2, 2],
            "patch_size": [3, 3],
            "patch_padding": [1, 1],
            "masked_unit_size": [4, 4],
            "num_query_pool": 2,
            "masked_unit_attention": [True, True, False],
        },
        n_players=16,
    ),
    "beit": _positions(),
    "data2vec-vision": _positions(),
    "bit": _fill(**_STAGES, num_groups=4),
    "convnext": _fill(num_stages=2, hidden_sizes=[8, 16], depths=[1, 1]),
    "convnextv2": _fill(num_stages=2, hidden_sizes=[8, 16], depths=[1, 1]),
    "cvt": _fill(embed_dim=[8, 16, 16], num_heads=[1, 1, 2], depth=[1, 2, 3]),
    "donut-swin": _fill(**_WINDOWS),
    "efficientnet": _fill(
        width_coefficient=0.25,
        depth_coefficient=0.2,
        hidden_dim=320,
        dropout_rate=0.0,
        drop_connect_rate=0.0,
    ),
    "focalnet": _fill(embed_dim=8, depths=[1, 1], focal_levels=[2, 2], focal_windows=[3, 3]),
    "hgnet_v2": _fill(
        stem_channels=[3, 8, 8],
        hidden_sizes=[8, 16],
        depths=[1, 1],
        stage_in_channels=[8, 8],
        stage_mid_channels=[8, 8],
        stage_out_channels=[8, 16],
        stage_num_blocks=[1, 1],
        stage_downsample=[False, True],
        stage_light_block=[False, True],
        stage_kernel_size=[3, 3],
        stage_numb_of_layers=[2, 2],
    ),
    "levit": _fill(
        hidden_sizes=[16, 24, 32],
        num_attention_heads=[1, 2, 2],
        depths=[1, 1, 1],
        key_dim=[8, 8, 8],
        down_ops=[["Subsample", 8, 2, 4, 2, 2], ["Subsample", 8, 3, 4, 2, 2]],
    ),
    "mobilenet_v1": _fill(depth_multiplier=0.25, min_depth=4),
    "mobilenet_v2": _fill(depth_multiplier=0.25, min_depth=4),
    "mobilevit": _fill(64, hidden_sizes=[16, 16, 16], neck_hidden_sizes=[8, 8, 8, 8, 8, 8, 16], num_attention_heads=2),
    "mobilevitv2": _fill(64, width_multiplier=0.25, base_attn_unit_dims=[16, 16, 16], n_attn_blocks=[1, 1, 1]),
    "poolformer": _fill(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1]),
    "pp_lcnet": _fill(scale=0.25, class_expand=32),
    "pvt": _fill(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 2, 2]),
    "pvt_v2": _fill(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 2, 2]),
    "regnet": _fill(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], groups_width=4),
    "resnet": _fill(**_STAGES, layer_type="basic"),
    "segformer": _fill(
        hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 2, 2], decoder_hidden_size=16
    ),
    "swiftformer": _fill(embed_dims=[8, 8, 16, 16], depths=[1, 1, 1, 1]),
    "swin": _fill(**_WINDOWS),
    "swinv2": _fill(**_WINDOWS),
    "textnet": _fill(
        stem_out_channels=8,
        hidden_sizes=[8, 8, 8, 16, 16],
        conv_layer_kernel_sizes=[[[3, 3]], [[3, 3]], [[3, 1]], [[1, 3]]],
        conv_layer_strides=[[1], [2], [2], [2]],
    ),
    "perceiver": _fill(
        num_latents=4,
        d_latents=16,
        d_model=64,
        num_blocks=1,
        num_self_attends_per_block=1,
        num_self_attention_heads=2,
        num_cross_attention_heads=1,
    ),
    "dinat": Classifier("unsupported", note="natten"),
    "imagegpt": Classifier(
        "unsupported", {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 16, "vocab_size": 17}, note="input_ids"
    ),
    "shieldgemma2": Classifier(
        "unsupported",
        {
            "text_config": {
                "hidden_size": 16,
                "num_hidden_layers": 1,
                "intermediate_size": 16,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
                "head_dim": 8,
                "vocab_size": 64,
            },
            "yes_token_index": 1,
            "no_token_index": 2,
        },
        _ENCODER | _PATCHES,
        note="input_ids",
    ),
    "timm_wrapper": Classifier("unsupported", note="timm"),
}


def class_names(name: str) -> tuple[str, ...]:
    """The model classes of a type."""
    names = MAPPING[name]
    return (names,) if isinstance(names, str) else tuple(names)


def build(name: str, class_name: str | None = None, **options: Any) -> PreTrainedModel:
    """A small model of a type with random weights that preserve the scale of activations, in evaluation mode."""
    entry = CLASSIFIERS[name]
    model_class = getattr(transformers, class_name or class_names(name)[0])
    config = dict(entry.config) | ({} if entry.vision is None else {"vision_config": dict(entry.vision)}) | options
    config_class = model_class.config_class
    if "image_size" not in config and entry.vision is None and hasattr(config_class(), "image_size"):
        is_pair = isinstance(config_class().image_size, list | tuple)
        config["image_size"] = [entry.image_size] * 2 if is_pair else entry.image_size
    model = zoo.randomised(model_class(config_class(**config, num_labels=N_CLASSES)))
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in (weight for weight in model.parameters() if weight.dim() == 4):
            weight.copy_(torch.randn(weight.shape, generator=rng) * (2 / weight[0].numel()) ** 0.5)
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d)]
        for norm in norms:
            norm.train().momentum = 1.0
            norm.weight.fill_(1.0)
        if norms:
            model(torch.randn(8, 3, entry.image_size, entry.image_size, generator=rng))
    return model.eval()
