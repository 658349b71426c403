import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.figure import Figure

from captum_moxi import Selection, patch_mask
from captum_moxi.visualization import explanation_figure, flip_step, patches_alone, plot_path, show_heat_map


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


def test_a_path_draws_the_interactions_as_bars() -> None:
    ax = Figure().add_subplot()
    plot_path(selection("insertion", [1, 1, 0], [0.1, 0.4, 0.9]), ax, flip=2)
    twin = next(other for other in ax.figure.axes if other is not ax)
    assert [bar.get_height() for bar in twin.patches] == [-1.0, 1.0]


def test_a_heat_map_of_nothing_is_the_image() -> None:
    image = torch.rand(4, 4, 3)
    ax = show_heat_map(image, torch.zeros(4, 4), Figure().add_subplot())
    assert len(ax.images) == 1
    assert torch.equal(torch.tensor(ax.images[0].get_array()), image)
