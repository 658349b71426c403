"""Experiments of the paper beyond single images: corruptions, adversarial perturbations, set-sum and class counts.

The experiments that train a model run as ``python -m captum_moxi.experiments.NAME``.
"""
