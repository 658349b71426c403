"""Orders of players from every form of an attribution."""

from typing import Any

import pytest
import torch
import zoo
from torch import Tensor

from captum_moxi import CoalitionGame, MoXIInsertion, deletion_curve, insertion_curve
from captum_moxi.metrics import parse_fractions, rank_positions


def two_classes(x: Tensor) -> Tensor:
    return torch.stack([torch.ones(len(x)), x @ torch.tensor([3.0, 1.0, -2.0, 0.0])], 1)


def test_every_form_of_an_attribution_gives_the_same_curve() -> None:
    model = zoo.token_model("vit")
    x, target = torch.randn(2, 3, 32, 32), [1, 3]
    attr, selection = MoXIInsertion(model).attribute(x, target=target, n_steps=6, return_selection=True)
    expected = insertion_curve(model, x, attributions=selection, target=target)
    torch.testing.assert_close(expected.rewards[:, :7], selection.rewards)
    forms: dict[str, Any] = {
        "ranking": selection.order,
        "ranking in int32": selection.order.int(),
        "ranking that ends early": torch.cat([selection.order, torch.full((2, 3), -1)], 1),
        "map of the inputs": attr,
        "map with one channel": attr[:, :1],
        "tuple of maps": (attr,),
        "map of a layer": attr[:, :1, ::8, ::8],
        "scores of players": attr[:, 0, ::8, ::8].flatten(1),
    }
    for form, attributions in forms.items():
        curve = insertion_curve(model, x, attributions=attributions, target=target)
        assert torch.equal(curve.counts, expected.counts), form
        torch.testing.assert_close(curve.rewards, expected.rewards, rtol=0, atol=1e-5, msg=form)


def test_positions_of_examples_with_fewer_players_end_in_minus_one() -> None:
    game = CoalitionGame(
        two_classes, torch.ones(2, 4), target=1, feature_mask=torch.tensor([[2, 4, 6, 8], [8, 4, 4, 4]])
    )
    # Ids 2, 4, 6 and 8 have positions 0 to 3. The second example has only 4 and 8.
    assert rank_positions(game, torch.tensor([[6, 2], [8, -1]])).tolist() == [[2, 0, 1, 3], [3, 1, -1, -1]]


@pytest.mark.parametrize(
    ("value", "dtype"),
    [(0.1, torch.float64), (1 / 3, torch.float32), (0.1, torch.float16), (1e-8, torch.float64)],
)
def test_equal_attributions_keep_the_order_of_ids(value: float, dtype: torch.dtype) -> None:
    """Players of 1, 2, 3 and 10 values share one score, and rounding in their means must not separate them."""
    mask = torch.tensor([[3] * 10 + [2] * 3 + [1] * 2 + [0]])
    curve = insertion_curve(
        lambda x: torch.stack([x.sum(1), -x[:, -1]], 1),
        torch.ones(1, 16),
        attributions=torch.full((1, 16), value, dtype=dtype),
        target=0,
        feature_mask=mask,
        reward="output",
    )
    assert curve.rewards.tolist() == [[0, 1, 3, 6, 16]]


@pytest.mark.parametrize(
    ("attributions", "message"),
    [
        (torch.tensor([[0, 9]]), "ranks player 9 of example 0, but the example has no such player"),
        (torch.tensor([[0, -1, 1]]), "ranks player 1 of example 0, but"),
        (torch.tensor([[0, 1, 0]]), "ranks player 0 of example 0 twice"),
        (torch.tensor([[0], [1]]), "attributions has 2 examples, but inputs has 1"),
        (torch.full((1, 4), torch.nan), "non-finite"),
        (torch.ones(1, 5), "attributions has shape"),
        (torch.ones(2, 4), "attributions has shape|attributions has 2 examples"),
        ((torch.ones(1, 4),) * 2, "attributions has 2 tensors, but inputs has 1"),
    ],
)
def test_attributions_that_do_not_fit(attributions: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        insertion_curve(two_classes, torch.ones(1, 4), attributions=attributions, target=1)


def test_one_map_does_not_fit_examples_with_different_players() -> None:
    mask = torch.tensor([[0, 1, 2, 3], [0, 0, 1, 1]])
    with pytest.raises(ValueError, match="attributions has shape"):
        insertion_curve(two_classes, torch.ones(2, 4), attributions=torch.ones(1, 4), target=1, feature_mask=mask)


@pytest.mark.parametrize(("attributions", "name"), [(torch.ones(1, 4).numpy(), "ndarray"), ((), "an empty tuple")])
def test_attributions_of_the_wrong_type(attributions: Any, name: str) -> None:
    with pytest.raises(TypeError, match=f"attributions is {name}; pass a tensor"):
        insertion_curve(two_classes, torch.ones(1, 4), attributions=attributions, target=1)


def test_fractions_are_parsed_to_double_precision() -> None:
    points = parse_fractions([0, 0.5, 0.5, 1])
    assert points.dtype == torch.float64
    assert points.tolist() == [0, 0.5, 0.5, 1]


@pytest.mark.parametrize("fractions", [[0.5, 0.2], [-0.1], [1.5], [], [[0.5]], [float("nan")]])
def test_fractions_out_of_order_or_range(fractions: Any) -> None:
    with pytest.raises(ValueError, match="fractions"):
        deletion_curve(two_classes, torch.ones(1, 4), attributions=torch.ones(1, 4), target=1, fractions=fractions)


def test_fractions_that_are_not_numbers() -> None:
    with pytest.raises(TypeError, match="fractions is \\['a'\\]; pass numbers from 0 to 1"):
        parse_fractions(["a"])  # type: ignore[list-item]
