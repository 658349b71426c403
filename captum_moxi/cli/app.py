"""``captum-moxi app``: explain uploaded photographs in a browser."""

import click

from captum_moxi.cli import options
from captum_moxi.cli.runner import Command, require_packages


@click.command("app", cls=Command)
@options.model(
    "models",
    multiple=True,
    help="Hub name or folder of a Hugging Face image classifier that users can choose. Repeatable. Default: the "
    "embedded model.",
)
@options.any_model()
@options.device()
@options.host()
@options.port()
def app_command(models: tuple[str, ...], any_model: bool, device: str | None, host: str, port: int) -> None:
    """Explain uploaded photographs in a browser.

    The command prints the address of the app, and serves it until it is interrupted. Other machines cannot reach it,
    unless --host is an address of this machine's network, or another server forwards requests to it.
    """
    require_packages("app", "gradio", "bokeh", extra="app")
    # Gradio takes seconds to import, and the other commands do not need it.
    from captum_moxi.app import AppModels, create_app, serve

    app = create_app(AppModels(models, accept_others=any_model, device=device))
    click.echo(f"Open {serve(app, host=host, port=port)} in a browser. Press Ctrl-C to stop.")
    app.block_thread()
