"""What the commands share: how they read options, and how they refuse."""

from typing import Any

import click
import torch

from captum_moxi.removal import Removal, get_removal
from captum_moxi.screens import Screen, get_screen


class Refused(click.ClickException):
    """One line that says what is wrong and what would be right, and exit code 2."""

    exit_code = 2

    def __init__(self, reason: object) -> None:
        super().__init__(" ".join(str(reason).split()))


class RemovalType(click.ParamType):
    name = "removal"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Removal:
        try:
            return value if isinstance(value, Removal) else get_removal(value)
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)


class CandidatesType(click.ParamType):
    name = "candidates"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Screen | None:
        try:
            return value if value is None or isinstance(value, Screen) else get_screen(value)
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)


def check_device(name: str | None) -> str | None:
    """The device named, once something could be put there; None for none."""
    if name is not None:
        try:
            torch.empty(0, device=name)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"--device {name!r} cannot be used ({reason}); pass cpu, or a device that is there"
            ) from None
    return name
