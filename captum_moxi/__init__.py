"""MoXI (Model eXplanation by Interactions) as a Captum plugin.

MoXI was introduced by Sumiyasu, Kawamoto and Kera in 'Identifying Important Group of Pixels using Interactions' (CVPR
2024, arXiv 2401.03785).
"""

from captum_moxi.attr import (
    AttentionRollout,
    GradCam,
    GradCamPlusPlus,
    MoXIDeletion,
    MoXIInsertion,
    MoXILocalization,
    MoXISymmetric,
)
from captum_moxi.comparison import Comparison, compare
from captum_moxi.game import CoalitionGame
from captum_moxi.kernels import use_kernels
from captum_moxi.methods import Method
from captum_moxi.metrics import Curve, Metric, deletion_curve, insertion_curve
from captum_moxi.models import ImageClassifier, LogitsModel, load
from captum_moxi.players import patch_mask
from captum_moxi.removal import AttentionRemoval, BaselineRemoval, Removal, TokenRemoval
from captum_moxi.rewards import Reward, contrast
from captum_moxi.search import Selection
from captum_moxi.search.screens import (
    AuditedScreen,
    BothEndsScreen,
    Cascade,
    GradientScreen,
    HalfPrecisionScreen,
    LastGainsScreen,
    RandomScreen,
    Screen,
)

__all__ = [
    "AttentionRemoval",
    "AttentionRollout",
    "AuditedScreen",
    "BaselineRemoval",
    "BothEndsScreen",
    "Cascade",
    "CoalitionGame",
    "Comparison",
    "Curve",
    "GradCam",
    "GradCamPlusPlus",
    "GradientScreen",
    "HalfPrecisionScreen",
    "ImageClassifier",
    "LastGainsScreen",
    "LogitsModel",
    "Method",
    "Metric",
    "MoXIDeletion",
    "MoXIInsertion",
    "MoXILocalization",
    "MoXISymmetric",
    "RandomScreen",
    "Removal",
    "Reward",
    "Screen",
    "Selection",
    "TokenRemoval",
    "compare",
    "contrast",
    "deletion_curve",
    "insertion_curve",
    "load",
    "patch_mask",
    "use_kernels",
]
__version__ = "0.2.0"
