"""Galleries of a run: its first images, and the patches that flip the prediction by every method."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from captum_moxi.comparison import Comparison, Result
from captum_moxi.evaluation import store
from captum_moxi.evaluation.runs import game_of, open_evaluator, place_of
from captum_moxi.metrics import Curve
from captum_moxi.search import Mode, flips
from captum_moxi.visualization import show_comparison


def read_comparison(folder: Path, limit: int | None = None) -> tuple[list[str], Comparison]:
    """A run's rows as what :func:`captum_moxi.compare` returns, of its first images, and their names.

    Args:
        folder (Path): The run's.
        limit (int, optional): At most so many images. Default: all

    Raises:
        ValueError: no run, none of its images explained, or images of different numbers of players.
    """
    rows = [row for row in store.read_rows(folder).to_pylist() if row["status"] == store.EXPLAINED]
    names = list(dict.fromkeys(row["image"] for row in rows))[:limit]
    if not names:
        raise ValueError(f"{folder} holds no image that was explained; run captum-moxi evaluate on it first")
    found: dict[tuple[str, Mode], dict[str, dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["method"], row["mode"]), {})[row["image"]] = row
    first = [next(iter(found.values()))[name] for name in names]
    players = {row["players"] for row in first}
    if len(players) > 1:
        raise ValueError(f"{folder} holds images of {min(players)} to {max(players)} players; pass a run of one number")
    targets = torch.tensor([row["target"] for row in first])
    results = [
        _result(method, mode, [of[name] for name in names], targets, first[0]["players"])
        for (method, mode), of in found.items()
    ]
    return names, Comparison(tuple(results), targets, torch.tensor([row["players"] for row in first]))


def galleries(folder: Path, count: int, device: str | None = None) -> dict[str, Figure]:
    """A figure for each mode: a row an image, a column a method, as in the MoXI paper's Figures 4, 11 and 12.

    Args:
        folder (Path): The run's.
        count (int): At most so many images, the first that were explained.
        device (str, optional): Where the model is loaded. Default: CUDA if there, else the CPU

    Raises:
        ValueError: as :func:`read_comparison`.
    """
    names, comparison = read_comparison(folder, count)
    evaluator = open_evaluator(folder, device)
    x = evaluator.classifier.preprocess([evaluator.images.open(place_of(evaluator, name)) for name in names])
    game = game_of(evaluator, x[:1], torch.zeros(1, dtype=torch.long))
    mask = game.ids[game.call.players.columns[0].cpu()][:, 0]
    images = evaluator.classifier.to_images(x)
    drawn = {}
    for mode in dict.fromkeys(result.mode for result in comparison.results):
        columns = 1 + len(comparison.methods)
        figure = Figure(figsize=(1.45 * columns, 1.75 * len(images) + 0.3), layout="constrained")
        show_comparison(images, mask, comparison, mode, figure.subplots(len(images), columns, squeeze=False))
        drawn[str(mode)] = figure
    return drawn


def _result(method: str, mode: Mode, rows: Sequence[dict[str, Any]], targets: Tensor, players: int) -> Result:
    """The rows of some images as one result; after where an example stopped, -1 and NaN."""
    order = _padded([row["order"] for row in rows], -1).long()
    rewards, confidences = (_padded([row[name] for row in rows], torch.nan) for name in ("rewards", "confidences"))
    predictions = _padded([row["predictions"] for row in rows], -1).long()
    there = ~rewards.isnan()
    hit = flips(mode, predictions, confidences, targets[:, None], 0.0) & there
    steps = torch.arange(rewards.shape[1])
    fractions = steps.double() / players
    curve = Curve(
        mode=mode,
        fractions=fractions,
        players=steps.expand_as(predictions),
        rewards=rewards,
        confidences=confidences,
        predictions=predictions,
        correct=predictions == targets[:, None],
        flipped=fractions[hit.long().argmax(1)].masked_fill(~hit.any(1), torch.nan),
    )
    # of an order that was taken from another run neither is known
    cost = [[row[name] for row in rows if row[name] is not None] for name in ("seconds", "forwards")]
    seconds, forwards = (sum(known) / len(known) if known else math.nan for known in cost)
    return Result(method, mode, order, curve, seconds, forwards)


def _padded(rows: Sequence[Sequence[float]], end: float) -> Tensor:
    values = torch.full((len(rows), max(map(len, rows))), end, dtype=torch.float64)
    for place, row in enumerate(rows):
        values[place, : len(row)] = torch.tensor(row, dtype=torch.float64)
    return values
