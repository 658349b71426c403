"""The sizes of groups in the table against those that the Captum classes return."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from captum_moxi import GradientScreen, MoXIDeletion, MoXIInsertion
from captum_moxi.arguments import Mode
from captum_moxi.benchmarks import Bench
from captum_moxi.benchmarks.groups import SEARCHES, compare_groups
from captum_moxi.demo import demo_images
from captum_moxi.search import swapped_selection

ParseTable = Callable[[str], dict[str, list[str]]]


@pytest.mark.parametrize("mode", ["insertion", "deletion"])
def test_sizes_are_those_of_the_captum_classes(mode: Mode, bench: Bench, parse_table: ParseTable) -> None:
    # With its own 16 patches, the embedded model needs groups of several players.
    bench = replace(bench, grid=None)
    columns = parse_table(compare_groups(bench))
    classifier, (_, image) = bench.classifiers[0], bench.images[0]
    x = classifier.preprocess([image])
    y = int(classifier.model(x).logits.argmax())
    for search in SEARCHES:
        moxi = (
            MoXIInsertion(classifier.model, beam_width=search.beam_width)
            if mode == "insertion"
            else MoXIDeletion(classifier.model, beam_width=search.beam_width, screen=GradientScreen(8))
        )
        minimal = search.refine is not None
        _, selection = moxi.attribute(x, target=y, stop="flip", minimal=minimal, return_selection=True)
        (row,) = (
            row
            for row, cells in enumerate(zip(columns["mode"], columns["search"], strict=True))
            if cells == (mode, search.title)
        )
        n_players = int(selection.n_steps[0])
        assert columns["flipped"][row] == "1 of 1"
        if search.refine is swapped_selection:
            # The Captum classes do not swap players.
            assert float(columns["players to flip, mean"][row]) <= n_players
            continue
        assert [float(columns[title][row]) for title in ("players to flip, mean", "median", "largest")] == [
            n_players
        ] * 3
        assert columns["smaller groups"][row] == f"{int(bool(selection.left_out.numel()))} of 1"


def test_a_limited_search_counts_its_steps(bench: Bench, parse_table: ParseTable) -> None:
    images = [(image.name, image.image) for image in demo_images()[:1]]
    columns = parse_table(compare_groups(replace(bench, grid=None, images=images, most_steps=1)))
    insertion = [row for row, mode in enumerate(columns["mode"]) if mode == "insertion"]
    # One patch of 16 cannot show four digits.
    assert {columns["flipped"][row] for row in insertion} == {"0 of 1"}
    assert {columns["players to flip, mean"][row] for row in insertion} == {"1"}


def test_searches_can_be_selected(bench: Bench, parse_table: ParseTable) -> None:
    columns = parse_table(compare_groups(replace(bench, searches=["beam of 4", "greedy, minimal"])))
    assert list(zip(columns["mode"], columns["search"], strict=True)) == [
        ("insertion", "greedy, minimal"),
        ("insertion", "beam of 4"),
        ("deletion", "greedy, minimal"),
        ("deletion", "beam of 4"),
    ]


def test_an_unknown_search_is_rejected(bench: Bench) -> None:
    with pytest.raises(ValueError, match=r"search gradient:8 is unknown; pass one of beam of 4; beam of 4, minimal; "):
        compare_groups(replace(bench, searches=["gradient:8"]))
