"""The figure of a localization."""

from dataclasses import replace
from itertools import combinations

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from selections import make_selection
from torch import Tensor

from captum_moxi.plot import localization_figure


def test_a_localization_counts_the_patches_that_hide_and_support_each_class(image: Tensor, mask: Tensor) -> None:
    empty = make_selection("deletion", [0], [0.4])
    single = make_selection("deletion", [0, 1], [0.4, 0.1])
    unflipped = replace(make_selection("deletion", [0, 0, 0], [0.4, 0.1, 0.1]), flipped=torch.tensor([False]))
    heat = torch.rand(4, 4)
    results = [
        ("cat", heat, (empty, single)),
        ("dog", heat, (single, unflipped)),
        ("cow", 0 * heat, (unflipped, empty)),
    ]
    figure, axes = localization_figure(image, mask, results)
    assert [ax.get_title() for ax in axes] == [
        "image",
        *("cat is predicted\non the whole image", "cat:\nlost without this patch"),
        *("dog is predicted\nwithout 1 patch", "dog:\nnot lost without these 2 patches"),
        *("cow is not predicted\nwithout 2 patches", "cow:\nnot located"),
    ]
    reading = figure.get_supxlabel().replace("\n", " ")
    assert "gray patches are absent" in reading
    # The patches need not be where the object is.
    assert "The prediction of the class depends on these patches" in reading and "where the class is" not in reading
    without = torch.tensor(axes[3].images[0].get_array())
    assert torch.equal(without[mask != 0], image[mask != 0])
    assert (without[mask == 0] == 0.5).all()


def test_titles_do_not_overlap(image: Tensor, mask: Tensor) -> None:
    hidden = make_selection("deletion", [0, 1], [0.4, 0.1])
    results = [(name, torch.rand(4, 4), (hidden, hidden)) for name in ("Egyptian cat", "tiger cat")]
    figure, axes = localization_figure(image, mask, results, title="Where each class is in a photograph")
    FigureCanvasAgg(figure).draw()
    boxes = [text.get_window_extent() for text in figure.texts + [ax.title for ax in axes]]
    assert not [(a, b) for a, b in combinations(boxes, 2) if a.overlaps(b)]


def test_a_localization_shows_what_the_model_sees(image: Tensor, mask: Tensor) -> None:
    single = make_selection("deletion", [0, 1], [0.4, 0.1])
    seen: dict[tuple[int, ...], Tensor] = {(1, 2, 3): torch.rand(4, 4, 3)}
    _, axes = localization_figure(
        image, mask, [("cat", torch.rand(4, 4), (single, single))], draw=lambda players: seen[tuple(players)]
    )
    assert torch.equal(torch.tensor(axes[1].images[0].get_array()), seen[1, 2, 3])


def test_players_that_were_left_out_of_a_deletion_have_a_dashed_outline(image: Tensor, mask: Tensor) -> None:
    deletion = make_selection("deletion", [1, 0], [0.2, 0.6])
    smaller = replace(deletion, minimal=torch.tensor([True]), left_out=torch.tensor([[2]]))
    figure, axes = localization_figure(image, mask, [("cat", torch.rand(4, 4), (smaller, smaller))])
    for ax in axes[1:]:
        assert any(lines.get_linestyles()[0][1] is not None for lines in ax.collections if len(lines.get_segments()))
    assert "Dashed outline" in figure.get_supxlabel().replace("\n", " ")
    figure, axes = localization_figure(image, mask, [("cat", torch.rand(4, 4), (deletion, deletion))])
    assert "Dashed outline" not in figure.get_supxlabel().replace("\n", " ")
