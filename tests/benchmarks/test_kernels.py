"""The benchmark of kernels, on a clock that the test controls."""

from collections.abc import Callable
from typing import Any

import pytest

from captum_moxi.benchmarks import Bench
from captum_moxi.benchmarks.kernels import compare_kernels
from captum_moxi.kernels import kernel_set


def test_speed_up_and_rows_are_those_of_the_searches(
    bench: Bench, parse_table: Callable[[str], dict[str, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def time_call(call: Callable[[], object], _device: Any) -> float:
        used: list[str] = []
        searched = getattr(call, "args", ())
        if searched and searched[0] in ("torch", "fastest"):
            monkeypatch.setattr(
                "captum_moxi.benchmarks.kernels.greedy", lambda *_args, **_options: used.append(kernel_set())
            )
            call()
            monkeypatch.undo()
            monkeypatch.setattr("captum_moxi.benchmarks.kernels.time_call", time_call)
        return {"torch": 6.0, "fastest": 2.0}[used[0]] if used else 4.0

    monkeypatch.setattr("captum_moxi.benchmarks.kernels.time_call", time_call)
    text = compare_kernels(bench)
    columns = parse_table(text)
    assert columns["speed-up"] == ["3", "3", "3"]
    assert columns["same players"] == ["yes", "yes", "yes"]
    # The unchanged input and 4 candidates; or the input, the empty coalition and 4 + 3 + 2 + 1 candidates.
    assert (columns["rows"][0], columns["rows"][2]) == ("5", "12")
    # 2 * 4096 * 1024 * 2048 operations in 4 seconds
    assert text.startswith("Peak: 4 GFLOP/s")
