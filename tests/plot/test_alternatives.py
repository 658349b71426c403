"""The figure of alternative groups."""

from dataclasses import replace

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from selections import make_selection
from torch import Tensor

from captum_moxi import Selection
from captum_moxi.arguments import Mode
from captum_moxi.plot import alternatives_figure


def group(mode: Mode, players: list[int]) -> Selection:
    selection = make_selection(mode, [0] * (len(players) + 1), [0.5] * (len(players) + 1))
    return replace(selection, order=torch.tensor([players]), minimal=torch.tensor([True]))


def test_each_group_has_a_panel(image: Tensor, mask: Tensor) -> None:
    groups = {"insertion": [group("insertion", [0]), group("insertion", [1, 2])], "deletion": [group("deletion", [3])]}
    outcomes = {"insertion": ["cat 0.40", "cat 0.30"], "deletion": ["dog 0.50"]}
    open_figures = plt.get_fignums()
    figure, axes = alternatives_figure(image, mask, groups, outcomes=outcomes, title="a title", image_title="cat 0.9")
    assert [ax.get_title() for ax in axes] == [
        "cat 0.9",
        "insertion 1: 1 patch\ncat 0.40",
        "insertion 2: 2 patches\ncat 0.30",
        "deletion 1: 1 patch\ndog 0.50",
    ]
    # The players of a group, and only they, are in color.
    for ax, players in zip(axes[1:], ([0], [1, 2], [3]), strict=True):
        pixels = torch.tensor(ax.images[0].get_array())
        in_color = (pixels == image).all(2)
        assert torch.equal(in_color, torch.isin(mask, torch.tensor(players)))
    reading = figure.get_supxlabel().replace("\n", " ")
    assert "each group alone" in reading and "without any one of the groups" in reading
    assert figure.get_suptitle() == "a title"
    assert plt.get_fignums() == open_figures


def test_a_mode_without_groups_is_a_sentence(image: Tensor, mask: Tensor) -> None:
    _, axes = alternatives_figure(image, mask, {"insertion": [], "deletion": [group("deletion", [3])]})
    assert [text.get_text() for text in axes[1].texts] == ["insertion: no group flips the prediction"]
    reasons = {"deletion": "nothing to delete"}
    figure, axes = alternatives_figure(image, mask, {"deletion": []}, reasons=reasons)
    assert [text.get_text() for text in axes[1].texts] == ["deletion: nothing to delete"]
    assert "Insertion" not in figure.get_supxlabel() and "Deletion" not in figure.get_supxlabel()


@pytest.mark.parametrize("count", [2, 6])
def test_many_groups_fill_several_rows_without_overlaps(image: Tensor, mask: Tensor, count: int) -> None:
    figure, axes = alternatives_figure(
        image,
        mask,
        {"insertion": [group("insertion", [0, 1])] * count},
        outcomes={"insertion": ["a class with quite a long name 0.25"] * count},
    )
    assert len(axes) == 1 + count
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes = [ax.get_tightbbox(canvas.get_renderer()) for ax in axes]
    for index, box in enumerate(boxes):
        assert not any(box.shrunk(0.99, 0.99).overlaps(other.shrunk(0.99, 0.99)) for other in boxes[:index])
