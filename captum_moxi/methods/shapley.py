"""Captum's Shapley values, sampled and exact, on the game."""

from captum.attr import ShapleyValues, ShapleyValueSampling

from captum_moxi.game import CoalitionGame
from captum_moxi.methods.base import COALITIONS_PER_CALL, Method, on_game

# Captum evaluates all n! orders of n players, with n coalitions each, which takes too long for more players.
MAX_EXACT_PLAYERS = 7


def shapley_sampling(n_samples: int = 25) -> Method:
    """Return Captum's ShapleyValueSampling.

    Args:
        n_samples (int, optional): Number of sampled orders of the players.
            Default: 25
    """
    return on_game(
        f"Shapley, {n_samples}",
        ShapleyValueSampling,
        n_samples=n_samples,
        perturbations_per_eval=COALITIONS_PER_CALL,
    )


def shapley_values() -> Method:
    """Return Captum's ShapleyValues, which are exact and limited to at most 7 players."""
    return on_game(
        "Shapley, exact",
        ShapleyValues,
        check=_check_player_count,
        perturbations_per_eval=COALITIONS_PER_CALL,
    )


def _check_player_count(game: CoalitionGame) -> None:
    if game.n_players > MAX_EXACT_PLAYERS:
        raise ValueError(
            f"exact Shapley values evaluate all orders of the {game.n_players} players; pass a feature_mask with at "
            f"most {MAX_EXACT_PLAYERS} players, or the method shapley, which samples orders"
        )
