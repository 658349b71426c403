"""Values that no option accepts, for every option of every command, as click lists them."""

import errno
import os
from pathlib import Path

import click
import pytest

pytest.importorskip("datasets")
pytest.importorskip("pandas")

from captum_moxi.cli.main import COMMANDS, main
from captum_moxi.cli.types import AddressType, DeviceType, FractionsType, LabelMapType, SpecType
from captum_moxi.demo import FOLDER

DIGITS = "9" * 30
NOT_FINITE = ["nan", "inf", "-inf", "1e999", DIGITS * 20]
MODEL = ["--model", str(FOLDER / "model")]
IMAGE = str(next((FOLDER / "images").glob("*.png")))
# Arguments with which a command works, if RUN, OUT and DATA are replaced by folders.
VALID = {
    "explain": [*MODEL, IMAGE, "--grid", "2", "--out", "OUT"],
    "localize": [*MODEL, IMAGE, "--grid", "2", "--out", "OUT"],
    "compare": [*MODEL, IMAGE, "--grid", "2", "--methods", "random", "--out", "OUT"],
    "evaluate": [*MODEL, "--data", "DATA", "--keep", "all", "--grid", "2", "--methods", "random", "--out", "OUT"],
    "report": ["RUN", "--out", "OUT"],
    "replay": ["RUN", "--out", "OUT"],
    "corrupt": ["RUN", "--out", "OUT"],
    "attack": ["RUN", "--out", "OUT"],
    "app": [*MODEL, "--device", "cpu"],
    "benchmark": ["screens", *MODEL, "--images", IMAGE, "--grid", "2", "--out", "OUT"],
}


def bad_values(type: click.ParamType) -> list[str]:
    """Values that an option of a type does not accept."""
    if isinstance(type, click.Choice):
        return ["", "nonsense", DIGITS]
    if isinstance(type, click.types.IntParamType):
        return ["", "0", "-1", "1.5", "nan", DIGITS, DIGITS * 200]
    if isinstance(type, click.types.FloatParamType):
        return ["", "-1", "text", *NOT_FINITE]
    if isinstance(type, FractionsType):
        return ["", "0.5,", "0.5,0.1", "0.1,nan", *NOT_FINITE]
    if isinstance(type, DeviceType):
        return ["", "nonsense", "cuda:99", f"cpu:{DIGITS}", "meta:x"]
    if isinstance(type, AddressType):
        return ["", "nonsense", "1.2.3", "127.0.0.1:80", DIGITS, "http://localhost"]
    if isinstance(type, SpecType):
        specs = [f"{entry.name}:{text}" for entry in type.registry.entries for text in ("", DIGITS, "nan", "-1")]
        return ["", ",", "nonsense", DIGITS, *specs]
    if isinstance(type, click.Path | LabelMapType):
        return ["", "a\0b", "x" * 300, "y/" * 5000, f"{__file__}/below"]
    return ["", "a\0b", "nonsense-" + "x" * 300]


OPTIONS = [
    pytest.param(command.name, param, id=f"{command.name} {param.opts[-1]}")
    for command in COMMANDS
    for param in command.params
    if isinstance(param, click.Option) and not param.is_flag
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one method over the embedded images."""
    folder = tmp_path_factory.mktemp("run") / "run"
    options = ["--data", str(FOLDER / "images"), "--keep", "all", "--grid", "2", "--stop", "never", "--device", "cpu"]
    main(["evaluate", *MODEL, *options, "--methods", "random", "--out", str(folder)], standalone_mode=False)
    return folder


def test_every_command_has_valid_arguments() -> None:
    assert set(VALID) == {command.name for command in COMMANDS}


@pytest.mark.parametrize(("command", "option"), OPTIONS)
def test_invalid_values_are_reported_in_one_line(
    invoke, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, option: click.Option
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    folders = {"RUN": str(run), "OUT": str(tmp_path / "out"), "DATA": str(FOLDER / "images")}
    valid = [folders.get(argument, argument) for argument in VALID[command]]
    for value in bad_values(option.type):
        result = invoke(command, *valid, option.opts[-1], value)
        assert result.exit_code == 2, (value, result.output)
        assert result.stderr.rpartition("Error: ")[2].count("\n") == 1, (value, result.stderr)
        assert not list(tmp_path.iterdir()), value


@pytest.mark.parametrize("command", [command.name for command in COMMANDS])
def test_results_that_cannot_be_written_are_reported_in_one_line(
    invoke, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    if command == "app":
        pytest.importorskip("gradio", reason="Gradio is not installed; run pip install '.[app]'")

    def refuse(path: object, *_: object, **__: object) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(os, "mkdir", refuse)
    folders = {"RUN": str(run), "OUT": str(tmp_path / "new" / "out"), "DATA": str(FOLDER / "images")}
    result = invoke(command, *(folders.get(argument, argument) for argument in VALID[command]))
    assert result.exit_code == 2, result.output
    assert "Permission denied" in result.stderr
    assert result.stderr.rpartition("Error: ")[2].count("\n") == 1
