"""Further experiments of the paper: corruptions, adversarial perturbations, the visual set-sum and class counts.

``python -m captum_moxi.experiments.NAME`` runs an experiment that trains a model.
"""
