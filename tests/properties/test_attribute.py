"""Properties of ``attribute``, compared with a plain search that runs the model on one coalition at a time."""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest
import reference
import torch
from calls import Call, calls
from hypothesis import assume
from hypothesis import strategies as st
from sizes import for_all

from captum_moxi import (
    CoalitionGame,
    GradientScreen,
    LastGainsScreen,
    MoXIDeletion,
    MoXIInsertion,
    RandomScreen,
    Selection,
)
from captum_moxi.attr.moxi import MoXIAttribution
from captum_moxi.search.screens import Screen

pytestmark = pytest.mark.filterwarnings("ignore:the target is not the predicted class")

METHODS: dict[str, type[MoXIAttribution]] = {"insertion": MoXIInsertion, "deletion": MoXIDeletion}


@dataclass(frozen=True)
class Search:
    """A call of ``attribute``, and the options of its search."""

    call: Call
    mode: str
    n_steps: int | None
    stop: str | None
    min_confidence: float
    perturbations_per_eval: int | None

    def attribute(self, *, score: str = "rank", per_eval: int | None = None, **options: Any) -> tuple[Any, ...]:
        """Attributions and selection of the whole batch, and the delta if the score is ``"gain"``."""
        moxi = METHODS[self.mode](self.call.model, reward=self.call.reward.argument, **options)
        return moxi.attribute(
            **self.call.arguments,
            n_steps=self.n_steps,
            stop=self.stop,
            min_confidence=self.min_confidence,
            perturbations_per_eval=per_eval or self.perturbations_per_eval,
            score=score,
            return_selection=True,
            return_convergence_delta=score == "gain",
        )

    def alone(self, example: int, **options: Any) -> Selection:
        """The selection of one example of the batch."""
        moxi = METHODS[self.mode](self.call.model, reward=self.call.reward.argument, **options)
        return moxi.attribute(
            **self.call.example(example),
            n_steps=self.n_steps,
            stop=self.stop,
            min_confidence=self.min_confidence,
            return_selection=True,
        )[1]

    def plain(self, example: int, **options: Any) -> reference.Path:
        """The result of the plain search for one example."""
        flips = self.call.flips(example, self.mode, self.min_confidence)
        path = reference.search(
            self.call.outcome(example),
            self.call.players(example),
            self.mode,
            n_steps=self.n_steps,
            flips=flips if self.stop == "flip" else lambda outcome: False,
            relative_ties=self.call.reward.relative,
            **options,
        )
        return path._replace(flipped=any(map(flips, path.outcomes)))


@st.composite
def searches(draw: st.DrawFn, *, whole: bool = False, **options: Any) -> Search:
    """A search. If ``whole`` is True, it ranks all players of an example with many players."""
    call = draw(calls(many=whole, **options))
    aggregates = call.model.shape is None
    return Search(
        call=call,
        mode=draw(st.sampled_from(["insertion", "deletion"])),
        n_steps=None if whole else draw(st.sampled_from([None, 1, 2, 3, 20])),
        stop=draw(st.sampled_from([None, "flip"])) if call.has_target and not whole else None,
        min_confidence=draw(st.sampled_from([0.0, 0.3, 0.5, 0.7])),
        perturbations_per_eval=draw(st.sampled_from([None, 1] if aggregates else [None, 1, 2, 5])),
    )


def as_tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def assert_selects(selection: Selection, example: int, path: reference.Path) -> None:
    """The selection of an example equals a plain search, and ends where it ends."""
    steps = len(path.order)
    assert selection.order[example].tolist() == path.order + [-1] * (selection.order.shape[1] - steps)
    assert int(selection.n_steps[example]) == steps
    assert selection.n_evaluated[example, :steps].tolist() == path.n_evaluated
    assert selection.predictions[example, : steps + 1].tolist() == [outcome.prediction for outcome in path.outcomes]
    assert bool(selection.flipped[example]) == path.flipped
    rewards = [outcome.reward for outcome in path.outcomes]
    sign = 1 if selection.mode == "insertion" else -1
    gains = [sign * (after - before) for before, after in pairwise(rewards)]
    for values, expected in (
        (selection.rewards, rewards),
        (selection.confidences, [outcome.confidence for outcome in path.outcomes]),
        (selection.shapley, path.shapley),
        (selection.interactions, [gain - value for gain, value in zip(gains, path.shapley, strict=True)]),
    ):
        assert values[example, : len(expected)].tolist() == pytest.approx(expected, rel=1e-5, abs=1e-6, nan_ok=True)
        assert values[example, len(expected) :].isnan().all()


def assert_equal_selections(first: Selection, second: Selection, example: int = 0, other: int = 0) -> None:
    """The selections of two examples are the same up to rounding."""
    steps = int(first.n_steps[example])
    assert int(second.n_steps[other]) == steps
    assert first.order[example, :steps].tolist() == second.order[other, :steps].tolist()
    torch.testing.assert_close(first.rewards[example, : steps + 1], second.rewards[other, : steps + 1])
    torch.testing.assert_close(first.interactions[example, :steps], second.interactions[other, :steps])


def assert_scores(attributions: Any, call: Call, example: int, expected: dict[int, float], tolerance: float) -> None:
    """Each value of an example has the score of its player, or 0."""
    for tensor, owners in zip(as_tuple(attributions), call.owners, strict=True):
        assert tensor.shape[1:] == owners.shape[1:]
        values = owners[example].double().apply_(lambda id: expected.get(int(id), 0.0))
        torch.testing.assert_close(tensor[example].double(), values, rtol=tolerance, atol=tolerance)


@for_all(st.tuples(searches(), st.booleans()), quick=70, large=1000)
def test_a_search_is_the_plain_search(drawn: tuple[Search, bool]) -> None:
    search, interactions = drawn
    before = [x.clone() for x in search.call.tensors]
    attributions, selection = search.attribute(interactions=interactions)
    assert isinstance(attributions, tuple) == isinstance(search.call.arguments["inputs"], tuple)
    for example in range(search.call.n_examples):
        path = search.plain(example, interactions=interactions)
        assert_selects(selection, example, path)
        steps = len(path.order)
        ranks = {player: (steps - step) / steps for step, player in enumerate(path.order)}
        assert_scores(attributions, search.call, example, ranks, 1e-6)
    assert all(map(torch.equal, search.call.tensors, before))


@for_all(st.tuples(searches(), st.booleans()), quick=40, large=600)
def test_gains_sum_to_the_change_that_the_search_made(drawn: tuple[Search, bool]) -> None:
    search, interactions = drawn
    call = search.call
    attributions, _, delta = search.attribute(score="gain", interactions=interactions)
    tolerance = 0.02 if call.model.dtype is torch.bfloat16 else 1e-5
    for example in range(call.n_examples):
        outcome, players = call.outcome(example), call.players(example)
        path = search.plain(example, interactions=interactions)
        rewards = [step.reward for step in path.outcomes]
        changes = [after - before for before, after in pairwise(rewards)]
        gains = {
            p: change if search.mode == "insertion" else -change for p, change in zip(path.order, changes, strict=True)
        }
        assert_scores(attributions, call, example, gains, tolerance)
        whole = outcome(frozenset(players)).reward - outcome(frozenset()).reward
        size = len(players) * max(map(abs, [*gains.values(), whole, 1]))
        assert float(delta[example]) == pytest.approx(sum(gains.values()) - whole, abs=tolerance * size)


@for_all(searches(shapes=((2,), (3,), (), (1,), (3, 2))), quick=30, large=300)
def test_a_batch_gives_the_results_of_its_examples(search: Search) -> None:
    for options in ({}, {"interactions": False}, {"beam_width": 2}, {"screen": LastGainsScreen(2)}):
        _, selection = search.attribute(**options)
        for example in range(search.call.n_examples):
            assert_equal_selections(selection, search.alone(example, **options), example)


@for_all(st.tuples(searches(shapes=((2,), (3,), (), (1,), (3, 2))), st.integers(0, 8)), quick=40, large=400)
def test_a_flip_needs_more_than_the_minimum_confidence(drawn: tuple[Search, int]) -> None:
    search, step = drawn
    call = search.call
    assume(call.has_target)
    _, whole = replace(search, mode="insertion", n_steps=None, stop=None).attribute()
    reached = whole.confidences[0, : int(whole.n_steps[0]) + 1].tolist()
    threshold = reached[step % len(reached)]
    assume(threshold < 1)
    _, stopped = replace(search, mode="insertion", n_steps=None, stop="flip", min_confidence=threshold).attribute()
    for example in range(call.n_examples):
        target = 0 if call.targets is None else call.targets[example][0]
        outcomes = zip(whole.predictions[example].tolist(), whole.confidences[example].tolist(), strict=True)
        flips = [
            k for k, (prediction, confidence) in enumerate(outcomes) if prediction == target and confidence > threshold
        ]
        assert int(stopped.n_steps[example]) == (flips or [int(whole.n_steps[example])])[0]
        assert bool(stopped.flipped[example]) == bool(flips)


@for_all(searches(shapes=((2,), (3,), (), (1,), (3, 2))), quick=30, large=300)
def test_the_size_of_passes_has_no_effect(search: Search) -> None:
    expected, selection = search.attribute()
    for per_eval in (1, 3, 50):
        attributions, other = search.attribute(per_eval=per_eval)
        assert all(map(torch.equal, as_tuple(attributions), as_tuple(expected)))
        for example in range(search.call.n_examples):
            assert_equal_selections(selection, other, example, example)


@for_all(st.tuples(searches(whole=True, exact=True), st.integers(1, 4)), quick=40, large=600)
def test_last_gains_evaluates_the_players_with_the_highest_last_known_gains(drawn: tuple[Search, int]) -> None:
    search, m = drawn

    def shortlist(step: int, remaining: list[int], known: dict[int, float]) -> list[int]:
        return remaining if step == 1 else sorted(remaining, key=lambda player: -known[player])[:m]

    _, selection = search.attribute(screen=LastGainsScreen(m))
    for example in range(search.call.n_examples):
        assert_selects(selection, example, search.plain(example, shortlist=shortlist))


SCREENS = st.one_of(
    st.builds(LastGainsScreen, st.integers(1, 4)),
    st.builds(RandomScreen, st.integers(1, 4), st.integers(0, 3)),
    st.builds(GradientScreen, st.integers(1, 4)),
)


@for_all(st.tuples(searches(floating=True, shapes=((2,), (3,), (3, 2), ())), SCREENS), quick=40, large=600)
def test_a_screen_evaluates_few_candidates_and_its_path_is_a_path_of_the_game(drawn: tuple[Search, Screen]) -> None:
    search, screen = drawn
    call = search.call
    try:
        _, selection = search.attribute(screen=screen)
    except ValueError as error:
        # A constant output has no gradient.
        assert isinstance(screen, GradientScreen) and "no gradient" in str(error)
        return
    for example in range(call.n_examples):
        players, outcome = call.players(example), call.outcome(example)
        steps = int(selection.n_steps[example])
        order = selection.order[example, :steps].tolist()
        assert len(set(order)) == steps and set(order) <= set(players)
        left = [len(players) - k for k in range(steps)]
        evaluated = selection.n_evaluated[example, :steps].tolist()
        first = left[:1] if isinstance(screen, LastGainsScreen) else [min(screen.m, n) for n in left[:1]]
        assert evaluated[:1] == first
        assert all(1 <= count <= n for count, n in zip(evaluated, left, strict=True))
        if not isinstance(screen, LastGainsScreen):
            assert evaluated == [min(screen.m, n) for n in left]
        for k in range(steps + 1):
            present = set(order[:k]) if search.mode == "insertion" else set(players) - set(order[:k])
            assert float(selection.rewards[example, k]) == pytest.approx(outcome(frozenset(present)).reward, abs=1e-5)
        everyone, nobody = frozenset(players), frozenset()
        for player, value in zip(order, selection.shapley[example, :steps].tolist(), strict=True):
            before, after = (nobody, {player}) if search.mode == "insertion" else (everyone - {player}, everyone)
            assert value == pytest.approx(outcome(frozenset(after)).reward - outcome(before).reward, abs=1e-5)


@for_all(searches(floating=True), quick=30, large=300)
def test_a_screen_of_all_players_is_the_exact_search(search: Search) -> None:
    _, exact = search.attribute()
    for screen in (LastGainsScreen(20), RandomScreen(20), GradientScreen(20)):
        _, selection = search.attribute(screen=screen)
        for field in ("order", "n_evaluated", "n_steps", "flipped"):
            assert torch.equal(getattr(selection, field), getattr(exact, field))


@for_all(st.tuples(searches(), st.integers(1, 4), st.integers(0, 10)), quick=30, large=300)
def test_random_draws_depend_on_the_seed_and_the_example_alone(drawn: tuple[Search, int, int]) -> None:
    search, m, seed = drawn
    assume(search.call.model.shape is not None)
    random_state = torch.get_rng_state()
    _, selection = search.attribute(screen=RandomScreen(m, seed=seed))
    assert torch.equal(torch.get_rng_state(), random_state)
    for example in range(search.call.n_examples):
        assert_equal_selections(selection, search.alone(example, screen=RandomScreen(m, seed=seed)), example)


@for_all(
    searches(exact=True, floating=True, linear=True, shapes=((2,), (3,), (), (3, 2))),
    quick=40,
    large=400,
)
def test_the_gradient_screen_is_exact_while_a_linear_reward_changes(search: Search) -> None:
    """The estimate of a gain is exact in a linear game, unless it is negative."""
    _, exact = search.attribute()
    try:
        _, selection = search.attribute(screen=GradientScreen(1))
    except ValueError as error:
        assert "no gradient" in str(error)
        return
    for example in range(search.call.n_examples):
        n_positive = int((exact.gains[example] > 0).sum())
        assert selection.order[example, :n_positive].tolist() == exact.order[example, :n_positive].tolist()


@for_all(st.tuples(searches(), st.integers(2, 4)), quick=40, large=600)
def test_a_beam_is_never_worse_at_the_last_step(drawn: tuple[Search, int]) -> None:
    search, width = drawn
    sign = 1 if search.mode == "insertion" else -1
    _, single = search.attribute()
    _, beam = search.attribute(beam_width=width)
    for example in range(search.call.n_examples):
        steps = int(beam.n_steps[example])
        assert steps <= int(single.n_steps[example])
        if search.stop == "flip":
            # Otherwise, the group of greedy search may flip at an earlier step than the last, and the beam not at all.
            assert bool(beam.flipped[example]) >= bool(single.flipped[example])
        if steps == int(single.n_steps[example]):
            best, reached = single.rewards[example, steps], beam.rewards[example, steps]
            assert sign * float(reached - best) >= -1e-5 * max(1.0, abs(float(best)))
        present = set(beam.order[example, :steps].tolist())
        if search.mode == "deletion":
            present = set(search.call.players(example)) - present
        reward = search.call.outcome(example)(frozenset(present)).reward
        assert float(beam.rewards[example, steps]) == pytest.approx(reward, abs=1e-5)


@for_all(st.tuples(searches(whole=True), st.integers(2, 4)), quick=30, large=300)
def test_a_wide_beam_finds_the_best_group(drawn: tuple[Search, int]) -> None:
    search, n_steps = drawn
    call = search.call
    moxi = METHODS[search.mode](call.model, reward=call.reward.argument, beam_width=100)
    _, selection = moxi.attribute(**call.arguments, n_steps=n_steps, return_selection=True)
    for example in range(call.n_examples):
        players, outcome = call.players(example), call.outcome(example)
        size = min(n_steps, len(players))
        groups = [group for group in reference.subsets(players) if len(group) == size]
        if search.mode == "insertion":
            best = max(outcome(frozenset(group)).reward for group in groups)
        else:
            best = min(outcome(frozenset(players) - set(group)).reward for group in groups)
        assert float(selection.rewards[example, size]) == pytest.approx(best, rel=1e-5, abs=1e-5)


@for_all(calls(), quick=30, large=300)
def test_a_game_is_the_function_of_coalitions_that_the_search_maximizes(call: Call) -> None:
    arguments = dict(call.arguments)
    game = CoalitionGame(call.model, arguments.pop("inputs"), **arguments, reward=call.reward.argument)
    coalitions = torch.tensor([[c >> i & 1 for i in range(game.n_players)] for c in range(2 ** min(game.n_players, 4))])
    for example in range(game.n_examples):
        outcome = game.outcome(coalitions, torch.full((len(coalitions),), example))
        players = call.players(example)
        for row, coalition in enumerate(coalitions.tolist()):
            present = frozenset(id for id, bit in zip(game.ids.tolist(), coalition, strict=True) if bit) & set(players)
            expected = call.outcome(example)(present)
            assert float(outcome.rewards[row]) == pytest.approx(expected.reward, rel=1e-5, abs=1e-6)
            assert int(outcome.predictions[row]) == expected.prediction
            assert float(outcome.confidences[row]) == pytest.approx(expected.confidence, abs=1e-6, nan_ok=True)
