"""Benchmark ``methods``: MoXI and Captum's perturbation methods with the same players, removal and reward."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import fmean

from PIL import Image

from captum_moxi.arguments import MODES, Mode, Stop
from captum_moxi.benchmarks.bench import Bench, short_name
from captum_moxi.comparison import play_method
from captum_moxi.evaluation.records import Record
from captum_moxi.game import CoalitionGame
from captum_moxi.methods import METHODS, Method
from captum_moxi.metrics import play_curve
from captum_moxi.models import ImageClassifier
from captum_moxi.search import Selection, greedy
from captum_moxi.search.screens import SCREENS
from captum_moxi.tables import markdown_table


@dataclass(frozen=True)
class Contender:
    """A method in one mode.

    Args:
        title (str): Title in the table.
        create (Callable): Function from the number of players to the method.
        mode (str, optional): ``"insertion"`` or ``"deletion"``: the mode in which the method orders the players. Both
            curves are computed along this order.
            Default: ``"insertion"``
    """

    title: str
    create: Callable[[int], Method]
    mode: Mode = "insertion"


def compare_methods(bench: Bench) -> str:
    """Measure every method on every image, and return the table of means over the images."""
    records = bench.measure_variants(
        "methods",
        CONTENDERS,
        settings=lambda contender: {"method": contender.title},
        measurement=partial(_measure, bench),
    )
    quantities = ("rows", "seconds", *MODES)
    rows = [
        [short_name(model), contender.title, *(fmean(record[key] for record in measured) for key in quantities)]
        for (model, contender), measured in records.items()
    ]
    header = ["model", "method", "rows", "seconds", "area under insertion (more is better)"]
    return markdown_table([*header, "area under deletion (less is better)"], rows)


def _measure(bench: Bench, classifier: ImageClassifier, image: Image.Image, contender: Contender) -> Record:
    """Measure the cost of an order, and the areas under both of its curves."""
    game = bench.game(classifier, [image])
    run = play_method(game, contender.create(game.n_players), contender.mode)
    areas: Record = {mode: float(play_curve(game, run.attributions, mode).confidences.mean()) for mode in MODES}
    return {"seconds": run.seconds, "rows": run.weighted_rows, **areas}


def _moxi(screen: str, n_players: int) -> Method:
    """Create MoXI with a screen in both modes. The registered method uses its screen only in deletion."""

    def attribute(game: CoalitionGame, mode: Mode, *, n_steps: int | None, stop: Stop) -> Selection:
        return greedy(game, mode, n_steps=n_steps, stop=stop, screen=SCREENS.create(screen))

    return Method("MoXI", attribute, depends_on_mode=True)


def _registered(spec: str, n_players: int) -> Method:
    return METHODS.create(spec)


def _kernel_shap(n_players: int) -> Method:
    """Create KernelShap with the default number of samples of the package shap."""
    return METHODS.create(f"kernel-shap:{2 * n_players + 2048}")


CONTENDERS = (
    Contender("MoXI insertion", partial(_moxi, "all")),
    Contender("MoXI deletion", partial(_moxi, "all"), "deletion"),
    Contender("MoXI deletion, gradient:8", partial(_moxi, "gradient:8"), "deletion"),
    Contender("MoXI insertion, last-gains:16", partial(_moxi, "last-gains:16")),
    Contender("MoXI(-) insertion", partial(_registered, "moxi-minus")),
    Contender("ShapleyValueSampling, 25", partial(_registered, "shapley:25")),
    Contender("ShapleyValueSampling, 200", partial(_registered, "shapley:200")),
    Contender("KernelShap, 2n + 2048 samples", _kernel_shap),
    Contender("FeatureAblation", partial(_registered, "ablation")),
)
