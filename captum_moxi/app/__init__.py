"""The app: explains uploaded photographs in a browser. Requires Gradio (``pip install 'captum-moxi[app]'``)."""

from typing import TYPE_CHECKING

from captum_moxi.app.models import AppModels
from captum_moxi.app.requests import QUESTIONS, ExplainRequest, answer

if TYPE_CHECKING:
    from captum_moxi.app.interface import create_app, serve

__all__ = ["QUESTIONS", "AppModels", "ExplainRequest", "answer", "create_app", "serve"]


def __getattr__(name: str) -> object:
    """Import the names that require Gradio when they are used. Gradio is optional, and takes seconds to import."""
    if name not in ("create_app", "serve"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from captum_moxi.app import interface
    except ImportError as error:
        raise ImportError(f"{name} requires Gradio; run pip install 'captum-moxi[app]'") from error
    return getattr(interface, name)
