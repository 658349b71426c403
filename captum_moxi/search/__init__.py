"""The search: chooses players one by one, by how much they increase the reward.

Insertion starts from no players and adds them. Deletion starts from all players and removes them. The search knows only
coalitions and rewards.
"""

from captum_moxi.search.alternatives import disjoint_selections
from captum_moxi.search.follow import follow
from captum_moxi.search.game import BatchGame, GameOutcome
from captum_moxi.search.greedy import greedy
from captum_moxi.search.independent import rank_independently
from captum_moxi.search.minimal import SearchAmong, minimal_selection
from captum_moxi.search.selection import Selection, has_flipped
from captum_moxi.search.state import Progress, no_progress
from captum_moxi.search.swaps import swapped_selection

__all__ = [
    "BatchGame",
    "GameOutcome",
    "Progress",
    "SearchAmong",
    "Selection",
    "disjoint_selections",
    "follow",
    "greedy",
    "has_flipped",
    "minimal_selection",
    "no_progress",
    "rank_independently",
    "swapped_selection",
]
