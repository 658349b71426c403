"""Screened searches against the exact search, and screens that are registered from outside."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from captum_moxi.benchmarks import Bench
from captum_moxi.benchmarks.screens import EXACT, Search, compare_screens, mean_confidence, searches
from captum_moxi.search.screens import SCREENS, Screen, SearchStep

ParseTable = Callable[[str], dict[str, list[str]]]


class FirstScreen(Screen):
    """Evaluates the candidates with the lowest ids."""

    estimates_gains = False

    def __init__(self, m: int = 4) -> None:
        super().__init__(m)

    def estimate(self, step: SearchStep) -> tuple[Tensor, Tensor]:
        priorities = -torch.arange(step.candidates.shape[1]).expand(step.candidates.shape).double()
        return priorities, priorities


@pytest.fixture
def first_screen() -> Iterator[str]:
    SCREENS.register("first", FirstScreen, argument="M", help="M candidates with the lowest ids")
    yield "first"
    SCREENS.unregister("first")


def test_the_exact_search_is_the_reference(bench: Bench, parse_table: ParseTable) -> None:
    columns = parse_table(compare_screens(bench))
    exact = [i for i, title in enumerate(columns["search"]) if title == EXACT.title]
    assert [columns["mode"][i] for i in exact] == ["deletion", "insertion"]
    assert all(columns["against exact"][i] == "+0.0%" and float(columns["times fewer"][i]) == 1 for i in exact)
    # Screens of four and more candidates skip none of four players.
    unscreened = [i for i, title in enumerate(columns["search"]) if "beam" not in title]
    assert all(columns["against exact"][i] == "+0.0%" for i in unscreened)


def test_every_registered_screen_is_measured(first_screen: str, bench: Bench, parse_table: ParseTable) -> None:
    titles = {search.title.partition(":")[0] for mode in ("insertion", "deletion") for search in searches(mode)}
    # BothEndsScreen is meant for symmetric search only.
    assert set(SCREENS) - {"all", "both-ends"} <= titles
    columns = parse_table(compare_screens(replace(bench, searches=[first_screen])))
    assert list(zip(columns["mode"], columns["search"], strict=True)) == [
        ("deletion", "exact"),
        ("deletion", "first"),
        ("insertion", "exact"),
        ("insertion", "first"),
    ]


def test_half_precision_is_compared_with_the_exact_search(bench: Bench, parse_table: ParseTable) -> None:
    text = compare_screens(replace(bench, searches=["half-precision"]))
    columns = parse_table(text)
    assert columns["search"] == ["exact", "half-precision"] * 2
    count = len(bench.images)
    assert columns["same order"] == [f"{count} of {count}"] * 4
    assert text.endswith("promise the exact selection chose another player:\nnone")


def test_a_step_that_differs_from_the_exact_search_is_listed(
    first_screen: str, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The players with the lowest ids are not the best ones.
    promise = Search("first:1", promises_exact=True)
    monkeypatch.setattr("captum_moxi.benchmarks.screens.STUDIED", {"deletion": (promise,), "insertion": ()})
    text = compare_screens(replace(bench, searches=["first:1"]))
    classifier, (name, image) = bench.classifiers[0], bench.images[0]
    game = bench.game(classifier, [image])
    present = torch.ones(game.n_players, game.n_players, dtype=torch.bool).fill_diagonal_(False)
    rewards = game.outcome(present, torch.zeros(game.n_players, dtype=torch.long)).rewards
    best = int(rewards.argmin())
    assert best != 0, "the example needs another image"
    pattern = rf"{name}, deletion, step 1: first:1 chose player 0 with the reward (.*), "
    match = re.search(pattern + rf"the exact search player {best} with the reward (.*)\.\n?", text)
    assert match is not None
    assert [float(reward) for reward in match.groups()] == pytest.approx(
        [rewards[0].item(), rewards[best].item()], 1e-4
    )


def test_searches_can_be_selected(bench: Bench, parse_table: ParseTable) -> None:
    columns = parse_table(compare_screens(replace(bench, searches=["beam of 2"])))
    assert list(zip(columns["mode"], columns["search"], strict=True)) == [
        ("deletion", "exact"),
        ("insertion", "exact"),
        ("insertion", "beam of 2"),
    ]


def test_an_unknown_search_is_rejected(bench: Bench) -> None:
    with pytest.raises(ValueError, match=r"search best is unknown; pass one of beam of 2; .*; exact; gradient:16; "):
        compare_screens(replace(bench, searches=["best"]))


def test_searches_without_a_step_can_be_compared(bench: Bench, parse_table: ParseTable) -> None:
    classifier = bench.classifiers[0].model.get_submodule("classifier")
    with torch.no_grad():
        # The model predicts one class for every image, so the empty coalition is sufficient.
        classifier.weight.zero_()
        classifier.bias.copy_(torch.arange(len(classifier.bias)))
    columns = parse_table(compare_screens(bench))
    means = {steps for steps, mode in zip(columns["mean"], columns["mode"], strict=True) if mode == "insertion"}
    assert means == {"0"}
    assert "-" in columns["against exact"]


def test_a_shorter_path_keeps_its_last_confidence() -> None:
    assert mean_confidence([1.0, 0.0], 4) == pytest.approx(0.25)
    assert mean_confidence([1.0, 0.5, 0.0], 2) == pytest.approx(0.75)
