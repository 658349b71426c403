"""The interface of the app: Gradio components around :func:`captum_moxi.app.requests.answer`."""

import html
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import getproxies

import gradio as gr
from gradio.utils import get_upload_folder

from captum_moxi import demo
from captum_moxi.app.models import AppModels
from captum_moxi.app.requests import QUESTIONS, ExplainRequest, answer
from captum_moxi.errors import REPORTED_ERRORS, describe_error, without_folders
from captum_moxi.explanation.saving import save_json

TITLE = "captum-moxi"
INTRODUCTION = """# captum-moxi
Which group of image patches makes a classifier confident in a class, and without which does its prediction fail? Upload
a photograph, or choose an example, and press *Explain*."""
# Height of the page with the result, in CSS pixels. A phone scrolls in it.
PAGE_HEIGHT = 900
# Size of the largest upload, as Gradio reads it.
MAX_UPLOAD = "20mb"
# Number of searches that run at the same time, and number of requests that wait for one of them.
MOST_SEARCHES = 2
MOST_WAITING = 20
# Seconds for which copies of results and uploads stay on the server, and between two checks.
KEPT_SECONDS = 3600
# Options of events that only change what is shown.
_INTERNAL: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}


def create_app(models: AppModels | None = None) -> gr.Blocks:
    """Create the app. :func:`serve` starts it.

    Users choose a model, upload a photograph, and choose the class and the question. The app shows the progress of the
    search, and then the page of :meth:`captum_moxi.explanation.Explanation.page` with a slider. The selection can be
    downloaded as JSON. All users share the models, and each receives the result of their own photograph.

    Args:
        models (AppModels, optional): Models that users can choose from.
            Default: None, the embedded model

    Returns:
        gradio.Blocks: The app.

    Examples::

        >>> from captum_moxi.app import AppModels, create_app, serve
        >>> app = create_app(AppModels(["google/vit-base-patch16-224"]))
        >>> print(serve(app))
        >>> app.block_thread()
    """
    models = AppModels() if models is None else models
    # The folder of the examples is removed when the process ends.
    folder = tempfile.TemporaryDirectory(prefix="captum-moxi-app-")

    def run(
        photograph: str | None,
        model: str | None,
        question: str,
        target: str | None,
        classes: str | None,
        min_confidence: float,
        minimal: bool,
        progress: gr.Progress = gr.Progress(track_tqdm=True),  # noqa: B008  # Gradio reads the default value
    ) -> tuple[str, str, gr.DownloadButton, str | None]:
        if photograph is not None and not Path(photograph).resolve().is_relative_to(get_upload_folder()):
            # Gradio accepts the path of any file of the server, if a request to its API contains it.
            raise gr.Error("the photograph was not uploaded; upload one", duration=None)
        request = ExplainRequest(
            photograph=photograph,
            model=model or "",
            question=question,
            target=target or "",
            classes=classes or "",
            min_confidence=min_confidence,
            minimal=minimal,
        )
        try:
            explanation = answer(request, models, prepare=lambda step: progress(0, desc=step))
            progress(1, desc="drawing")
            page = explanation.page()
        except REPORTED_ERRORS as error:
            # Gradio shows the message as HTML.
            raise gr.Error(html.escape(without_folders(describe_error(error))), duration=None) from error
        # Gradio deletes the files in its own folder.
        selection = Path(tempfile.mkdtemp(dir=get_upload_folder())) / f"{Path(photograph or 'image').stem}.json"
        save_json(explanation, selection)
        download = gr.DownloadButton(value=str(selection), interactive=True)
        return html.escape(explanation.summary()), _frame(page), download, photograph

    def clear() -> tuple[str, str, gr.DownloadButton]:
        return "", "", gr.DownloadButton(value=None, interactive=False)

    def clear_if_replaced(photograph: str | None, explained: str | None) -> object:
        return clear() if photograph != explained else gr.skip()

    app: gr.Blocks
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(KEPT_SECONDS, KEPT_SECONDS)) as app:
        gr.Markdown(INTRODUCTION)
        with gr.Row():
            with gr.Column(scale=1, min_width=320):
                # Without a mode, Gradio passes the uploaded file on unchanged.
                photograph = gr.Image(
                    label="Photograph", type="filepath", image_mode=None, sources=["upload", "clipboard"]
                )
                model = gr.Dropdown(
                    models.names,
                    value=models.names[0],
                    allow_custom_value=models.accept_others,
                    label="Model",
                    info="Hub name or folder of an image classifier" if models.accept_others else None,
                )
                question = gr.Radio(list(QUESTIONS), value=next(iter(QUESTIONS)), label="Question")
                target = gr.Textbox(label="Class", placeholder="the predicted class", max_lines=1)
                min_confidence = gr.Slider(
                    0,
                    0.99,
                    value=0.5,
                    step=0.01,
                    label="Threshold",
                    info="in insertion and symmetric search, the target must exceed it",
                )
                minimal = gr.Checkbox(True, label="Minimal", info="leave out patches that are not needed")
                with gr.Accordion("Zero-shot classifiers", open=False):
                    classes = gr.Textbox(label="Classes, one per line", lines=3)
                button = gr.Button("Explain", variant="primary")
            with gr.Column(scale=2, min_width=320):
                summary = gr.HTML(label="Result")
                # The progress of the search is shown here.
                page = gr.HTML(label="Page", min_height=PAGE_HEIGHT // 3)
                download = gr.DownloadButton("Download the selection (JSON)", interactive=False)
        gr.Examples(_examples(folder.name), [photograph, model], label="Examples for the embedded model")
        inputs = [photograph, model, question, target, classes, min_confidence, minimal]
        results = [summary, page, download]
        explained = gr.State()
        # A result stays until the next search or photograph. A photograph can also be replaced during its search.
        photograph.change(clear, None, results, **_INTERNAL)
        cleared = button.click(clear, None, results, **_INTERNAL)
        searched = cleared.then(run, inputs, [*results, explained], api_name="explain", concurrency_limit=MOST_SEARCHES)
        searched.success(clear_if_replaced, [photograph, explained], results, **_INTERNAL)
    app.queue(max_size=MOST_WAITING)
    return app


def serve(app: gr.Blocks, *, host: str | None = None, port: int | None = None) -> str:
    """Start a server for the app. ``app.block_thread()`` then waits until the process is interrupted.

    Args:
        app (gradio.Blocks): App of :func:`create_app`.
        host (str, optional): Address to listen on.
            Default: None, the environment variable ``GRADIO_SERVER_NAME``, or loopback
        port (int, optional): Port to listen on.
            Default: None, the environment variable ``GRADIO_SERVER_PORT``, or the first free port from 7860 on

    Returns:
        str: Address of the app.

    Raises:
        OSError: If the port is not free.
    """
    url: str
    with _without_proxy(host):
        _, url, _ = app.launch(
            # Gradio puts the name into the address, where IPv6 requires brackets.
            server_name=f"[{host}]" if host and ":" in host else host,
            server_port=port,
            prevent_thread_lock=True,
            share=False,
            quiet=True,
            ssr_mode=False,
            max_file_size=MAX_UPLOAD,
            footer_links=[],
            # The fonts of Gradio's default theme come from a server.
            theme=gr.themes.Default(font=("system-ui", "sans-serif"), font_mono=("ui-monospace", "monospace")),
        )
    # The address that stands for all addresses of this machine is not one that browsers open everywhere.
    return url.replace("[::]", "[::1]")


@contextmanager
def _without_proxy(host: str | None) -> Iterator[None]:
    """Exclude the app from HTTP proxies of the environment, because Gradio checks that it can reach its own server."""
    before = os.environ.get("no_proxy")
    excluded = [getproxies().get("no"), host, os.environ.get("GRADIO_SERVER_NAME"), "localhost", "127.0.0.1"]
    os.environ["no_proxy"] = ",".join(filter(None, excluded))
    try:
        yield
    finally:
        if before is None:
            del os.environ["no_proxy"]
        else:
            os.environ["no_proxy"] = before


def _frame(page: str) -> str:
    """Return a frame that contains a page. The page runs its scripts, but cannot reach the app."""
    return (
        f'<iframe title="explanation" sandbox="allow-scripts" srcdoc="{html.escape(page)}" '
        f'style="width: 100%; height: {PAGE_HEIGHT}px; border: 0"></iframe>'
    )


def _examples(folder: str) -> list[list[str]]:
    """Save the embedded images, and return the inputs of each example."""
    examples = []
    for image in demo.demo_images():
        path = Path(folder) / image.name
        image.image.save(path)
        examples.append([str(path), demo.NAME])
    return examples
