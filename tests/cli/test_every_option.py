"""Values that no option accepts, for every option of every command, as click lists them."""

import errno
import os
import shutil
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
    "reproduce": [
        *(*MODEL, "--data", "DATA", "--keep", "all", "--grid", "2", "--methods", "random", "--only", "seconds"),
        *("--out", "OUT"),
    ],
    "app": [*MODEL, "--device", "cpu"],
    "benchmark": ["screens", *MODEL, "--images", IMAGE, "--grid", "2", "--out", "OUT"],
}

# For each command with --out: options with valid values that do not fit the model, the data or the run.
UNFIT = {
    "explain": [["--grid", "3"], ["--grid", "999"], ["--removal", "attention:99"]],
    "localize": [["--grid", "3"], ["--grid", "999"], ["--removal", "attention:99"]],
    "compare": [
        ["--grid", "3"],
        ["--grid", "999"],
        ["--removal", "attention:99"],
        ["--grid", "4", "--methods", "shapley-exact"],
    ],
    "evaluate": [["--grid", "3"], ["--grid", "999"], ["--removal", "attention:99"], ["--keep", "right"]],
    "report": [["--gallery", "1"]],
    "replay": [["--removal", "attention:99"]],
    "corrupt": [["--corruptions", "fog"]],
    "attack": [["--mode", "insertion"]],
    "reproduce": [["--grid", "3"], ["--grid", "999"], ["--keep", "right"]],
    "benchmark": [["--grid", "3"], ["--grid", "999"], ["--search", "nonsense"]],
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


def evaluate_run(folder: Path, *, stop: str, data: Path = FOLDER / "images") -> Path:
    """Run one method on the images of a folder."""
    options = ["--data", str(data), "--keep", "all", "--grid", "2", "--stop", stop, "--device", "cpu"]
    main(["evaluate", *MODEL, *options, "--methods", "random", "--out", str(folder)], standalone_mode=False)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one method over the embedded images."""
    return evaluate_run(tmp_path_factory.mktemp("run") / "run", stop="never")


@pytest.fixture(scope="module")
def unfit_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that stopped at flips, and whose images are gone."""
    folder = tmp_path_factory.mktemp("unfit")
    data = shutil.copytree(FOLDER / "images", folder / "data")
    evaluate_run(folder / "run", stop="flip", data=data)
    shutil.rmtree(data)
    return folder / "run"


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


def test_every_command_with_results_has_options_that_do_not_fit() -> None:
    with_results = {command.name for command in COMMANDS for param in command.params if param.name == "out"}
    assert set(UNFIT) == with_results


@pytest.mark.parametrize(
    ("command", "options"),
    [pytest.param(command, options, id=f"{command} {options[0]}") for command in UNFIT for options in UNFIT[command]],
)
def test_options_that_do_not_fit_leave_nothing_behind(
    invoke, run: Path, unfit_run: Path, tmp_path: Path, command: str, options: list[str]
) -> None:
    folders = {
        "RUN": str(run if command == "replay" else unfit_run),
        "OUT": str(tmp_path / "new" / "out"),
        "DATA": str(FOLDER / "images"),
    }
    result = invoke(command, *(folders.get(argument, argument) for argument in VALID[command]), *options)
    assert result.exit_code == 2, result.output
    assert result.stderr.rpartition("Error: ")[2].count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["explain", "localize", "compare"])
@pytest.mark.parametrize("option", ["--grid", "--removal"])
def test_options_that_do_not_fit_the_model_are_reported_once(invoke, tmp_path: Path, command: str, option: str) -> None:
    arguments = [tmp_path if argument == "OUT" else argument for argument in VALID[command]]
    value = {"--grid": "3", "--removal": "attention:99"}[option]
    result = invoke(command, *arguments, IMAGE, option, value)
    assert result.exit_code == 2
    # Without a line for each of the two images.
    assert result.stderr.startswith("Error: ")


@pytest.mark.parametrize("command", ["explain", "localize", "compare"])
def test_a_folder_that_stays_empty_is_removed_unless_it_existed(invoke, tmp_path: Path, command: str) -> None:
    unreadable = tmp_path / "notes.txt"
    unreadable.write_text("not an image")
    old, new = tmp_path / "old", tmp_path / "new" / "out"
    old.mkdir()
    for out in (old, new):
        arguments = {"OUT": str(out), IMAGE: str(unreadable)}
        result = invoke(command, *(arguments.get(argument, argument) for argument in VALID[command]))
        assert result.exit_code == 2, result.output
    assert set(tmp_path.iterdir()) == {unreadable, old}


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
