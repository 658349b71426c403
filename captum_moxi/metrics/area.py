"""Areas under insertion and deletion curves."""

from captum_moxi.metrics.base import Metric


def confidence_area() -> Metric:
    """The area under the confidences, as a mean height between 0 and 1 (Petsiuk et al., RISE, BMVC 2018)."""
    return Metric("area", lambda curve: curve.area("confidences"), better={"insertion": "higher", "deletion": "lower"})


def reward_area() -> Metric:
    """The area under the rewards, as a mean height in units of the reward."""
    return Metric(
        "reward area", lambda curve: curve.area("rewards"), better={"insertion": "higher", "deletion": "lower"}
    )
