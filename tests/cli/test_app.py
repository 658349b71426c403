"""``captum-moxi app`` without a browser. tests/app/ tests the app itself."""

from importlib.util import find_spec

import pytest

from captum_moxi.cli import runner


def test_without_gradio_the_command_says_in_one_line_what_to_install(
    invoke, model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "find_spec", lambda name: None if name == "gradio" else find_spec(name))
    result = invoke("app", *model)
    assert result.exit_code == 2
    assert result.stderr == "Error: app requires gradio; run pip install 'captum-moxi[app]'\n"
