"""A small text classifier of transformers with a tokenizer of word pieces."""

from pathlib import Path

import torch
import zoo
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "key", "##board", "is", "won", "##der", "##ful"]
VOCABULARY = {piece: index for index, piece in enumerate(PIECES)}


def tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are ``PIECES``."""
    pieces = Tokenizer(models.WordPiece(VOCABULARY, unk_token="[UNK]"))
    pieces.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [(name, VOCABULARY[name]) for name in ("[CLS]", "[SEP]")]
    pieces.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=special)
    return PreTrainedTokenizerFast(
        tokenizer_object=pieces, mask_token="[MASK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )


def bert() -> BertForSequenceClassification:
    """A classifier with 3 classes and random weights."""
    config = BertConfig(
        vocab_size=len(PIECES),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        num_labels=3,
    )
    return zoo.randomised(BertForSequenceClassification(config))


def save(folder: Path) -> Path:
    """Save the classifier and its tokenizer in a folder."""
    torch.manual_seed(0)
    bert().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder
