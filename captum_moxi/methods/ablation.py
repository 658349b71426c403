"""Captum's feature ablation on the game."""

from captum.attr import FeatureAblation

from captum_moxi.methods.base import COALITIONS_PER_CALL, Method, on_game


def feature_ablation() -> Method:
    """Return Captum's FeatureAblation, which scores a player by the fall of the reward when only it is removed."""
    return on_game("FeatureAblation", FeatureAblation, perturbations_per_eval=COALITIONS_PER_CALL)
