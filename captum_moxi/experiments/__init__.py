"""The paper's experiments that train a model: the visual set-sum and class counts; and the model of the demo.

``python -m captum_moxi.experiments.NAME`` runs an experiment.
"""
