"""Any text is a valid value of an option, or one line explains why it is not. No model is loaded."""

import re
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from huggingface_hub import constants
from hypothesis import strategies as st
from sizes import for_all

pytest.importorskip("datasets")
pytest.importorskip("pandas")

from captum_moxi.cli.main import COMMANDS, main

# Arguments with which each command ends before it loads a model, because "empty" is an empty folder.
ARGUMENTS = {
    "explain": ["missing.png", "--model", "empty"],
    "localize": ["missing.png", "--model", "empty"],
    "compare": ["missing.png", "--model", "empty"],
    "evaluate": ["--model", "empty", "--data", "empty", "--out", "out"],
    "report": ["empty"],
    "replay": ["empty", "--out", "out"],
    "corrupt": ["empty", "--out", "out"],
    "attack": ["empty", "--out", "out"],
    "reproduce": ["--model", "empty", "--data", "empty", "--out", "out"],
    "app": ["--model", "empty"],
    "benchmark": ["bare", "--model", "empty", "--images", "missing.png"],
}
# Words that mean something to an option, and numbers of all kinds.
WORDS = ["gradient", "last-gains", "random", "token", "attention", "blur", "moxi", "shapley", "lime", "contrast", "fog"]
WORDS += ["log_odds", "area", "all", "both", "flip", "never", "cpu", "cuda:99", "meta", "insertion", "empty", "out"]
NUMBERS = ["0", "1", "-1", "8", "0.5", "1e3", "1e999", "nan", "inf", "-inf", "9" * 30, "0x10", "1_000", "٣"]
# A slash could lead out of the temporary folder. Bytes of file names that are not UTF-8 become surrogates.
CHARACTERS = st.characters(exclude_characters="/") | st.sampled_from("\0\n\r\x0b\x85\u2028\udcff$\\{}%[]:,= -")
TEXTS = st.one_of(
    st.text(CHARACTERS, max_size=8),
    st.sampled_from([*WORDS, *NUMBERS, "", ".", "x" * 300]),
    st.builds("{}:{}".format, st.sampled_from(WORDS), st.sampled_from(NUMBERS) | st.text(CHARACTERS, max_size=4)),
    st.lists(st.sampled_from(WORDS + NUMBERS), max_size=3).map(",".join),
).filter(lambda text: text != "..")
PARAMETERS = [(command, parameter) for command in COMMANDS for parameter in command.params]


@pytest.fixture(autouse=True)
def temporary_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs commands in an empty folder, and without the hub, where a random name could be a model."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.chdir(folder)
        Path("empty").mkdir()
        yield
        monkeypatch.undo()


def invoke(arguments: list[str]) -> Result:
    result = CliRunner().invoke(main, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def check_result(result: Result) -> None:
    """The command succeeded, or its last line of stderr has the reason. Only usage and notes come before."""
    assert result.exit_code in (0, 2)
    assert "Traceback" not in result.output
    if result.exit_code == 2:
        *others, reason = result.stderr.splitlines()
        assert re.match(r"Error: .*\S", reason)
        assert all(re.match(r"Usage: |Try '| |warning: |0 new measurements|$", line) for line in others), others


def test_each_command_ends_before_it_loads_a_model() -> None:
    assert set(ARGUMENTS) == {command.name for command in COMMANDS}
    for command, arguments in ARGUMENTS.items():
        result = invoke([command, *arguments])
        assert result.exit_code == 2
        check_result(result)
        lacks_gradio = command == "app" and find_spec("gradio") is None
        assert ("requires gradio" if lacks_gradio else "empty") in result.stderr


@for_all(st.tuples(st.sampled_from(PARAMETERS), TEXTS), quick=150, large=1500)
def test_any_value_of_an_option_is_accepted_or_explained(
    drawn: tuple[tuple[click.Command, click.Parameter], str],
) -> None:
    (command, parameter), text = drawn
    arguments = ARGUMENTS[command.name or ""]
    if isinstance(parameter, click.Option):
        passed = [*arguments, f"{parameter.opts[-1]}={text}"]
    else:
        passed = [*arguments[1:], "--", text]
    check_result(invoke([command.name or "", *passed]))


@for_all(
    st.tuples(
        st.sampled_from(COMMANDS), st.lists(st.tuples(st.sampled_from(PARAMETERS), TEXTS), min_size=2, max_size=4)
    ),
    quick=50,
    large=500,
)
def test_any_combination_of_options_is_accepted_or_explained(
    drawn: tuple[click.Command, list[tuple[tuple[click.Command, click.Parameter], str]]],
) -> None:
    command, values = drawn
    options = [f"{parameter.opts[-1]}={text}" for (_, parameter), text in values if isinstance(parameter, click.Option)]
    check_result(invoke([command.name or "", *ARGUMENTS[command.name or ""], *options]))


@for_all(st.lists(TEXTS, min_size=1, max_size=4), quick=30, large=300)
def test_any_arguments_are_accepted_or_explained(arguments: list[str]) -> None:
    # Alone, these commands explain the embedded images or measure the embedded model.
    if arguments[:1] not in (["explain"], ["compare"], ["benchmark"]):
        check_result(invoke(arguments))
