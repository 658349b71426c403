"""The game, which maps coalitions to model output and rewards. Code that uses it knows only coalitions and rewards."""

from captum_moxi.game.batching import Cost
from captum_moxi.game.coalition import MAX_PLAYERS, CoalitionGame
from captum_moxi.game.outputs import Outcome

__all__ = ["MAX_PLAYERS", "CoalitionGame", "Cost", "Outcome"]
