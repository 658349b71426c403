"""MoXILocalization by the two deletions written out, one coalition at a time."""

import pytest
import reference
import torch
import zoo
from torch import Tensor

from captum_moxi import (
    BaselineRemoval,
    GradientScreen,
    MoXIDeletion,
    MoXILocalization,
    patch_mask,
)


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def by_hand(model: torch.nn.Module, image: Tensor, target: int) -> tuple[list[int], list[float], list[int]]:
    """The order and the differences of log-odds of the first deletion, and the order of the second."""
    everyone = frozenset(range(16))

    @torch.no_grad()
    def logits(players: frozenset[int]) -> Tensor:
        return reference.vit_logits(model, image, sorted(players))

    predicted = int(logits(everyone).argmax())

    def difference(players: frozenset[int]) -> float:
        found = logits(players)
        return reference.log_odds(found, predicted) - reference.log_odds(found, target)

    def odds(players: frozenset[int]) -> float:
        return reference.log_odds(logits(players), target)

    left, first, values = everyone, [], [difference(everyone)]
    while left and int(logits(left).argmax()) != target:
        first.append(min(sorted(left), key=lambda b: difference(left - {b})))
        left -= {first[-1]}
        values.append(difference(left))
    second = []
    while left and int(logits(left).argmax()) == target:
        second.append(min(sorted(left), key=lambda b: odds(left - {b})))
        left -= {second[-1]}
    return first, values, second


@pytest.mark.parametrize("name", ["vit", "deit", "dinov2"])
def test_by_hand(name: str, x: Tensor) -> None:
    model = zoo.token_model(name)
    with torch.no_grad():
        ranked = model(x).logits.argsort(1, descending=True)
    y = ranked[:, 1]
    attr, (first, second) = MoXILocalization(model).attribute(x, target=y, return_selection=True)
    assert attr.shape == x.shape
    for example in range(3):
        wanted, values, rest = by_hand(model, x[example : example + 1], int(y[example]))
        steps = int(first.n_steps[example])
        assert first.order[example, :steps].tolist() == wanted
        assert first.flip == "insertion"
        assert first.rewards[example, : steps + 1].tolist() == pytest.approx(values, abs=1e-4)
        assert bool(first.flipped[example]) == (first.predictions[example, steps] == y[example])
        assert second.order[example, : int(second.n_steps[example])].tolist() == rest
        scores = torch.zeros(16)
        for k, patch in enumerate(rest):
            scores[patch] = (len(rest) - k) / len(rest)
        torch.testing.assert_close(attr[example, 0, ::8, ::8].flatten(), scores)
        alone = MoXILocalization(model).attribute(x[example : example + 1], target=y[example])
        assert torch.equal(alone, attr[example : example + 1])


def test_of_the_predicted_class_it_is_deletion(x: Tensor) -> None:
    model = zoo.token_model("vit")
    with torch.no_grad():
        y = model(x).logits.argmax(1)
    attr, (first, _) = MoXILocalization(model).attribute(x, target=y, return_selection=True)
    assert first.n_steps.tolist() == [0, 0, 0]
    assert torch.equal(attr, MoXIDeletion(model).attribute(x, target=y, stop="flip"))


def test_a_class_that_never_comes_leaves_an_empty_map(x: Tensor) -> None:
    model = zoo.token_model("vit")
    with torch.no_grad():
        y = model(x).logits.argmin(1)
    attr, (first, second) = MoXILocalization(model).attribute(x, target=y, n_steps=1, return_selection=True)
    assert first.n_steps.tolist() == [1, 1, 1]
    assert not first.flipped.all()
    for example in (~first.flipped).nonzero().flatten().tolist():
        assert not attr[example].any()
        assert second.n_steps[example] == 0


def test_options(x: Tensor) -> None:
    model = zoo.randomised(zoo.resnet())
    options = {"feature_mask": patch_mask(32, 8), "baselines": 0.5, "return_selection": True}
    with torch.no_grad():
        y = model(x).logits.argsort(1, descending=True)[:, 1]
    wanted, _ = MoXILocalization(model).attribute(x, target=y, **options)
    for screen in (None, GradientScreen(16)):
        for per_eval in (1, 3, None):
            got, _ = MoXILocalization(model, BaselineRemoval(), screen).attribute(
                x, target=y, perturbations_per_eval=per_eval, **options
            )
            assert torch.equal(got, wanted)
    # with fewer candidates too, the second takes of what the first left, where that brought the target about
    _, (one, two) = MoXILocalization(model, candidates=GradientScreen(2)).attribute(x, target=y, **options)
    assert ((two.n_steps > 0) == one.flipped).all()
    assert one.flip == "insertion"
    assert two.flip is None
    for example in range(3):
        gone, rested = set(one.order[example].tolist()), set(two.order[example].tolist())
        assert not (gone & rested) - {-1}


def test_what_cannot_be(x: Tensor) -> None:
    model = zoo.token_model("vit")
    with pytest.raises(ValueError, match="target is None; pass the class to look for"):
        MoXILocalization(model).attribute(x)
    with pytest.raises(ValueError, match="a single logit"):
        MoXILocalization(lambda x: -x.flatten(1).sum(1).abs()).attribute(x, target=0, feature_mask=patch_mask(32, 8))
    with pytest.raises(TypeError, match="candidates is 8"):
        MoXILocalization(model, candidates=8)
    with pytest.raises(TypeError, match="removal"):
        MoXILocalization(model, removal="token")
    with pytest.raises(ValueError, match="n_steps is 0"):
        MoXILocalization(model).attribute(x, target=1, n_steps=0)
