"""MoXILocalization: what a class that is not predicted rests on."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from captum.attr import PerturbationAttribution
from captum.log import log_usage
from torch import Tensor

from captum_moxi import models
from captum_moxi.arguments import check_positive_int, devices
from captum_moxi.attr.moxi import TensorOrTensors, check_candidates, rank_scores
from captum_moxi.game import CoalitionGame
from captum_moxi.players import spread_scores
from captum_moxi.removal import Removal, check_removal
from captum_moxi.rewards import log_odds
from captum_moxi.screens import Screen
from captum_moxi.search import greedy


class MoXILocalization(PerturbationAttribution):
    r"""
    Where a class is in an image that a model takes for another class.

    Two greedy deletions, one after the other (the MoXI paper, Appendix F and Figure 5). The first takes away, patch
    by patch, what speaks for the predicted class p and against the target t, until the target is predicted: it lowers

    .. math::
        \log \frac{P(p)}{1 - P(p)} - \log \frac{P(t)}{1 - P(t)}

    From what is left, the second takes away what the target rests on, lowering its log-odds until it is lost. The map
    shows the second. (The appendix writes the second term of the difference without its logarithm; here both are
    log-odds.) Where the target is the predicted class, the first takes nothing away, and the rest is
    :class:`captum_moxi.MoXIDeletion` to the flip.

    Examples::

        >>> localization = MoXILocalization(model, candidates=GradientScreen(8))
        >>> attr = localization.attribute(x, target=cat)  # of an image that the model calls a dog
        >>> attr, (first, second) = localization.attribute(x, target=cat, return_selection=True)
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        removal: Removal | None = None,
        candidates: Screen | None = None,
    ) -> None:
        r"""
        Args:
            forward_func (Callable): As in :class:`captum_moxi.MoXIDeletion`, with two classes or more.
            removal (Removal, optional): As there.
                        Default: None
            candidates (Screen, optional): As there.
                        Default: None, all of them: the exact search

        Raises:
            TypeError: a removal or candidates that are none.
        """
        super().__init__(forward_func)
        check_removal(removal)
        check_candidates(candidates)
        self.removal = removal
        self.candidates = candidates

    @log_usage()
    def attribute(
        self,
        inputs: TensorOrTensors,
        baselines: Any = None,
        target: Any = None,
        additional_forward_args: Any = None,
        feature_mask: TensorOrTensors | None = None,
        n_steps: int | None = None,
        perturbations_per_eval: int | None = None,
        return_selection: bool = False,
    ) -> Any:
        r"""
        Args:
            inputs, baselines, target, additional_forward_args, feature_mask, perturbations_per_eval: As in
                        :meth:`captum_moxi.MoXIDeletion.attribute`. A target is needed.
            n_steps (int, optional): The most players that each of the two deletions takes away.
                        Default: None, all
            return_selection (bool, optional): Return the selections of both deletions as well.
                        Default: False

        Returns:
            *Tensor* or *tuple[Tensor, ...]* of **attributions**, or a tuple of **attributions** and **selections**:
            - **attributions** (*Tensor* or *tuple[Tensor, ...]*): of the inputs' shape: the player that the second
              deletion took away at step k of K has (K - k + 1) / K, all others 0; all 0 where the first one did not
              bring the target about.
            - **selections** (*tuple[Selection, Selection]*): of the first, whose rewards are the difference above and
              whose ``flipped`` says whether the target came to be predicted; and of the second, of the players left.

        Raises:
            ValueError: a missing target, a model with a single logit; and as :class:`captum_moxi.MoXIDeletion`.
            TypeError: an argument of the wrong type.
        """
        if n_steps is not None:
            check_positive_int("n_steps", n_steps)
        if target is None:
            raise ValueError("target is None; pass the class to look for")
        call = (inputs, target, baselines, additional_forward_args, feature_mask, self.removal, "log_odds")
        with models.unchanged(self.forward_func, devices(inputs)), torch.inference_mode(False), torch.no_grad():
            game = CoalitionGame(self.forward_func, *call, perturbations_per_eval)
            if bool((game.full.predictions < 0).any()) or game.targets is None or bool((game.targets < 0).any()):
                raise ValueError("forward_func returns a single logit; pass a model with one logit a class")
            against = _AgainstPredicted(
                game.full.predictions, self.forward_func, *call, perturbations_per_eval=perturbations_per_eval
            )
            options: dict[str, Any] = {"stop": "flip", "screen": self.candidates}
            first = greedy(against, "deletion", n_steps, flip="insertion", **options)
            second = greedy(_without(game, first.order), "deletion", n_steps, **options)
        scores = rank_scores(second, game.ids).to(torch.promote_types(torch.float32, game.output_dtype))
        maps = spread_scores(scores, game.call.players, game.call.inputs)
        attributions = maps if isinstance(inputs, tuple) else maps[0]
        return (attributions, (first, second)) if return_selection else attributions

    @classmethod
    def get_name(cls) -> str:
        """The class's name; Captum would put a space before each of its capitals."""
        return cls.__name__


class _AgainstPredicted(CoalitionGame):
    """Pays the log-odds of the class that an example was predicted to be, less those of its target."""

    def __init__(self, against: Tensor, *args: Any, **kwargs: Any) -> None:
        self._against = against
        super().__init__(*args, **kwargs)

    def _rewards(self, logits: Tensor, target: Any, examples: Tensor) -> Tensor:
        against = self._against[examples].to(logits.device)
        return log_odds(logits, against) - log_odds(logits, target)


def _without(game: CoalitionGame, gone: Tensor) -> CoalitionGame:
    """The game of each example's other players, those that are gone ``(B, K)``, -1 for none, being out for good."""
    rest = copy.copy(game)
    rest.exists = game.exists.clone()
    examples, steps = (gone >= 0).nonzero(as_tuple=True)
    rest.exists[examples, torch.searchsorted(game.ids, gone[examples, steps])] = False
    rest.full = rest.outcome(rest.exists, torch.arange(game.n_games))
    return rest
