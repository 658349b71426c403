"""Explanations of single images by a Hugging Face classifier.

Each function takes a classifier and an image. It returns an object that converts itself to a dictionary, a figure or an
HTML page, and that saves itself. The command line is a thin layer over these functions.
"""

from captum_moxi.explanation.comparisons import (
    COMPARISON_FIGURES,
    CompareSettings,
    ComparisonReport,
    ImageComparison,
    compare_image,
)
from captum_moxi.explanation.explanations import (
    EXPLANATION_FIGURES,
    Change,
    ExplainSettings,
    Explanation,
    Prediction,
    SearchResult,
    explain,
)
from captum_moxi.explanation.images import PreparedImage, prepare_image
from captum_moxi.explanation.localizations import (
    LOCALIZATION_FIGURES,
    Localization,
    LocalizedClass,
    LocalizeSettings,
    localize,
)

__all__ = [
    "COMPARISON_FIGURES",
    "EXPLANATION_FIGURES",
    "LOCALIZATION_FIGURES",
    "Change",
    "CompareSettings",
    "ComparisonReport",
    "ExplainSettings",
    "Explanation",
    "ImageComparison",
    "Localization",
    "LocalizeSettings",
    "LocalizedClass",
    "Prediction",
    "PreparedImage",
    "SearchResult",
    "compare_image",
    "explain",
    "localize",
    "prepare_image",
]
