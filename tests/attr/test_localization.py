"""MoXILocalization compared with its two deletions written out, one coalition at a time."""

from collections.abc import Callable

import pytest
import reference
import torch
import zoo
from torch import Tensor

from captum_moxi import BaselineRemoval, GradientScreen, MoXIDeletion, MoXILocalization, patch_mask


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def ranked_classes(model: torch.nn.Module, x: Tensor) -> Tensor:
    """The classes of each image by logit, the predicted class first."""
    with torch.no_grad():
        return model(x).logits.argsort(1, descending=True)


def log_probability(logits: Tensor, target: int) -> float:
    return float(logits.double().log_softmax(-1)[target])


def locate_by_hand(
    model: torch.nn.Module, image: Tensor, target: int, reward: Callable[[Tensor, int], float]
) -> tuple[list[int], list[float], list[int]]:
    """The order and the rewards of the first deletion, and the order of the second."""
    everyone = frozenset(range(16))

    @torch.no_grad()
    def logits(players: frozenset[int]) -> Tensor:
        return reference.vit_logits(model, image, sorted(players))

    predicted = int(logits(everyone).argmax())

    def difference(players: frozenset[int]) -> float:
        values = logits(players)
        return reward(values, predicted) - reward(values, target)

    def target_reward(players: frozenset[int]) -> float:
        return reward(logits(players), target)

    left, first, values = everyone, [], [difference(everyone)]
    while left and int(logits(left).argmax()) != target:
        first.append(min(sorted(left), key=lambda b: difference(left - {b})))
        left -= {first[-1]}
        values.append(difference(left))
    second = []
    while left and int(logits(left).argmax()) == target:
        second.append(min(sorted(left), key=lambda b: target_reward(left - {b})))
        left -= {second[-1]}
    return first, values, second


@pytest.mark.parametrize(
    ("name", "reward"),
    [("vit", "log_odds"), ("deit", "log_odds"), ("dinov2", "log_odds"), ("vit", "log_probability")],
)
def test_both_deletions_match_the_appendix_written_out(name: str, reward: str, x: Tensor) -> None:
    model = zoo.token_model(name)
    plain_reward = {"log_odds": reference.log_odds, "log_probability": log_probability}[reward]
    y = ranked_classes(model, x)[:, 1]
    localization = MoXILocalization(model, reward=reward)
    attr, (first, second) = localization.attribute(x, target=y, return_selection=True)
    assert attr.shape == x.shape
    for example in range(3):
        first_order, rewards, second_order = locate_by_hand(
            model, x[example : example + 1], int(y[example]), plain_reward
        )
        steps = int(first.n_steps[example])
        assert first.order[example, :steps].tolist() == first_order
        assert first.flip == "insertion"
        assert first.rewards[example, : steps + 1].tolist() == pytest.approx(rewards, abs=1e-4)
        assert bool(first.flipped[example]) == (first.predictions[example, steps] == y[example])
        assert second.order[example, : int(second.n_steps[example])].tolist() == second_order
        scores = torch.zeros(16)
        for k, patch in enumerate(second_order):
            scores[patch] = (len(second_order) - k) / len(second_order)
        torch.testing.assert_close(attr[example, 0, ::8, ::8].flatten(), scores)
        alone = localization.attribute(x[example : example + 1], target=y[example])
        assert torch.equal(alone, attr[example : example + 1])


def test_for_the_predicted_class_the_result_is_that_of_deletion(x: Tensor) -> None:
    model = zoo.token_model("vit")
    y = ranked_classes(model, x)[:, 0]
    attr, (first, _) = MoXILocalization(model).attribute(x, target=y, return_selection=True)
    assert first.n_steps.tolist() == [0, 0, 0]
    assert torch.equal(attr, MoXIDeletion(model).attribute(x, target=y, stop="flip"))


def test_a_class_that_is_never_predicted_gets_no_attribution(x: Tensor) -> None:
    model = zoo.token_model("vit")
    y = ranked_classes(model, x)[:, -1]
    attr, (first, second) = MoXILocalization(model).attribute(x, target=y, n_steps=1, return_selection=True)
    assert first.n_steps.tolist() == [1, 1, 1]
    assert not first.flipped.all()
    for example in (~first.flipped).nonzero().flatten().tolist():
        assert not attr[example].any()
        assert second.n_steps[example] == 0


@pytest.mark.parametrize("screen", [None, GradientScreen(16)])
def test_a_screen_of_all_players_and_the_size_of_passes_do_not_change_the_result(
    screen: GradientScreen | None, x: Tensor
) -> None:
    model = zoo.randomised(zoo.resnet())
    call = {"feature_mask": patch_mask(32, 8), "baselines": 0.5, "target": ranked_classes(model, x)[:, 1]}
    expected = MoXILocalization(model).attribute(x, **call)
    localization = MoXILocalization(model, removal=BaselineRemoval(), screen=screen)
    for per_eval in (1, 3, None):
        assert torch.equal(localization.attribute(x, perturbations_per_eval=per_eval, **call), expected)


def test_the_second_deletion_removes_only_players_that_the_first_left(x: Tensor) -> None:
    model = zoo.randomised(zoo.resnet())
    call = {"feature_mask": patch_mask(32, 8), "baselines": 0.5, "target": ranked_classes(model, x)[:, 1]}
    localization = MoXILocalization(model, screen=GradientScreen(2))
    _, (first, second) = localization.attribute(x, return_selection=True, **call)
    assert ((second.n_steps > 0) == first.flipped).all()
    assert first.flip == "insertion"
    assert second.flip is None
    for example in range(3):
        assert not set(first.order[example].tolist()) & set(second.order[example].tolist()) - {-1}


def test_a_beam_never_needs_more_steps_until_the_target_is_predicted(x: Tensor) -> None:
    model = zoo.token_model("vit")
    y = ranked_classes(model, x)[:, 1]
    _, (greedy, _) = MoXILocalization(model).attribute(x, target=y, return_selection=True)
    _, (beam, _) = MoXILocalization(model, beam_width=3).attribute(x, target=y, return_selection=True)
    assert (beam.n_evaluated[:, 1:] > greedy.n_evaluated[:, 1 : beam.n_evaluated.shape[1]]).any()
    assert (beam.n_steps <= greedy.n_steps).all()


def test_the_progress_bar_counts_the_rows_of_both_deletions(x: Tensor, capsys: pytest.CaptureFixture[str]) -> None:
    model = zoo.token_model("vit")
    y = ranked_classes(model, x)[:, 1]
    call = {"target": y, "n_steps": 1, "return_selection": True}
    _, (first, second) = MoXILocalization(model).attribute(x, show_progress=True, **call)
    rows = int(first.n_evaluated.sum() + second.n_evaluated.sum())
    assert f"MoXILocalization: {rows} rows" in capsys.readouterr().err
    MoXILocalization(model).attribute(x, **call)
    assert not capsys.readouterr().err


def test_a_target_is_required(x: Tensor) -> None:
    with pytest.raises(ValueError, match="target is None; pass the class to locate"):
        MoXILocalization(zoo.token_model("vit")).attribute(x)


def test_a_single_logit_is_rejected(x: Tensor) -> None:
    localization = MoXILocalization(lambda images: -images.flatten(1).sum(1).abs())
    with pytest.raises(ValueError, match="a single logit; pass a model with one logit for each class"):
        localization.attribute(x, target=0, feature_mask=patch_mask(32, 8))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"screen": 8}, TypeError, "screen is 8"),
        ({"removal": "tokens"}, ValueError, "removal 'tokens' is unknown; pass one of token"),
        ({"reward": "odds"}, ValueError, "reward 'odds' is unknown"),
        ({"beam_width": 0}, ValueError, "beam_width is 0"),
    ],
)
def test_unsuitable_options_are_reported_by_the_constructor(
    options: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        MoXILocalization(zoo.token_model("vit"), **options)


def test_an_unsuitable_number_of_steps_is_reported(x: Tensor) -> None:
    with pytest.raises(ValueError, match="n_steps is 0"):
        MoXILocalization(zoo.token_model("vit")).attribute(x, target=1, n_steps=0)
