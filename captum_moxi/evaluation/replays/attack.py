"""Measures how much of an adversarial perturbation is on the first players of an order (the paper's Appendix G.2)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, cast

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm

from captum_moxi.arguments import Mode
from captum_moxi.evaluation.evaluator import Evaluator
from captum_moxi.evaluation.measurements import Measurement
from captum_moxi.evaluation.records import Record, Records
from captum_moxi.evaluation.replays.orders import ImageOrders, Orders, describe_left_out, read_orders
from captum_moxi.evaluation.replays.writing import Replayed, nothing_replayed
from captum_moxi.files import write_file
from captum_moxi.heads import head_of
from captum_moxi.models import call_model
from captum_moxi.perturbations.adversarial import attack, perturbation_norms
from captum_moxi.plot import describe, line_style, save_figure
from captum_moxi.tables import markdown_table

# Numbers of players in the table.
TABLE_COUNTS = (1, 5, 10, 20, 50, 100)
# Settings that have their defaults in every run without a stop. Keys of records do not contain them, so that attacks of
# earlier versions, which did not have these settings, continue.
ALWAYS_DEFAULT = ("minimal", "alternatives")


@dataclass(frozen=True)
class AttackSettings:
    """Settings of the attack, as in :func:`captum_moxi.perturbations.adversarial.attack`.

    Args:
        radius (float, optional): Maximum L2 norm of the perturbation of an image in [0, 1].
            Default: 1.0
        step_size (float, optional): L2 norm of a step, for images in [0, 1].
            Default: 0.2
        n_steps (int, optional): Number of steps.
            Default: 10
    """

    radius: float = 1.0
    step_size: float = 0.2
    n_steps: int = 10


class AttackRecord(TypedDict):
    """The result of the attack on one image.

    Args:
        fooled (bool): Whether the prediction changed.
        norm (float): L2 norm of the perturbation, for an image in [0, 1].
        mean (float): Mean over all players of the perturbation's L2 norm on a player.
        orders (dict[str, list[float]]): L2 norm on each player in the order of each method, by title of the method.
    """

    fooled: bool
    norm: float
    mean: float
    orders: dict[str, list[float]]


class UnreadableError(ValueError):
    """An image cannot be read. The attack continues with the other images."""


def run_attack(
    run: Path,
    out: Path,
    *,
    mode: Mode = "deletion",
    radius: float = 1.0,
    step_size: float = 0.2,
    n_steps: int = 10,
    limit: int | None = None,
    device: str | None = None,
    show_progress: bool = False,
) -> str:
    """Attack the images of a run, and summarize how much of the perturbations is on the first players of its orders.

    Writes the norms of each image (``attack.jsonl``), their means (``attack.md``) and a figure (``attack.png``).
    After an interruption, repeat the same call to continue. The summary names images that cannot be read, and the
    others are attacked.

    Args:
        run (Path): Folder of a run that did not stop at flips.
        out (Path): Folder to write to. It is created if it does not exist.
        mode (str, optional): Mode of the orders.
            Default: ``"deletion"``
        radius (float, optional): Maximum L2 norm of a perturbation, for images in [0, 1].
            Default: 1.0, as in the paper
        step_size (float, optional): L2 norm of a step, for images in [0, 1].
            Default: 0.2, as in the paper
        n_steps (int, optional): Number of steps.
            Default: 10
        limit (int, optional): Maximum number of images. The first explained ones are used.
            Default: None, all explained images
        device (str, optional): Device of the model.
            Default: None, CUDA if available, otherwise the CPU
        show_progress (bool, optional): Whether to show a progress bar over the images if standard error is a terminal.
            Default: False

    Returns:
        str: The Markdown of the summary.

    Raises:
        ValueError: If ``radius``, ``step_size`` or ``n_steps`` is not positive, if ``attack.jsonl`` contains other
            data, if no image can be read, or for the reasons listed in :func:`read_orders`.
    """
    settings = AttackSettings(radius, step_size, n_steps)
    replayed = replay_attack(
        run, out, mode=mode, settings=settings, limit=limit, device=device, show_progress=show_progress
    )
    return write_attack(replayed, out)


def replay_attack(
    run: Path,
    out: Path,
    *,
    mode: Mode = "deletion",
    settings: AttackSettings | None = None,
    limit: int | None = None,
    device: str | None = None,
    show_progress: bool = False,
) -> Replayed[AttackRecord]:
    """Attack the images of a run, without a summary. The arguments are those of :func:`run_attack`.

    Returns:
        Replayed: Result of the attack on each image.
    """
    settings = settings or AttackSettings()
    records = Records(out / "attack.jsonl")
    orders = read_orders(run, mode=mode, limit=limit, device=device)
    out.mkdir(parents=True, exist_ok=True)
    disable = None if show_progress else True
    attacks = tqdm(
        attack_run(orders, records, settings=settings),
        total=len(orders.images),
        desc="images",
        unit="image",
        disable=disable,
    )
    results = dict(attacks)
    attacked = [result for result in results.values() if not isinstance(result, UnreadableError)]
    unreadable = {name: str(result) for name, result in results.items() if isinstance(result, UnreadableError)}
    left_out = {**orders.missing, **unreadable}
    if not attacked:
        raise nothing_replayed(left_out)
    text = (
        f"{run}, model {orders.evaluator.settings.model}: L2 PGD with radius {settings.radius:g} and "
        f"{settings.n_steps} steps of {settings.step_size:g}, in {mode} orders."
    )
    return Replayed([text, *describe_left_out(left_out), describe_attacks(attacked)], attacked)


def write_attack(replayed: Replayed[AttackRecord], out: Path) -> str:
    """Write the table and the figure of attacks, and return the Markdown.

    Args:
        replayed (Replayed): Result of the attack on each image.
        out (Path): Folder to write to.
    """
    text = "\n\n".join([*replayed.description, attack_table(replayed.results)])
    write_file(out / "attack.md", text + "\n")
    save_figure(plot_attacks(replayed.results), out / "attack.png")
    return text


def attack_run(
    orders: Orders, records: Records, *, settings: AttackSettings | None = None
) -> Iterator[tuple[str, AttackRecord | UnreadableError]]:
    """Attack the images of a run.

    Args:
        orders (Orders): Orders of a run.
        records (Records): Results of earlier attacks, which are not repeated.
        settings (AttackSettings, optional): Settings of the attack.
            Default: None, the default settings

    Yields:
        tuple[str, AttackRecord or UnreadableError]: Name of each image, and the result of its attack, or why the image
        cannot be read. ``records`` does not contain it then, so that it is tried again.

    Raises:
        ValueError: If a setting is not positive.
    """
    settings = settings or AttackSettings()
    run = {name: value for name, value in orders.evaluator.settings.to_dict().items() if name not in ALWAYS_DEFAULT}
    for image in orders.images:
        # The orders are part of the key, because a repeated run may have other orders.
        key: Record = {
            "image": image.name,
            "target": image.target,
            "orders": dict(image.orders),
            "run": run,
            "radius": settings.radius,
            "step_size": settings.step_size,
            "n_steps": settings.n_steps,
        }

        def measure(image: ImageOrders = image) -> Record:
            return dict(_attack_image(orders.evaluator, image, settings))

        try:
            result: AttackRecord | UnreadableError = cast(AttackRecord, records.get(key, measure))
        except UnreadableError as error:
            result = error
        yield image.name, result


def attack_table(attacks: Sequence[AttackRecord]) -> str:
    """Format the mean norm of the perturbations on the first players of each order.

    Args:
        attacks (Sequence[AttackRecord]): Result of the attack on each image.

    Returns:
        str: A Markdown table. Norms are relative to the image's mean over all players, so that the expected value for a
        random order is 1.
    """
    norms = {method: values.mean(0) for method, values in _running_means(attacks).items()}
    counts = [count for count in TABLE_COUNTS if count <= max(map(len, norms.values()))]
    rows = [
        [method, *(float(means[count - 1]) for count in counts if count <= len(means))]
        for method, means in norms.items()
    ]
    return markdown_table(["norm on the first", *map(str, counts)], rows)


def measure_attacks(attacks: Sequence[AttackRecord]) -> list[Measurement]:
    """Measure the relative norm of the perturbation on the first players of each order.

    Args:
        attacks (Sequence[AttackRecord]): Result of the attack on each image.

    Returns:
        list[Measurement]: Values of each method, for each number of players in the table.
    """
    norms = _running_means(attacks)
    return [
        Measurement(
            f"norm on the first {count} patches" if count > 1 else "norm on the first patch",
            None,
            {method: values[:, count - 1] for method, values in norms.items() if count <= values.shape[1]},
        )
        for count in TABLE_COUNTS
        if count <= max(values.shape[1] for values in norms.values())
    ]


def describe_attacks(attacks: Sequence[AttackRecord]) -> str:
    """Return a sentence about the number of attacks, changed predictions and the norm of the perturbations."""
    fooled = sum(record["fooled"] for record in attacks)
    norm = float(np.mean([record["norm"] for record in attacks]))
    return f"{len(attacks)} images, {fooled} with a changed prediction; mean norm of a perturbation {norm:.3g}."


def plot_attacks(attacks: Sequence[AttackRecord]) -> Figure:
    """Draw the mean norm of the perturbations on the first players of each order.

    Args:
        attacks (Sequence[AttackRecord]): Result of the attack on each image.

    Returns:
        Figure: The figure.
    """
    figure = Figure(figsize=(6.6, 4.2), layout="constrained")
    ax = figure.subplots()
    for index, (method, norms) in enumerate(_running_means(attacks).items()):
        means = norms.mean(0)
        ax.plot(np.arange(1, len(means) + 1), means, label=method, **line_style(index))
    # The expected value for a random order is 1.
    ax.axhline(1, color="0.6", linewidth=0.8, zorder=0)
    ax.set_xlabel("number of patches, in order", fontsize=9)
    ax.set_ylabel("mean norm of the perturbation on them,\nrelative to the mean over all patches", fontsize=9)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.tick_params(labelsize=8)
    # Inside the axes, the legend would hide the ends of the curves.
    figure.legend(loc="outside right center", fontsize=8, handlelength=3)
    describe(
        figure,
        title="How much of an adversarial perturbation is on the first patches of each order",
        reading="Above the gray line: the attack changes these patches more than the average patch. A random order is "
        "expected on the line.",
    )
    return figure


def _attack_image(evaluator: Evaluator, image: ImageOrders, settings: AttackSettings) -> AttackRecord:
    """Attack one image, and measure the perturbation on its players. Raises UnreadableError if it cannot be read."""
    classifier = evaluator.classifier
    try:
        picture = evaluator.images.open(image.index)
    except ValueError as error:
        raise UnreadableError(str(error)) from error
    x = classifier.preprocess(picture)
    attacked = attack(
        classifier,
        x,
        target=image.target,
        radius=settings.radius,
        step_size=settings.step_size,
        n_steps=settings.n_steps,
    )
    difference = (classifier.to_images(attacked) - classifier.to_images(x)).permute(0, 3, 1, 2)
    game = evaluator.game(x, target=torch.tensor([image.target]))
    norms = perturbation_norms(difference, game.call.players.positions[0].cpu())[0]
    with torch.no_grad():
        logits = call_model(classifier.model, attacked)
    prediction = int(head_of(classifier.model).predictions(logits, torch.tensor([image.target], device=logits.device)))
    positions = {method: game.positions_of(torch.tensor(order)) for method, order in image.orders.items()}
    return {
        "fooled": prediction != image.target,
        "norm": float(norms.square().sum().sqrt()),
        "mean": float(norms.mean()),
        "orders": {method: norms[indices].tolist() for method, indices in positions.items()},
    }


def _running_means(attacks: Sequence[AttackRecord]) -> Mapping[str, NDArray[np.float64]]:
    """Return the mean relative norm on the first players of each order, by method ``(N, K)``.

    If an order has fewer than k players, its mean over the first k players is the mean over all of them.
    """
    means = {}
    for method in attacks[0]["orders"]:
        relative = [torch.tensor(record["orders"][method]).double() / record["mean"] for record in attacks]
        values = pad_sequence(relative, batch_first=True, padding_value=torch.nan).numpy()
        means[method] = np.nancumsum(values, axis=1) / np.cumsum(~np.isnan(values), axis=1)
    return means
