import runpy
import sys
from importlib.metadata import entry_points
from types import SimpleNamespace

import click
import pytest

from captum_moxi.cli.main import COMMANDS, PLUGINS, main
from captum_moxi.removal import REMOVALS, BaselineRemoval


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch):
    """Makes a function act as the module of an installed plugin: loading the plugin calls it."""

    def install(load) -> None:
        def entry_points(*, group: str) -> list[SimpleNamespace]:
            return [SimpleNamespace(name="mine", value="mine.plugin", load=load)] if group == PLUGINS else []

        monkeypatch.setattr("captum_moxi.cli.main.entry_points", entry_points)

    return install


def test_the_console_script_is_the_group_of_commands() -> None:
    (script,) = entry_points(group="console_scripts", name="captum-moxi")
    assert script.load() is main


def test_the_package_can_be_run_as_a_module(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(sys, "argv", ["captum_moxi", "--help"])
    with pytest.raises(SystemExit) as exit:
        runpy.run_module("captum_moxi", run_name="__main__")
    assert exit.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("Usage: captum-moxi")
    for command in COMMANDS:
        assert command.name in text


@pytest.mark.parametrize("command", [command.name for command in COMMANDS])
def test_every_command_explains_each_of_its_options(invoke, command: str) -> None:
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert "{choices}" not in result.output
    for parameter in main.commands[command].params:
        if isinstance(parameter, click.Option):
            assert parameter.opts[0] in result.output


def test_a_plugin_registers_a_removal(invoke, plugin) -> None:
    plugin(lambda: REMOVALS.register("white", lambda: BaselineRemoval(1.0)) if "white" not in REMOVALS else None)
    try:
        assert "white" in " ".join(invoke("explain", "--help").output.split())
        assert "white" in invoke("explain", "--removal", "noise").stderr
    finally:
        REMOVALS.unregister("white")


def test_a_plugin_adds_a_command(invoke, plugin) -> None:
    @click.command()
    def hello() -> None:
        click.echo("hello")

    plugin(lambda: main.add_command(hello))
    try:
        assert "hello" in invoke("--help").output
        assert invoke("hello").output == "hello\n"
    finally:
        del main.commands["hello"]


def test_a_broken_plugin_is_reported_and_the_command_runs(invoke, plugin) -> None:
    def fail() -> None:
        raise ImportError("no module named mine")

    plugin(fail)
    result = invoke("explain", "--help")
    assert result.exit_code == 0 and "Usage" in result.stdout
    assert "plugin 'mine' (mine.plugin) could not be loaded" in result.stderr
