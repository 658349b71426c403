"""Adversarial perturbations and their norm on each player (the paper's Appendix G.2)."""

import warnings

import torch
from captum.robust import FGSM, PGD
from torch import Tensor
from torch.nn import functional

from captum_moxi.arguments import Target, check_positive_int, parse_target
from captum_moxi.heads import head_of
from captum_moxi.models import ImageClassifier, call_model, num_classes, preserved_state
from captum_moxi.players import players_from_mask
from captum_moxi.rewards import log_probability


class _GradientStep(FGSM):
    """A step of a fixed L2 length along the gradient.

    Captum's steps follow the sign of the gradient for every norm. In an L2 ball, sign steps perturb all values equally,
    so that no patch differs from the others.
    """

    def _perturb(
        self,
        inputs: tuple[Tensor, ...],
        grads: tuple[Tensor, ...],
        epsilon: float,
        targeted: bool,
        masks: tuple[int | Tensor, ...],
    ) -> tuple[Tensor, ...]:
        return tuple(
            x + epsilon * functional.normalize(grad.flatten(1)).reshape(x.shape)
            for x, grad in zip(inputs, grads, strict=True)
        )


def attack(
    classifier: ImageClassifier,
    x: Tensor,
    *,
    target: Target,
    radius: float = 1.0,
    step_size: float = 0.2,
    n_steps: int = 10,
) -> Tensor:
    r"""
    Perturb images with untargeted projected gradient descent (PGD) in an L2 ball, to lower the target's confidence.

    The attack was introduced by Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks" (ICLR
    2018). This function uses ``captum.robust.PGD`` with steps along the gradient instead of its sign. The attack starts
    at the images and is deterministic. Radius and step size refer to images in [0, 1], regardless of the model's
    normalization. They apply to each image, over all pixels and channels. Perturbed images stay in [0, 1].

    Args:
        classifier (ImageClassifier): Model to attack.
        x (Tensor): Pixel values of shape ``(B, 3, H, W)``, as returned by ``classifier.preprocess``. The model receives
            them as one batch.
        target (int, Tensor or list): Class whose cross-entropy the attack maximizes: one for all examples or one for
            each example.
        radius (float, optional): Maximum L2 norm of the perturbation of an image.
            Default: 1.0, as in the paper
        step_size (float, optional): L2 norm of a step.
            Default: 0.2, as in the paper
        n_steps (int, optional): Number of steps.
            Default: 10

    Returns:
        Tensor: Pixel values of the perturbed images, of shape ``(B, 3, H, W)``, in the model's dtype and on its device.

    Raises:
        ValueError: If ``x`` has another shape, ``target`` is missing or not a class of the model, ``radius`` or
            ``step_size`` is not positive, or ``n_steps`` is less than 1.
        TypeError: If ``target`` or ``n_steps`` has the wrong type.

    Examples::

        >>> attacked = attack(vit, x, target=y)
        >>> difference = (vit.to_images(attacked) - vit.to_images(x)).permute(0, 3, 1, 2)
        >>> perturbation_norms(difference, patch_mask(224, 16)).gather(1, selection.order)
    """
    if x.dim() != 4 or x.shape[1] != 3:
        raise ValueError(f"x has shape {tuple(x.shape)}; pass pixel values of shape (B, 3, H, W)")
    for name, value in (("radius", radius), ("step_size", step_size)):
        if not value > 0:
            raise ValueError(f"{name} is {value}; pass a positive number")
    check_positive_int("n_steps", n_steps)
    device = classifier.model.device
    pgd = _gradient_pgd(classifier)
    with preserved_state(classifier.model, {device}), warnings.catch_warnings():
        # Captum repeats this warning at every step.
        warnings.filterwarnings("ignore", "Input Tensor 0 did not already require gradients")
        images: Tensor = pgd.perturb(
            classifier.to_images(x).to(device),
            radius,
            step_size,
            n_steps,
            _target_classes(classifier, target, len(x)),
            norm="L2",
        )
    return classifier.to_pixel_values(images)


def perturbation_norms(difference: Tensor, feature_mask: Tensor) -> Tensor:
    r"""
    Compute the L2 norm of a perturbation on each player.

    Args:
        difference (Tensor): Perturbed images minus images, of shape ``(B, 3, H, W)``. The norms are in its units.
        feature_mask (Tensor): Player id of each value, int64, in a shape that broadcasts to ``difference``. The mask
            is shared by the batch, or there is one per example, as in :class:`captum_moxi.MoXIInsertion`.

    Returns:
        Tensor: Norms of shape ``(B, n)`` and dtype float64 on the CPU, in ascending order of the player ids. The norm
        is 0 for a player that an example does not have. The squares of a row sum to the squared norm of the example's
        perturbation.

    Raises:
        ValueError: If ``feature_mask`` does not broadcast to ``difference``.
        TypeError: If ``feature_mask`` is not an integer tensor.
    """
    players = players_from_mask(feature_mask, (difference,))
    positions = players.positions[0].expand(difference.shape).flatten(1).cpu()
    squares = difference.detach().cpu().double().square().flatten(1)
    totals = torch.zeros(len(difference), len(players.ids), dtype=torch.float64)
    return totals.scatter_add_(1, positions, squares).sqrt()


def _gradient_pgd(classifier: ImageClassifier) -> PGD:
    """Create Captum's PGD on images in [0, 1], with steps along the gradient."""

    def logits(images: Tensor) -> Tensor:
        output: Tensor = call_model(classifier.model, classifier.to_pixel_values(images))
        return output.float()

    reward = head_of(classifier.model).reward(log_probability)

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        return -reward(logits, target)

    pgd = PGD(logits, loss, lower_bound=0, upper_bound=1)
    # PGD has no argument for its step.
    pgd.fgsm = _GradientStep(logits, loss)
    return pgd


def _target_classes(classifier: ImageClassifier, target: Target, batch: int) -> Tensor:
    """Return the class of each example as an int64 tensor of shape ``(batch,)`` on the model's device."""
    targets = parse_target(target, batch)
    count = num_classes(classifier.model)
    if targets is None or any(len(indices) != 1 or indices[0] >= (count or torch.inf) for indices in targets):
        limit = "" if count is None else f" of the model's {count} classes"
        raise ValueError(f"target is {target!r}; pass one class{limit}, or one for each example")
    return torch.tensor([indices[0] for indices in targets], device=classifier.model.device)
