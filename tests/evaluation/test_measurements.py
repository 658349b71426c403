import csv
import math
from pathlib import Path

import numpy as np
import pytest

from captum_moxi.evaluation.measurements import (
    PAIRED_LEGEND,
    VARIANTS,
    Measurement,
    describe_pairs,
    means_table,
    paired_records,
    write_pairs,
)
from captum_moxi.methods import METHODS

# Means 0.7, 0.9, 0.45, 0.3. MoXI(-) is a variant of MoXI, and no other method.
VALUES = {
    "MoXI": np.linspace(0.6, 0.8, 10),
    "MoXI(-)": np.full(10, 0.9),
    "Shapley": np.linspace(0.0, 0.9, 10),
    "Random": np.full(10, 0.3),
}


def test_variants_have_the_titles_of_their_methods() -> None:
    titles = {METHODS.create(name).title for name in ("moxi", "moxi-minus", "moxi-symmetric")}
    assert titles < VARIANTS
    assert not {METHODS.create(name).title for name in ("shapley", "gradcam", "random")} & VARIANTS


@pytest.mark.parametrize(("better", "other", "difference"), [("higher", "Shapley", 0.25), ("lower", "Random", 0.4)])
def test_moxi_is_compared_with_the_best_other_method(better, other: str, difference: float) -> None:
    (record,) = paired_records([Measurement("area", better, VALUES, condition="run")], resamples=50)
    assert (record["method"], record["best other"], record["images"]) == ("MoXI", other, 10)
    assert record["difference"] == pytest.approx(difference)
    low, high = record["low"], record["high"]
    assert isinstance(low, float) and isinstance(high, float) and low < difference < high


def test_each_tested_method_is_compared() -> None:
    values = VALUES | {"MoXI symmetric": VALUES["Shapley"]}
    first, second = paired_records([Measurement("area", "higher", values)], resamples=50)
    assert (first["method"], second["method"]) == ("MoXI", "MoXI symmetric")
    assert (second["best other"], second["difference"], second["p-value"]) == ("Shapley", 0, 1)
    # Here, the best of the methods that are not tested is MoXI itself, but variants are not compared with each other.
    assert Measurement("area", "higher", VALUES, tested=["Random"]).pairs == [("Random", "Shapley")]


def test_methods_without_finite_values_are_not_compared() -> None:
    unknown = np.full(10, math.nan)
    assert Measurement("area", "higher", VALUES | {"Shapley": unknown}).best_other == "Random"
    assert Measurement("area", "higher", VALUES | {"MoXI": unknown}).pairs == []
    assert Measurement("area", "higher", {"MoXI": VALUES["MoXI"]}).pairs == []


def test_comparisons_are_a_table_and_a_file(tmp_path: Path) -> None:
    path, measurements = tmp_path / "paired.csv", [Measurement("area", "higher", VALUES, condition="zero")]
    title, table, legend = write_pairs(measurements, path, resamples=50, condition_title="removal")
    assert "| removal | quantity | method | best other | images | difference |" in table
    assert "| zero | area | MoXI | Shapley | 10 | 0.25 |" in table
    assert title.startswith("**MoXI") and legend == PAIRED_LEGEND
    assert "are not corrected for two things" in legend.replace("\n", " ")
    with path.open() as file:
        (row,) = csv.DictReader(file)
    assert row["removal"] == "zero" and float(row["difference"]) == pytest.approx(0.25)
    # Without groups, there is no column for them.
    _, table = describe_pairs([Measurement("area", "higher", VALUES)], resamples=50, condition_title="removal")
    assert table.startswith("| quantity |")


def test_few_images_are_not_compared(tmp_path: Path) -> None:
    path = tmp_path / "paired.csv"
    path.write_text("old")
    few = Measurement("area", "higher", {title: values[:9] for title, values in VALUES.items()})
    assert write_pairs([few], path, resamples=50, condition_title="run") == [
        "The comparison of MoXI and the best other method needs at least 10 images."
    ]
    assert not path.exists()
    alone = Measurement("area", "higher", {"Random": VALUES["Random"]})
    assert write_pairs([alone], path, resamples=50, condition_title="run") == []


def test_means_are_a_table_of_quantities_and_methods() -> None:
    exact, few = np.full(10, 0.5), np.full(9, 0.25)
    measurements = [
        Measurement("area", "higher", {"MoXI": exact, "Random": few}, condition="zero"),
        Measurement("patches", "lower", {"MoXI": np.full(10, math.nan)}, condition="zero"),
        Measurement("area", "higher", {"MoXI": np.full(10, 0.125)}, condition="blur"),
    ]
    assert means_table(measurements, resamples=20, condition_title="removal").splitlines() == [
        "| removal |  | area ↑ | patches ↓ |",
        "| --- | --- | --- | --- |",
        "| zero | MoXI | 0.5 (0.5 to 0.5) |  |",
        "| zero | Random | 0.25 |  |",
        "| blur | MoXI | 0.125 (0.125 to 0.125) |  |",
    ]
    table = means_table([Measurement("area", "higher", {"MoXI": exact})], resamples=20, condition_title="removal")
    assert table.startswith("|  | area ↑ |")


def test_methods_are_not_compared_by_values_of_which_neither_are_better() -> None:
    norms = Measurement("norm", None, VALUES)
    assert norms.pairs == [] and describe_pairs([norms], resamples=20, condition_title="run") == []
    assert means_table([norms], resamples=20, condition_title="run").startswith("|  | norm |")
