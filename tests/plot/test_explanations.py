"""The figure of one explanation."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, product

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from selections import make_selection, make_symmetric
from torch import Tensor

from captum_moxi.plot import explanation_figure


def test_an_explanation_has_the_image_and_four_plots_per_search(image: Tensor, mask: Tensor) -> None:
    selections = [
        make_selection("insertion", [1, 1, 0], [0.1, 0.4, 0.9]),
        make_selection("deletion", [0, 1], [0.6, 0.2]),
    ]
    open_figures = plt.get_fignums()
    figure, axes = explanation_figure(image, mask, selections, target=0, title="a title", image_title="cat 0.9")
    figure.canvas.draw()
    assert len(axes) == 9 and not set(axes) - set(figure.axes)
    assert figure.get_suptitle() == "a title"
    assert "gray patches are absent" in figure.get_supxlabel().replace("\n", " ")
    assert axes[0].get_title() == "cat 0.9"
    assert [axes[index].get_title() for index in (1, 2)] == [
        "insertion: 2 of 4 patches",
        "2 patches (gray patches are absent):\ntarget predicted",
    ]
    assert axes[6].get_title() == "without 1 patch:\ntarget lost"
    assert axes[3].get_ylabel().replace("\n", " ") == "confidence in the target"
    assert axes[3].lines[0].get_ydata().tolist() == pytest.approx([0.1, 0.4, 0.9])
    assert plt.get_fignums() == open_figures


def test_an_explanation_shows_what_the_model_sees_at_the_flip(image: Tensor, mask: Tensor) -> None:
    selection = make_selection("deletion", [0, 1, 1], [0.9, 0.4, 0.1])
    present: list[list[int]] = []

    def draw(players: Sequence[int]) -> Tensor:
        present.append(list(players))
        return 1 - image

    figure, axes = explanation_figure(
        image, mask, [selection], target=0, outcomes=["cat 0.90 → dog 0.50"], draw=draw, note="the rest is inverted"
    )
    # The prediction flips after player 0 is deleted, although the search goes on.
    assert present == [[1, 2, 3]]
    assert torch.equal(torch.tensor(axes[2].images[0].get_array()), 1 - image)
    assert axes[2].get_title() == "without 1 patch:\ncat 0.90 → dog 0.50"
    assert "the rest is inverted" in figure.get_supxlabel().replace("\n", " ")


def test_an_explanation_says_that_the_prediction_does_not_flip(image: Tensor, mask: Tensor) -> None:
    selection = make_selection("insertion", [1, 1, 0], [0.1, 0.4, 0.9])
    _, axes = explanation_figure(image, mask, [selection], target=0, min_confidence=0.95)
    assert axes[2].get_title() == "2 patches (gray patches are absent):\nnot flipped"


def test_a_search_without_steps_is_a_sentence(image: Tensor, mask: Tensor) -> None:
    selections = [make_selection("insertion", [1, 0], [0.1, 0.4]), make_selection("deletion", [1], [0.2])]
    _, axes = explanation_figure(image, mask, selections, target=0, outcomes=["cat 0.40", "there is nothing to delete"])
    assert len(axes) == 6 and not axes[5].images
    assert axes[5].texts[0].get_text() == "deletion: there is nothing to delete"
    figure, axes = explanation_figure(image, mask, selections[1:], target=0)
    assert axes[1].texts[0].get_text() == "deletion: the prediction is flipped before the first step"
    assert figure.get_figheight() > 3


def test_steps_that_lower_the_reward_are_explained_only_if_there_are_some(image: Tensor, mask: Tensor) -> None:
    selection = make_selection("insertion", [1, 1, 0], [0.1, 0.4, 0.9])
    for rewards, explained in (([-3.0, -1.0, 2.0], False), ([-3.0, -4.0, 2.0], True)):
        figure, _ = explanation_figure(image, mask, [replace(selection, rewards=torch.tensor([rewards]))], target=0)
        assert ("did least harm" in figure.get_supxlabel().replace("\n", " ")) == explained


@pytest.mark.parametrize("outcome", ["bald eagle 0.92 → sulphur-crested cockatoo 0.24", "a " * 60 + "0.92"])
def test_long_names_do_not_overlap_the_neighbors(image: Tensor, mask: Tensor, outcome: str) -> None:
    selections = [make_selection(mode, [1, 1, 0], [0.1, 0.4, 0.9]) for mode in ("insertion", "deletion")]
    figure, axes = explanation_figure(
        image,
        mask,
        selections,
        target=0,
        image_title=f"whole image: {outcome}",
        target_name="sulphur-crested cockatoo and relatives",
        outcomes=[outcome, outcome],
    )
    FigureCanvasAgg(figure).draw()
    titles = [ax.title.get_window_extent() for ax in axes if ax.get_title()]
    labels = [
        label.get_window_extent() for ax in axes for label in (ax.yaxis.label, ax.xaxis.label) if label.get_text()
    ]
    assert not [(a, b) for a, b in combinations(titles + labels, 2) if a.overlaps(b)]
    pictures = [ax.get_window_extent() for ax in axes]
    assert not [(a, b) for a, b in product(titles, pictures) if a.overlaps(b)]


def test_minimal_groups_are_named_and_explained(image: Tensor, mask: Tensor) -> None:
    whole = make_selection("insertion", [1, 1, 0], [0.1, 0.4, 0.9])
    minimal = replace(whole, minimal=torch.tensor([True]))
    smaller = replace(minimal, left_out=torch.tensor([[3]]))
    for selection, title, words in (
        (whole, "insertion: 2 of 4 patches", ()),
        (minimal, "insertion: 2 of 4 patches\nminimal (no patch can be left out)", ("Minimal:",)),
        (smaller, "insertion: 2 of 4 patches\nminimal (1 left out)", ("Minimal:", "Dashed outline:")),
    ):
        figure, axes = explanation_figure(image, mask, [selection], target=0)
        assert axes[1].get_title() == title
        assert [word for word in ("Minimal:", "Dashed outline:") if word in figure.get_supxlabel()] == list(words)


def test_a_symmetric_search_shows_the_group_alone_and_the_image_without_it(image: Tensor, mask: Tensor) -> None:
    selection = make_symmetric([1, 0, 0], [0.1, 0.4, 0.9], [0, 1, 1], [0.8, 0.3, 0.2])
    present: list[list[int]] = []

    def draw(players: Sequence[int]) -> Tensor:
        present.append(list(players))
        return image

    figure, axes = explanation_figure(image, mask, [selection], target=0, draw=draw, min_confidence=0.5)
    assert len(axes) == 6
    assert present == [[0, 1], [2, 3]]
    assert axes[1].get_title() == "symmetric: 2 of 4 patches"
    assert axes[2].get_title() == "2 patches (gray patches are absent):\ntarget predicted"
    assert axes[3].get_title() == "without 2 patches:\ntarget lost"
    assert "probability of the target" in figure.get_supxlabel().replace("\n", " ")
    outcomes = [["cat 0.40", "cat 0.80 → dog 0.70"]]
    _, axes = explanation_figure(image, mask, [selection], target=0, outcomes=outcomes)
    assert axes[2].get_title() == "1 patch (gray patches are absent):\ncat 0.40"
    assert axes[3].get_title() == "without 1 patch:\ncat 0.80 → dog 0.70"
