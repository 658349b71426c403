"""What a search requires of a game. The search knows only coalitions and rewards."""

from typing import Protocol

from torch import Tensor


class GameOutcome(Protocol):
    """Rewards, confidences and predictions of M coalitions; :class:`captum_moxi.game.Outcome` is one."""

    @property
    def rewards(self) -> Tensor: ...

    @property
    def confidences(self) -> Tensor: ...

    @property
    def predictions(self) -> Tensor: ...


class BatchGame(Protocol):
    """A game of one or more examples; :class:`captum_moxi.CoalitionGame` is one.

    Screens may require more: GradientScreen requires ``effects``, and HalfPrecisionScreen requires ``approximate``.
    """

    n_examples: int
    n_players: int
    ids: Tensor
    exists: Tensor
    targets: Tensor | None
    rounds_relatively: bool

    @property
    def full(self) -> GameOutcome: ...

    def outcome(self, coalitions: Tensor, examples: Tensor) -> GameOutcome: ...
