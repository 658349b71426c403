"""MoXIInsertion and MoXIDeletion compared with the paper's plain algorithms, and their behavior towards the user."""

import copy
import math

import pytest
import reference
import torch
import zoo
from captum.attr import NoiseTunnel
from captum.metrics import infidelity, sensitivity_max
from torch import Tensor, nn

from captum_moxi import BaselineRemoval, CoalitionGame, MoXIDeletion, MoXIInsertion, TokenRemoval, patch_mask
from captum_moxi.attr.moxi import MoXIAttribution
from captum_moxi.demo import demo_classifier, demo_images
from captum_moxi.search import Selection
from captum_moxi.search.screens import LastGainsScreen

METHODS = pytest.mark.parametrize("method", [MoXIInsertion, MoXIDeletion])


@pytest.fixture(scope="module")
def demo() -> tuple[nn.Module, Tensor, list[int]]:
    classifier = demo_classifier()
    images, labels = zip(*((image, label) for _, image, label in demo_images()), strict=True)
    return classifier.model, classifier.preprocess(list(images)), [classifier.class_index(label) for label in labels]


@METHODS
def test_selections_on_a_trained_vit_match_the_plain_algorithm(
    method: type[MoXIAttribution], demo: tuple[nn.Module, Tensor, list[int]]
) -> None:
    model, x, targets = demo
    _, selection = method(model).attribute(x, target=targets, n_steps=8, return_selection=True)
    for example, target in enumerate(targets[:2]):
        image = x[example : example + 1]

        @torch.no_grad()
        def value(players: frozenset[int], image: Tensor = image, target: int = target) -> float:
            return reference.log_odds(reference.vit_logits(model, image, list(players)), target)

        order, rewards = getattr(reference, selection.mode)(value, 16, 8)
        assert selection.order[example].tolist() == order
        assert selection.rewards[example].tolist() == pytest.approx(rewards, abs=1e-4)


@METHODS
def test_selections_on_a_trained_resnet_match_the_plain_algorithm(
    method: type[MoXIAttribution], trained_resnet: nn.Module, square_images: tuple[Tensor, Tensor]
) -> None:
    x, channels = square_images
    mask = patch_mask(36, 12)
    _, selection = method(trained_resnet).attribute(x, target=channels, feature_mask=mask, return_selection=True)
    for example, target in enumerate(channels.tolist()):
        image = x[example : example + 1]

        @torch.no_grad()
        def value(players: frozenset[int], image: Tensor = image, target: int = target) -> float:
            present = torch.isin(mask, torch.tensor(sorted(players), dtype=torch.long))
            return reference.log_odds(trained_resnet(image * present).logits[0], target)

        order, rewards = getattr(reference, selection.mode)(value, 9, 9)
        assert selection.order[example].tolist() == order
        assert selection.rewards[example].tolist() == pytest.approx(rewards, abs=1e-4)


@METHODS
@pytest.mark.parametrize("interactions", [True, False])
def test_batches_and_passes_do_not_change_the_result(
    method: type[MoXIAttribution], interactions: bool, demo: tuple[nn.Module, Tensor, list[int]]
) -> None:
    model, x, targets = demo
    attribute = method(model, interactions=interactions).attribute
    together, selection = attribute(x, target=targets, stop="flip", return_selection=True)
    for per_eval in (1, 7, 64):
        _, other = attribute(x, target=targets, stop="flip", perturbations_per_eval=per_eval, return_selection=True)
        assert torch.equal(other.order, selection.order)
    for example, target in enumerate(targets):
        alone = attribute(x[example : example + 1], target=target, stop="flip")
        assert torch.equal(alone[0], together[example])


def test_rank_scores_decrease_from_one_and_are_zero_for_the_other_players() -> None:
    x = torch.randn(2, 5)
    scores, selection = MoXIInsertion(zoo.Classes(5)).attribute(x, target=0, n_steps=4, return_selection=True)
    assert scores.dtype is torch.float32
    for row, order in zip(scores, selection.order.tolist(), strict=True):
        assert row[order].tolist() == pytest.approx([1.0, 0.75, 0.5, 0.25])
        assert int((row == 0).sum()) == 1


@METHODS
def test_the_convergence_delta_of_a_full_search_is_zero(method: type[MoXIAttribution]) -> None:
    moxi, x = method(zoo.Classes(6)), torch.randn(3, 6)
    call = {"target": [0, 1, 2], "feature_mask": torch.tensor([[0, 0, 3, 4, 4, 5]])}
    gains = moxi.attribute(x, **call, score="gain")
    torch.testing.assert_close(moxi.compute_convergence_delta(gains, x, **call), torch.zeros(3), atol=1e-5, rtol=0)
    assert moxi.has_convergence_delta()
    with pytest.raises(ValueError, match="attributions has shapes"):
        moxi.compute_convergence_delta(gains[:, :2], x, **call)


@METHODS
def test_the_convergence_delta_is_what_the_steps_left_over(method: type[MoXIAttribution]) -> None:
    model, x = zoo.Classes(6), torch.randn(3, 6)
    moxi, call = method(model), {"target": [0, 1, 2], "feature_mask": torch.tensor([[0, 0, 3, 4, 4, 5]])}
    gains, selection = moxi.attribute(x, **call, score="gain", n_steps=2, return_selection=True)
    with torch.no_grad():

        def log_odds(values: Tensor) -> Tensor:
            p = model(values).double().softmax(1)[torch.arange(3), torch.arange(3)]
            return (p / (1 - p)).log().float()

        whole = log_odds(x) - log_odds(torch.zeros(3, 6))
    expected = selection.gains.sum(1) - whole
    torch.testing.assert_close(moxi.compute_convergence_delta(gains, x, **call), expected, atol=1e-4, rtol=0)


@METHODS
@pytest.mark.parametrize("return_selection", [False, True])
@pytest.mark.parametrize("return_convergence_delta", [False, True])
def test_attribute_returns_what_was_asked_for_in_order(
    method: type[MoXIAttribution], return_selection: bool, return_convergence_delta: bool
) -> None:
    moxi, x = method(zoo.Classes(4)), torch.randn(2, 4)
    attr = moxi.attribute(x, target=0, score="gain")
    results = moxi.attribute(
        x,
        target=0,
        score="gain",
        return_selection=return_selection,
        return_convergence_delta=return_convergence_delta,
    )
    extras = []
    if return_selection or return_convergence_delta:
        results, *extras = results
    assert torch.equal(results, attr)
    assert [type(extra) for extra in extras] == [Selection] * return_selection + [Tensor] * return_convergence_delta
    if return_convergence_delta:
        assert torch.equal(extras[-1], moxi.compute_convergence_delta(attr, x, target=0))


@METHODS
def test_the_search_stops_at_the_flip(method: type[MoXIAttribution], demo: tuple[nn.Module, Tensor, list[int]]) -> None:
    model, x, targets = demo
    _, selection = method(model).attribute(x, target=targets, stop="flip", min_confidence=0.5, return_selection=True)
    for example, target in enumerate(targets):
        assert bool(selection.flipped[example])
        steps = int(selection.n_steps[example])
        for k in range(steps + 1):
            chosen = selection.order[example, :k].tolist()
            kept = chosen if selection.mode == "insertion" else [p for p in range(16) if p not in chosen]
            with torch.no_grad():
                p = reference.vit_logits(model, x[example : example + 1], kept).softmax(0)
            is_target = int(p.argmax()) == target
            flipped = is_target and float(p[target]) > 0.5 if selection.mode == "insertion" else not is_target
            assert flipped == (k == steps)
            assert float(selection.confidences[example, k]) == pytest.approx(float(p[target]), abs=1e-4)
            assert int(selection.predictions[example, k]) == int(p.argmax())


@METHODS
def test_noise_tunnel_without_noise_changes_nothing(method: type[MoXIAttribution]) -> None:
    x = torch.randn(2, 6)
    tunnel = NoiseTunnel(method(zoo.Classes(6)))
    call = {"target": [0, 1], "feature_mask": torch.tensor([[0, 0, 1, 2, 2, 3], [0, 1, 1, 2, 3, 3]])}
    smooth = tunnel.attribute(x, nt_samples=3, stdevs=0.0, **call)
    torch.testing.assert_close(smooth, method(zoo.Classes(6)).attribute(x, **call))
    delta = tunnel.attribute(x, nt_samples=3, stdevs=0.0, score="gain", return_convergence_delta=True, **call)[1]
    torch.testing.assert_close(delta, torch.zeros(6), atol=1e-5, rtol=0)


@METHODS
@pytest.mark.parametrize("nt_type", ["smoothgrad", "smoothgrad_sq", "vargrad"])
def test_noise_tunnel_works_with_noise(method: type[MoXIAttribution], nt_type: str) -> None:
    x, mask = torch.randn(2, 6), torch.tensor([[0, 0, 1, 2, 2, 3], [0, 1, 1, 2, 3, 3]])
    noisy = NoiseTunnel(method(zoo.Classes(6))).attribute(
        x, nt_type=nt_type, nt_samples=4, nt_samples_batch_size=2, stdevs=0.3, target=[0, 1], feature_mask=mask
    )
    assert noisy.shape == x.shape


@METHODS
def test_captums_sensitivity_works(method: type[MoXIAttribution]) -> None:
    moxi, x = method(zoo.Classes(6)), torch.randn(2, 6)
    assert sensitivity_max(moxi.attribute, x, perturb_radius=0.0, target=[0, 1]).tolist() == [0.0, 0.0]
    assert sensitivity_max(moxi.attribute, x, perturb_radius=0.5, target=[0, 1]).shape == (2,)


@METHODS
def test_gains_on_a_linear_model_have_no_infidelity(method: type[MoXIAttribution]) -> None:
    """Gains are exact for a linear model, so that they predict the effect of setting values to zero."""
    linear, x = nn.Linear(6, 1, bias=False), torch.randn(2, 6)
    gains = method(linear, reward="output").attribute(x, score="gain")

    def set_to_zero(inputs: Tensor) -> tuple[Tensor, Tensor]:
        absent = (torch.rand_like(inputs) < 0.5).float()
        return absent, inputs * (1 - absent)

    assert infidelity(linear, set_to_zero, x, gains, target=0).abs().max() < 1e-8


def test_attribute_future_is_not_supported() -> None:
    with pytest.raises(NotImplementedError, match="does not support attribute_future"):
        MoXIInsertion(zoo.Classes(3)).attribute_future(torch.ones(1, 3), target=0)


def test_deletion_warns_if_the_target_is_not_the_predicted_class() -> None:
    net, x = zoo.Classes(4), torch.randn(3, 4)
    predicted = net(x).argmax(1)
    target = predicted.clone()
    target[1] = (target[1] + 1) % net(x).shape[1]
    message = r"not the predicted class of example 1, .*MoXILocalization"
    with pytest.warns(UserWarning, match=message) as warnings:
        _, selection = MoXIDeletion(net).attribute(x, target=target, stop="flip", return_selection=True)
    assert (selection.n_steps == 0).tolist() == [False, True, False]
    assert warnings[0].filename == __file__


@METHODS
def test_inputs_model_and_random_state_stay_unchanged(method: type[MoXIAttribution]) -> None:
    model, x = zoo.token_model("vit").train(), torch.randn(1, 3, 32, 32, requires_grad=True)
    model.vit.embeddings.dropout.p = 0.5
    before, rng = x.detach().clone(), torch.random.get_rng_state()
    with pytest.warns(UserWarning, match=r"training mode.*Dropout") as warnings:
        result = method(model).attribute(x, target=0, n_steps=2)
    assert len(warnings) == 1
    assert warnings[0].filename == __file__
    assert torch.equal(x, before)
    assert x.grad is None
    assert x.requires_grad
    assert not result.requires_grad
    assert model.training
    assert torch.equal(torch.random.get_rng_state(), rng)
    assert torch.is_grad_enabled()


def test_batch_norm_in_training_mode_keeps_its_statistics(trained_resnet: nn.Module) -> None:
    model = copy.deepcopy(trained_resnet).train()
    moxi, x = MoXIInsertion(model), torch.randn(2, 3, 36, 36)
    before, rng = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
    with pytest.warns(UserWarning, match="training mode"):
        scores = moxi.attribute(x, target=0, feature_mask=patch_mask(36, grid=2), score="gain")
    moxi.compute_convergence_delta(scores, x, target=0, feature_mask=patch_mask(36, grid=2))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), rng)


@METHODS
def test_passes_are_whole_copies_of_the_batch_for_functions_that_depend_on_the_place_of_a_row(
    method: type[MoXIAttribution],
) -> None:
    """As in FeatureAblation, examples keep their places in the batch if perturbations_per_eval is given."""
    net, x, y = zoo.Classes(4), torch.randn(3, 4), torch.tensor([0, 1, 2])

    def loss(x: Tensor) -> Tensor:
        return -nn.functional.cross_entropy(net(x), y.repeat(len(x) // 3), reduction="none")

    for per_eval in (1, 2, 5):
        actual = method(loss, reward="output").attribute(x, perturbations_per_eval=per_eval)
        for example in range(3):
            target = int(y[example])
            alone = method(net, reward="log_probability").attribute(x[example : example + 1], target=target)
            assert torch.equal(actual[example], alone[0])
    # only the place in the batch tells which entry of the list belongs to an example
    by_name = method(lambda x, names: net(x)[torch.arange(len(x)), [int(n) for n in names]], reward="output")
    actual = by_name.attribute(x, additional_forward_args=(["0", "1", "2"],), perturbations_per_eval=1)
    assert torch.equal(actual, method(net, reward="output").attribute(x, target=y))


def test_small_rewards_are_not_ties() -> None:
    weights = torch.tensor([1.0, 3.0, 50.0]) * 1e-8
    moxi = MoXIInsertion(lambda x: x @ weights, reward="output")
    assert moxi.attribute(torch.ones(1, 3), return_selection=True)[1].order.tolist() == [[2, 1, 0]]


def test_small_probabilities_are_not_ties() -> None:
    """The rounding error of probabilities is proportional to each of them, not to the largest."""
    logits = torch.tensor([-12.0, -12.1, -3.0])

    def classes(x: Tensor) -> Tensor:
        return torch.stack([torch.where(x == 0, logits, 0).sum(1), torch.zeros(len(x))], 1)

    _, selection = MoXIDeletion(classes, reward="probability").attribute(
        torch.ones(1, 3), target=0, n_steps=1, return_selection=True
    )
    assert selection.order.tolist() == [[1]]


def test_gains_of_an_integer_output_are_not_rounded() -> None:
    scores = MoXIInsertion(lambda x: (3 * x).long(), reward="probability").attribute(
        torch.ones(1, 3), target=0, score="gain"
    )
    assert scores.dtype is torch.float32
    p = torch.tensor([3.0, 3.0, 3.0]).softmax(0)[0] - torch.zeros(3).softmax(0)[0]
    assert float(scores.sum()) == pytest.approx(float(p), abs=1e-6)


def test_ranks_of_a_half_precision_model_are_distinct() -> None:
    scores = MoXIInsertion(lambda x: x.to(torch.bfloat16), interactions=False).attribute(torch.randn(1, 500), target=0)
    assert len(scores.unique()) == 500


@METHODS
@pytest.mark.parametrize(("interactions", "rows"), [(True, 4 + 3 + 2 + 1), (False, 4 + 4)])
def test_the_progress_bar_counts_rows(
    method: type[MoXIAttribution], interactions: bool, rows: int, capsys: pytest.CaptureFixture[str]
) -> None:
    moxi = method(zoo.Classes(4), interactions=interactions)
    moxi.attribute(torch.randn(1, 4), target=0, show_progress=True)
    assert f"{rows}/{rows}" in capsys.readouterr().err
    moxi.attribute(torch.randn(1, 4), target=0)
    assert not capsys.readouterr().err


def test_the_default_removal_and_players_fit_the_model() -> None:
    images = torch.randn(1, 3, 32, 32)
    vit = CoalitionGame(zoo.token_model("vit"), images, target=0)
    assert isinstance(vit.removal, TokenRemoval)
    assert vit.n_players == 16
    filled = CoalitionGame(zoo.token_model("vit"), images, target=0, baselines=0)
    assert isinstance(filled.removal, BaselineRemoval)
    assert filled.n_players == 16
    assert CoalitionGame(zoo.resnet().eval(), images, target=0).n_players == 36


INVALID = {
    "no target": ({}, ValueError, "target is None.*3 classes"),
    "target out of range": ({"target": 3}, ValueError, "target is 3.*classes 0 to 2"),
    "negative target": ({"target": -1}, ValueError, "target is -1"),
    "target of another batch": ({"target": [0, 1, 2]}, ValueError, "target has 3 entries for a batch of 2"),
    "target tensor of floats": ({"target": torch.tensor([0.0, 1.0])}, TypeError, "target has dtype"),
    "target that is not a number": ({"target": "cat"}, TypeError, "target is 'cat'"),
    "target tuple for classes": ({"target": (0, 1)}, ValueError, r"target is \(0, 1\)"),
    "mask of another shape": ({"target": 0, "feature_mask": torch.arange(3)}, ValueError, "feature_mask has shape"),
    "too many masks": (
        {"target": 0, "feature_mask": (torch.arange(4), torch.arange(4))},
        ValueError,
        "feature_mask has 2 tensors",
    ),
    "mask of booleans": ({"target": 0, "feature_mask": torch.ones(4).bool()}, TypeError, "feature_mask has dtype"),
    "mask with fractions": (
        {"target": 0, "feature_mask": torch.rand(4)},
        ValueError,
        "feature_mask contains fractions",
    ),
    "mask with a negative id": (
        {"target": 0, "feature_mask": torch.arange(4) - 1},
        ValueError,
        "feature_mask contains the negative id -1",
    ),
    "infinite input": (
        {"target": 0, "inputs": torch.full((2, 4), math.inf)},
        ValueError,
        "inputs contains non-finite values",
    ),
    "NaN input": (
        {"target": 0, "inputs": torch.full((2, 4), math.nan)},
        ValueError,
        "inputs contains non-finite values",
    ),
    "empty batch": ({"target": 0, "inputs": torch.zeros(0, 4)}, ValueError, "inputs is an empty batch"),
    "inputs that are not tensors": ({"target": 0, "inputs": [1.0]}, TypeError, "inputs is list"),
    "n_steps of 0": ({"target": 0, "n_steps": 0}, ValueError, "n_steps is 0"),
    "n_steps of a half": ({"target": 0, "n_steps": 0.5}, TypeError, "n_steps is 0.5"),
    "perturbations_per_eval of 0": (
        {"target": 0, "perturbations_per_eval": 0},
        ValueError,
        "perturbations_per_eval is 0",
    ),
    "unknown stop": ({"target": 0, "stop": "never"}, ValueError, "stop is 'never'; pass 'flip' or None"),
    "unknown score": ({"target": 0, "score": "loss"}, ValueError, "score is 'loss'"),
    "confidence above 1": ({"target": 0, "min_confidence": 1.5}, ValueError, "min_confidence is 1.5"),
    "baseline of another shape": ({"target": 0, "baselines": torch.zeros(3)}, ValueError, r"baselines has shape"),
    "too many baselines": ({"target": 0, "baselines": (0, 0)}, ValueError, "baselines has 2 entries"),
    "infinite baseline": ({"target": 0, "baselines": math.inf}, ValueError, r"baselines is inf"),
    "NaN baseline": (
        {"target": 0, "baselines": torch.full((4,), math.nan)},
        ValueError,
        r"baselines contains non-finite values",
    ),
    "baseline that is not a number": ({"target": 0, "baselines": "mean"}, TypeError, "baselines"),
    "too many players": (
        {"target": 0, "inputs": torch.zeros(1, 700)},
        ValueError,
        "feature_mask is None, which makes 700 players.*245,350",
    ),
}
# if no config gives the number of classes, the first forward pass does
REPORTED_AFTER_THE_FIRST_PASS = {"no target", "target out of range", "target tuple for classes"}


@METHODS
@pytest.mark.parametrize("name", INVALID)
def test_invalid_arguments_are_reported_before_any_forward_pass(method: type[MoXIAttribution], name: str) -> None:
    options, error, message = INVALID[name]
    model, calls = zoo.Classes(4), []
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    with pytest.raises(error, match=message):
        method(model).attribute(**{"inputs": torch.randn(2, 4), **options})
    assert len(calls) == (name in REPORTED_AFTER_THE_FIRST_PASS)


@METHODS
@pytest.mark.parametrize("options", [{}, {"target": 5}, {"target": [0, 9]}])
def test_an_invalid_target_of_a_transformers_model_is_reported_before_any_forward_pass(
    method: type[MoXIAttribution], options: dict
) -> None:
    model, calls = zoo.token_model("vit"), []
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    with pytest.raises(ValueError, match="target"):
        method(model).attribute(torch.randn(2, 3, 32, 32), **options)
    assert not calls


@METHODS
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"reward": "odds"}, ValueError, "reward 'odds' is unknown; pass one of log_odds, "),
        ({"removal": "tokens"}, ValueError, "removal 'tokens' is unknown; pass one of token"),
        ({"removal": 3}, TypeError, "removal is 3; pass an instance of Removal"),
        ({"screen": "gradients"}, ValueError, "screen 'gradients' is unknown; pass one of all, gradient:M"),
        ({"beam_width": 0}, ValueError, "beam_width is 0"),
        ({"beam_width": 1.5}, TypeError, "beam_width is 1.5"),
        (
            {"interactions": False, "screen": LastGainsScreen(2)},
            ValueError,
            "interactions is False, .*pass screen=None",
        ),
        ({"interactions": False, "beam_width": 2}, ValueError, "interactions is False, .*beam_width=1"),
    ],
)
def test_invalid_options_are_reported_by_the_constructor(
    method: type[MoXIAttribution], options: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        method(zoo.Classes(3), **options)


def test_a_convergence_delta_of_ranks_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"return_convergence_delta is True, .*pass score='gain'"):
        MoXIInsertion(zoo.Classes(3)).attribute(torch.ones(1, 3), target=0, return_convergence_delta=True)


def test_players_of_too_many_patches_are_squares_of_whole_patches() -> None:
    # 27 x 27 patches of 8 pixels are more than 600. Squares of 2 x 2 patches are 14 x 14 players.
    config = zoo.ViTConfig(**{**zoo.SIZE, "image_size": 216})
    model, x = zoo.randomised(zoo.ViTForImageClassification(config)), torch.randn(1, 3, 216, 216)
    attr, selection = MoXIInsertion(model).attribute(x, target=0, n_steps=2, return_selection=True)
    mask = patch_mask((216, 216), (16, 16))
    assert CoalitionGame(model, x, target=0, feature_mask=mask).n_players == 196
    expected, own = MoXIInsertion(model).attribute(x, target=0, n_steps=2, feature_mask=mask, return_selection=True)
    assert torch.equal(attr, expected)
    assert torch.equal(selection.order, own.order)


def test_stopping_at_the_flip_needs_a_target() -> None:
    with pytest.raises(ValueError, match="stop is 'flip' and target is None"):
        MoXIInsertion(zoo.Classes(3), reward=lambda logits, target: logits.sum(1)).attribute(
            torch.ones(1, 3), stop="flip"
        )


def test_a_mask_is_suggested_for_too_many_players_of_an_image() -> None:
    with pytest.raises(ValueError, match=r"feature_mask=patch_mask\(\(64, 64\), \(4, 4\)\)"):
        MoXIInsertion(nn.Flatten()).attribute(torch.randn(1, 3, 64, 64), target=0)


def test_non_finite_logits_raise_an_error_that_names_the_coalition() -> None:
    def broken(x: Tensor) -> Tensor:
        return torch.where((x != 0).sum(1, keepdim=True) == 2, torch.nan, x)

    with pytest.raises(ValueError, match=r"non-finite logits for example 0 with 2 of 4 players present: \{"):
        MoXIInsertion(broken).attribute(torch.ones(1, 4), target=0)
