"""The commands of runs over many images."""

import json
import math
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import click
from tqdm.auto import tqdm

from captum_moxi.evaluation.corruptions import CORRUPTIONS
from captum_moxi.evaluation.records import Records
from captum_moxi.methods import METHODS
from captum_moxi.options import Refused, check_device
from captum_moxi.removal import REMOVALS
from captum_moxi.rewards import REWARDS
from captum_moxi.screens import CANDIDATES
from captum_moxi.visualization import save_figure


@click.command()
@click.option("--model", required=True, help="Hub name or folder of a Hugging Face image classifier.")
@click.option("--data", required=True, help="Folder of images, or a Hugging Face data set: NAME or NAME:CONFIGURATION.")
@click.option("--split", help="Split of the data. Default: the only one.")
@click.option(
    "--label-pattern",
    help=r"Regular expression whose group is the class in a file's name, as '(\d+)_'. Default: labels are the folders "
    "that images lie in, the column label of metadata.csv, or that of the data set.",
)
@click.option(
    "--label-map",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="JSON file of an object: the model's class, by name or index, for labels of the data. Images of other labels "
    "are left out.",
)
@click.option(
    "--keep",
    type=click.Choice(["right", "all"]),
    default="right",
    show_default=True,
    help="Images that the model gets right, or all. The class that it predicts is explained.",
)
@click.option("--limit", type=click.IntRange(1), help="Look at the first so many images; more may be asked later.")
@click.option(
    "--methods",
    default="moxi",
    show_default=True,
    help=f"Of {', '.join(METHODS)}; some take a number, as shapley:100.",
)
@click.option("--mode", type=click.Choice(["insertion", "deletion", "both"]), default="both", show_default=True)
@click.option(
    "--stop",
    type=click.Choice(["flip", "never"]),
    default="flip",
    show_default=True,
    help="Go to where the prediction flips, or on, for curves.",
)
@click.option("--n-steps", type=click.IntRange(1), help="Go no further than this many patches. Default: all.")
@click.option("--grid", type=click.IntRange(1), help="N x N players. Default: the model's own patches.")
@click.option("--removal", help=f"{REMOVALS}. Default: token where the model has patch tokens, else zero.")
@click.option("--reward", type=click.Choice(list(REWARDS)), default="log_odds", show_default=True)
@click.option(
    "--candidates",
    default="gradient:8",
    show_default=True,
    help=f"Which patches a step of MoXI's deletion tries: {CANDIDATES}. Insertion tries all.",
)
@click.option(
    "--batch-size", type=click.IntRange(1), default=8, show_default=True, help="Images done, and kept, at once."
)
@click.option("--device", help="Such as cpu, cuda or cuda:1. Default: cuda if there is one.")
@click.option("--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True)
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="ray: how many.")
@click.option("--cpus", type=click.FloatRange(0), default=1.0, show_default=True, help="ray: CPUs of each worker.")
@click.option("--gpus", type=click.FloatRange(0), default=0.0, show_default=True, help="ray: GPUs of each worker.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of the run.")
def evaluate(
    model: str,
    data: str,
    split: str | None,
    label_pattern: str | None,
    label_map: Path | None,
    keep: str,
    limit: int | None,
    methods: str,
    mode: str,
    stop: str,
    n_steps: int | None,
    grid: int | None,
    removal: str | None,
    reward: str,
    candidates: str,
    batch_size: int,
    device: str | None,
    engine: str,
    workers: int,
    cpus: float,
    gpus: float,
    out: Path,
) -> None:
    """Run methods on every image of a folder or data set, and keep a row of each in Parquet.

    The folder --out holds manifest.json, the settings, and rows/*.parquet: image, label, target, method, mode, order,
    rewards, confidences, predictions, seconds, versions. Interrupted, the same command goes on where it stopped; an
    image that cannot be read is recorded and passed over. Then `captum-moxi report FOLDER`.
    """
    _need("evaluate", "datasets", "pyarrow")
    if engine == "ray":
        _need("evaluate --engine ray", "ray", extra="ray")
    import datasets

    from captum_moxi.evaluation import engines, store
    from captum_moxi.evaluation.runs import Evaluator, Settings, to_do

    datasets.disable_progress_bars()
    try:
        settings = Settings(
            model=_absolute(model),
            data=_absolute(data),
            split=split,
            label_pattern=label_pattern,
            label_map=None if label_map is None else _label_map(label_map),
            keep=keep,
            methods=[name.strip() for name in methods.split(",")],
            modes=["insertion", "deletion"] if mode == "both" else [mode],  # type: ignore[list-item]
            n_steps=n_steps,
            stop="flip" if stop == "flip" else None,
            grid=grid,
            removal=removal,
            reward=reward,
            candidates=candidates,
        )
        # a cluster's head may lack what its workers have
        evaluator = Evaluator(settings, "cpu" if engine == "ray" else check_device(device), limit)
        evaluator.check()
        store.open_run(out, asdict(settings))
        with store.alone(out):
            batches = to_do(evaluator, out, batch_size)
            left = sum(map(len, batches))
            if engine == "ray":
                doing = engines.run_ray(evaluator, out, batches, workers, cpus, gpus, device)
            else:
                doing = engines.run_local(evaluator, out, batches)
            total = len(evaluator.images)
            with tqdm(total=total, initial=total - left, desc="images", unit="image", disable=None) as bar:
                for count in doing if batches else ():
                    bar.update(count)
        click.echo(_status(out))
    except KeyboardInterrupt:
        raise Refused(f"interrupted; {_kept(out)}; the same command goes on") from None
    except OSError as error:
        raise Refused(f"{error}; {_kept(out)}; the same command goes on") from None
    except (ValueError, RuntimeError) as error:
        raise Refused(error) from None


@click.command()
@click.argument("folders", nargs=-1, required=True, metavar="FOLDER...", type=click.Path(path_type=Path))
@click.option(
    "--fractions",
    default="0.04,0.1",
    show_default=True,
    help="Of the patches, at which the table gives the accuracy.",
)
@click.option("--resamples", type=click.IntRange(1), default=2000, show_default=True, help="Bootstrap, for the bands.")
@click.option("--gallery", type=click.IntRange(1), help="Draw so many images, too, which loads the model and the data.")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Default: the folder, where there is one."
)
def report(folders: tuple[Path, ...], fractions: str, resamples: int, gallery: int | None, out: Path | None) -> None:
    """Draw the curves of runs that `captum-moxi evaluate` wrote, side by side, and write their tables.

    \b
    report.md, report.csv  a row a method and mode: accuracy, areas, patches to the flip, seconds
    curves.png             accuracy and confidence, the mean over images, with 95 % bands; where runs go beyond flips
    flips.png              the share of images flipped by so many patches
    RUN-MODE.png           with --gallery: the patches that flip the prediction, by image and method
    """
    _need("report", "datasets", "pandas", "pyarrow")
    from captum_moxi.evaluation import galleries, reports, store

    try:
        wanted = _fractions(fractions)
        if out is None and len(folders) > 1:
            raise ValueError("--out is missing; pass a folder where several runs are reported")
        for folder in folders:
            store.read_settings(folder)
        target = out or folders[0]
        target.mkdir(parents=True, exist_ok=True)
        click.echo(reports.write_report(folders, target, wanted, resamples))
        for folder in folders if gallery else ():
            for mode, figure in galleries.galleries(folder, gallery or 1).items():
                save_figure(figure, target / f"{folder.resolve().name}-{mode}.png")
    except (ValueError, OSError, RuntimeError) as error:
        raise Refused(error) from None


@click.command("corrupt")
@click.argument("run", metavar="FOLDER", type=click.Path(path_type=Path))
@click.option("--corruptions", default="all", show_default=True, help=f"Of {', '.join(CORRUPTIONS)}.")
@click.option("--severity", type=click.IntRange(1, 5), default=5, show_default=True)
@click.option("--limit", type=click.IntRange(1), help="At most this many images, the first that were explained.")
@click.option("--resamples", type=click.IntRange(1), default=2000, show_default=True, help="Bootstrap, for the bands.")
@click.option("--device", help="Such as cpu, cuda or cuda:1. Default: cuda if there is one.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True)
def corrupt_command(
    run: Path, corruptions: str, severity: int, limit: int | None, resamples: int, device: str | None, out: Path
) -> None:
    """Corrupt patches in the deletion orders of a run, rather than remove them (the paper's Figure 6).

    \b
    In the folder --out, which the same command goes on with where it was interrupted:
    CORRUPTION/        a run of each, for captum-moxi report
    corruptions.md     the areas under the curves
    corruptions.png    the curves, a panel a corruption
    """
    _need("corrupt", "datasets", "pyarrow")
    from captum_moxi.evaluation import replays

    names = list(CORRUPTIONS) if corruptions == "all" else [name.strip() for name in corruptions.split(",")]
    try:
        if unknown := [name for name in names if name not in CORRUPTIONS]:
            raise ValueError(f"corruption {unknown[0]!r} is not known; pass of {', '.join(CORRUPTIONS)}")
        if out.resolve() == run.resolve():
            raise ValueError(f"--out {str(out)!r} is the run itself; pass another folder")
        orders = replays.read_orders(run, "deletion", limit, check_device(device))
        with tqdm(total=len(names) * len(orders.images), desc="images", unit="image", disable=None) as bar:
            for name in names:
                for _ in replays.corrupt_run(orders, out / name, name, severity):
                    bar.update()
        images = [name for name, *_ in orders.images]
        text, figure = replays.corruption_summary([out / name for name in names], resamples, images)
        of = orders.evaluator.settings
        text = (
            f"{len(images)} images of {run}, {of.model}: corruptions of severity {severity}, patch by patch in "
            f"the deletion orders.\n\n{text}"
        )
    except (ValueError, OSError, RuntimeError) as error:
        raise Refused(error) from None
    (out / "corruptions.md").write_text(text + "\n")
    save_figure(figure, out / "corruptions.png")
    click.echo(text)


@click.command("attack")
@click.argument("run", metavar="FOLDER", type=click.Path(path_type=Path))
@click.option("--mode", type=click.Choice(["insertion", "deletion"]), default="deletion", show_default=True)
@click.option(
    "--radius", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True, help="L2, of images in [0, 1]."
)
@click.option("--step-size", type=click.FloatRange(0, min_open=True), default=0.2, show_default=True)
@click.option("--n-steps", type=click.IntRange(1), default=10, show_default=True)
@click.option("--limit", type=click.IntRange(1), help="At most this many images, the first that were explained.")
@click.option("--device", help="Such as cpu, cuda or cuda:1. Default: cuda if there is one.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True)
def attack_command(
    run: Path,
    mode: str,
    radius: float,
    step_size: float,
    n_steps: int,
    limit: int | None,
    device: str | None,
    out: Path,
) -> None:
    """Perturb a run's images by L2 PGD, and see on which patches of its orders the perturbation lies.

    \b
    In the folder --out, which the same command goes on with where it was interrupted:
    attack.jsonl   the norms, an image a line
    attack.md      their means on the first patches of each order
    attack.png     the same by the number of patches
    """
    _need("attack", "datasets", "pyarrow")
    from captum_moxi.evaluation import replays

    try:
        out.mkdir(parents=True, exist_ok=True)
        records = Records(out / "attack.jsonl")
        orders = replays.read_orders(run, mode, limit, check_device(device))  # type: ignore[arg-type]
        doing = replays.attack_run(orders, records, radius, step_size, n_steps)
        total = len(orders.images)
        found = [record for _, record in tqdm(doing, total=total, desc="images", unit="image", disable=None)]
        text, figure = replays.attack_summary(found)
        of = orders.evaluator.settings
        text = (
            f"{run}, {of.model}: L2 PGD of radius {radius:g}, {n_steps} steps of {step_size:g}, in the orders of "
            f"{mode}.\n\n{text}"
        )
    except (ValueError, OSError, RuntimeError) as error:
        raise Refused(error) from None
    (out / "attack.md").write_text(text + "\n")
    save_figure(figure, out / "attack.png")
    click.echo(text)


def _status(folder: Path) -> str:
    """How many images of a run came to what."""
    from captum_moxi.evaluation import store

    rows = store.read_rows(folder, ["image", "status", "error"]).to_pylist()
    of: dict[str, str] = {row["image"]: row["status"] for row in rows}
    counts = {
        status: list(of.values()).count(status)
        for status in (store.EXPLAINED, store.WRONG, store.UNREADABLE, store.FAILED)
    }
    lost = [f"{row['image']}: {row['error']}" for row in rows if row["error"] is not None]
    said = f"{len(of)} images in {folder}: " + ", ".join(
        f"{count} {status}" for status, count in counts.items() if count
    )
    return "\n".join([said, *lost[:10], *([f"and {len(lost) - 10} more"] if len(lost) > 10 else [])])


def _kept(folder: Path) -> str:
    from captum_moxi.evaluation import store

    if not (folder / store.MANIFEST).exists():
        return f"nothing is in {folder} yet"
    try:
        rows = store.read_rows(folder, ["image", "status"]).to_pylist()
    except ValueError as error:
        return str(error)
    # what failed is done again
    done = {row["image"] for row in rows if row["status"] != store.FAILED}
    return f"{len(done)} images are done and kept in {folder}"


def _fractions(text: str) -> list[float]:
    """Numbers from 0 to 1 with commas between them."""
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = [math.nan]
    if not all(0 <= fraction <= 1 for fraction in found):
        raise ValueError(f"--fractions {text!r} are not all numbers from 0 to 1; pass such as 0.04,0.1")
    return found


def _label_map(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f'--label-map {str(path)!r} is no JSON ({error}); pass such as {{"cat": 3}}') from None
    if not isinstance(found, dict) or not all(isinstance(name, str | int) for name in found.values()):
        raise ValueError(
            f'--label-map {str(path)!r} is no object of names or indices; pass such as {{"cat": 3, "dog": "animal"}}'
        )
    return {label: str(name) for label, name in found.items()}


def _absolute(name: str) -> str:
    """A folder by a name that holds wherever the run goes on, or a name on the hub as it is."""
    return str(Path(name).resolve()) if Path(name).exists() else name


def _need(command: str, *packages: str, extra: str = "evaluate") -> None:
    if missing := [package for package in packages if find_spec(package) is None]:
        raise Refused(f"{command} needs {' and '.join(missing)}; pip install 'captum-moxi[{extra}]'")
