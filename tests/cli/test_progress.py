"""Progress bars of commands: one for the images, one for the rows of an image, and none without a terminal."""

import importlib
from pathlib import Path

import pytest
from tqdm.auto import tqdm

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
        assert result.stderr == ""
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
