"""Plain implementations of the paper's equations, to compare the package with: one forward pass per coalition."""

from collections.abc import Callable
from itertools import chain, combinations
from math import factorial, log
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

Value = Callable[[frozenset[int]], float]


def insertion(value: Value, n: int, steps: int) -> tuple[list[int], list[float]]:
    """Algorithm 1: the order, and the value before and after each step."""
    chosen: list[int] = []
    values = [value(frozenset())]
    for _ in range(steps):
        left = [b for b in range(n) if b not in chosen]
        gains = {b: value(frozenset([*chosen, b])) for b in left}
        best = max(left, key=lambda b: gains[b])
        chosen.append(best)
        values.append(gains[best])
    return chosen, values


def deletion(value: Value, n: int, steps: int) -> tuple[list[int], list[float]]:
    """Algorithm 2: the order, and the value before and after each step."""
    everyone = frozenset(range(n))
    deleted: list[int] = []
    values = [value(everyone)]
    for _ in range(steps):
        left = [b for b in range(n) if b not in deleted]
        losses = {b: value(everyone - {*deleted, b}) for b in left}
        best = min(left, key=lambda b: losses[b])
        deleted.append(best)
        values.append(losses[best])
    return deleted, values


class Outcome(NamedTuple):
    """What a coalition leads to."""

    reward: float
    confidence: float
    prediction: int


class Path(NamedTuple):
    """The players that a search chose, the outcome before and after each step, and the candidates of each step."""

    order: list[int]
    outcomes: list[Outcome]
    shapley: list[float]
    n_evaluated: list[int]
    flipped: bool


# The players that a step evaluates, given its number from 1, the players that remain, and the last known gains.
Shortlist = Callable[[int, list[int], dict[int, float]], list[int]]


def everyone(step: int, remaining: list[int], known: dict[int, float]) -> list[int]:
    """The shortlist of the paper: all players that remain."""
    return remaining


def search(
    outcome: Callable[[frozenset[int]], Outcome],
    players: list[int],
    mode: str,
    *,
    n_steps: int | None = None,
    flips: Callable[[Outcome], bool] = lambda outcome: False,
    interactions: bool = True,
    shortlist: Shortlist = everyone,
    relative_ties: bool = False,
) -> Path:
    """Algorithms 1 and 2, and MoXI(-), with ties, stops and shortlists.

    Args:
        players (list[int]): Ids, ascending.
        flips (Callable): Whether the search stops at an outcome. Called before the first step and after each step.
        interactions (bool): False ranks players by their Shapley values.
        relative_ties (bool): Whether ties are relative to the best value instead of the largest one of the step.
    """
    sign = 1 if mode == "insertion" else -1

    def after(chosen: list[int]) -> Outcome:
        return outcome(frozenset(chosen) if mode == "insertion" else frozenset(players) - set(chosen))

    def best(values: dict[int, float]) -> int:
        highest = max(values.values())
        scale = abs(highest) if relative_ties else max(map(abs, values.values()))
        return min(player for player, value in values.items() if value >= highest - 1e-13 * scale)

    def gain(chosen: list[int], player: int) -> float:
        return sign * (after([*chosen, player]).reward - after(chosen).reward)

    order: list[int] = []
    n_evaluated: list[int] = []
    known: dict[int, float] = {}
    while len(order) < min(len(players), n_steps or len(players)) and not flips(after(order)):
        remaining = [player for player in players if player not in order]
        context = order if interactions else []
        candidates = shortlist(len(order) + 1, remaining, known)
        n_evaluated.append(len(candidates) if interactions or not order else 1)
        known |= {player: gain(context, player) for player in candidates}
        order.append(best({player: sign * after([*context, player]).reward for player in candidates}))
    return Path(
        order,
        [after(order[:k]) for k in range(len(order) + 1)],
        [gain([], player) for player in order],
        n_evaluated,
        flips(after(order)),
    )


def subsets(players: list[int]) -> chain[tuple[int, ...]]:
    """All subsets of the players, smallest first."""
    return chain.from_iterable(combinations(players, size) for size in range(len(players) + 1))


def shapley(value: Value, player: frozenset[int], others: list[int]) -> float:
    """Eq. 1: the Shapley value of a player, which may consist of several players acting as one."""
    n = len(others) + 1
    return sum(
        factorial(len(s))
        * factorial(n - len(s) - 1)
        / factorial(n)
        * (value(frozenset(s) | player) - value(frozenset(s)))
        for s in subsets(others)
    )


def log_odds(logits: Tensor, target: int) -> float:
    """log P / (1 - P), from the probabilities in double precision."""
    p = float(logits.double().softmax(-1)[target])
    return log(p / (1 - p))


def vit_logits(model: torch.nn.Module, pixels: Tensor, kept: list[int]) -> Tensor:
    """Logits of one image ``(1, 3, H, W)`` with the kept patches only: module by module, without hooks."""
    base = model.base_model
    tokens = base.embeddings(pixels)
    prefix = tokens.shape[1] - (pixels.shape[2] // base.config.patch_size) * (pixels.shape[3] // base.config.patch_size)
    tokens = tokens[:, [*range(prefix), *(patch + prefix for patch in sorted(kept))]]
    layers = base.layers if hasattr(base, "layers") else base.encoder.layer
    for layer in layers:
        tokens = layer(tokens)
        tokens = tokens[0] if isinstance(tokens, tuple) else tokens
    tokens = base.layernorm(tokens)
    if hasattr(model, "cls_classifier"):
        return (model.cls_classifier(tokens[:, 0]) + model.distillation_classifier(tokens[:, 1]))[0] / 2
    if "dinov2" in model.config.model_type:
        mean = tokens[:, prefix:].mean(1) if kept else torch.zeros_like(tokens[:, 0])
        return model.classifier(torch.cat([tokens[:, 0], mean], 1))[0]
    return model.classifier(tokens[:, 0])[0]


def with_attention(model: torch.nn.Module, image: Tensor, attention: Callable[..., object]) -> Tensor:
    """Logits of one image with another attention function in every layer, through transformers' own interface."""
    AttentionInterface.register("for_test", attention)
    AttentionMaskInterface.register("for_test", lambda *args, **kwargs: None)
    before = model.config._attn_implementation
    model.config._attn_implementation = "for_test"
    try:
        with torch.no_grad():
            return model(image).logits[0]
    finally:
        model.config._attn_implementation = before


def masked_logits(
    model: torch.nn.Module, image: Tensor, absent: list[int], from_layer: int, patches: int = 16
) -> Tensor:
    """Logits of one image with attention to the absent patches masked in every layer from ``from_layer`` on."""
    layer = 0

    def attention(module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: object, **kwargs: object):
        nonlocal layer
        allowed = torch.ones(1, 1, 1, key.shape[2], dtype=torch.bool)
        if layer >= from_layer:
            prefix = key.shape[2] - patches
            allowed[..., [prefix + patch for patch in absent]] = False
        layer += 1
        return sdpa_attention_forward(module, query, key, value, allowed, **kwargs)

    return with_attention(model, image, attention)


def gated_logits(model: torch.nn.Module, image: Tensor, gates: Tensor) -> Tensor:
    """Logits of one image with gated attention: a key's weight is gate times exp(score), normalised over the keys.

    Args:
        gates (Tensor): ``(layers, patches)`` floating.
    """
    remaining_gates = iter(gates)

    def attention(module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: object, **kwargs: object):
        layer_gates = next(remaining_gates)
        scores = (query @ key.transpose(2, 3)) * kwargs["scaling"]
        prefix = torch.ones(key.shape[2] - len(layer_gates), dtype=gates.dtype)
        weights = torch.cat([prefix, layer_gates]) * (scores - scores.amax(-1, keepdim=True)).exp()
        return (weights / weights.sum(-1, keepdim=True) @ value).transpose(1, 2), None

    return with_attention(model, image, attention)
