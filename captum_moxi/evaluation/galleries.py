"""Galleries of a run: the players that flip the predictions of its first images, one column per method."""

from pathlib import Path
from typing import cast

import torch
from matplotlib.figure import Figure
from torch import Tensor

from captum_moxi.arguments import Mode
from captum_moxi.comparison import Comparison
from captum_moxi.evaluation import store
from captum_moxi.evaluation.curves import read_run_curves
from captum_moxi.evaluation.evaluator import Evaluator
from captum_moxi.explanation.images import gallery_title
from captum_moxi.plot import comparison_figure, draw_from_game


def read_comparison(folder: Path, *, limit: int | None = None) -> tuple[list[str], Comparison]:
    """Read the first images of a run in the form that :func:`captum_moxi.compare` returns.

    Args:
        folder (Path): Folder of the run.
        limit (int, optional): Maximum number of images. The first explained ones are used.
            Default: None, all explained images

    Returns:
        tuple[list[str], Comparison]: Names of the images, and the comparison.

    Raises:
        ValueError: If the folder holds no run, if none of its images was explained, or if the images have different
            numbers of players.
    """
    images = _explained_images(folder)[:limit]
    curves = read_run_curves(folder, images=images)
    n_players = curves[0].n_players
    fewest, most = int(n_players.min()), int(n_players.max())
    if fewest < most:
        raise ValueError(
            f"{folder} has images of {fewest} to {most} players; pass a run whose images all have the same number"
        )
    return images, Comparison(tuple(curve.result for curve in curves), curves[0].targets, n_players)


def draw_galleries(folder: Path, *, count: int, device: str | None = None) -> dict[Mode, Figure]:
    """Draw the players that flip the predictions, as in the MoXI paper's Figures 4, 11 and 12.

    Args:
        folder (Path): Folder of the run.
        count (int): Maximum number of images. The first explained ones are used.
        device (str, optional): Device of the model.
            Default: None, CUDA if available, otherwise the CPU

    Returns:
        dict[str, Figure]: One figure for each mode, with a row for each image and a column for each method. The title
        of an image is its target, which is the predicted class, and its true label if the data have one.

    Raises:
        ValueError: For the reasons listed in :func:`read_comparison`, or if the model or the data no longer exist.
    """
    names, comparison = read_comparison(folder, limit=count)
    evaluator = Evaluator.of_run(folder, device=device)
    indices = [evaluator.images.index_of(name) for name in names]
    x = evaluator.classifier.preprocess([evaluator.images.open(index) for index in indices])
    game = evaluator.game(x, target=torch.zeros(len(x), dtype=torch.long))
    mask = game.ids[game.call.players.positions[0].cpu()][:, 0]
    to_images = evaluator.classifier.to_images
    draw = [draw_from_game(game, to_images, example=example) for example in range(len(x))]
    # Each row of a run has a target.
    targets = cast(Tensor, comparison.targets).tolist()
    titles = [
        gallery_title(evaluator.classifier.labels[target], evaluator.true_label(index))
        for target, index in zip(targets, indices, strict=True)
    ]
    note = game.removal.picture_note
    return {
        mode: comparison_figure(to_images(x), mask, comparison, mode=mode, draw=draw, note=note, image_titles=titles)
        for mode in comparison.modes
    }


def _explained_images(folder: Path) -> list[str]:
    rows = store.read_rows(folder, ["image", "status"]).to_pylist()
    images = list(dict.fromkeys(row["image"] for row in rows if row["status"] == "explained"))
    if not images:
        raise ValueError(f"{folder} has no explained images; run captum-moxi evaluate --out {folder} first")
    return images
