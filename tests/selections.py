"""Hand-made selections for the tests of code that reads a selection."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from captum_moxi import Selection
from captum_moxi.arguments import SearchMode


def make_symmetric(
    predictions: Sequence[int],
    confidences: Sequence[float],
    predictions_without: Sequence[int],
    confidences_without: Sequence[float],
) -> Selection:
    """Makes a symmetric selection with these predictions and confidences, with and without the players."""
    return replace(
        make_selection("symmetric", predictions, confidences),
        rewards_without=torch.zeros(1, len(predictions)),
        predictions_without=torch.tensor([predictions_without]),
        confidences_without=torch.tensor([confidences_without]),
    )


def make_selection(mode: SearchMode, predictions: Sequence[int], confidences: Sequence[float]) -> Selection:
    """Makes a selection of one example that chooses players 0, 1, 2, ... with these predictions and confidences."""
    steps = len(predictions) - 1
    return Selection(
        mode=mode,
        order=torch.arange(steps)[None],
        rewards=torch.zeros(1, steps + 1),
        confidences=torch.tensor([confidences]),
        predictions=torch.tensor([predictions]),
        shapley=torch.zeros(1, steps),
        interactions=torch.linspace(-1, 1, steps)[None],
        n_evaluated=torch.zeros(1, steps, dtype=torch.long),
        skipped=torch.full((1, steps), torch.nan),
        missed=torch.full((1, steps), torch.nan),
        n_steps=torch.tensor([steps]),
        flipped=torch.tensor([True]),
        minimal=torch.tensor([False]),
        left_out=torch.empty(1, 0, dtype=torch.long),
    )
