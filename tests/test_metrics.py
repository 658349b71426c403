"""Curves, worked by hand on games whose every value is known, and against models run player by player."""

import math
from typing import Any

import pytest
import reference
import torch
import zoo
from torch import Tensor

from captum_moxi import BaselineRemoval, MoXIDeletion, MoXIInsertion, deletion_curve, insertion_curve, patch_mask
from captum_moxi.attr import GradCam
from captum_moxi.metrics import median_flip

NAN = float("nan")
# logits of two classes from four numbers: class 1 has 3 a + b - 2 c, class 0 has 1
WEIGHTS = torch.tensor([3.0, 1.0, -2.0, 0.0])


def net(x: Tensor) -> Tensor:
    return torch.stack([torch.ones(len(x)), x @ WEIGHTS], 1)


def sigmoid(value: float) -> float:
    return 1 / (1 + 2.718281828459045**-value)


def test_by_hand() -> None:
    """c, then a, b and the last: the log-odds of class 1 are 3 a + b - 2 c - 1."""
    x, order = torch.ones(1, 4), torch.tensor([[2, 0, 1, 3]])
    curve = insertion_curve(net, x, order, target=1)
    values = [-1.0, -3.0, 0.0, 1.0, 1.0]
    assert curve.fractions.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert curve.players.tolist() == [[0, 1, 2, 3, 4]]
    assert curve.rewards[0].tolist() == pytest.approx(values)
    assert curve.confidences[0].tolist() == pytest.approx([sigmoid(value) for value in values])
    # at 0 the classes are level, and the first is predicted
    assert curve.predictions.tolist() == [[0, 0, 0, 1, 1]]
    assert curve.correct.tolist() == [[False, False, False, True, True]]
    assert curve.accuracy.tolist() == [0, 0, 0, 1, 1]
    assert curve.flipped.tolist() == [0.75]
    assert curve.area("rewards").item() == pytest.approx((-0.5 - 3 + 0 + 1 + 0.5) / 4)
    assert curve.area("correct").item() == pytest.approx((1 + 0.5) / 4)
    heights = [sigmoid(value) for value in values]
    assert curve.area().item() == pytest.approx((heights[0] / 2 + sum(heights[1:4]) + heights[4] / 2) / 4)

    curve = deletion_curve(net, x, order, target=1)
    # all: 1; without c: 3; without c and a: 0; ...
    assert curve.rewards[0].tolist() == pytest.approx([1, 3, 0, -1, -1])
    assert curve.flipped.tolist() == [0.5]


def test_fractions_are_the_nearest_number_of_players() -> None:
    curve = insertion_curve(net, torch.ones(1, 4), torch.tensor([[0, 1, 2, 3]]), target=1, fractions=[0.1, 0.15, 0.6])
    assert curve.players.tolist() == [[0, 1, 2]]
    assert curve.rewards[0].tolist() == pytest.approx([-1, 2, 3])
    assert curve.flipped.tolist() == [pytest.approx(0.15)]
    # trapezoids of width 0.05 and 0.45, over 0.5
    assert curve.area("rewards").item() == pytest.approx((0.05 * 0.5 + 0.45 * 2.5) / 0.5)
    alone = insertion_curve(net, torch.ones(1, 4), torch.tensor([[0]]), target=1, fractions=[0.25])
    assert alone.area("rewards").item() == pytest.approx(2)


def test_examples_that_never_flip_and_of_other_targets() -> None:
    x = torch.tensor([[1.0, 1, 1, 1], [0, 0, 1, 1]])
    curve = insertion_curve(net, x, torch.tensor([[0, 1, 2, 3], [0, 1, 2, 3]]), target=1)
    assert curve.flipped[0] == 0.25
    assert curve.flipped[1].isnan()
    assert curve.accuracy.tolist() == [0, 0.5, 0.5, 0.5, 0.5]
    curve = insertion_curve(net, x, torch.tensor([[0, 1, 2, 3], [0, 1, 2, 3]]), target=[1, 0])
    assert curve.flipped.tolist() == [0.25, 0]


def test_every_form_of_an_attribution_is_the_same_order() -> None:
    model = zoo.token_model("vit")
    x, y = torch.randn(2, 3, 32, 32), [1, 3]
    attr, selection = MoXIInsertion(model).attribute(x, target=y, n_steps=6, return_selection=True)
    forms: list[Any] = [
        selection,
        selection.order,
        selection.order.int(),
        attr,
        attr[:, :1],
        (attr,),
        attr[:, :1, ::8, ::8],  # a layer's map
        attr[:, 0, ::8, ::8].flatten(1),  # scores of players
        torch.cat([selection.order, torch.full((2, 3), -1)], 1),
    ]
    wanted = insertion_curve(model, x, forms[0], target=y)
    torch.testing.assert_close(wanted.rewards[:, :7], selection.rewards)
    for form in forms[1:]:
        curve = insertion_curve(model, x, form, target=y)
        assert torch.equal(curve.players, wanted.players)
        torch.testing.assert_close(curve.rewards, wanted.rewards, rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", ["insertion", "deletion"])
@pytest.mark.parametrize("name", ["vit", "deit", "dinov2"])
def test_token_removal_patch_by_patch(name: str, mode: str) -> None:
    model = zoo.token_model(name)
    x, y = torch.randn(2, 3, 32, 32), [1, 3]
    attr = GradCam(model).attribute(x, target=y)
    curve = {"insertion": insertion_curve, "deletion": deletion_curve}[mode](model, x, attr, target=y)
    for example in range(2):
        scores = attr[example].flatten().tolist()
        order = sorted(range(16), key=lambda patch: -scores[patch])
        with torch.no_grad():
            wanted = [
                reference.vit_logits(
                    model, x[example : example + 1], order[:k] if mode == "insertion" else order[k:]
                ).softmax(0)
                for k in range(17)
            ]
        assert curve.confidences[example].tolist() == pytest.approx([float(p[y[example]]) for p in wanted], abs=1e-5)
        assert curve.predictions[example].tolist() == [int(p.argmax()) for p in wanted]


def test_ties_go_to_the_lowest_id() -> None:
    """Players of 1, 2, 3 and 10 values that all have one score, which their means must not tell apart."""
    mask = torch.tensor([[3] * 10 + [2] * 3 + [1] * 2 + [0]])
    for value, dtype in ((0.1, torch.float64), (1 / 3, torch.float32), (0.1, torch.float16), (1e-8, torch.float64)):
        attr = torch.full((1, 16), value, dtype=dtype)
        curve = insertion_curve(
            lambda x: torch.stack([x.sum(1), -x[:, -1]], 1),
            torch.ones(1, 16),
            attr,
            0,
            feature_mask=mask,
            reward="output",
        )
        assert curve.rewards.tolist() == [[0, 1, 3, 6, 16]]


def test_examples_with_different_numbers_of_players() -> None:
    mask = torch.tensor([[0, 1, 2, 3], [5, 5, 7, 7]])
    curve = insertion_curve(net, torch.ones(2, 4), torch.tensor([[3, 2, 1, 0], [7, 5, -1, -1]]), 1, feature_mask=mask)
    assert curve.fractions.tolist() == pytest.approx([k / 6 for k in range(7)])
    assert curve.players.tolist() == [[0, 1, 1, 2, 3, 3, 4], [0, 0, 1, 1, 1, 2, 2]]
    values = [[-1, -1, -3, -2, 1], [-1, -3, 1]]
    for row, (of, players) in enumerate(zip(values, curve.players.tolist(), strict=True)):
        assert curve.rewards[row].tolist() == pytest.approx([of[k] for k in players])


def test_several_inputs_and_baselines() -> None:
    inputs = (torch.ones(1, 2), torch.ones(1, 2))
    attr = (torch.tensor([[0.0, 4.0]]), torch.tensor([[3.0, 2.0]]))
    curve = insertion_curve(
        lambda a, b: net(torch.cat([a, b], 1)), inputs, attr, 1, baselines=(2.0, 0.0), fractions=[0, 0.25, 1]
    )
    # 3 * 2 + 2 - 1 with the fill, b falling to 1, and all
    assert curve.rewards.tolist() == [[7, 6, 1]]


def test_a_single_logit_and_no_target() -> None:
    curve = insertion_curve(lambda x: x @ WEIGHTS - 1, torch.ones(1, 4), torch.tensor([[2, 0, 1, 3]]))
    assert curve.predictions.tolist() == [[-1, -1, -1, 0, 0]]
    assert curve.flipped.tolist() == [0.75]
    free = deletion_curve(
        net, torch.ones(1, 4), torch.tensor([[0]]), reward=lambda logits, target: logits[:, 1], fractions=[0, 1]
    )
    assert free.rewards.tolist() == [[2, 0]]
    assert free.confidences.isnan().all()
    assert not free.correct.any()
    assert free.flipped.isnan().all()


def test_moxi_to_the_flip_is_the_curves_flip() -> None:
    model = zoo.token_model("vit")
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        y = model(x).logits.argmax(1)
    for method, play in ((MoXIInsertion, insertion_curve), (MoXIDeletion, deletion_curve)):
        _, selection = method(model).attribute(x, target=y, stop="flip", return_selection=True)
        assert selection.flipped.all()
        flipped = play(model, x, selection, target=y).flipped
        assert flipped.tolist() == pytest.approx((selection.n_steps / 16).tolist())


def test_under_baseline_fill_chunks_do_not_decide() -> None:
    model = zoo.randomised(zoo.resnet())
    x = torch.randn(2, 3, 32, 32)
    attr, options = torch.rand(2, 1, 4, 4), {"feature_mask": patch_mask(32, 8), "removal": BaselineRemoval("mean")}
    wanted = deletion_curve(model, x, attr, 2, **options)
    for per_eval in (1, 5):
        curve = deletion_curve(model, x, attr, 2, perturbations_per_eval=per_eval, show_progress=True, **options)
        torch.testing.assert_close(curve.rewards, wanted.rewards, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("attributions", "said"),
    [
        (torch.tensor([[0, 9]]), "rank player 9 of example 0"),
        (torch.tensor([[0, -1, 1]]), "rank player 1 of example 0"),
        (torch.tensor([[0, 1, 0]]), "rank player 0 of example 0 twice"),
        (torch.tensor([[0], [1]]), "players of 2 examples, not of 1"),
        (torch.full((1, 4), NAN), "not finite"),
        (torch.ones(1, 5), "does not fit the input's"),
        (torch.ones(2, 4), "does not fit the input's|of 2 examples"),
        ((torch.ones(1, 4),) * 2, "attributions are 2 where inputs are 1"),
    ],
)
def test_attributions_that_do_not_fit(attributions: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        insertion_curve(net, torch.ones(1, 4), attributions, target=1)


def test_one_map_for_examples_of_different_players() -> None:
    with pytest.raises(ValueError, match="does not fit the input's"):
        insertion_curve(
            net, torch.ones(2, 4), torch.ones(1, 4), 1, feature_mask=torch.tensor([[0, 1, 2, 3], [0, 0, 1, 1]])
        )


@pytest.mark.parametrize(
    ("flips", "said"),
    [
        ([3], "3"),
        ([1, 4], "2.5"),
        ([5, 1, 9], "5"),
        ([1, math.inf, 3], "3"),
        ([1, math.inf], "> 15.5"),
        ([math.inf], "> 30"),
    ],
)
def test_a_median_beyond_what_was_looked_at_says_what_it_is_more_than(flips: list[float], said: str) -> None:
    assert median_flip(flips, 30) == said


def test_what_cannot_be() -> None:
    with pytest.raises(TypeError, match="attributions is ndarray"):
        insertion_curve(net, torch.ones(1, 4), torch.ones(1, 4).numpy(), target=1)
    for fractions in ([0.5, 0.2], [-0.1], [1.5], [], [[0.5]]):
        with pytest.raises(ValueError, match="fractions"):
            deletion_curve(net, torch.ones(1, 4), torch.ones(1, 4), target=1, fractions=fractions)
    with pytest.raises(TypeError, match="fractions is \\['a'\\]"):
        deletion_curve(net, torch.ones(1, 4), torch.ones(1, 4), target=1, fractions=["a"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="of is 'area'"):
        insertion_curve(net, torch.ones(1, 4), torch.ones(1, 4), target=1).area("area")
