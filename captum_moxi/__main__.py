"""``python -m captum_moxi`` is the command ``captum-moxi``."""

from captum_moxi.cli.main import main

main(prog_name="captum-moxi")
