"""Small models for the tests: models of transformers, and networks with the module layout of timm and torchvision."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import (
    BeitConfig,
    BeitForImageClassification,
    DeiTConfig,
    DeiTForImageClassification,
    DeiTForImageClassificationWithTeacher,
    Dinov2Config,
    Dinov2ForImageClassification,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersForImageClassification,
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
    SwinConfig,
    SwinForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTMSNConfig,
    ViTMSNForImageClassification,
)

SIZE = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
    "num_labels": 5,
    "initializer_range": 0.3,
}

# models with patch tokens, by name
TOKEN_MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "vit": lambda: ViTForImageClassification(ViTConfig(**SIZE)),
    "deit": lambda: DeiTForImageClassification(DeiTConfig(**SIZE)),
    "deit_with_teacher": lambda: DeiTForImageClassificationWithTeacher(DeiTConfig(**SIZE)),
    "vit_msn": lambda: ViTMSNForImageClassification(ViTMSNConfig(**SIZE)),
    "dinov2": lambda: Dinov2ForImageClassification(Dinov2Config(**SIZE, mlp_ratio=2)),
    "dinov2_with_registers": lambda: Dinov2WithRegistersForImageClassification(
        Dinov2WithRegistersConfig(**SIZE, mlp_ratio=2, num_register_tokens=3)
    ),
}


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Draws weights large enough for every patch to matter, and sets evaluation mode."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=rng) * (1.5 / parameter.shape[-1] ** 0.5))
    return model.eval()


def token_model(name: str) -> PreTrainedModel:
    """A model of ``TOKEN_MODELS`` with 16 patches of 8 x 8 pixels, 3 layers and 5 classes."""
    return randomised(TOKEN_MODELS[name]())


def swin() -> PreTrainedModel:
    """A transformer whose layers need the whole grid: windows of attention."""
    config = SwinConfig(
        image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4, num_labels=5
    )
    return randomised(SwinForImageClassification(config))


def beit() -> PreTrainedModel:
    """A transformer whose layers need the whole grid: relative position biases."""
    return randomised(BeitForImageClassification(BeitConfig(**SIZE)))


def resnet(labels: int = 5) -> PreTrainedModel:
    """A convolutional network in training mode, with initial weights."""
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=labels)
    return ResNetForImageClassification(config)


class TimmLayout(nn.Module):
    """A ViT of one's own with the layout of timm's: fused attention, ``norm_pre`` after the positions.

    Tests change its parts, and run it with all versions of PyTorch. timm's models are tested in models/test_timm.py.
    """

    class PatchEmbed(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.img_size, self.grid_size = (32, 32), (4, 4)
            self.proj = nn.Conv2d(3, width, 8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.proj(x).flatten(2).transpose(1, 2)

    class Attention(nn.Module):
        def __init__(self, width: int, heads: int) -> None:
            super().__init__()
            self.heads = heads
            self.qkv = nn.Linear(width, 3 * width)
            self.proj = nn.Linear(width, width)

        def forward(self, x: Tensor) -> Tensor:
            rows, length, width = x.shape
            q, k, v = self.qkv(x).reshape(rows, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            x = nn.functional.scaled_dot_product_attention(q, k, v)
            return self.proj(x.transpose(1, 2).reshape(rows, length, width))

    class Block(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.attn = TimmLayout.Attention(width, 2)
            self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

        def forward(self, x: Tensor) -> Tensor:
            x = x + self.attn(self.norm1(x))
            return x + self.mlp(self.norm2(x))

    def __init__(self, pool: Literal["token", "mean"] = "token", width: int = 32) -> None:
        super().__init__()
        self.pool = pool
        self.patch_embed = self.PatchEmbed(width)
        self.num_classes, self.num_prefix_tokens = 5, 1
        self.cls_token = nn.Parameter(torch.randn(1, 1, width))
        self.pos_embed = nn.Parameter(torch.randn(1, 17, width))
        self.pos_drop, self.norm_pre = nn.Dropout(0.0), nn.Identity()
        self.blocks = nn.Sequential(*(self.Block(width) for _ in range(3)))
        self.norm, self.fc_norm, self.head = nn.LayerNorm(width), nn.LayerNorm(width), nn.Linear(width, 5)

    def tokens(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1)
        return self.norm(self.blocks(self.norm_pre(self.pos_drop(x + self.pos_embed))))

    def forward(self, x: Tensor) -> Tensor:
        x = self.tokens(x)
        x = x[:, 0] if self.pool == "token" else self.fc_norm(x[:, 1:].mean(dim=1))
        return self.head(x)


class UnknownLayout(TimmLayout):
    """A ViT that is not recognized, because it does not tell its number of prefix tokens."""

    def __init__(self) -> None:
        super().__init__()
        del self.num_prefix_tokens


class TorchvisionLayout(nn.Module):
    """A ViT of one's own with torchvision's layout: dropout and layers in ``encoder``, and ``nn.MultiheadAttention``.

    Tests run it with all versions of PyTorch. torchvision's models are tested in models/test_torchvision.py.
    """

    class Block(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.self_attention = nn.MultiheadAttention(width, 2, batch_first=True)
            self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

        def forward(self, input: Tensor) -> Tensor:
            x = self.ln_1(input)
            x = input + self.self_attention(x, x, x, need_weights=False)[0]
            return x + self.mlp(self.ln_2(x))

    class Encoder(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.pos_embedding = nn.Parameter(torch.randn(1, 17, width))
            self.dropout = nn.Dropout(0.0)
            self.layers = nn.Sequential(*(TorchvisionLayout.Block(width) for _ in range(3)))
            self.ln = nn.LayerNorm(width)

        def forward(self, input: Tensor) -> Tensor:
            return self.ln(self.layers(self.dropout(input + self.pos_embedding)))

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.patch_size, self.num_classes = 8, 5
        self.conv_proj = nn.Conv2d(3, width, 8, 8)
        self.class_token = nn.Parameter(torch.randn(1, 1, width))
        self.encoder = self.Encoder(width)
        self.heads = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_proj(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(len(x), -1, -1), x], 1)
        return self.heads(self.encoder(x)[:, 0])


class Classes(nn.Module):
    """A small network whose inputs interact: ``(B, n)`` -> ``(B, classes)``."""

    def __init__(self, n: int, classes: int = 3, seed: int = 0) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(seed)
        self.first = nn.Parameter(torch.randn(n, 16, generator=rng))
        self.second = nn.Parameter(torch.randn(16, classes, generator=rng))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.first) @ self.second
