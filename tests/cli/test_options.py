"""Options that name registered items list and accept items that were registered later."""

import click
import pytest
from click.shell_completion import CompletionItem
from click.testing import CliRunner

from captum_moxi.cli import options, types
from captum_moxi.kernels import kernel_set
from captum_moxi.registry import Registry

SHAPES: Registry[str] = Registry("shape")
SHAPES.register("square", lambda: "a square")
SHAPES.register("polygon", lambda corners: f"{corners} corners", argument="CORNERS", required=True)


@pytest.fixture(autouse=True)
def circle():
    """Registers a shape after the options were declared."""
    SHAPES.register("circle", lambda: "a circle", help="round")
    yield
    SHAPES.unregister("circle")


def command_with(option_type: click.ParamType) -> click.Command:
    @click.command()
    @click.option("--shape", cls=options.RegistryOption, type=option_type, help=f"One of {options.CHOICES}.")
    def command(shape: object) -> None:
        click.echo(repr(shape))

    return command


ALL_TYPES = [
    types.SpecType(SHAPES),
    types.ItemType(SHAPES),
    types.NameType(SHAPES),
    types.SpecListType(SHAPES),
    types.SpecListType(SHAPES, accept_all=True),
]


@pytest.mark.parametrize("option_type", ALL_TYPES)
def test_help_and_errors_list_the_registered_items(option_type: click.ParamType) -> None:
    command = command_with(option_type)
    assert "One of square, polygon:CORNERS, circle" in CliRunner().invoke(command, ["--help"]).output
    result = CliRunner().invoke(command, ["--shape", "blob"])
    assert result.exit_code == 2
    assert "shape 'blob' is unknown; pass one of square, polygon:CORNERS, circle" in result.stderr


@pytest.mark.parametrize(
    ("option_type", "text", "value"),
    [
        (types.SpecType(SHAPES), "polygon:5", "polygon:5"),
        (types.ItemType(SHAPES), "polygon:5", "5 corners"),
        (types.NameType(SHAPES), "circle", "circle"),
        (types.SpecListType(SHAPES), "circle, polygon:3", ("circle", "polygon:3")),
        (types.SpecListType(SHAPES, accept_all=True), "all", ("square", "polygon", "circle")),
    ],
)
def test_values_are_parsed(option_type: click.ParamType, text: str, value: object) -> None:
    result = CliRunner().invoke(command_with(option_type), ["--shape", text])
    assert result.output == f"{value!r}\n"


def test_names_are_completed() -> None:
    command = command_with(types.ItemType(SHAPES))
    (completion,) = types.ItemType(SHAPES).shell_complete(click.Context(command), command.params[0], "ci")
    assert isinstance(completion, CompletionItem)
    assert (completion.value, completion.help) == ("circle", "round")


def test_a_command_can_change_the_settings_of_an_option() -> None:
    @click.command()
    @options.n_steps(default=30)
    @options.screen(default="gradient:4")
    def command(n_steps: int, screen: object) -> None:
        click.echo(f"{n_steps} {screen!r}")

    assert CliRunner().invoke(command, []).output == "30 GradientScreen(4)\n"
    assert CliRunner().invoke(command, ["--screen", "all"]).output == "30 None\n"


@pytest.mark.parametrize("name", ["torch", "alternative"])
def test_the_option_kernels_selects_kernels_until_the_command_ends(name: str) -> None:
    seen = []

    @click.command()
    @options.kernels()
    def command() -> None:
        seen.append(kernel_set())

    assert CliRunner().invoke(command, ["--kernels", name]).exit_code == 0
    assert seen == [name]
    assert kernel_set() == "fastest"
