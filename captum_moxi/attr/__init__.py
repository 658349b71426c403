"""Attribution classes with Captum's interface."""

from captum_moxi.attr.grad_cam import GradCam, GradCamPlusPlus
from captum_moxi.attr.localization import MoXILocalization
from captum_moxi.attr.moxi import MoXIDeletion, MoXIInsertion
from captum_moxi.attr.rollout import AttentionRollout
from captum_moxi.attr.symmetric import MoXISymmetric

__all__ = [
    "AttentionRollout",
    "GradCam",
    "GradCamPlusPlus",
    "MoXIDeletion",
    "MoXIInsertion",
    "MoXILocalization",
    "MoXISymmetric",
]
