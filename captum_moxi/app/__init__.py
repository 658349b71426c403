"""The app: explains uploaded photographs in a browser. Requires Gradio (``pip install 'captum-moxi[app]'``)."""

from captum_moxi.app.interface import create_app, serve
from captum_moxi.app.models import AppModels
from captum_moxi.app.requests import QUESTIONS, ExplainRequest, answer

__all__ = ["QUESTIONS", "AppModels", "ExplainRequest", "answer", "create_app", "serve"]
