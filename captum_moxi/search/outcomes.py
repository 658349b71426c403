"""Outcomes of groups of players on the paths of a search: one path, or both paths of a symmetric search."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_moxi.search.game import GameOutcome


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Outcomes of M groups of players on P paths. P is 2 in a symmetric search, insertion first, and otherwise 1.

    Args:
        rewards (Tensor): Shape ``(M, P)``, floating.
        confidences (Tensor): P(target). Shape ``(M, P)``, floating.
        predictions (Tensor): Predicted classes. Shape ``(M, P)``, int64.
    """

    rewards: Tensor
    confidences: Tensor
    predictions: Tensor

    def take(self, groups: Tensor) -> "Outcomes":
        """Return the outcomes of the groups with these indices."""
        return Outcomes(self.rewards[groups], self.confidences[groups], self.predictions[groups])


def join_paths(outcomes: Sequence[GameOutcome]) -> Outcomes:
    """Join the outcomes of the same groups on each path."""
    return Outcomes(
        rewards=torch.stack([as_floating(outcome.rewards) for outcome in outcomes], 1),
        confidences=torch.stack([outcome.confidences for outcome in outcomes], 1),
        predictions=torch.stack([outcome.predictions for outcome in outcomes], 1),
    )


def split_paths(outcome: GameOutcome, n_paths: int) -> Outcomes:
    """Return the outcomes of groups whose coalitions were evaluated together, those of the first path first."""
    return Outcomes(
        rewards=as_floating(outcome.rewards).reshape(n_paths, -1).T,
        confidences=outcome.confidences.reshape(n_paths, -1).T,
        predictions=outcome.predictions.reshape(n_paths, -1).T,
    )


def join_groups(outcomes: Sequence[Outcomes]) -> Outcomes:
    """Join the outcomes of different groups, in this order."""
    return Outcomes(
        rewards=torch.cat([part.rewards for part in outcomes]),
        confidences=torch.cat([part.confidences for part in outcomes]),
        predictions=torch.cat([part.predictions for part in outcomes]),
    )


def as_floating(values: Tensor) -> Tensor:
    """Return floating-point values unchanged, and other values in float64."""
    return values if values.is_floating_point() else values.double()
