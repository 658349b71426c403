"""MoXI, Model eXplanation by Interactions, as a Captum plugin."""

from captum_moxi.attr import AttentionRollout, GradCam, GradCamPlusPlus, MoXIDeletion, MoXIInsertion, MoXILocalization
from captum_moxi.comparison import Comparison, compare
from captum_moxi.game import CoalitionGame
from captum_moxi.metrics import Curve, deletion_curve, insertion_curve
from captum_moxi.players import patch_mask
from captum_moxi.removal import AttentionRemoval, BaselineRemoval, TokenRemoval
from captum_moxi.screens import GradientScreen, HalfPrecisionScreen, LastGainsScreen, RandomScreen, Screen
from captum_moxi.search import Selection

__all__ = [
    "AttentionRemoval",
    "AttentionRollout",
    "BaselineRemoval",
    "CoalitionGame",
    "Comparison",
    "Curve",
    "GradCam",
    "GradCamPlusPlus",
    "GradientScreen",
    "HalfPrecisionScreen",
    "LastGainsScreen",
    "MoXIDeletion",
    "MoXIInsertion",
    "MoXILocalization",
    "RandomScreen",
    "Screen",
    "Selection",
    "TokenRemoval",
    "compare",
    "deletion_curve",
    "insertion_curve",
    "patch_mask",
]
__version__ = "0.1.0"
