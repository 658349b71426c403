"""What a user asks the app, and the explanation that answers it. This module does not know Gradio."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from captum_moxi import demo
from captum_moxi.app.models import LONGEST_CLASS, AppModels
from captum_moxi.arguments import SearchMode
from captum_moxi.explanation import ExplainSettings, Explanation, explain
from captum_moxi.images import open_image
from captum_moxi.models import ImageClassifier

# The questions that the app answers, and the modes of the searches that answer them.
QUESTIONS: dict[str, tuple[SearchMode, ...]] = {
    "Which patches are sufficient for the prediction? (insertion)": ("insertion",),
    "Without which patches does the prediction fail? (deletion)": ("deletion",),
    "Both questions, each with its own patches (insertion and deletion)": ("insertion", "deletion"),
    "Which patches are sufficient and necessary at once? (symmetric)": ("symmetric",),
}
# An exact deletion evaluates every patch at every step. Users of an app do not wait that long.
DELETION_SCREEN = "gradient:16"
# Limits of what one user can request of the server: pixels of a photograph, and patches that a search chooses.
MOST_PIXELS = 50_000_000
MOST_STEPS = 64

Prepare: TypeAlias = Callable[[str], object]


@dataclass(frozen=True, kw_only=True)
class ExplainRequest:
    """What a user asks.

    Args:
        photograph (str or None): Path of the uploaded file, or None if there is none.
        model (str): Hub name, folder, or ``"embedded demo"``.
        question (str): Key of ``QUESTIONS``.
        target (str, optional): Class to explain: an index, a name, or an unambiguous part of a name.
            Default: ``""``, the predicted class
        classes (str, optional): Texts of the classes of a zero-shot classifier, one per line.
            Default: ``""``
        min_confidence (float, optional): Confidence that the target must exceed for insertion and symmetric search to
            flip, from 0 to 1.
            Default: 0.5
        minimal (bool, optional): Whether to leave out patches that the flip does not need.
            Default: True
    """

    photograph: str | None
    model: str
    question: str
    target: str = ""
    classes: str = ""
    min_confidence: float = 0.5
    minimal: bool = True


def answer(request: ExplainRequest, models: AppModels, *, prepare: Prepare = lambda _: None) -> Explanation:
    """Explain a photograph as the user asks.

    Each search ends after ``MOST_STEPS`` patches, even if the prediction has not flipped.

    Args:
        request (ExplainRequest): What the user asks.
        models (AppModels): Models that the app offers.
        prepare (Callable, optional): Receives what is done before the search, in words.
            Default: does nothing

    Returns:
        Explanation: As of :func:`captum_moxi.explanation.explain`.

    Raises:
        ValueError: If there is no photograph, if it is not an image or has more than ``MOST_PIXELS`` pixels, or if
            another part of the request is not valid.
    """
    if request.photograph is None:
        raise ValueError("there is no photograph; upload one")
    if request.question not in QUESTIONS:
        raise ValueError(f"question is {request.question!r}; choose one of {'; '.join(QUESTIONS)}")
    if len(request.target) > LONGEST_CLASS:
        raise ValueError(f"the class has {len(request.target)} characters; enter at most {LONGEST_CLASS}")
    path = Path(request.photograph)
    image = open_image(path, name=path.name, max_pixels=MOST_PIXELS)
    prepare("loading the model")
    texts = [line.strip() for line in request.classes.splitlines() if line.strip()]
    classifier = models.get(request.model.strip(), classes=texts)
    return explain(
        classifier,
        image,
        name=path.name,
        target=request.target.strip() or None,
        settings=_settings(request, classifier),
        show_progress=True,
    )


def _settings(request: ExplainRequest, classifier: ImageClassifier) -> ExplainSettings:
    modes = QUESTIONS[request.question]
    return ExplainSettings(
        modes=modes,
        min_confidence=request.min_confidence,
        minimal=request.minimal,
        n_steps=MOST_STEPS,
        screen=DELETION_SCREEN if "deletion" in modes else None,
        grid=demo.GRID if classifier.name == demo.NAME else None,
    )
