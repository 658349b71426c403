from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from PIL import Image

from captum_moxi.cli.runner import Command, demo_sources, file_sources, run_over_images
from captum_moxi.demo import demo_images


def run(work, *, finish=None, options=()):
    """Runs ``work`` over the embedded images inside a command."""

    @click.command(cls=Command)
    def command() -> None:
        run_over_images(demo_sources(), work, verb="counted", finish=finish)

    return CliRunner().invoke(command, options)


def test_each_image_is_worked_on_once_and_its_line_printed() -> None:
    result = run(lambda image: f"{image.name} is done")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [f"{name} is done" for name, _, _ in demo_images()]


@pytest.mark.parametrize("error", [ValueError, OSError, RuntimeError, Image.DecompressionBombError])
def test_an_image_that_fails_does_not_stop_the_others(error: type[Exception]) -> None:
    def work(image) -> None:
        if image.name == demo_images()[1].name:
            raise error("no luck\nat all")

    result = run(work, finish=lambda: "finished")
    assert result.exit_code == 2
    assert f"{demo_images()[1].name}: no luck at all" in result.stderr
    assert result.stderr.splitlines()[-1] == "Error: 1 of 4 images were not counted"
    assert result.stdout == "finished\n"


def test_nothing_is_finished_if_all_images_fail() -> None:
    def work(image) -> None:
        raise ValueError("no luck")

    result = run(work, finish=lambda: "finished")
    assert result.exit_code == 2 and result.stdout == ""
    assert "4 of 4 images were not counted" in result.stderr


def test_bugs_keep_their_traceback() -> None:
    def work(image) -> None:
        raise KeyError("bug")

    assert isinstance(run(work).exception, KeyError)


def test_a_command_reports_an_error_in_one_line() -> None:
    @click.command(cls=Command)
    def command() -> None:
        raise ValueError("not\nvalid")

    result = CliRunner().invoke(command)
    assert result.exit_code == 2 and result.stderr == "Error: not valid\n"


def test_arguments_in_a_message_are_written_as_options() -> None:
    @click.command(cls=Command)
    @click.option("--keep")
    @click.option("--label-map", "label_map")
    @click.option("--data")
    def command(keep: str, label_map: str, data: str) -> None:
        raise ValueError("data 'x' has no labels; pass keep='all', or a label_map. keep is 'a', label_mapper")

    result = CliRunner().invoke(command)
    message = "data 'x' has no labels; pass --keep all, or a --label-map. keep is 'a', label_mapper"
    assert result.stderr == f"Error: {message}\n"


@pytest.mark.parametrize(
    "text",
    [
        "/tmp/label_map",
        "'/tmp/my label_map'",
        "label_map/config",
        "label_map.png",
        "my-label_map",
        "'keep label_map'",
        '"it\'s label_map"',
        "/tmp/keep='all'",
    ],
)
def test_paths_and_values_of_the_user_are_not_written_as_options(text: str) -> None:
    @click.command(cls=Command)
    @click.option("--keep")
    @click.option("--label-map", "label_map")
    def command(keep: str, label_map: str) -> None:
        raise ValueError(f"the user's {text} is a folder, and the model's name is not; pass label_map")

    result = CliRunner().invoke(command)
    assert result.stderr == f"Error: the user's {text} is a folder, and the model's name is not; pass --label-map\n"


def test_a_command_can_exit_with_a_code_of_its_own() -> None:
    @click.command(cls=Command)
    @click.pass_context
    def command(ctx: click.Context) -> None:
        ctx.exit(3)

    assert CliRunner().invoke(command).exit_code == 3


def test_sources_open_their_own_file_and_have_different_stems(tmp_path: Path) -> None:
    for folder, color in (("a", "red"), ("b", "blue"), ("c", "lime")):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (2, 2), color).save(tmp_path / folder / "x.png")
    sources = file_sources([str(tmp_path / folder) for folder in "abc"])
    assert [source.stem for source in sources] == ["x", "x-2", "x-3"]
    assert [source.open().getpixel((0, 0)) for source in sources] == [(255, 0, 0), (0, 0, 255), (0, 255, 0)]


def test_figures_of_different_images_have_different_names() -> None:
    names = ["cat.png", "cat-alternatives.png", "dog-alternatives.png", "dog.png"]
    figures = [f"{source.stem}{ending}" for source in file_sources(names) for ending in (".png", "-alternatives.png")]
    assert len(set(figures)) == 8 and figures[:2] == ["cat.png", "cat-alternatives.png"]


def test_debug_keeps_the_traceback_of_an_error() -> None:
    @click.command(cls=Command)
    def command() -> None:
        raise ValueError("not valid")

    assert isinstance(CliRunner().invoke(command, ["--debug"]).exception, ValueError)

    images: list[str] = []

    def work(image) -> None:
        images.append(image.name)
        raise RuntimeError("no luck")

    assert isinstance(run(work, options=["--debug"]).exception, RuntimeError)
    assert len(images) == 1
