"""Progress bars of commands: one for the images, one for the rows of an image, and none without a terminal."""

import importlib
from itertools import count
from pathlib import Path

import pytest
from tqdm.auto import tqdm

from captum_moxi.attr import progress
from captum_moxi.cli import runner

ARGUMENTS = {
    "explain": ["--mode", "insertion", "--n-steps", "1"],
    "localize": ["--n-steps", "1"],
    "compare": ["--methods", "moxi,gradcam", "--mode", "insertion", "--n-steps", "1"],
}
# The descriptions of the bars of rows, in order. Localization runs once for each of two classes.
BARS = {
    "explain": ["MoXIInsertion"],
    "localize": ["MoXILocalization"] * 2,
    "compare": ["MoXI (1 of 2)", "Grad-CAM (2 of 2)"],
}


@pytest.mark.parametrize("command", ARGUMENTS)
@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_shows_the_rows_of_each_image(
    command: str, terminal: bool, invoke, model, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module(f"captum_moxi.cli.{command}"), "on_terminal", lambda: terminal)
    image = sorted(digits.glob("*.png"))[0]
    options = ["--grid", "2", "--device", "cpu", "--out", tmp_path]
    result = invoke(command, image, *model, *ARGUMENTS[command], *options)
    assert result.exit_code == 0
    if not terminal:
        assert result.stderr == ("" if command != "compare" else f"{image}: compared\n")
        return
    position = 0
    for bar in BARS[command]:
        position = result.stderr.index(bar, position) + len(bar)
    assert "rows/s]" in result.stderr and ": :" not in result.stderr


def test_bars_need_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert runner.on_terminal()
    monkeypatch.setattr("sys.stderr.isatty", lambda: False, raising=False)
    assert not runner.on_terminal()
    assert tqdm([], disable=None).disable


def test_without_a_terminal_a_long_search_is_reported_once_with_options(
    invoke, model, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = count(step=20.0)
    monkeypatch.setattr(progress, "clock", lambda: next(times))
    options = ["--stop", "never", "--n-steps", 9, "--out", tmp_path]
    result = invoke("explain", digits, *model, *options)
    (line,) = result.stderr.splitlines()
    # 16 + 15 + ... + 8 coalitions
    assert line.startswith("MoXIInsertion needs 108 rows, which takes about ")
    assert "--stop flip" in line and "--screen last-gains:16" in line and "a smaller --grid" in line
    assert line.endswith("--mode insertion or --mode deletion runs only one of the two searches.")
    for argument in ("stop=", "screen=", "feature_mask", "show_progress", "n_steps"):
        assert argument not in line
    # Each command reports its own search.
    result = invoke("localize", digits, *model, "--screen", "all", "--target", 30, "--out", tmp_path)
    (line,) = result.stderr.splitlines()
    assert line.startswith("MoXILocalization has evaluated ")
    screen = "--screen gradient:8 (chooses about 10 % more players)"
    assert f"For a shorter search, pass --n-steps, or {screen}, or a smaller --grid." in line
    assert "--mode" not in line
