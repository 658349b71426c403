"""Minimal and alternative groups of the attribution classes, compared with plain forward passes of the models."""

from collections.abc import Callable
from dataclasses import fields
from itertools import combinations
from pathlib import Path

import pytest
import reference
import torch
import zoo
from PIL import Image
from torch import Tensor, nn

from captum_moxi import MoXIDeletion, MoXIInsertion, MoXILocalization, Selection, load, patch_mask
from captum_moxi.attr.moxi import MoXIAttribution
from captum_moxi.demo import demo_classifier, demo_images

METHODS = pytest.mark.parametrize("method", [MoXIInsertion, MoXIDeletion])
GRID = patch_mask(56, grid=4)[0, 0]

# Logits of an image ``(1, 3, H, W)`` with some players only.
Forward = Callable[[nn.Module, Tensor, set[int]], Tensor]


@pytest.fixture(scope="module")
def demo() -> tuple[nn.Module, Tensor, list[int]]:
    """The embedded model, its four images with 16 patches each, and their classes."""
    classifier = demo_classifier()
    images, labels = zip(*((image, label) for _, image, label in demo_images()), strict=True)
    return classifier.model, classifier.preprocess(list(images)), [classifier.class_index(label) for label in labels]


@torch.no_grad()
def without_tokens(model: nn.Module, image: Tensor, players: set[int]) -> Tensor:
    return reference.vit_logits(model, image, sorted(players))


@torch.no_grad()
def zero_filled(model: nn.Module, image: Tensor, players: set[int]) -> Tensor:
    present = torch.isin(GRID, torch.tensor(sorted(players), dtype=torch.long))
    return model(torch.where(present, image, 0)).logits[0]


REMOVALS = pytest.mark.parametrize(
    ("removal", "forward"), [("token", without_tokens), ("attention", without_tokens), ("zero", zero_filled)]
)


def players_of(selection: Selection, example: int) -> set[int]:
    return {player for player in selection.order[example].tolist() if player >= 0}


def flips(
    forward: Forward, model: nn.Module, image: Tensor, target: int, group: set[int], mode: str, confidence: float = 0.0
) -> bool:
    logits = forward(model, image, group if mode == "insertion" else set(range(16)) - group).flatten()
    is_target = int(logits.argmax()) == target
    return is_target and float(logits.softmax(0)[target]) > confidence if mode == "insertion" else not is_target


@METHODS
@REMOVALS
@pytest.mark.parametrize("confidence", [0.0, 0.5])
def test_every_player_of_a_minimal_group_is_needed(
    method: type[MoXIAttribution],
    removal: str,
    forward: Forward,
    confidence: float,
    demo: tuple[nn.Module, Tensor, list[int]],
) -> None:
    model, x, targets = demo
    # Without interactions, a search chooses players that repeat each other.
    attribution = method(model, removal=removal, interactions=False)
    options = {"target": targets, "stop": "flip", "min_confidence": confidence, "return_selection": True}
    _, whole = attribution.attribute(x, **options)
    attr, selection = attribution.attribute(x, minimal=True, **options)
    assert selection.minimal.tolist() == selection.flipped.tolist() == whole.flipped.tolist()
    for example, target in enumerate(targets):
        image, group = x[example : example + 1], players_of(selection, example)
        check = (forward, model, image, target)
        assert flips(*check, group, method.mode, confidence)
        assert not any(flips(*check, group - {player}, method.mode, confidence) for player in group)
        assert group | {p for p in selection.left_out[example].tolist() if p >= 0} == players_of(whole, example)
        assert set(GRID[attr[example, 0] > 0].unique().tolist()) == group
    if method is MoXIInsertion:
        assert (selection.n_steps < whole.n_steps).any()


@METHODS
def test_an_exact_search_that_finds_a_minimal_group_keeps_its_selection(
    method: type[MoXIAttribution], demo: tuple[nn.Module, Tensor, list[int]]
) -> None:
    model, x, targets = demo
    options = {"target": targets, "stop": "flip", "return_selection": True}
    attr, selection = method(model).attribute(x, **options)
    minimal_attr, minimal = method(model).attribute(x, minimal=True, **options)
    assert not selection.minimal.any() and selection.left_out.shape == (len(x), 0)
    assert torch.equal(minimal.n_steps, selection.n_steps)
    assert torch.equal(attr, minimal_attr)
    for field in fields(Selection):
        value, other = getattr(selection, field.name), getattr(minimal, field.name)
        if isinstance(value, Tensor) and field.name != "minimal":
            torch.testing.assert_close(value, other, rtol=0, atol=0, equal_nan=True)


def test_the_gains_of_a_minimal_group_sum_to_its_reward(demo: tuple[nn.Module, Tensor, list[int]]) -> None:
    model, x, targets = demo
    attr, selection = MoXIInsertion(model, interactions=False).attribute(
        x, target=targets, stop="flip", minimal=True, score="gain", return_selection=True
    )
    for example, target in enumerate(targets):
        group = sorted(players_of(selection, example))
        image = x[example : example + 1]
        values = [reference.log_odds(without_tokens(model, image, set(players)), target) for players in ([], group)]
        assert float(attr[example, 0].sum() / 14**2) == pytest.approx(values[1] - values[0], abs=1e-3)


@pytest.mark.parametrize("minimal", [False, True])
def test_both_deletions_of_a_localization_are_minimal_if_requested(minimal: bool) -> None:
    model, x = zoo.token_model("vit"), torch.randn(8, 3, 32, 32)
    with torch.no_grad():
        targets = model(x).logits.argsort(1, descending=True)[:, 1]
    _, (first, second) = MoXILocalization(model).attribute(x, target=targets, minimal=minimal, return_selection=True)
    assert first.minimal.tolist() == [minimal] * 8 and second.minimal.tolist() == [minimal] * 8
    n_needless = 0
    for example, target in enumerate(targets.tolist()):
        image = x[example : example + 1]

        def predicts(absent: set[int], image: Tensor = image, target: int = target) -> bool:
            return int(without_tokens(model, image, set(range(16)) - absent).argmax()) == target

        deleted, held = players_of(first, example), players_of(second, example)
        assert predicts(deleted) and not predicts(deleted | held)
        n_needless += sum(predicts(deleted - {player}) for player in deleted)
        n_needless += sum(not predicts(deleted | held - {player}) for player in held)
    assert (n_needless == 0) == minimal


@METHODS
@REMOVALS
def test_alternatives_are_disjoint_and_flip_the_prediction_by_themselves(
    method: type[MoXIAttribution], removal: str, forward: Forward, demo: tuple[nn.Module, Tensor, list[int]]
) -> None:
    model, x, targets = demo
    groups = method(model, removal=removal).alternatives(x, target=targets, at_most=3)
    _, first = method(model, removal=removal).attribute(
        x, target=targets, stop="flip", minimal=True, return_selection=True
    )
    assert groups[0].to_dict() == first.to_dict()
    for example, target in enumerate(targets):
        found = [players_of(group, example) for group in groups if group.flipped[example]]
        assert all(not one & other for one, other in combinations(found, 2))
        for group in found:
            check = (forward, model, x[example : example + 1], target)
            assert flips(*check, group, method.mode)
            assert not any(flips(*check, group - {player}, method.mode) for player in group)
        assert [bool(group.flipped[example]) for group in groups] == [k < len(found) for k in range(len(groups))]
    continued = method(model, removal=removal).alternatives(x, target=targets, at_most=3, known=groups[:1])
    assert [group.order.tolist() for group in continued] == [group.order.tolist() for group in groups]


def test_two_identical_players_are_two_groups() -> None:
    def model(x: Tensor) -> Tensor:
        return torch.stack([torch.full((len(x),), 0.5), x[:, :2].amax(1)], 1)

    groups = MoXIInsertion(model).alternatives(torch.ones(1, 4), target=1)
    assert [group.order.tolist() for group in groups] == [[[0]], [[1]]]
    # Neither is necessary, but both together are.
    groups = MoXIDeletion(model).alternatives(torch.ones(1, 4), target=1)
    assert [sorted(group.order[0].tolist()) for group in groups] == [[0, 1]]


@METHODS
def test_minimal_groups_need_a_flip(method: type[MoXIAttribution]) -> None:
    model, calls = zoo.Classes(4), []
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    with pytest.raises(ValueError, match=r"minimal is True, but stop is None, .*; pass stop='flip'"):
        method(model).attribute(torch.randn(2, 4), target=0, minimal=True)
    assert not calls


@METHODS
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"at_most": 0}, ValueError, "at_most is 0"),
        ({"at_most": 1.5}, TypeError, "at_most is 1.5"),
        ({"n_steps": 0}, ValueError, "n_steps is 0"),
        ({"min_confidence": 1}, ValueError, "min_confidence is 1"),
        ({"known": [3]}, TypeError, "known contains a int; pass selections"),
        ({"target": -1}, ValueError, "target is -1"),
    ],
)
def test_invalid_arguments_of_alternatives_are_reported_before_any_forward_pass(
    method: type[MoXIAttribution], options: dict[str, object], error: type[Exception], message: str
) -> None:
    model, calls = zoo.Classes(4), []
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    with pytest.raises(error, match=message):
        method(model).alternatives(torch.randn(2, 4), **({"target": 0} | options))
    assert not calls


def test_known_groups_must_belong_to_the_search() -> None:
    x, insertion, deletion = torch.randn(2, 4), MoXIInsertion(zoo.Classes(4)), MoXIDeletion(zoo.Classes(4))
    _, selection = insertion.attribute(x, target=0, return_selection=True)
    with pytest.raises(ValueError, match="known contains a selection of insertion; pass selections of deletion"):
        deletion.alternatives(x, target=0, known=[selection])
    with pytest.raises(ValueError, match=r"known contains a selection of 2 examples; pass .* of the 1 examples"):
        insertion.alternatives(x[:1], target=0, known=[selection])
    with pytest.raises(ValueError, match="3"):
        insertion.alternatives(x, target=0, known=[selection], feature_mask=torch.tensor([0, 1, 2, 2]))


def test_alternatives_need_a_target() -> None:
    def total(logits: Tensor, target: Tensor) -> Tensor:
        return logits.sum(1)

    with pytest.raises(ValueError, match="pass the target whose prediction flips"):
        MoXIInsertion(zoo.Classes(3), reward=total).alternatives(torch.ones(1, 3))


@pytest.mark.real
@pytest.mark.slow
@METHODS
def test_minimal_groups_of_photographs_need_every_player(method: type[MoXIAttribution], shared: Path) -> None:
    classifier = load(shared / "models" / "vit-tiny-patch16-224", "cpu")
    photographs = sorted((shared / "imagenet-sample").glob("*.jpg"))[:200:25]
    x = classifier.preprocess([Image.open(path) for path in photographs])
    with torch.no_grad():
        targets = classifier.model(x).logits.argmax(1).tolist()
    mask = patch_mask(224, grid=7)
    options = {"target": targets, "stop": "flip", "feature_mask": mask, "return_selection": True}
    _, greedy = method(classifier.model).attribute(x, **options)
    _, minimal = method(classifier.model).attribute(x, minimal=True, **options)
    assert minimal.minimal.tolist() == greedy.flipped.tolist()
    assert (minimal.n_steps < greedy.n_steps).any()
    patches = mask[0, 0, ::16, ::16].flatten()

    @torch.no_grad()
    def predicts(example: int, group: set[int]) -> bool:
        inside = torch.isin(patches, torch.tensor(sorted(group), dtype=torch.long))
        kept = inside if method is MoXIInsertion else ~inside
        logits = reference.vit_logits(classifier.model, x[example : example + 1], kept.nonzero().flatten().tolist())
        return int(logits.argmax()) == targets[example]

    for example in minimal.minimal.nonzero().flatten().tolist():
        group, flipped = players_of(minimal, example), method is MoXIInsertion
        assert predicts(example, group) == flipped
        assert all(predicts(example, group - {player}) != flipped for player in group)
