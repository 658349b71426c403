"""Curves against values computed by hand, and against models evaluated player by player."""

from typing import Any

import pytest
import reference
import torch
import zoo
from torch import Tensor

from captum_moxi import BaselineRemoval, MoXIDeletion, MoXIInsertion, deletion_curve, insertion_curve, patch_mask
from captum_moxi.arguments import MODES, Mode
from captum_moxi.attr import GradCam
from captum_moxi.metrics import Curve

CURVES = {"insertion": insertion_curve, "deletion": deletion_curve}
# The logit of class 1 is 3 a + b - 2 c for inputs (a, b, c, d). The logit of class 0 is 1.
WEIGHTS = torch.tensor([3.0, 1.0, -2.0, 0.0])


def two_classes(x: Tensor) -> Tensor:
    return torch.stack([torch.ones(len(x)), x @ WEIGHTS], 1)


def sigmoid(value: float) -> float:
    return 1 / (1 + 2.718281828459045**-value)


def ranking(*rows: list[int]) -> Tensor:
    return torch.tensor(rows)


def test_insertion_by_hand() -> None:
    """Inserts c, a, b, d. The log-odds of class 1 are 3 a + b - 2 c - 1."""
    curve = insertion_curve(two_classes, torch.ones(1, 4), attributions=ranking([2, 0, 1, 3]), target=1)
    rewards = [-1.0, -3.0, 0.0, 1.0, 1.0]
    confidences = [sigmoid(value) for value in rewards]
    assert curve.mode == "insertion"
    assert curve.fractions.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert curve.counts.tolist() == [[0, 1, 2, 3, 4]]
    assert curve.rewards[0].tolist() == pytest.approx(rewards)
    assert curve.confidences[0].tolist() == pytest.approx(confidences)
    # At log-odds 0 the classes tie, and the first one is predicted.
    assert curve.predictions.tolist() == [[0, 0, 0, 1, 1]]
    assert curve.correct.tolist() == [[False, False, False, True, True]]
    assert curve.accuracy.tolist() == [0, 0, 0, 1, 1]
    assert curve.flip_fraction.tolist() == [0.75]
    assert curve.area("rewards").item() == pytest.approx((-0.5 - 3 + 0 + 1 + 0.5) / 4)
    assert curve.area("correct").item() == pytest.approx((1 + 0.5) / 4)
    mean_height = (confidences[0] / 2 + sum(confidences[1:4]) + confidences[4] / 2) / 4
    assert curve.area().item() == pytest.approx(mean_height)


def test_deletion_by_hand() -> None:
    """Deletes c, a, b, d from the full input."""
    curve = deletion_curve(two_classes, torch.ones(1, 4), attributions=ranking([2, 0, 1, 3]), target=1)
    assert curve.mode == "deletion"
    assert curve.rewards[0].tolist() == pytest.approx([1, 3, 0, -1, -1])
    assert curve.flip_fraction.tolist() == [0.5]


def test_fractions_round_to_the_nearest_number_of_players() -> None:
    x, order = torch.ones(1, 4), ranking([0, 1, 2, 3])
    curve = insertion_curve(two_classes, x, attributions=order, target=1, fractions=[0.1, 0.15, 0.6])
    assert curve.counts.tolist() == [[0, 1, 2]]
    assert curve.rewards[0].tolist() == pytest.approx([-1, 2, 3])
    assert curve.flip_fraction.tolist() == [pytest.approx(0.15)]
    # Trapezoids of width 0.05 and 0.45, divided by the total width of 0.5.
    assert curve.area("rewards").item() == pytest.approx((0.05 * 0.5 + 0.45 * 2.5) / 0.5)


def test_the_area_of_a_single_fraction_is_its_height() -> None:
    curve = insertion_curve(two_classes, torch.ones(1, 4), attributions=ranking([0]), target=1, fractions=[0.25])
    assert curve.area("rewards").item() == pytest.approx(2)


def test_examples_that_never_flip_have_no_flip_fraction() -> None:
    x, order = torch.tensor([[1.0, 1, 1, 1], [0, 0, 1, 1]]), ranking([0, 1, 2, 3], [0, 1, 2, 3])
    curve = insertion_curve(two_classes, x, attributions=order, target=1)
    assert curve.flip_fraction[0] == 0.25
    assert curve.flip_fraction[1].isnan()
    assert curve.accuracy.tolist() == [0, 0.5, 0.5, 0.5, 0.5]


def test_each_example_has_its_own_target() -> None:
    x, order = torch.tensor([[1.0, 1, 1, 1], [0, 0, 1, 1]]), ranking([0, 1, 2, 3], [0, 1, 2, 3])
    curve = insertion_curve(two_classes, x, attributions=order, target=[1, 0])
    assert curve.flip_fraction.tolist() == [0.25, 0]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["vit", "deit", "dinov2"])
def test_token_removal_patch_by_patch(name: str, mode: Mode) -> None:
    model = zoo.token_model(name)
    x, targets = torch.randn(2, 3, 32, 32), [1, 3]
    attr = GradCam(model).attribute(x, target=targets)
    curve = CURVES[mode](model, x, attributions=attr, target=targets)
    for example in range(2):
        scores = attr[example].flatten().tolist()
        order = sorted(range(16), key=lambda patch: -scores[patch])
        with torch.no_grad():
            probabilities = [
                reference.vit_logits(
                    model, x[example : example + 1], order[:k] if mode == "insertion" else order[k:]
                ).softmax(0)
                for k in range(17)
            ]
        confidences = [float(p[targets[example]]) for p in probabilities]
        assert curve.confidences[example].tolist() == pytest.approx(confidences, abs=1e-5)
        assert curve.predictions[example].tolist() == [int(p.argmax()) for p in probabilities]


def test_examples_with_different_numbers_of_players() -> None:
    mask = torch.tensor([[0, 1, 2, 3], [5, 5, 7, 7]])
    curve = insertion_curve(
        two_classes,
        torch.ones(2, 4),
        attributions=ranking([3, 2, 1, 0], [7, 5, -1, -1]),
        target=1,
        feature_mask=mask,
    )
    assert curve.fractions.tolist() == pytest.approx([k / 6 for k in range(7)])
    assert curve.counts.tolist() == [[0, 1, 1, 2, 3, 3, 4], [0, 0, 1, 1, 1, 2, 2]]
    rewards_by_count = [[-1, -1, -3, -2, 1], [-1, -3, 1]]
    for example, counts in enumerate(curve.counts.tolist()):
        rewards = [rewards_by_count[example][count] for count in counts]
        assert curve.rewards[example].tolist() == pytest.approx(rewards)


def test_several_inputs_and_baselines() -> None:
    inputs = (torch.ones(1, 2), torch.ones(1, 2))
    attr = (torch.tensor([[0.0, 4.0]]), torch.tensor([[3.0, 2.0]]))
    curve = insertion_curve(
        lambda first, second: two_classes(torch.cat([first, second], 1)),
        inputs,
        attributions=attr,
        target=1,
        baselines=(2.0, 0.0),
        fractions=[0, 0.25, 1],
    )
    # The log-odds of the baselines, 3 * 2 + 2 - 1; with b at 1 instead of 2; and of the full input.
    assert curve.rewards.tolist() == [[7, 6, 1]]


def test_a_single_logit() -> None:
    curve = insertion_curve(lambda x: x @ WEIGHTS - 1, torch.ones(1, 4), attributions=ranking([2, 0, 1, 3]))
    assert curve.predictions.tolist() == [[-1, -1, -1, 0, 0]]
    assert curve.flip_fraction.tolist() == [0.75]


def test_without_a_target_only_rewards_are_defined() -> None:
    curve = deletion_curve(
        two_classes,
        torch.ones(1, 4),
        attributions=ranking([0]),
        reward=lambda logits, target: logits[:, 1],
        fractions=[0, 1],
    )
    assert curve.rewards.tolist() == [[2, 0]]
    assert curve.confidences.isnan().all()
    assert not curve.correct.any()
    assert curve.flip_fraction.isnan().all()


def test_the_flip_of_a_curve_is_the_flip_of_the_search() -> None:
    model = zoo.token_model("vit")
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        target = model(x).logits.argmax(1)
    for search, curve_of in ((MoXIInsertion, insertion_curve), (MoXIDeletion, deletion_curve)):
        _, selection = search(model).attribute(x, target=target, stop="flip", return_selection=True)
        assert selection.flipped.all()
        curve = curve_of(model, x, attributions=selection, target=target)
        assert curve.flip_fraction.tolist() == pytest.approx((selection.n_steps / 16).tolist())


def test_the_pass_size_does_not_change_the_curve() -> None:
    model = zoo.randomised(zoo.resnet())
    x, attr = torch.randn(2, 3, 32, 32), torch.rand(2, 1, 4, 4)
    options: dict[str, Any] = {
        "attributions": attr,
        "target": 2,
        "feature_mask": patch_mask(32, 8),
        "removal": BaselineRemoval("mean"),
    }
    default = deletion_curve(model, x, **options)
    for per_eval in (1, 5):
        curve = deletion_curve(model, x, perturbations_per_eval=per_eval, show_progress=True, **options)
        torch.testing.assert_close(curve.rewards, default.rewards, rtol=0, atol=1e-4)


def test_the_model_keeps_its_training_mode_and_buffers() -> None:
    model = zoo.resnet().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x, attr = torch.randn(3, 3, 32, 32), torch.rand(3, 1, 4, 4)
    insertion_curve(model, x, attributions=attr, target=[1, 3, 0], fractions=[0, 0.5])
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_concatenated_curves_are_the_curve_of_the_batch() -> None:
    x, order = torch.rand(3, 4), ranking([0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 1, 3])
    batch = insertion_curve(two_classes, x, attributions=order, target=1)
    first = insertion_curve(two_classes, x[:1], attributions=order[:1], target=1)
    others = insertion_curve(two_classes, x[1:], attributions=order[1:], target=1)
    joined = Curve.concatenate([first, others])
    assert joined.mode == "insertion"
    assert torch.equal(joined.fractions, batch.fractions)
    assert torch.equal(joined.counts, batch.counts)
    assert torch.equal(joined.predictions, batch.predictions)
    assert torch.equal(joined.correct, batch.correct)
    torch.testing.assert_close(joined.rewards, batch.rewards)
    torch.testing.assert_close(joined.confidences, batch.confidences)
    torch.testing.assert_close(joined.flip_fraction, batch.flip_fraction, equal_nan=True)


def test_an_unknown_quantity_has_no_area() -> None:
    curve = insertion_curve(two_classes, torch.ones(1, 4), attributions=torch.ones(1, 4), target=1)
    with pytest.raises(ValueError, match="quantity is 'area'; pass one of 'confidences', 'rewards', 'correct'"):
        curve.area("area")  # type: ignore[arg-type]
