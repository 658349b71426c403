"""Captum-style attribution classes."""

from captum_moxi.attr.moxi import MoXIDeletion, MoXIInsertion

__all__ = ["MoXIDeletion", "MoXIInsertion"]
