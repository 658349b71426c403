"""The game, which maps coalitions to model output and rewards. Code that uses it knows only coalitions and rewards."""

from captum_moxi.game.batching import Cost
from captum_moxi.game.coalition import CoalitionGame
from captum_moxi.game.outputs import Outcome
from captum_moxi.removal import MAX_PLAYERS

__all__ = ["MAX_PLAYERS", "CoalitionGame", "Cost", "Outcome"]
