"""One case of the growth benchmark, and the list of cases."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from captum_moxi.benchmarks import Bench
from captum_moxi.benchmarks.growth import WIDTHS, Case, Width, cases, measure_case, measure_growth
from captum_moxi.evaluation.records import Record, Records


def test_a_case_measures_time_rows_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WIDTHS, "test", Width(48, 3))
    record = measure_case(Case("test", side=32, batch=2, mode="deletion", steps=1, device="cpu"))
    # Each of four patches is removed from both images.
    assert record["rows"] == 8
    assert record["seconds"] > 0
    assert record["bytes"] > 2**24


def test_cases_cover_sizes_players_and_batches_in_both_modes() -> None:
    listed = cases("cpu")
    assert len(set(listed)) == len(listed) == 2 * (3 * 3 + 3)
    assert {case.size for case in listed} == {"tiny", "small", "base"}
    assert {case.batch for case in listed} == {1, 4, 16, 64}


class FixedRecords(Records):
    """Records in which every measurement has the same result."""

    def get(self, settings: Record, measure: Callable[[], Record]) -> Record:
        return {"seconds": 2.0, "rows": 500, "bytes": 2**29}


def test_the_table_shows_players_time_per_row_and_memory(
    bench: Bench, parse_table: Callable[[str], dict[str, list[str]]]
) -> None:
    columns = parse_table(measure_growth(replace(bench, records=FixedRecords())))
    # Patches of 16 x 16 pixels in images of 112, 224 and 384 pixels.
    assert set(columns["players"]) == {"49", "196", "576"}
    assert set(columns["ms per row"]) == {"4"}
    assert set(columns["peak memory, GiB (including model and libraries)"]) == {"0.5"}
