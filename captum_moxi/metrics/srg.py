"""Symmetric relevance gain (SRG) of an order."""

from torch import Tensor

from captum_moxi.metrics.curves import TOLERANCE, Curve

# What the SRG measures, for the text below tables.
SRG_LEGEND = "symmetric relevance gain, the insertion area minus the deletion area of the same order; higher is better"


def symmetric_relevance_gain(insertion: Curve, deletion: Curve) -> Tensor:
    """Compute the symmetric relevance gain (SRG) of an order: its insertion area minus its deletion area.

    An order with a high SRG inserts the players that matter first, and also deletes them first. The SRG was introduced
    by Bluecher et al. (TMLR 2024). It is not in ``METRICS``, because it needs two curves.

    Args:
        insertion (Curve): Insertion curve of B examples.
        deletion (Curve): Deletion curve of the same examples along the same orders.

    Returns:
        Tensor: SRG of each example, from -1 to 1. Shape ``(B,)``, float64. NaN if there is no target.

    Raises:
        ValueError: If the modes are swapped, if the curves have different examples or fractions, or if they do not
            extend from no players to all players.

    Examples::

        >>> curves = (f(model, x, attributions=attr, target=y) for f in (insertion_curve, deletion_curve))
        >>> symmetric_relevance_gain(*curves)
    """
    if (insertion.mode, deletion.mode) != ("insertion", "deletion"):
        raise ValueError(
            f"insertion and deletion are curves of {insertion.mode} and {deletion.mode}; pass an insertion curve and "
            "then a deletion curve"
        )
    shapes = insertion.counts.shape, deletion.counts.shape
    if shapes[0] != shapes[1] or bool(((insertion.fractions - deletion.fractions).abs() > TOLERANCE).any()):
        raise ValueError(
            f"insertion and deletion are curves of {shapes[0][0]} and {shapes[1][0]} examples at {shapes[0][1]} and "
            f"{shapes[1][1]} fractions; pass curves of the same examples and fractions"
        )
    if not covers_all_players(insertion):
        first, last = float(insertion.fractions[0]), float(insertion.fractions[-1])
        raise ValueError(
            f"insertion and deletion extend from {first:.3g} to {last:.3g} of the players, but SRG needs all players; "
            "pass curves from 0 to 1"
        )
    return insertion.area() - deletion.area()


def covers_all_players(curve: Curve) -> bool:
    """Return whether a curve extends from no players to all players.

    Args:
        curve (Curve): The curve.
    """
    return float(curve.fractions[0]) <= TOLERANCE and float(curve.fractions[-1]) >= 1 - TOLERANCE
