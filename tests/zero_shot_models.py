"""Small zero-shot classifiers in folders, as ``save_pretrained`` writes them: model, tokenizer and image processor."""

import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import transformers
import zoo
from packaging.version import Version
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AlignConfig,
    AlignModel,
    AltCLIPConfig,
    AltCLIPModel,
    AutoImageProcessor,
    BlipConfig,
    BlipModel,
    ChineseCLIPConfig,
    ChineseCLIPModel,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPSegConfig,
    CLIPSegModel,
    MetaClip2Config,
    MetaClip2Model,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Siglip2Config,
    Siglip2ImageProcessor,
    Siglip2Model,
    SiglipConfig,
    SiglipModel,
)

WORDS = ["a", "photo", "of", "the", "cat", "dog", "keyboard", "cup", "coffee", "on", "desk"]
VOCABULARY = {word: index for index, word in enumerate(["[PAD]", "[BOS]", "[UNK]", *WORDS, "[EOS]"])}
EOS = VOCABULARY["[EOS]"]
# 16 patches of 8 x 8 pixels
VISION = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": len(VOCABULARY),
    "max_position_embeddings": 20,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": EOS,
}
PATCHES = {name: value for name, value in VISION.items() if name != "image_size"}
CNN = {
    "image_size": 32,
    "in_channels": [32, 8],
    "out_channels": [8, 32],
    "kernel_sizes": [3, 3],
    "strides": [2, 2],
    "num_block_repeats": [1, 1],
    "expand_ratios": [1, 2],
    "width_coefficient": 1.0,
    "depth_coefficient": 1.0,
    "hidden_dim": 32,
}

# models by config.model_type
MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "align": lambda: AlignModel(AlignConfig(vision_config=CNN, text_config=TEXT, projection_dim=32)),
    "altclip": lambda: AltCLIPModel(
        AltCLIPConfig(
            vision_config=VISION,
            text_config=TEXT | {"project_dim": 24, "max_position_embeddings": 24},
            projection_dim=24,
        )
    ),
    "blip": lambda: BlipModel(
        BlipConfig(vision_config=VISION, text_config=TEXT | {"encoder_hidden_size": 32}, projection_dim=24)
    ),
    "chinese_clip": lambda: ChineseCLIPModel(
        ChineseCLIPConfig(vision_config=VISION, text_config=TEXT, projection_dim=24)
    ),
    "clip": lambda: CLIPModel(CLIPConfig(vision_config=VISION, text_config=TEXT, projection_dim=24)),
    "clipseg": lambda: CLIPSegModel(CLIPSegConfig(vision_config=VISION, text_config=TEXT, projection_dim=24)),
    "metaclip_2": lambda: MetaClip2Model(MetaClip2Config(vision_config=VISION, text_config=TEXT, projection_dim=24)),
    "siglip": lambda: SiglipModel(SiglipConfig(vision_config=VISION, text_config=TEXT | {"projection_size": 32})),
    "siglip2": lambda: Siglip2Model(
        Siglip2Config(vision_config=PATCHES | {"num_patches": 16}, text_config=TEXT | {"projection_size": 32})
    ),
}
try:
    from transformers import Tipsv2Config, Tipsv2Model
except ImportError:  # transformers before 5.22
    pass
else:
    MODELS["tipsv2"] = lambda: Tipsv2Model(
        Tipsv2Config(vision_config=VISION | {"num_register_tokens": 1, "mlp_ratio": 2}, text_config=TEXT)
    )


def skip_without_tokenizer(test: str) -> None:
    """Skip a test with ``siglip`` in its name where the tokenizer of SigLIP cannot be loaded."""
    needs_sentencepiece = Version(transformers.__version__) < Version("5.1") and find_spec("sentencepiece") is None
    if needs_sentencepiece and re.search("siglip(?!2)", test):
        pytest.skip("transformers 5.0 loads the tokenizer of SigLIP only if sentencepiece is installed")


def tokenizer(*, masks_padding: bool = True) -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are the words of ``WORDS``."""
    words = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [("[BOS]", 1), ("[EOS]", EOS)]
    words.post_processor = processors.TemplateProcessing(single="[BOS] $A [EOS]", special_tokens=special)
    names = ["input_ids", *(["attention_mask"] if masks_padding else [])]
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", model_input_names=names, eos_token="[EOS]"
    )


def save(name: str, folder: Path) -> Path:
    """Save a model of ``MODELS`` with random weights, its tokenizer and its image processor in a folder."""
    torch.manual_seed(0)
    model = zoo.randomised(MODELS[name]())
    model.save_pretrained(folder)
    tokenizer(masks_padding=not name.startswith("siglip")).save_pretrained(folder)
    if name == "siglip2":
        processor = Siglip2ImageProcessor(patch_size=8, max_num_patches=16)
    else:
        size = {"height": 32, "width": 32}
        processor = CLIPImageProcessor(size=size, crop_size=size)
    processor.save_pretrained(folder)
    AutoImageProcessor.from_pretrained(folder)
    return folder
