"""Perturbations of images: corruptions and adversarial attacks.

To add a corruption, write a function and register it in ``captum_moxi.perturbations.corruptions``.
"""
