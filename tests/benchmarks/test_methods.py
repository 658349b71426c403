"""The areas of the benchmark against all orders of four players."""

from collections.abc import Callable
from itertools import permutations

import pytest
import torch

from captum_moxi.benchmarks import Bench
from captum_moxi.benchmarks.methods import compare_methods


def test_areas_belong_to_an_order_of_the_players_and_rows_are_counted(
    bench: Bench, parse_table: Callable[[str], dict[str, list[str]]]
) -> None:
    columns = parse_table(compare_methods(bench))
    game = bench.game(bench.classifiers[0], [bench.images[0][1]])

    def area(order: tuple[int, ...], *, inserted: bool) -> float:
        groups = [set(order[:k]) for k in range(5)]
        coalitions = torch.tensor([[(player in group) == inserted for player in range(4)] for group in groups])
        return float(game.outcome(coalitions).confidences.mean())

    areas = [(area(order, inserted=True), area(order, inserted=False)) for order in permutations(range(4))]
    measured = {
        method: (float(insertion), float(deletion))
        for method, insertion, deletion in zip(
            columns["method"],
            columns["area under insertion (more is better)"],
            columns["area under deletion (less is better)"],
            strict=True,
        )
    }
    for pair in measured.values():
        # The table has three digits.
        assert any(pair == pytest.approx(expected, rel=6e-3) for expected in areas)
    assert measured["MoXI insertion"][0] >= 0.5 * max(insertion for insertion, _ in areas)
    # FeatureAblation removes each of four players from the image. MoXI evaluates nobody and 4 + 3 + 2 + 1 candidates.
    rows = dict(zip(columns["method"], columns["rows"], strict=True))
    assert rows["FeatureAblation"] == "5"
    assert rows["MoXI insertion"] == "11"
