"""MoXISymmetric: one ranking whose first players are both sufficient and necessary."""

from captum_moxi.arguments import Model
from captum_moxi.attr.moxi import MoXIAttribution
from captum_moxi.removal import Removal
from captum_moxi.rewards import Reward
from captum_moxi.search.screens import AnyScreen


class MoXISymmetric(MoXIAttribution):
    r"""
    The group of players that suffices for the target and without which the prediction fails, in one ranking.

    :class:`MoXIInsertion` and :class:`MoXIDeletion` answer these two questions with two rankings. Symmetric search
    finds one ranking for both. Each step chooses the player :math:`b` that increases

    .. math::
        v(S) = f(S) - f(N \setminus S)

    the most, where :math:`S` are the players :math:`A` chosen so far and :math:`b`. The mean of :math:`v` along a
    ranking is the area under its insertion curve minus the area under its deletion curve: the symmetric relevance gain
    of Bluecher, Vielhaben and Strodthoff, 'Decoupling Pixel Flipping and Occlusion Strategy for Consistent XAI
    Benchmarks', TMLR 2024, https://arxiv.org/abs/2401.06654. Areas are measured in the confidence, so the default
    reward is the probability of the target.

    :math:`v` is itself a game, and symmetric search is its insertion. The Shapley value of a player and its interaction
    with :math:`A` are therefore the sums of those of insertion (Eqs. 5 to 7 of Sumiyasu, Kawamoto and Kera, CVPR 2024)
    and of deletion (Eqs. 10 to 13):

    .. math::
        \phi(b) &= [f(b) - f(\emptyset)] + [f(N) - f(N \setminus b)] \\
        I(A, b) &= [f(A \cup b) - f(A) - f(b) + f(\emptyset)]
        + [f(N \setminus A) + f(N \setminus b) - f(N \setminus (A \cup b)) - f(N)] \\
        \phi(b) + I(A, b) &= v(A \cup b) - v(A)

    Each candidate takes two rows, :math:`A \cup b` and its complement, so a full ranking of n players evaluates
    n (n + 1) coalitions. A flip requires that the group suffices and that the prediction fails without it. The
    selection contains the outcome with the group (``rewards``, ``confidences``, ``predictions``) and without it
    (``rewards_without``, ``confidences_without``, ``predictions_without``).

    Examples::

        >>> # patches that suffice for the prediction, and without which it fails
        >>> attr, selection = MoXISymmetric(model).attribute(x, target=y, stop="flip", return_selection=True)
        >>> selection.confidences[0, -1], selection.confidences_without[0, -1]
    """

    mode = "symmetric"

    def __init__(
        self,
        forward_func: Model,
        *,
        reward: str | Reward = "probability",
        removal: Removal | str | None = None,
        interactions: bool = True,
        screen: AnyScreen | str | None = None,
        beam_width: int = 1,
    ) -> None:
        r"""
        Args:
            forward_func, removal, interactions, screen, beam_width: As in :class:`MoXIInsertion`.
            reward (str or Callable, optional): The quantity :math:`f` that the group has and that its absence removes,
                        in the forms of :class:`MoXIInsertion`. Unbounded rewards such as ``"log_odds"`` let the path
                        with the larger changes decide.
                        Default: ``"probability"``

        Raises:
            ValueError, TypeError: As in :class:`MoXIInsertion`.
        """
        super().__init__(
            forward_func,
            reward=reward,
            removal=removal,
            interactions=interactions,
            screen=screen,
            beam_width=beam_width,
        )
