"""Attention rollout (Abnar and Zuidema, ACL 2020)."""

from captum_moxi.attr import AttentionRollout
from captum_moxi.methods.base import Method, on_model


def attention_rollout() -> Method:
    """Return attention rollout, which does not depend on the target."""
    return on_model("Rollout", AttentionRollout)
