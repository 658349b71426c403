"""The names of ``captum_moxi.app``, which can be imported without Gradio."""

import subprocess
import sys

import captum_moxi.app

# Gradio looks as if it were not installed.
WITHOUT_GRADIO = "import sys; sys.modules['gradio'] = None; "


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", WITHOUT_GRADIO + code], capture_output=True, text=True, check=False)


def test_requests_are_answered_without_gradio() -> None:
    code = "from captum_moxi.app import QUESTIONS, AppModels, ExplainRequest, answer; print(AppModels().names)"
    assert run(code).stdout == "['embedded demo']\n"


def test_the_interface_without_gradio_says_in_one_line_what_to_install() -> None:
    for name in ("create_app", "serve"):
        lines = run(f"from captum_moxi.app import {name}").stderr.splitlines()
        assert lines[-1] == f"ImportError: {name} requires Gradio; run pip install 'captum-moxi[app]'"


def test_other_names_do_not_exist() -> None:
    assert not hasattr(captum_moxi.app, "other")
