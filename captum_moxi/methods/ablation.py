"""Captum's feature ablation on the game."""

from captum.attr import FeatureAblation

from captum_moxi.methods.base import COALITIONS_PER_CALL, Method, on_game


def feature_ablation() -> Method:
    """Captum's FeatureAblation: the loss in reward when a single player is removed."""
    return on_game("FeatureAblation", FeatureAblation, perturbations_per_eval=COALITIONS_PER_CALL)
