"""Areas under insertion and deletion curves."""

from captum_moxi.metrics.base import Metric


def confidence_area() -> Metric:
    """Return the metric of the area under the confidences, from 0 to 1 (Petsiuk et al., RISE, BMVC 2018)."""
    return Metric(
        "area",
        lambda curve: curve.area("confidences"),
        better={"insertion": "higher", "deletion": "lower"},
        legend="mean confidence in the target along the curve; higher is better for insertion, lower for deletion",
    )


def reward_area() -> Metric:
    """Return the metric of the area under the rewards, in the unit of the reward."""
    return Metric(
        "reward area",
        lambda curve: curve.area("rewards"),
        better={"insertion": "higher", "deletion": "lower"},
        legend="mean reward along the curve; higher is better for insertion, lower for deletion",
    )
