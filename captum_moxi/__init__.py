"""MoXI (Model eXplanation by Interactions) as a Captum plugin."""

import importlib

_HOMES = {
    "attr": ["AttentionRollout", "GradCam", "GradCamPlusPlus", "MoXIDeletion", "MoXIInsertion", "MoXILocalization"],
    "comparison": ["Comparison", "compare"],
    "game": ["CoalitionGame"],
    "methods": ["Method"],
    "metrics": ["Curve", "Metric", "deletion_curve", "insertion_curve"],
    "models": ["ImageClassifier", "LogitsModel", "load"],
    "players": ["patch_mask"],
    "removal": ["AttentionRemoval", "BaselineRemoval", "Removal", "TokenRemoval"],
    "rewards": ["Reward"],
    "search": ["Selection"],
    "search.screens": ["GradientScreen", "HalfPrecisionScreen", "LastGainsScreen", "RandomScreen", "Screen"],
}


def __getattr__(name):
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"captum_moxi.{home}"), name)
    raise AttributeError(name)


__version__ = "0.1.0"
