"""The paper's experiments on the user's own model and images, and a page with their results.

``EXPERIMENTS`` lists the experiments by name. To add one, write a file with a function ``run`` that takes a
:class:`Study` and returns :class:`Findings`, and register it below with what the paper reports. The command
``captum-moxi reproduce`` and its page then contain it.

==============  =====================================================================================================
base            what an experiment is, and what it finds
study           the model, the images and the options that all experiments share
commands        the commands that compute the same results one by one
page            the page with the results
reproduction    runs the experiments, and writes the page after each of them
==============  =====================================================================================================
"""

from importlib import import_module
from typing import TYPE_CHECKING

from captum_moxi.evaluation.experiments.base import Experiment, Findings, SkippedError, Status
from captum_moxi.registry import Registry

if TYPE_CHECKING:
    from captum_moxi.evaluation.experiments.study import Study

__all__ = ["EXPERIMENTS", "Experiment", "Findings", "SkippedError", "Status"]

EXPERIMENTS: Registry[Experiment] = Registry("experiment")


def _register(name: str, *, help: str, title: str, source: str, claim: str, measured: str) -> None:
    def run(study: "Study") -> Findings:
        # The modules require optional packages, but the command line lists the experiments without them.
        findings: Findings = import_module(f"{__name__}.{name}").run(study)
        return findings

    EXPERIMENTS.register_value(name, Experiment(name, title, source, claim, measured, run), help=help)


_register(
    "curves",
    help="insertion and deletion curves (Figures 3, 8 and 9)",
    title="Insertion and deletion curves",
    source="Section 5.1 and Appendix B, Figures 3, 8 and 9",
    claim="With 4 % of the patches, ViT-T recognizes 90 % of the images if MoXI chooses the patches, 25 % with "
    "Shapley values, 4 % with attention rollout and 2 % with Grad-CAM; without 10 % of the patches, it recognizes "
    "16 % with MoXI, and about 79 % with Grad-CAM and rollout. DeiT-T and ResNet-18 give similar curves.",
    measured="The accuracy, and the area under the confidence in the target. Insertion and deletion each use the "
    "order of their own mode.",
)
_register(
    "seconds",
    help="time per image up to the flip (Table 1)",
    title="Seconds per image, up to the flip",
    source="Appendix C, Table 1",
    claim="On an RTX 3090 with ViT-T, MoXI takes 0.60 s per image up to the flip in insertion, and 1.34 s in "
    "deletion. The other methods score the whole image: Shapley values take 17.9 s, Grad-CAM 0.15 s, and "
    "attention rollout 0.02 s.",
    measured="Seconds and evaluated rows for ordering the patches of one image at a time, without the curves. A "
    "row with a backward pass counts as three rows. Other programs on the same machine change the seconds.",
)
_register(
    "layers",
    help="attention masking from several layers on (Figure 10)",
    title="Attention masking from several layers on",
    source="Appendix D, Figure 10",
    claim="If absent patches are removed by masking the attention from layer k on while MoXI searches, the "
    "insertion curves rise faster for early layers than for late ones.",
    measured="MoXI finds each order with attention masking from one layer on. All orders are then inserted with "
    "token removal. The first layer is compared with the best of the others.",
)
_register(
    "corruptions",
    help="corrupted instead of removed patches (Figures 6, 13 and 14)",
    title="Corruption instead of removal",
    source="Section 5.3 and Appendix G.1, Figures 6, 13 and 14",
    claim="The paper corrupts patches in the deletion orders with 19 common corruptions at severity 5. At the "
    "start of the curves, the accuracy falls faster along MoXI's orders than along the others.",
    measured="The area under the confidence in the target over all evaluated patches, with the orders of the "
    "experiment curves.",
)
_register(
    "attack",
    help="norm of an adversarial perturbation by patch (Figures 15(b) and 16(b))",
    title="Where an adversarial perturbation is",
    source="Appendix G.2, Figures 15(b) and 16(b)",
    claim="With patches perturbed by L2 PGD (radius 1, step 0.2), the accuracy falls slightly faster along "
    "rollout's order than along MoXI's. The perturbation is largest on the patches that rollout ranks "
    "first. Along MoXI's order, it is larger on early and late patches than on those between.",
    measured="The norm of the perturbation on the first patches of each deletion order of the experiment curves, "
    "relative to its mean over all patches. A random order is expected at 1. The norm does not rate a "
    "method. The deletion curves of Figures 15(a) and 16(a) are not repeated.",
)
_register(
    "replays",
    help="the same orders under several removals",
    title="The same orders under several removals",
    source="Sections 3 and 5",
    claim="Values that fill absent patches may drop information and add features (Section 3), so the paper "
    "masks attention in vision transformers, and its experiments delete the patches (Section 5). It "
    "reports no curves of one order under several removals.",
    measured="Each order of the experiment curves is inserted and deleted under the removals token, zero, mean "
    "and blur, as far as they fit the model.",
)
_register(
    "groups",
    help="minimal and disjoint groups (Appendix C)",
    title="Minimal and disjoint groups",
    source="Appendix C",
    claim="On ViT-T, the median number of MoXI's steps to the flip is 6 in insertion and 10 in deletion; the "
    "paper searches one group for each image, and does not leave out patches afterwards.",
    measured="MoXI and MoXI(-) leave out the patches that the flip does not need, and search further groups that "
    "share no patch. For other methods, the table contains the number of patches to the flip. An image "
    "that does not flip counts as the maximum number of patches plus one.",
)
_register(
    "galleries",
    help="pictures of the patches up to the flip (Figures 4, 11 and 12)",
    title="Patches up to the flip",
    source="Section 5.2 and Appendix E, Figures 4, 11 and 12",
    claim="In insertion, MoXI highlights fewer patches than the other methods: the object, and some of the "
    "background. In deletion, MoXI, rollout and Shapley values concentrate on the object, and MoXI "
    "highlights the background least.",
    measured="The number of patches to the flip. An image that does not flip counts as the number of its patches "
    "plus one.",
)
