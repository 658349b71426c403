"""The group of commands, and the plugins that extend it.

To add a command, write it in a separate file of this package and add it to ``COMMANDS``.
"""

import io
import logging
import sys
from importlib.metadata import entry_points

import click
from transformers.utils import logging as transformers_logging

from captum_moxi import __version__
from captum_moxi.cli.app import app_command
from captum_moxi.cli.attack import attack
from captum_moxi.cli.benchmark import benchmark
from captum_moxi.cli.compare import compare
from captum_moxi.cli.corrupt import corrupt
from captum_moxi.cli.evaluate import evaluate
from captum_moxi.cli.explain import explain
from captum_moxi.cli.localize import localize
from captum_moxi.cli.replay import replay
from captum_moxi.cli.report import report
from captum_moxi.cli.reproduce import reproduce

COMMANDS = (explain, localize, compare, evaluate, report, replay, corrupt, attack, reproduce, app_command, benchmark)
# Group of entry points in which packages list modules. Importing these modules registers removals, methods, commands
# and other items.
PLUGINS = "captum_moxi.plugins"


class PluginGroup(click.Group):
    """A group of commands that imports plugins before it parses arguments or shows help."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: object
    ) -> click.Context:
        load_plugins()
        return super().make_context(info_name, args, parent, **extra)


def load_plugins() -> None:
    """Import the plugins that installed packages provide.

    A plugin that cannot be imported is reported, and the command runs without it.
    """
    for plugin in entry_points(group=PLUGINS):
        try:
            plugin.load()
        except Exception as error:
            click.echo(f"warning: plugin {plugin.name!r} ({plugin.value}) could not be loaded: {error!r}", err=True)


@click.group(cls=PluginGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Find the group of image patches that makes a classifier confident (insertion), or without which its prediction
    fails (deletion).

    Run `captum-moxi explain` without arguments to explain the embedded images, and `captum-moxi COMMAND --help` for the
    options of a command.
    """
    for stream in (sys.stdout, sys.stderr):
        # Paths may contain characters that the terminal's encoding does not have.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # transformers reports each weight that it loads, and the hub reports each attempt to connect.
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)


for command in COMMANDS:
    main.add_command(command)


if __name__ == "__main__":
    main()
