"""Attention masking from several layers on (the paper's Figure 10)."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from captum_moxi.evaluation.curves import RunCurve, read_run_curves
from captum_moxi.evaluation.evaluator import Evaluator
from captum_moxi.evaluation.experiments.base import Findings, SkippedError
from captum_moxi.evaluation.experiments.commands import evaluate_command, replay_command
from captum_moxi.evaluation.experiments.study import Study
from captum_moxi.evaluation.measurements import Measurement
from captum_moxi.evaluation.replays.removals import replay_removals, write_removals
from captum_moxi.evaluation.report_plots import line_styles, plot_mean_curves
from captum_moxi.evaluation.runs import summarize_run
from captum_moxi.models import token_layout
from captum_moxi.plot import save_figure

# Number of layers that the experiment compares, from the first to the last.
N_LAYERS = 5


def run(study: Study) -> Findings:
    """Find orders with attention masked from each layer on, and insert all of them with token removal."""
    if "moxi" not in study.settings.methods:
        raise SkippedError("the experiment is about the searches of MoXI; add moxi to the methods")
    layers = _layers(study)
    for layer in layers:
        _replay_layer(study, layer)
    curves = _curves(study, layers)
    figure = plot_mean_curves(curves, styles=line_styles(curves), resamples=study.resamples)
    path = study.out / "layers" / "curves.png"
    if figure is not None:
        save_figure(figure, path)
    areas = {curve.run: curve.curve.area().numpy() for curve in curves if curve.curve is not None}
    return Findings(
        measurements=[Measurement("insertion area", "higher", areas, tested=[curves[0].run])],
        notes=[summarize_run(study.out / _folder(layers[0]))],
        figures={"Insertion curves by layer": path},
        commands=[command for layer in layers for command in _commands(study, layer)],
        comparison="The first layer and the best other layer",
    )


def _layers(study: Study) -> list[int]:
    """Return the layers, spread over the model."""
    evaluator = Evaluator.load(study.settings, device=study.device, limit=1)
    layout = token_layout(evaluator.classifier.model)
    if layout is None:
        raise SkippedError("the model has no attention between tokens of patches, so it cannot be masked")
    last = len(layout.layers) - 1
    try:
        # The model fits token removal, so an error is about the layers.
        Evaluator.load(replace(study.settings, **_changes(last)), device=study.device, limit=1).check()
    except ValueError as error:
        raise SkippedError(str(error)) from error
    return [int(layer) for layer in np.unique(np.ceil(np.linspace(0, last, N_LAYERS)))]


def _replay_layer(study: Study, layer: int) -> None:
    """Find orders with attention masked from a layer on, and insert them under token removal."""
    run = study.evaluate(_folder(layer), limit=study.limit_of_slow_experiments, **_changes(layer))
    out = study.out / _replay_folder(layer)
    replayed = replay_removals(run, out, removals=["token"], device=study.device, show_progress=study.show_progress)
    write_removals(replayed, out, resamples=study.resamples)


def _curves(study: Study, layers: Sequence[int]) -> list[RunCurve]:
    """Return the insertion curves under token removal of each layer, for the images that all layers have."""
    folders = [study.out / _replay_folder(layer) / "token" for layer in layers]
    images_of_layers = [{image for curve in read_run_curves(folder) for image in curve.images} for folder in folders]
    images = sorted(set.intersection(*images_of_layers))
    return [
        replace(curve, run=f"layer {layer}")
        for layer, folder in zip(layers, folders, strict=True)
        for curve in read_run_curves(folder, images=images)
        if curve.mode == "insertion"
    ]


def _changes(layer: int) -> dict[str, Any]:
    """Return the settings that differ from those of the curves."""
    return {"methods": ("moxi",), "modes": ("insertion",), "removal": f"attention:{layer}"}


def _folder(layer: int) -> str:
    return f"layers/attention-{layer}"


def _replay_folder(layer: int) -> str:
    return f"layers/attention-{layer}-replayed"


def _commands(study: Study, layer: int) -> list[str]:
    run: Path = study.out / _folder(layer)
    return [
        evaluate_command(study, run, limit=study.limit_of_slow_experiments, **_changes(layer)),
        replay_command(study, "replay", run, study.out / _replay_folder(layer), removal="token"),
    ]
