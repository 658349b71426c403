"""Starts or continues a run over many images."""

from pathlib import Path

from tqdm.auto import tqdm

from captum_moxi.arguments import check_positive_int
from captum_moxi.evaluation import store
from captum_moxi.evaluation.engines import ENGINES, Resources
from captum_moxi.evaluation.evaluator import Evaluator, remaining_batches
from captum_moxi.evaluation.rows import describe_statuses
from captum_moxi.evaluation.settings import Settings

# Maximum number of errors in the summary of a run.
SHOWN_ERRORS = 10


def run_evaluation(
    settings: Settings,
    folder: Path,
    *,
    batch_size: int = 8,
    engine: str = "local",
    workers: int = 1,
    cpus: float = 1,
    gpus: float = 0,
    device: str | None = None,
    limit: int | None = None,
    show_progress: bool = False,
) -> str:
    """Run methods on every image of a folder or dataset, and write their rows to the folder of a run.

    If the folder already contains a run with the same settings, the run continues with the images that have no rows
    yet.

    Args:
        settings (Settings): Settings of the run.
        folder (Path): Folder of the run. It is created if it does not exist.
        batch_size (int, optional): Number of images that are processed and written together.
            Default: 8
        engine (str, optional): Name in ``captum_moxi.evaluation.engines.ENGINES``.
            Default: ``"local"``
        workers (int, optional): Number of workers of a distributed engine.
            Default: 1
        cpus (float, optional): Number of CPU cores reserved for each worker.
            Default: 1
        gpus (float, optional): Number of GPUs reserved for each worker. With 0.5, two workers share a GPU.
            Default: 0
        device (str, optional): Device of the model.
            Default: None, CUDA if available, otherwise the CPU
        limit (int, optional): Maximum number of images. The first ones are used. A later call may increase the limit.
            Default: None, all images
        show_progress (bool, optional): Whether to show a progress bar over the images if standard error is a terminal.
            Default: False

    Returns:
        str: Number of images by status, and the first errors.

    Raises:
        ValueError: If the settings do not fit the model or the data, the folder holds another run or other files,
            another process is writing to it, or ``batch_size`` is less than 1.
        RuntimeError: If every image of a batch fails.
        OSError: If rows cannot be read or written. Finished rows are kept.

    Examples::

        >>> settings = Settings(model="google/vit-base-patch16-224", data="photographs", stop=None)
        >>> print(run_evaluation(settings, Path("run")))
    """
    check_positive_int("batch_size", batch_size)
    settings = settings.with_absolute_paths()
    resources = Resources(device, workers, cpus, gpus)
    selected_engine = ENGINES.create(engine)
    selected_engine.check()
    evaluator = Evaluator.load(settings, device=selected_engine.model_device(resources), limit=limit)
    evaluator.check()
    store.open_run(folder, settings.to_dict(), images=len(evaluator.images))
    with store.locked_run(folder) as finished_images:
        batches = remaining_batches(evaluator, finished_images, batch_size=batch_size)
        total, remaining = len(evaluator.images), sum(map(len, batches))
        finished = selected_engine.run(evaluator, folder, batches, resources=resources) if batches else ()
        # None disables the bar unless standard error is a terminal.
        disable = None if show_progress else True
        with tqdm(total=total, initial=total - remaining, desc="images", unit="image", disable=disable) as bar:
            for count in finished:
                bar.update(count)
    return summarize_run(folder)


def summarize_run(folder: Path) -> str:
    """Summarize a run: the number of images by status, and the first errors.

    Args:
        folder (Path): Folder of the run.

    Returns:
        str: Several lines of text.

    Raises:
        ValueError: If the folder holds no run, or a file of its rows is damaged.
        OSError: If a file of its rows cannot be read.
    """
    rows = store.read_rows(folder, ["image", "status", "error"]).to_pylist()
    statuses = list({row["image"]: row["status"] for row in rows}.values())
    errors = [f"{row['image']}: {row['error']}" for row in rows if row["error"] is not None]
    lines = [f"{len(statuses)} images in {folder}: {describe_statuses(statuses)}", *errors[:SHOWN_ERRORS]]
    if len(errors) > SHOWN_ERRORS:
        lines.append(f"and {len(errors) - SHOWN_ERRORS} more")
    return "\n".join(lines)


def describe_finished(folder: Path) -> str:
    """Describe what an interrupted run has finished, for an error message.

    Args:
        folder (Path): Folder of the run, or one that does not exist yet.

    Returns:
        str: For example ``"120 images are finished and stored in run"``. Failed images are not counted, because they
        will be repeated. If a file of rows is damaged, the text names the file.
    """
    if not (folder / store.MANIFEST).exists():
        return f"{folder} does not hold a run yet"
    try:
        rows = store.read_rows(folder, ["image", "status"]).to_pylist()
    except ValueError as error:
        return str(error)
    except OSError:
        return f"the number of finished images in {folder} is unknown"
    finished = {row["image"] for row in rows if row["status"] != "failed"}
    return f"{len(finished)} images are finished and stored in {folder}"
