import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import zoo
from captum.attr import FeatureAblation
from PIL import Image
from torch import nn
from transformers import ViTImageProcessor

from captum_moxi import CoalitionGame, TokenRemoval, models, patch_mask
from captum_moxi.demo import FOLDER, demo_classifier

STD = [0.1, 0.2, 0.4]


def test_loading_gives_what_an_attribution_needs() -> None:
    classifier = models.load(FOLDER / "model")
    assert not classifier.model.training
    assert classifier.model.dtype is torch.float32
    assert classifier.labels[:3] == ["0", "1", "2"]
    x = classifier.preprocess([Image.new("L", (100, 80), 255), Image.new("RGB", (56, 56))])
    assert x.shape == (2, 3, 56, 56)
    torch.testing.assert_close(x[0], torch.ones(3, 56, 56))
    torch.testing.assert_close(classifier.to_images(x)[0], torch.ones(56, 56, 3))
    torch.testing.assert_close(classifier.to_images(x)[1], torch.zeros(56, 56, 3))


def test_images_become_pixel_values_as_they_are() -> None:
    classifier = replace(demo_classifier("cpu"), processor=ViTImageProcessor(image_mean=[0.2, 0.5, 0.4], image_std=STD))
    picture = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    # of the processor's own size, which it does not resize
    x = classifier.preprocess(Image.fromarray(picture))
    torch.testing.assert_close(classifier.to_pixel_values(torch.from_numpy(picture)[None] / 255), x)
    torch.testing.assert_close(classifier.to_pixel_values(classifier.to_images(x)), x)
    images = torch.rand(2, 5, 7, 3, requires_grad=True)
    classifier.to_pixel_values(images).sum().backward()
    torch.testing.assert_close(images.grad, (1 / torch.tensor(STD)).expand(2, 5, 7, 3))
    plain = replace(classifier, processor=ViTImageProcessor(do_normalize=False))
    assert torch.equal(plain.to_pixel_values(images), images.permute(0, 3, 1, 2))


def test_what_is_no_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no config\.json"):
        models.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match="could not be loaded as an image classifier"):
        models.load(tmp_path)


def test_a_model_without_its_classifier_is_refused(tmp_path: Path) -> None:
    classifier = demo_classifier()
    classifier.model.vit.save_pretrained(tmp_path)
    classifier.processor.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"no weights for classifier\.bias, classifier\.weight"):
        models.load(tmp_path)


def test_weights_that_are_cut_short_are_told(tmp_path: Path) -> None:
    shutil.copytree(FOLDER / "model", tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="could not be loaded"):
        models.load(tmp_path / "cut")


def test_a_head_that_was_replaced_says_itself_how_many_classes_it_has() -> None:
    model = zoo.token_model("vit")
    model.classifier = nn.Linear(32, 10)
    assert models.num_classes(model) is None
    assert CoalitionGame(model, torch.randn(1, 3, 32, 32), target=7).n_players == 16


def test_weights_that_would_be_unpickled_are_refused(tmp_path: Path) -> None:
    for name in ("config.json", "preprocessor_config.json"):
        shutil.copy(FOLDER / "model" / name, tmp_path)
    torch.save(demo_classifier().model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="could not be loaded"):
        models.load(tmp_path)


@pytest.fixture
def imagenet() -> models.ImageClassifier:
    model = zoo.token_model("vit")
    names = ["tench, Tinca tinca", "goldfish", "great white shark, white shark", "tiger shark", "crane"]
    model.config.id2label = dict(enumerate(names))
    return models.ImageClassifier(model, None, "test")


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("goldfish", 1),
        ("Tench", 0),
        ("tinca tinca", 0),
        ("WHITE SHARK", 2),
        ("tiger", 3),
        ("4", 4),
        (2, 2),
        ("tench, Tinca tinca", 0),
    ],
)
def test_classes_by_name(imagenet: models.ImageClassifier, name: str | int, index: int) -> None:
    assert imagenet.class_index(name) == index


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("shark", "fits 2 classes: 2 .*; 3 "),
        ("godlfish", "near it are goldfish"),
        ("5", "5 classes, 0 to 4"),
        ("", "not one of"),
    ],
)
def test_classes_that_are_not_there_are_told(imagenet: models.ImageClassifier, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        imagenet.class_index(name)


def test_a_name_that_stands_twice_is_told_of_both() -> None:
    classifier = models.ImageClassifier(zoo.token_model("vit"), None, "test")
    classifier.model.config.id2label = dict(enumerate(["crane", "crane (n02012849)", "heron", "stork", "ibis"]))
    with pytest.raises(ValueError, match=r"fits 2 classes: 0 \(crane\); 1 \(crane \(n02012849\)\)"):
        classifier.class_index("crane")
    assert classifier.class_index("crane (n02012849)") == 1


def test_an_int_is_always_an_index() -> None:
    classifier = models.ImageClassifier(zoo.token_model("vit"), None, "test")
    classifier.model.config.id2label = dict(enumerate("43210"))
    assert classifier.class_index(0) == 0
    assert classifier.class_index("0") == 4


@pytest.mark.parametrize(
    "model",
    [
        lambda: zoo.ViTForImageClassification(
            zoo.ViTConfig(**zoo.SIZE, hidden_dropout_prob=0, attention_probs_dropout_prob=0.5)
        ),
        lambda: zoo.Dinov2ForImageClassification(zoo.Dinov2Config(**zoo.SIZE, drop_path_rate=0.5)),
    ],
    ids=["attention dropout", "stochastic depth"],
)
def test_randomness_inside_layers_of_transformers(model: object) -> None:
    assert models.random_layer(model().train())
    assert models.random_layer(model().eval()) is None


def test_a_number_is_a_name_where_names_are_numbers() -> None:
    assert demo_classifier().class_index("13") == 13


def test_the_wrapper_returns_logits_for_captums_own_classes() -> None:
    model, x = zoo.token_model("vit"), torch.randn(2, 3, 32, 32)
    wrapper = models.LogitsModel(model)
    with torch.no_grad():
        assert torch.equal(wrapper(x), model(x).logits)
        larger = torch.randn(1, 3, 48, 48)
        assert torch.equal(wrapper(larger), model(larger, interpolate_pos_encoding=True).logits)
    mask = patch_mask(32, 16)
    attribution = FeatureAblation(wrapper).attribute(x, target=1, feature_mask=mask)
    for player in range(4):
        with torch.no_grad():
            change = wrapper(x)[:, 1] - wrapper(torch.where(mask == player, 0, x))[:, 1]
        row, column = 16 * (player // 2), 16 * (player % 2)
        torch.testing.assert_close(attribution[:, 0, row, column], change)


@pytest.mark.parametrize("name", zoo.TOKEN_MODELS)
def test_models_with_patch_tokens(name: str) -> None:
    model = zoo.token_model(name)
    for given in (model, models.LogitsModel(model), nn.DataParallel(model), model.forward):
        assert models.transformer(given) is model
    assert models.has_patch_tokens(model)
    assert models.patch_size(model) == (8, 8)
    assert len(models.encoder_layers(model)) == 3
    assert models.num_classes(models.LogitsModel(model)) == 5


def test_other_models_get_players_of_16_by_16_pixels() -> None:
    for model in (zoo.swin(), zoo.resnet()):
        assert not models.has_patch_tokens(model)
        assert CoalitionGame(model.eval(), torch.randn(1, 3, 32, 32), target=0).n_players == 4
    assert CoalitionGame(nn.Flatten(), torch.randn(1, 3, 4, 4), target=0).n_players == 48
    assert models.transformer(lambda x: x) is None


def test_a_function_around_a_model_may_name_its_embeddings() -> None:
    model, x = zoo.token_model("vit"), torch.randn(1, 3, 32, 32)

    def twice(x: torch.Tensor) -> torch.Tensor:
        return 2 * model(x).logits

    removal, rows = TokenRemoval(model.vit.embeddings, patch_size=8), torch.rand(5, 16) < 0.5
    game = CoalitionGame(twice, x, target=0, reward="output", removal=removal)
    plain = CoalitionGame(model, x, target=0, reward="output")
    torch.testing.assert_close(game(rows), 2 * plain(rows))


@pytest.mark.parametrize(
    ("layer", "named"), [(nn.Dropout(0.5), "Dropout"), (nn.BatchNorm1d(3), "BatchNorm1d"), (nn.Dropout(0.0), None)]
)
def test_layers_that_change_between_passes(layer: nn.Module, named: str | None) -> None:
    model = nn.Sequential(nn.Linear(3, 3), layer)
    assert models.random_layer(model) == named
    assert models.random_layer(model.eval()) is None
    assert models.random_layer(lambda x: x) is None
