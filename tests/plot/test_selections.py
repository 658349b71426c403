"""Plots of a selection: its flip, its steps, and its path as a strip and as curves."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from selections import make_selection, make_symmetric
from torch import Tensor

from captum_moxi import Selection
from captum_moxi.arguments import Mode
from captum_moxi.plot import faded, flip_step, patches_alone, plot_path, show_path, show_steps


@pytest.mark.parametrize(
    ("mode", "predictions", "min_confidence", "step"),
    [
        ("insertion", [1, 0, 0], 0.0, 1),
        ("insertion", [1, 0, 0], 0.5, 2),
        ("insertion", [0, 0, 0], 0.0, 0),
        ("insertion", [1, 1, 1], 0.0, None),
        ("deletion", [0, 0, 1], 0.0, 2),
        ("deletion", [0, 0, 0], 0.0, None),
    ],
)
def test_flip_step_is_the_first_step_with_a_flipped_prediction(
    mode: Mode, predictions: list[int], min_confidence: float, step: int | None
) -> None:
    selection = make_selection(mode, predictions, [0.1, 0.4, 0.9])
    assert flip_step(selection, 0, min_confidence=min_confidence) == step


def test_the_flip_of_a_selection_takes_precedence_over_its_mode() -> None:
    selection = replace(make_selection("deletion", [1, 1, 0], [0.1, 0.4, 0.9]), flip="insertion")
    assert flip_step(selection, 0) == 2


def test_show_steps_colors_each_patch_by_its_step(image: Tensor, mask: Tensor) -> None:
    selection = replace(make_selection("insertion", [1, 1, 0], [0.1, 0.4, 0.9]), order=torch.tensor([[2, 1]]))
    _, ax = show_steps(image, mask, selection, ax=Figure().add_subplot())
    steps = ax.images[1].get_array()
    assert steps[2:, :2].tolist() == [[1, 1]] * 2
    assert steps[:2, 2:].tolist() == [[2, 2]] * 2
    assert steps.mask[:2, :2].all()
    assert steps.mask[2:, 2:].all()
    assert [(text.get_text(), text.xy) for text in ax.texts] == [("1", (-0.5, 1.5)), ("2", (1.5, -0.5))]
    # The chosen patches keep their colors.
    assert torch.equal(torch.tensor(ax.images[0].get_array())[2:, :2], image[2:, :2])


def test_show_steps_of_many_patches_has_a_colorbar_instead_of_numbers() -> None:
    mask = torch.arange(49).view(7, 7)
    figure = Figure()
    selection = make_selection("deletion", [0] * 50, [0.5] * 50)
    _, ax = show_steps(torch.rand(7, 7, 3), mask, selection, cmap="magma", alpha=0.4, ax=figure.add_subplot())
    assert not ax.texts
    assert [other.get_ylabel() for other in figure.axes[1:]] == ["step"]
    assert ax.images[1].get_alpha() == 0.4


def test_show_steps_of_an_empty_selection_draws_the_image_alone(image: Tensor, mask: Tensor) -> None:
    _, ax = show_steps(image, mask, make_selection("insertion", [0], [0.9]), ax=Figure().add_subplot())
    assert len(ax.images) == 1


@pytest.mark.parametrize("mode", ["insertion", "deletion"])
def test_show_path_draws_the_image_at_the_given_steps_and_the_last(image: Tensor, mask: Tensor, mode: Mode) -> None:
    selection = make_selection(mode, [1] * 5, [0.1, 0.2, 0.3, 0.4, 0.5])
    selection = replace(selection, order=torch.tensor([[2, 1, 0, 3]]))
    _, ax = show_path(image, mask, selection, steps=(0, 2, 9), ax=Figure().add_subplot())
    strip = torch.tensor(ax.images[0].get_array())
    for index, players in enumerate(([], [2, 1], [2, 1, 0, 3])):
        part = strip[:, 5 * index : 5 * index + 4]
        assert torch.equal(part, patches_alone(image, mask, players, keep=mode == "insertion"))
    assert [text.get_text() for text in ax.texts] == ["0 patches\n0.10", "2\n0.30", "4\n0.50"]


def test_show_path_without_a_target_shows_no_confidence(image: Tensor, mask: Tensor) -> None:
    selection = make_selection("insertion", [1, 1], [torch.nan, torch.nan])
    _, ax = show_path(image, mask, selection, steps=(0,), ax=Figure().add_subplot())
    assert [text.get_text() for text in ax.texts] == ["0 patches", "1"]


def test_plot_path_splits_each_gain_into_shapley_value_and_interaction() -> None:
    selection = replace(
        make_selection("insertion", [1, 1, 0], [0.1, 0.4, 0.9]),
        rewards=torch.tensor([[-3.0, 0.0, 2.0]]),
        shapley=torch.tensor([[3.0, 1.5]]),
        interactions=torch.tensor([[0.0, 0.5]]),
    )
    _, (confidence, gains) = plot_path(selection, flip=2, target_name="cat", axes=Figure().subplots(2))
    assert [bar.get_height() for bar in gains.patches] == [3, 1.5, 0, 0.5]
    assert confidence.lines[0].get_ydata().tolist() == pytest.approx([0.1, 0.4, 0.9])
    assert [text.get_text() for text in gains.get_legend().get_texts()] == ["self-context Shapley value", "interaction"]
    assert confidence.get_ylabel().replace("\n", " ") == "confidence in cat"
    _, (confidence, gains) = plot_path(replace(selection, mode="deletion"), axes=Figure().subplots(2))
    assert gains.get_legend().get_texts()[0].get_text() == "full-context Shapley value"
    assert confidence.get_ylabel() == "confidence"


def test_plot_path_marks_what_audited_steps_may_have_missed() -> None:
    selection = make_selection("insertion", [1, 1, 1, 0], [0.1, 0.4, 0.6, 0.9])
    audited = replace(selection, missed=torch.tensor([[1.5, torch.nan, 0.25]]))
    figure, (_, gains) = plot_path(audited)
    assert [line.tolist() for line in gains.collections[-1].get_segments()] == [
        [[0.6, 1.5], [1.4, 1.5]],
        [[2.6, 0.25], [3.4, 0.25]],
    ]
    texts = [text.get_text() for text in gains.get_legend().get_texts()]
    assert sorted(texts) == [
        "interaction",
        "self-context Shapley value",
        "upper bound of skipped gains (95 %)",
    ]
    described = " ".join(text.get_text().replace("\n", " ") for text in figure.texts)
    assert "no patch that the step skipped would have had a larger gain (confidence 95 %)" in described
    figure, (_, gains) = plot_path(selection)
    assert len(gains.get_legend().get_texts()) == 2
    assert "skipped" not in " ".join(text.get_text() for text in figure.texts)


@pytest.mark.parametrize("flip", [0, 2])
def test_plot_path_marks_the_flip(flip: int) -> None:
    selection = make_selection("insertion", [1, 1, 1, 0], [0.1, 0.4, 0.6, 0.9])
    _, (confidence, _) = plot_path(selection, flip=flip, axes=Figure().subplots(2))
    assert list(confidence.lines[1].get_xdata()) == [flip, flip]
    assert [(text.get_text(), text.get_position()[0]) for text in confidence.texts] == [("flip", flip)]


def test_plot_path_needs_two_axes() -> None:
    with pytest.raises(ValueError, match=r"axes has shape \(1,\); pass two axes"):
        plot_path(make_selection("insertion", [1, 0], [0.1, 0.9]), axes=[Figure().add_subplot()])


def minimal_selection() -> Selection:
    """A minimal selection of the players 0 and 1, from which player 3 was left out."""
    selection = make_selection("insertion", [1, 1, 0], [0.1, 0.4, 0.9])
    return replace(selection, minimal=torch.tensor([True]), left_out=torch.tensor([[3, -1]]))


def test_players_that_were_left_out_have_a_dashed_outline(image: Tensor, mask: Tensor) -> None:
    _, ax = show_steps(image, mask, minimal_selection(), ax=Figure().add_subplot())
    dashed, solid = ax.collections
    assert dashed.get_linestyles()[0][1] is not None and solid.get_linestyles()[0][1] is None
    corners = [point for line in dashed.get_segments() for point in line.tolist()]
    # Player 3 covers the lower right quarter.
    assert {tuple(point) for point in corners} == {(x, y) for x in (1.5, 3.5) for y in (1.5, 3.5)}
    pixels = torch.tensor(np.asarray(ax.images[0].get_array()))
    assert torch.equal(pixels[2:, 2:], faded(image)[2:, 2:])


def test_a_new_figure_of_a_minimal_group_explains_the_outlines(image: Tensor, mask: Tensor) -> None:
    figure, _ = show_steps(image, mask, minimal_selection())
    plt.close(figure)
    reading = figure.get_supxlabel().replace("\n", " ")
    assert "Minimal: without any one of these patches" in reading and "Dashed outline" in reading
    figure, _ = show_steps(image, mask, make_selection("insertion", [1, 1, 0], [0.1, 0.4, 0.9]))
    plt.close(figure)
    assert "Minimal" not in figure.get_supxlabel() and "Dashed" not in figure.get_supxlabel()


def test_a_symmetric_flip_needs_both_paths() -> None:
    selection = make_symmetric([1, 0, 0, 0], [0.1, 0.5, 0.6, 0.9], [0, 0, 1, 1], [0.9, 0.8, 0.3, 0.1])
    assert flip_step(selection, 0) == 2
    assert flip_step(selection, 0, min_confidence=0.7) == 3
    assert flip_step(selection, 0, min_confidence=0.95) is None


def test_show_path_of_a_symmetric_selection_has_the_others_below(image: Tensor, mask: Tensor) -> None:
    selection = make_symmetric([1, 0, 0], [0.1, 0.4, 0.9], [0, 0, 1], [0.8, 0.7, 0.2])
    figure, ax = show_path(image, mask, selection, steps=[1, 2])
    strip = torch.tensor(ax.images[0].get_array())
    height, width = mask.shape
    for step, left in ((1, 0), (2, width + 1)):
        players = list(range(step))
        top, bottom = strip[:height, left : left + width], strip[-height:, left : left + width]
        assert torch.equal(top, patches_alone(image, mask, players))
        assert torch.equal(bottom, patches_alone(image, mask, players, keep=False))
    assert [text.get_text() for text in ax.texts] == ["1 patch\n0.40", "2\n0.90", "1 patch\n0.70", "2\n0.20"]
    assert figure.get_suptitle().replace("\n", " ") == "What the model sees during symmetric search"


def test_plot_path_of_a_symmetric_selection_has_two_lines() -> None:
    selection = make_symmetric([1, 0, 0], [0.1, 0.4, 0.9], [0, 0, 1], [0.8, 0.7, 0.2])
    figure, (confidences, gains) = plot_path(selection, flip=2)
    lines = {line.get_label(): line.get_ydata().tolist() for line in confidences.lines[:2]}
    assert lines["only the chosen patches"] == pytest.approx([0.1, 0.4, 0.9])
    assert lines["without the chosen patches"] == pytest.approx([0.8, 0.7, 0.2])
    assert [text.get_text() for text in confidences.get_legend().get_texts()] == list(lines)
    assert gains.get_xlabel() == "patches chosen"
    assert "rise plus fall" in gains.get_ylabel()
    plt.close(figure)
