"""The rewards along the path of a selection."""

from games import TableGame

from captum_moxi import Selection


def path_rewards(game: TableGame, selection: Selection, example: int) -> list[float]:
    """The reward before the first step and after each, computed by the game. The ids of players are 0 to n - 1."""
    value, order = game.value(example), selection.order[example].tolist()
    groups = [frozenset(order[:k]) for k in range(len(order) + 1) if -1 not in order[:k]]
    everyone = frozenset(range(game.n_players))
    return [value(group if selection.mode == "insertion" else everyone - group) for group in groups]
