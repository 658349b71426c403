from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from captum_moxi import Comparison, Selection, compare, patch_mask
from captum_moxi.methods import Method
from captum_moxi.visualization import (
    explanation_figure,
    flip_step,
    localization_figure,
    patches_alone,
    plot_curves,
    plot_interactions,
    plot_path,
    save_figure,
    show_comparison,
    show_heat_map,
    show_links,
    show_patches,
    show_path,
    show_steps,
)


def selection(mode: str, predictions: list[int], confidences: list[float]) -> Selection:
    steps = len(predictions) - 1
    return Selection(
        mode=mode,
        order=torch.arange(steps)[None],
        rewards=torch.zeros(1, steps + 1),
        confidences=torch.tensor([confidences]),
        predictions=torch.tensor([predictions]),
        shapley=torch.zeros(1, steps),
        interactions=torch.linspace(-1, 1, steps)[None] if steps else torch.zeros(1, 0),
        n_evaluated=torch.zeros(1, steps, dtype=torch.long),
        skipped=torch.full((1, steps), torch.nan),
        n_steps=torch.tensor([steps]),
        flipped=torch.tensor([True]),
    )


@pytest.mark.parametrize(
    ("mode", "predictions", "confidence", "step"),
    [
        ("insertion", [1, 0, 0], 0.0, 1),
        ("insertion", [1, 0, 0], 0.5, 2),
        ("insertion", [0, 0, 0], 0.0, 0),
        ("insertion", [1, 1, 1], 0.0, None),
        ("deletion", [0, 0, 1], 0.0, 2),
        ("deletion", [0, 0, 0], 0.0, None),
    ],
)
def test_the_flip_step(mode: str, predictions: list[int], confidence: float, step: int | None) -> None:
    assert flip_step(selection(mode, predictions, [0.1, 0.4, 0.9]), 0, confidence) == step


def test_the_flip_that_counts_need_not_be_the_modes() -> None:
    found = replace(selection("deletion", [1, 1, 0], [0.1, 0.4, 0.9]), flip="insertion")
    assert flip_step(found, 0) == 2


def test_patches_alone_and_the_rest() -> None:
    image, mask = torch.rand(4, 4, 3), patch_mask(4, 2)[0, 0]
    alone = patches_alone(image, mask, [1])
    assert torch.equal(alone[:2, 2:], image[:2, 2:])
    assert (alone[2:] == 0.5).all()
    assert (alone[:2, :2] == 0.5).all()
    without = patches_alone(image, mask, [1], keep=False)
    assert (without[:2, 2:] == 0.5).all()
    assert torch.equal(without[2:], image[2:])
    assert (patches_alone(image, mask, []) == 0.5).all()


def test_a_figure_has_the_image_and_three_pictures_a_search() -> None:
    image, mask = torch.rand(4, 4, 3), patch_mask(4, 2)[0, 0]
    results = [
        (torch.rand(4, 4), selection("insertion", [1, 1, 0], [0.1, 0.4, 0.9])),
        (torch.zeros(4, 4), selection("deletion", [1], [0.2])),
    ]
    open_figures = plt.get_fignums()
    figure, axes = explanation_figure(image, mask, results, target=0, title="a title")
    figure.canvas.draw()
    assert isinstance(figure, Figure)
    assert len(axes) == 7
    assert figure.get_suptitle() == "a title"
    assert axes[2].get_title() == "2 of 4 alone: target predicted"
    assert axes[5].get_title() == "0 of 4 deleted: target lost"
    assert plt.get_fignums() == open_figures
    # the path shows the confidences themselves, and a bar a step
    assert axes[3].lines[0].get_ydata().tolist() == pytest.approx([0.1, 0.4, 0.9])


def test_a_path_draws_each_step_as_shapley_value_and_interaction() -> None:
    found = replace(
        selection("insertion", [1, 1, 0], [0.1, 0.4, 0.9]),
        rewards=torch.tensor([[-3.0, 0.0, 2.0]]),
        shapley=torch.tensor([[3.0, 1.5]]),
        interactions=torch.tensor([[0.0, 0.5]]),
    )
    figure, ax = plot_path(found, Figure().add_subplot(), flip=2)
    twin = next(other for other in figure.axes if other is not ax)
    assert [bar.get_height() for bar in twin.patches] == [3, 1.5, 0, 0.5]
    assert ax.lines[0].get_ydata().tolist() == pytest.approx([0.1, 0.4, 0.9])
    assert twin.lines[0].get_ydata().tolist() == [-3, 0, 2]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "confidence",
        "reward",
        "Shapley value",
        "interaction",
    ]


def test_a_heat_map_of_nothing_is_the_image() -> None:
    image = torch.rand(4, 4, 3)
    _, ax = show_heat_map(image, torch.zeros(4, 4), Figure().add_subplot())
    assert len(ax.images) == 1
    assert torch.equal(torch.tensor(ax.images[0].get_array()), image)


IMAGE, MASK = torch.rand(4, 4, 3, generator=torch.Generator().manual_seed(0)), patch_mask(4, 2)[0, 0]


def test_steps_are_where_their_patches_are() -> None:
    found = replace(selection("insertion", [1, 1, 0], [0.1, 0.4, 0.9]), order=torch.tensor([[2, 1]]))
    _, ax = show_steps(IMAGE, MASK, found, ax=Figure().add_subplot())
    values = ax.images[1].get_array()
    assert values[2:, :2].tolist() == [[1, 1]] * 2
    assert values[:2, 2:].tolist() == [[2, 2]] * 2
    assert values.mask[:2, :2].all()
    assert values.mask[2:, 2:].all()
    assert len(show_steps(IMAGE, MASK, selection("insertion", [0], [0.9]))[1].images) == 1


def test_patches_are_those_alone() -> None:
    for keep in (True, False):
        _, ax = show_patches(IMAGE, MASK, [1, 2], keep, Figure().add_subplot())
        assert torch.equal(torch.tensor(ax.images[0].get_array()), patches_alone(IMAGE, MASK, [1, 2], keep))


@pytest.mark.parametrize("mode", ["insertion", "deletion"])
def test_a_strip_shows_what_the_model_sees(mode: str) -> None:
    found = replace(selection(mode, [1] * 5, [0.1, 0.2, 0.3, 0.4, 0.5]), order=torch.tensor([[2, 1, 0, 3]]))
    _, ax = show_path(IMAGE, MASK, found, steps=(0, 2, 9), ax=Figure().add_subplot())
    strip = torch.tensor(ax.images[0].get_array())
    for place, group in enumerate(([], [2, 1], [2, 1, 0, 3])):
        part = strip[:, 5 * place : 5 * place + 4]
        assert torch.equal(part, patches_alone(IMAGE, MASK, group, keep=mode == "insertion"))
    assert [text.get_text() for text in ax.texts] == ["0\n0.10", "2\n0.30", "4\n0.50"]


def test_interactions_as_a_matrix_and_as_links() -> None:
    matrix = torch.tensor([[-1.0, 2.0, -0.5], [2.0, -3.0, 0.0], [-0.5, 0.0, 1.0]])
    _, ax = plot_interactions(matrix, [3, 0, 1], Figure().add_subplot(), "pairs")
    assert torch.equal(torch.tensor(ax.images[0].get_array()), matrix.double())
    assert [text.get_text() for text in ax.texts][:3] == ["-1.0", "+2.0", "-0.5"]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["3", "0", "1"]
    _, ax = show_links(IMAGE, MASK, matrix, [3, 0, 1], Figure().add_subplot())
    # from patch 0 to patch 3, solid, and from patch 1 to patch 3, dashed and thinner; none where there is nothing
    links = [line for line in ax.lines if len(line.get_xdata()) == 2]
    assert [(list(line.get_xdata()), list(line.get_ydata())) for line in links] == [
        ([0.5, 2.5], [0.5, 2.5]),
        ([2.5, 2.5], [0.5, 2.5]),
    ]
    assert [line.is_dashed() for line in links] == [False, True]
    assert links[0].get_linewidth() > links[1].get_linewidth()
    for draw in (lambda: plot_interactions(matrix, [1]), lambda: show_links(IMAGE, MASK, matrix, [1])):
        with pytest.raises(ValueError, match=r"matrix has shape \(3, 3\) for 1 players"):
            draw()


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    """Three players of two images, first to last, last to first; class 1 wants them all but for the first's."""
    x = torch.tensor([[1.0, 1, 1], [0, 1, 2]])

    def model(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.full((len(x),), 1.5), x.sum(1)], 1)

    methods = [
        Method("up", lambda game, mode, n_steps, stop: torch.tensor([[0, 1, 2]] * 2)),
        Method("down", lambda game, mode, n_steps, stop: torch.tensor([[2, 1, 0]] * 2)),
        Method("none", lambda game, mode, n_steps, stop: torch.tensor([[0, 1, 2], [0, 2, 1]])),
    ]
    return compare(model, x, 1, methods=methods, fractions=[0, 1 / 3, 2 / 3])


def test_curves_are_means_over_examples(comparison: Comparison) -> None:
    figure, axes = plot_curves(comparison, "correct")
    insertion, deletion = axes
    assert [text.get_text() for text in deletion.get_legend().get_texts()] == ["up", "down", "none"]
    assert [line.get_ydata().tolist() for line in insertion.lines] == [[0, 0, 0.5], [0, 0.5, 1], [0, 0, 1]]
    # of 1 1 1, one may go; of 0 1 2, what is left must hold the 2
    assert [line.get_ydata().tolist() for line in deletion.lines] == [[1, 1, 0.5], [1, 0.5, 0], [1, 1, 0]]
    assert len({(line.get_color(), str(line.get_linestyle())) for line in insertion.lines}) == 3
    plt.close(figure)
    one = Figure().subplots(1, 2)
    assert plot_curves(comparison, ax=one)[1].tolist() == one.tolist()
    with pytest.raises(ValueError, match="of is 'areas'"):
        plot_curves(comparison, "areas")
    with pytest.raises(ValueError, match="ax has 1 axes for 2 modes"):
        plot_curves(comparison, ax=[one[0]])


def test_a_gallery_counts_the_patches_that_flip(comparison: Comparison) -> None:
    images, masks = torch.rand(2, 1, 3, 3), torch.tensor([[[0, 1, 2]]])
    figure, axes = show_comparison(images, masks, comparison, "insertion")
    assert axes.shape == (2, 4)
    assert [[ax.texts[0].get_text() for ax in row[1:]] for row in axes] == [["2", "2", "2"], ["> 2", "1", "2"]]
    shown = torch.tensor(axes[1, 2].images[0].get_array())
    assert torch.equal(shown[:, 2], images[1][:, 2])
    assert not torch.equal(shown[:, 1], images[1][:, 1])
    plt.close(figure)
    _, axes = show_comparison(images, masks, comparison, "deletion", ax=Figure().subplots(2, 4))
    assert [[ax.texts[0].get_text() for ax in row[1:]] for row in axes] == [["2", "2", "2"], ["> 2", "1", "2"]]
    with pytest.raises(ValueError, match="ax has shape"):
        show_comparison(images, masks, comparison, ax=Figure().subplots(2, 2))


def test_a_localization_counts_what_had_to_go_and_what_a_class_rests_on() -> None:
    none, one = selection("deletion", [0], [0.4]), selection("deletion", [0, 1], [0.4, 0.1])
    never = replace(selection("deletion", [0, 0, 0], [0.4, 0.1, 0.1]), flipped=torch.tensor([False]))
    heat = torch.rand(4, 4)
    results = [("cat", heat, (none, one)), ("dog", heat, (one, never)), ("cow", 0 * heat, (never, none))]
    _, axes = localization_figure(IMAGE, MASK, results)
    assert [ax.get_title() for ax in axes] == [
        "image",
        *("the image as it is", "cat: 1 patch"),
        *("without 1 patch\nthat speaks against dog", "dog: 2 patches, not lost"),
        *("without 2 patches", "cow: never predicted"),
    ]
    shown = torch.tensor(axes[3].images[0].get_array())
    assert torch.equal(shown[MASK != 0], IMAGE[MASK != 0]) and (shown[MASK == 0] == 0.5).all()


def test_figures_of_their_own_and_on_disk(tmp_path: Path) -> None:
    found = selection("insertion", [1, 1, 0], [0.1, 0.4, 0.9])
    for draw in (
        lambda: show_heat_map(IMAGE, torch.rand(4, 4)),
        lambda: show_steps(IMAGE, MASK, found),
        lambda: show_patches(IMAGE, MASK, [0]),
        lambda: show_path(IMAGE, MASK, found),
        lambda: plot_path(found),
        lambda: plot_interactions(torch.eye(2), [0, 1]),
        lambda: show_links(IMAGE, MASK, torch.ones(2, 2), [0, 1]),
    ):
        figure, ax = draw()
        assert ax in figure.axes
        for suffix in ("png", "pdf"):
            save_figure(figure, tmp_path / f"picture.{suffix}")
        with Image.open(tmp_path / "picture.png") as picture:
            assert picture.info["dpi"][0] == pytest.approx(300, abs=1)
        assert b"/Type3" not in (tmp_path / "picture.pdf").read_bytes()
        plt.close(figure)
