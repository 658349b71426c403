"""Adversarial perturbations, and how much of them is on each player (the paper's Appendix G.2)."""

import warnings
from typing import Any

import torch
from captum.robust import FGSM, PGD
from torch import Tensor
from torch.nn import functional

from captum_moxi import models
from captum_moxi.arguments import check_positive_int, read_target
from captum_moxi.players import make_players
from captum_moxi.rewards import log_probability


class _GradientStep(FGSM):
    """A step of a given length along the gradient.

    Captum's own steps follow the gradient's sign whatever the norm is. In the L2 ball that leaves every value perturbed
    by as much as any other, and so nothing to tell one patch from the next.
    """

    def _perturb(
        self, inputs: tuple[Tensor, ...], grads: tuple[Tensor, ...], epsilon: float, targeted: bool, masks: Any
    ) -> tuple[Tensor, ...]:
        return tuple(
            x + epsilon * functional.normalize(grad.flatten(1)).reshape(x.shape)
            for x, grad in zip(inputs, grads, strict=True)
        )


def attack(
    classifier: models.ImageClassifier,
    x: Tensor,
    target: Any,
    radius: float = 1.0,
    step_size: float = 0.2,
    n_steps: int = 10,
) -> Tensor:
    r"""
    Perturb images so that the model doubts the target: projected gradient descent in the L2 ball, untargeted.

    Madry et al. ('Towards Deep Learning Models Resistant to Adversarial Attacks', ICLR 2018), by
    ``captum.robust.PGD`` with steps along the gradient itself. It starts at the images and draws nothing at random.
    Radius and steps are in units of images in [0, 1], whatever the model's normalisation, and hold for each image by
    itself, all channels together; the images stay in [0, 1].

    Args:
        classifier (ImageClassifier): The model attacked.
        x (Tensor): ``(B, 3, H, W)`` pixel values, as ``classifier.preprocess`` makes them. They go through the model,
            and back, as one batch.
        target (int, tensor or list): The class whose cross-entropy is made to rise, one for all or one an example.
        radius (float, optional): The largest L2 norm of an image's perturbation.
            Default: 1.0, as in the paper
        step_size (float, optional): The L2 norm of a step.
            Default: 0.2, as in the paper
        n_steps (int, optional): How many steps.
            Default: 10

    Returns:
        Tensor: ``(B, 3, H, W)`` pixel values of the perturbed images, in the model's dtype and on its device.

    Raises:
        ValueError: pixel values of another shape, no target or a class that the model does not have, a radius or step
            that is not positive, ``n_steps`` below 1.
        TypeError: a target or ``n_steps`` of another type.

    Examples::

        >>> attacked = attack(vit, x, target=y)
        >>> difference = (vit.to_images(attacked) - vit.to_images(x)).permute(0, 3, 1, 2)
        >>> perturbation_norms(difference, patch_mask(224, 16)).gather(1, selection.order)
    """
    if x.dim() != 4 or x.shape[1] != 3:
        raise ValueError(f"x has shape {tuple(x.shape)}; pass pixel values (B, 3, H, W)")
    for name, value in (("radius", radius), ("step_size", step_size)):
        if not value > 0:
            raise ValueError(f"{name} is {value}; pass a positive number")
    check_positive_int("n_steps", n_steps)
    device = classifier.model.device

    def logits(images: Tensor) -> Tensor:
        return models.call_model(classifier.model, classifier.to_pixel_values(images)).float()

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        return -log_probability(logits, target)

    pgd = PGD(logits, loss, lower_bound=0, upper_bound=1)
    pgd.fgsm = _GradientStep(logits, loss)
    with models.unchanged(classifier.model, {device}), warnings.catch_warnings():
        # said at every step
        warnings.filterwarnings("ignore", "Input Tensor 0 did not already require gradients")
        images = pgd.perturb(
            classifier.to_images(x).to(device),
            radius,
            step_size,
            n_steps,
            _read_classes(classifier, target, len(x)),
            norm="L2",
        )
    return classifier.to_pixel_values(images)


def perturbation_norms(difference: Tensor, feature_mask: Tensor) -> Tensor:
    r"""
    The L2 norm of a perturbation on each player.

    Args:
        difference (Tensor): ``(B, 3, H, W)``: the perturbed images less the images, in the units that norms shall have.
        feature_mask (Tensor): The players, shared by the batch or of each example, as in
            :class:`captum_moxi.MoXIInsertion`.

    Returns:
        Tensor: ``(B, n)`` float64 on the CPU, in ascending order of the players' ids; 0 for a player that an example
        does not have. The squares of a row sum to the squared norm of its perturbation.

    Raises:
        ValueError, TypeError: a mask that does not fit; see :func:`captum_moxi.players.make_players`.
    """
    players = make_players(feature_mask, (difference,))
    owner = players.columns[0].expand(difference.shape).flatten(1).cpu()
    squares = torch.zeros(len(difference), len(players.ids), dtype=torch.float64)
    return squares.scatter_add_(1, owner, difference.detach().cpu().double().square().flatten(1)).sqrt()


def _read_classes(classifier: models.ImageClassifier, target: Any, batch: int) -> Tensor:
    """``(B,)`` int64 on the model's device."""
    targets = read_target(target, batch)
    classes = models.num_classes(classifier.model)
    if targets is None or any(len(indices) != 1 or indices[0] >= (classes or torch.inf) for indices in targets):
        have = "" if classes is None else f", of which the model has {classes}"
        raise ValueError(f"target is {target!r}; pass one class, or one an example{have}")
    return torch.tensor([indices[0] for indices in targets], device=classifier.model.device)
