"""The interface of a game that can be searched. The search knows only coalitions and rewards."""

from typing import Protocol

from torch import Tensor


class GameOutcome(Protocol):
    """Rewards, confidences and predictions of M coalitions. :class:`captum_moxi.game.Outcome` implements it.

    Attributes:
        rewards (Tensor): Shape ``(M,)``, of any real dtype, on the CPU.
        confidences (Tensor): P(target). Shape ``(M,)``, floating, on the CPU.
        predictions (Tensor): Predicted class. Shape ``(M,)``, int64, on the CPU.
    """

    @property
    def rewards(self) -> Tensor: ...

    @property
    def confidences(self) -> Tensor: ...

    @property
    def predictions(self) -> Tensor: ...


class BatchGame(Protocol):
    """A game of one or more examples. :class:`captum_moxi.CoalitionGame` implements it.

    Screens may require more methods of :class:`captum_moxi.CoalitionGame`: GradientScreen requires ``effects``, and
    HalfPrecisionScreen requires ``approximate``.

    Attributes:
        n_examples (int): Number of examples B.
        n_players (int): Number of players n.
        ids (Tensor): Ids of the players, in ascending order. Shape ``(n,)``, int64.
        exists (Tensor): Whether each example has each player. Shape ``(B, n)``, bool.
        targets (Tensor or None): Target class of each example. Shape ``(B,)``, int64.
        rounds_relatively (bool): Whether the rounding error of the reward is proportional to the reward.
        full (GameOutcome): Outcome of each example with all its players. Shape ``(B,)``.
    """

    n_examples: int
    n_players: int
    ids: Tensor
    exists: Tensor
    targets: Tensor | None
    rounds_relatively: bool

    @property
    def full(self) -> GameOutcome: ...

    def outcome(self, coalitions: Tensor, examples: Tensor) -> GameOutcome:
        """Evaluate coalitions ``(M, n)``, bool, of the examples ``(M,)``, int64."""
        ...
