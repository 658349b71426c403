"""Methods by name: MoXI, Captum's own and others, each on the same game, so that they can stand side by side.

A method orders the players of a :class:`captum_moxi.CoalitionGame`. Those that play coalitions play the game itself,
with its removal and its reward; those that look inside the model explain the model's output at the target.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import torch
from captum.attr import (
    FeatureAblation,
    IntegratedGradients,
    KernelShap,
    Lime,
    Occlusion,
    ShapleyValues,
    ShapleyValueSampling,
)
from torch import Tensor

from captum_moxi import models
from captum_moxi.arguments import check_positive_int
from captum_moxi.attr import AttentionRollout, GradCam, GradCamPlusPlus
from captum_moxi.game import CoalitionGame
from captum_moxi.players import spread_scores
from captum_moxi.removal.base import ForwardCall
from captum_moxi.screens import Screen
from captum_moxi.search import Mode, greedy, rank

# coalitions in one call of the game; the game itself cuts them into passes
PER_EVAL = 64
# Captum plays every order, n * n! coalitions
EXACT_PLAYERS = 7


@dataclass(frozen=True)
class Method:
    """A way to order players.

    Args:
        title (str): What a table or a picture calls it.
        play (Callable): ``(game, mode, n_steps, stop)`` to attributions as :func:`captum_moxi.insertion_curve` takes
            them. No more than the first n_steps players will be looked at, and with ``stop="flip"`` none after the one
            that flips the prediction, so that the others need not be told apart; None for all.
        of_mode (bool): Whether it orders players in one way for insertion and in another for deletion.
        check (Callable): Raises a ValueError for a game that the method is not fit for, before it runs anything.
    """

    title: str
    play: Callable[[CoalitionGame, Mode, int | None, str | None], Any]
    of_mode: bool = False
    check: Callable[[CoalitionGame], Any] = lambda game: None


def moxi(screen: Screen | None = None, beam_width: int = 1) -> Method:
    """MoXI; a screen is for deletion, whose steps cost the most, and insertion stays exact."""

    def play(game: CoalitionGame, mode: Mode, n_steps: int | None, stop: str | None) -> Any:
        chosen = screen if mode == "deletion" else None
        return greedy(game, mode, n_steps, stop, screen=chosen, beam_width=beam_width)

    return Method("MoXI", play, of_mode=True)


def moxi_minus() -> Method:
    """MoXI(-): each player by its own Shapley value, without interactions."""
    return Method("MoXI(-)", rank, of_mode=True)


def shapley_sampling(n_samples: int = 25) -> Method:
    """Captum's ShapleyValueSampling over so many permutations."""
    return on_game(f"Shapley, {n_samples}", ShapleyValueSampling, n_samples=n_samples, perturbations_per_eval=PER_EVAL)


def shapley_values() -> Method:
    """Captum's ShapleyValues: exact, of a few players."""

    def check(game: CoalitionGame) -> None:
        if game.n_players > EXACT_PLAYERS:
            raise ValueError(
                f"exact Shapley values take all orders of {game.n_players} players; pass a mask of at most "
                f"{EXACT_PLAYERS}, or shapley for sampling"
            )

    return replace(on_game("Shapley, exact", ShapleyValues, perturbations_per_eval=PER_EVAL), check=check)


def kernel_shap(n_samples: int = 1000) -> Method:
    """Captum's KernelShap, which needs scikit-learn."""
    played = on_game(f"KernelShap, {n_samples}", KernelShap, n_samples=n_samples, perturbations_per_eval=PER_EVAL)
    return replace(played, check=_needs_scikit_learn)


def lime(n_samples: int = 1000) -> Method:
    """Captum's Lime, which needs scikit-learn."""
    played = on_game(f"LIME, {n_samples}", Lime, n_samples=n_samples, perturbations_per_eval=PER_EVAL)
    return replace(played, check=_needs_scikit_learn)


def feature_ablation() -> Method:
    """Captum's FeatureAblation: what each player's absence alone changes."""
    return on_game("FeatureAblation", FeatureAblation, perturbations_per_eval=PER_EVAL)


def grad_cam() -> Method:
    """Grad-CAM. Its map keeps its sign, since all that a ReLU sets to zero would tie."""
    return on_model("Grad-CAM", lambda call, y: _of_images(GradCam, call, y), GradCam)


def grad_cam_plus_plus() -> Method:
    """Grad-CAM++, likewise."""
    return on_model("Grad-CAM++", lambda call, y: _of_images(GradCamPlusPlus, call, y), GradCamPlusPlus)


def attention_rollout() -> Method:
    """Attention rollout."""
    return on_model("Rollout", lambda call, y: _of_images(AttentionRollout, call, y), AttentionRollout)


def integrated_gradients(n_steps: int = 50) -> Method:
    """Captum's IntegratedGradients, from the baselines given or zeros."""

    def attribute(call: ForwardCall, target: Any) -> Any:
        return IntegratedGradients(_logits(call.forward_func)).attribute(
            call.inputs,
            baselines=call.baselines,
            target=target,
            additional_forward_args=call.additional_forward_args or None,
            n_steps=n_steps,
            internal_batch_size=max(16, call.batch),
        )

    def check(game: CoalitionGame) -> None:
        if not all(x.is_floating_point() for x in game.call.inputs):
            raise ValueError("integrated gradients need floating-point inputs; leave integrated-gradients out")

    return replace(on_model(f"Integrated gradients, {n_steps}", attribute), check=check)


def occlusion(window: int = 16) -> Method:
    """Captum's Occlusion of images by squares of the baselines given or zeros, half overlapping."""

    def attribute(call: ForwardCall, target: Any) -> Any:
        step, channels = max(1, window // 2), call.inputs[0].shape[1]
        return Occlusion(_logits(call.forward_func)).attribute(
            call.inputs,
            sliding_window_shapes=((channels, window, window),),
            strides=((channels, step, step),),
            baselines=call.baselines,
            target=target,
            additional_forward_args=call.additional_forward_args or None,
            perturbations_per_eval=8,
        )

    def check(game: CoalitionGame) -> None:
        shapes = [tuple(x.shape) for x in game.call.inputs]
        if len(shapes) != 1 or len(shapes[0]) != 4 or min(shapes[0][2:]) < window:
            raise ValueError(
                f"occlusion by {window} x {window} pixels takes one input of images (B, C, H, W) no smaller, not "
                f"{shapes}; pass another size, as in occlusion:4, or leave it out"
            )

    return replace(on_model(f"Occlusion, {window}", attribute), check=check)


def random_order(*seeds: int) -> Method:
    """Players in random order, which every method should beat: another one for every example.

    Args:
        *seeds (int): One for every example, whose order it decides; or one, from which the examples count on.
            Default: 0
    """

    def play(game: CoalitionGame, mode: Mode, n_steps: int | None, stop: str | None) -> Any:
        first = seeds[0] if seeds else 0
        each = seeds if len(seeds) == game.n_games else range(first, first + game.n_games)
        rows = [torch.rand(game.n_players, generator=torch.Generator().manual_seed(seed)) for seed in each]
        return spread_scores(torch.stack(rows), game.call.players, game.call.inputs)

    return Method("Random", play)


def of_images(method: Method, names: Sequence[str]) -> Method:
    """The method; a random order such that each image's name decides its own, whatever batch it is in."""
    return random_order(*(zlib.crc32(name.encode()) for name in names)) if method.title == "Random" else method


def on_game(title: str, method: Callable[..., Any], **options: Any) -> Method:
    """One of Captum's perturbation classes, or any class of that signature, on the game of each example.

    Args:
        title (str): What a table or a picture calls it.
        method (Callable): Makes of a forward function what has ``attribute(inputs, **options)``.
        **options: What ``attribute`` is called with. Random numbers are of seed 0.
    """

    def play(game: CoalitionGame, mode: Mode, n_steps: int | None, stop: str | None) -> Any:
        scores = []
        everyone = torch.ones(1, game.n_players)
        for example in range(game.n_games):

            def value(rows: Tensor, example: int = example) -> Tensor:
                return game.outcome(rows, torch.full((len(rows),), example)).rewards

            with torch.random.fork_rng(devices=[]):
                # not torch.manual_seed, which would reach the devices, too
                torch.default_generator.manual_seed(0)
                scores.append(method(value).attribute(everyone, **options).detach().double())
        # as a map of the inputs, which nothing else can be taken for
        return spread_scores(torch.cat(scores), game.call.players, game.call.inputs)

    return Method(title, play)


def on_model(
    title: str, attribute: Callable[[ForwardCall, Any], Any], made_of: Callable[[Any], Any] = lambda forward: None
) -> Method:
    """A method that explains the model itself.

    Args:
        title (str): What a table or a picture calls it.
        attribute (Callable): The call (forward function, inputs, baselines, additional arguments) and the target as
            Captum takes it, to a map.
        made_of (Callable, optional): Called with a forward function, and raises a ValueError where the method is not
            fit for it. Default: fit for all
    """

    def play(game: CoalitionGame, mode: Mode, n_steps: int | None, stop: str | None) -> Any:
        with torch.enable_grad():
            return attribute(game.call, game.captum_target)

    return Method(title, play, check=lambda game: made_of(game.call.forward_func))


def _of_images(method: Any, call: ForwardCall, target: Any) -> Any:
    args = call.additional_forward_args or None
    return method(call.forward_func).attribute(call.inputs, target=target, additional_forward_args=args)


def _needs_scikit_learn(game: CoalitionGame) -> None:
    if find_spec("sklearn") is None:
        raise ValueError("Captum's Lime and KernelShap need scikit-learn; pip install scikit-learn")


METHODS: dict[str, Callable[..., Method]] = {
    "moxi": moxi,
    "moxi-minus": moxi_minus,
    "shapley": shapley_sampling,
    "shapley-exact": shapley_values,
    "kernel-shap": kernel_shap,
    "lime": lime,
    "ablation": feature_ablation,
    "gradcam": grad_cam,
    "gradcam++": grad_cam_plus_plus,
    "rollout": attention_rollout,
    "integrated-gradients": integrated_gradients,
    "occlusion": occlusion,
    "random": random_order,
}
# what the number in NAME:NUMBER is of
COUNTED = ("shapley", "kernel-shap", "lime", "integrated-gradients", "occlusion")


def get_method(name: str | Method) -> Method:
    """The method of a name of ``METHODS``, or of ``NAME:NUMBER`` with a number of samples, steps or pixels.

    Raises:
        ValueError: a name that is unknown; the message lists those that are.
        TypeError: neither a name nor a method.
    """
    if isinstance(name, Method):
        return name
    if not isinstance(name, str):
        raise TypeError(f"method is {name!r}; pass a name or a Method")
    of, colon, number = name.partition(":")
    if of not in METHODS or (colon and (of not in COUNTED or not number.isdecimal())):
        raise ValueError(
            f"method {name!r} is unknown; pass one of {', '.join(METHODS)}; {', '.join(COUNTED)} take a number, "
            "as in shapley:200"
        )
    if not colon:
        return METHODS[of]()
    check_positive_int(f"the number of {of}", int(number))
    return METHODS[of](int(number))


def get_methods(names: Sequence[str | Method], screen: Screen | None = None) -> list[Method]:
    """The methods of these names, MoXI's deletion by that screen.

    Raises:
        ValueError: none, one that is unknown, or one twice.
    """
    methods = [moxi(screen) if name == "moxi" else get_method(name) for name in names]
    titles = [method.title for method in methods]
    if not methods or len(set(titles)) < len(titles):
        raise ValueError(f"methods are {titles}; pass one or more, of different titles")
    return methods


def _logits(forward_func: Any) -> Callable[..., Any]:
    """A forward function that returns logits ``(B, classes)``, as Captum's classes want it."""

    def forward(*args: Any) -> Any:
        output = models.call_model(forward_func, *args)
        return output[:, None] if output.dim() == 1 else output

    return forward
