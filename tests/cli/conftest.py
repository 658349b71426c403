"""Fixtures of the tests of commands: a way to invoke them, and images that the embedded model knows."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from captum_moxi.cli.main import main
from captum_moxi.demo import FOLDER, demo_images

Invoke = Callable[..., Result]


@pytest.fixture
def invoke() -> Invoke:
    """Invokes ``captum-moxi`` with arguments of any type. Errors that no command reports fail the test."""

    def invoke_command(*arguments: object) -> Result:
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return invoke_command


@pytest.fixture
def model() -> list[str]:
    """The options that select the embedded model as a folder."""
    return ["--model", str(FOLDER / "model")]


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """A folder with the four embedded images."""
    folder = tmp_path / "digits"
    shutil.copytree(FOLDER / "images", folder)
    (folder / "labels.json").unlink()
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The embedded images in folders named by their classes, one more in a wrong folder, and an unreadable file."""
    folder = tmp_path / "data"
    for name, image, label in demo_images():
        (folder / label).mkdir(parents=True, exist_ok=True)
        image.save(folder / label / name)
    _, image, label = demo_images()[0]
    wrong = folder / str(int(label) + 1)
    wrong.mkdir(exist_ok=True)
    image.save(wrong / "wrong.png")
    (wrong / "broken.png").write_text("not an image")
    return folder
