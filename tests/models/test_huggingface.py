import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
import zero_shot_models
import zoo
from captum.attr import FeatureAblation
from packaging.version import Version
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from transformers import ViTImageProcessor, modeling_utils

from captum_moxi import CoalitionGame, models, patch_mask
from captum_moxi.demo import FOLDER, demo_classifier

STD = [0.1, 0.2, 0.4]


def test_a_loaded_classifier_is_ready_for_attribution() -> None:
    classifier = models.load(FOLDER / "model", "cpu")
    assert not classifier.model.training
    assert classifier.model.dtype is torch.float32
    assert classifier.labels[:3] == ["0", "1", "2"]
    x = classifier.preprocess([Image.new("L", (100, 80), 255), Image.new("RGB", (56, 56))])
    assert x.shape == (2, 3, 56, 56)
    torch.testing.assert_close(x[0], torch.ones(3, 56, 56))
    torch.testing.assert_close(classifier.to_images(x)[0], torch.ones(56, 56, 3))
    torch.testing.assert_close(classifier.to_images(x)[1], torch.zeros(56, 56, 3))


def test_images_and_pixel_values_convert_into_each_other() -> None:
    processor = ViTImageProcessor(image_mean=[0.2, 0.5, 0.4], image_std=STD)
    classifier = replace(demo_classifier("cpu"), processor=processor)
    # an image of the processor's size is not resized
    picture = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    x = classifier.preprocess(Image.fromarray(picture))
    torch.testing.assert_close(classifier.to_pixel_values(torch.from_numpy(picture)[None] / 255), x)
    torch.testing.assert_close(classifier.to_pixel_values(classifier.to_images(x)), x)


def test_paths_are_opened_upright(tmp_path: Path) -> None:
    classifier = demo_classifier("cpu")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (56, 56, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # The camera was turned by a quarter.
    path = tmp_path / "photo.png"
    picture.save(path, exif=exif)
    expected = classifier.preprocess(picture.transpose(Image.Transpose.ROTATE_270))
    assert torch.equal(classifier.preprocess(str(path)), expected)
    assert torch.equal(classifier.preprocess([path, picture.rotate(0)])[:1], expected)
    with pytest.raises(ValueError, match=r"image '.*cat.jpg': no such file"):
        classifier.preprocess(tmp_path / "cat.jpg")


@pytest.mark.parametrize("images", [np.zeros((4, 4, 3), np.uint8), torch.zeros(1, 3, 4, 4), 3, [None]])
def test_other_types_of_images_are_rejected(images: Any) -> None:
    with pytest.raises(
        TypeError, match=r"images contains a \w+; pass PIL images or paths, for example Image.fromarray"
    ):
        demo_classifier("cpu").preprocess(images)


def test_gradients_flow_through_the_conversion_to_pixel_values() -> None:
    classifier = replace(demo_classifier("cpu"), processor=ViTImageProcessor(image_std=STD))
    images = torch.rand(2, 5, 7, 3, requires_grad=True)
    classifier.to_pixel_values(images).sum().backward()
    torch.testing.assert_close(images.grad, (1 / torch.tensor(STD)).expand(2, 5, 7, 3))


def test_a_processor_that_does_not_normalize_leaves_the_values_unchanged() -> None:
    classifier = replace(demo_classifier("cpu"), processor=ViTImageProcessor(do_normalize=False))
    images = torch.rand(2, 5, 7, 3)
    assert torch.equal(classifier.to_pixel_values(images), images.permute(0, 3, 1, 2))
    assert torch.equal(classifier.to_images(classifier.to_pixel_values(images)), images)


def test_a_folder_that_is_not_an_image_classifier_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is not a folder, and not a valid hub name; pass a folder"):
        models.load(tmp_path / "missing")
    with pytest.raises(ValueError, match=r"contains no config\.json"):
        models.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match="could not be loaded as an image classifier"):
        models.load(tmp_path)


@pytest.mark.parametrize("reason", ["DefaultCPUAllocator: can't allocate memory", "CUDA out of memory"])
def test_a_model_that_does_not_fit_into_memory_is_not_blamed_on_its_name(
    monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise RuntimeError(f"{reason}: you tried to allocate 2.00 GiB")

    monkeypatch.setattr("transformers.AutoModelForImageClassification.from_pretrained", fail)
    with pytest.raises(torch.OutOfMemoryError, match=r"model '.*' does not fit into memory .*2,048 MiB") as error:
        models.load(FOLDER / "model")
    assert "hub name" not in str(error.value) and "pass a smaller model" in str(error.value)


def test_a_model_without_its_classifier_is_rejected(tmp_path: Path) -> None:
    classifier = demo_classifier("cpu")
    classifier.model.vit.save_pretrained(tmp_path)
    classifier.processor.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"no weights for classifier\.bias, classifier\.weight"):
        models.load(tmp_path)


@pytest.mark.parametrize(
    ("config_class", "class_name", "package"),
    [
        (transformers.DinatConfig, "DinatForImageClassification", "natten"),
        (transformers.TimmWrapperConfig, "TimmWrapperForImageClassification", "timm"),
    ],
)
def test_a_missing_package_is_named(config_class: Any, class_name: str, package: str, tmp_path: Path) -> None:
    if getattr(transformers.utils, f"is_{package}_available")():
        pytest.skip(f"{package} is installed")
    config = config_class()
    config.architectures = [class_name]
    config.save_pretrained(tmp_path)
    ViTImageProcessor().save_pretrained(tmp_path)
    save_file({"weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=f"could not be loaded as an image classifier .*{package}"):
        models.load(tmp_path)


def test_truncated_weights_are_rejected(tmp_path: Path) -> None:
    shutil.copytree(FOLDER / "model", tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="could not be loaded"):
        models.load(tmp_path / "cut")


def test_pickled_weights_are_rejected(tmp_path: Path) -> None:
    for name in ("config.json", "preprocessor_config.json"):
        shutil.copy(FOLDER / "model" / name, tmp_path)
    torch.save(demo_classifier("cpu").model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="could not be loaded"):
        models.load(tmp_path)


@pytest.fixture
def imagenet() -> models.ImageClassifier:
    """A classifier with class names in the form of ImageNet's."""
    model = zoo.token_model("vit")
    names = ["tench, Tinca tinca", "goldfish", "great white shark, white shark", "tiger shark", "crane"]
    model.config.id2label = dict(enumerate(names))
    return models.ImageClassifier(model, ViTImageProcessor(), "test")


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
def test_a_class_is_found_by_index_name_synonym_or_part(
    imagenet: models.ImageClassifier, name: str | int, index: int
) -> None:
    assert imagenet.class_index(name) == index


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("shark", "class 'shark' matches 2 classes: 2 .*; 3 .*; pass an index"),
        ("godlfish", "pass a name such as goldfish"),
        ("5", "class 5 does not exist; the model has classes 0 to 4"),
        (-1, "class -1 does not exist"),
        ("", "not one of .*; pass an index, or a name such as"),
    ],
)
def test_an_ambiguous_or_unknown_class_is_rejected(
    imagenet: models.ImageClassifier, name: str | int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        imagenet.class_index(name)


@pytest.mark.parametrize(
    ("names", "query", "index"),
    [
        # a word before a part
        (["oystercatcher", "tabby cat"], "cat", 1),
        # a synonym before a word
        (["Siamese cat", "feline, cat"], "cat", 1),
        # a full name before a synonym
        (["feline, cat", "cat"], "cat", 1),
        (["desktop computer", "desk-top, desk"], "desk", 1),
        (["house-cat", "cathedral"], "cat", 0),
        (["C++ book", "CSS book"], "c++", 0),
    ],
)
def test_better_matches_of_a_name_come_first(
    imagenet: models.ImageClassifier, names: list[str], query: str, index: int
) -> None:
    imagenet.model.config.id2label = dict(enumerate(names))
    assert imagenet.class_index(query) == index


def test_an_ambiguous_word_lists_only_the_classes_with_this_word(imagenet: models.ImageClassifier) -> None:
    imagenet.model.config.id2label = dict(enumerate(["oystercatcher", "tabby, tabby cat", "Persian cat"]))
    with pytest.raises(ValueError, match=r"matches 2 classes: 1 \(tabby, tabby cat\); 2 \(Persian cat\); pass"):
        imagenet.class_index("cat")


def test_a_name_shared_by_two_classes_lists_both(imagenet: models.ImageClassifier) -> None:
    imagenet.model.config.id2label = dict(enumerate(["crane", "crane (n02012849)", "heron", "stork", "ibis"]))
    with pytest.raises(ValueError, match=r"matches 2 classes: 0 \(crane\); 1 \(crane \(n02012849\)\)"):
        imagenet.class_index("crane")
    assert imagenet.class_index("crane (n02012849)") == 1


def test_an_int_is_always_an_index_and_digits_may_be_a_name(imagenet: models.ImageClassifier) -> None:
    imagenet.model.config.id2label = dict(enumerate("43210"))
    assert imagenet.class_index(0) == 0
    assert imagenet.class_index("0") == 4
    assert demo_classifier("cpu").class_index("13") == 13


def test_logits_model_makes_a_classifier_usable_with_captums_classes() -> None:
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


@pytest.mark.parametrize("training", [True, False])
def test_logits_model_has_the_mode_of_its_model(training: bool) -> None:
    assert models.LogitsModel(zoo.token_model("vit").train(training)).training is training


def test_the_number_of_classes_is_unknown_after_the_head_was_replaced() -> None:
    model = zoo.token_model("vit")
    assert models.num_classes(model) == models.num_classes(models.LogitsModel(model)) == 5
    model.classifier = nn.Linear(32, 10)
    assert models.num_classes(model) is None
    assert models.num_classes(zoo.Classes(4)) is None
    # the game then learns the number from the output
    assert CoalitionGame(model, torch.randn(1, 3, 32, 32), target=7).n_players == 16


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
def test_code_in_a_model_folder_does_not_run(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(FOLDER / "model", tmp_path / "model")
    settings = json.loads((tmp_path / "model" / file).read_text())
    class_names = {
        "config.json": {"AutoConfig": "evil.Evil", "AutoModelForImageClassification": "evil.Evil"},
        "preprocessor_config.json": {"AutoImageProcessor": "evil.Evil"},
    }
    settings |= {"auto_map": class_names[file], "model_type": "evil", "image_processor_type": "Evil"}
    (tmp_path / "model" / file).write_text(json.dumps(settings))
    (tmp_path / "model" / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    # a prompt would read the answer "y" here
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 10))
    with pytest.raises(ValueError, match="could not be loaded as an image classifier"):
        models.load(tmp_path / "model", "cpu")
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def requested_kernels(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kernels that transformers would download and run."""
    requested: list[str] = []
    monkeypatch.setattr(modeling_utils, "lazy_import_flash_attention", lambda name, **_: requested.append(name))
    return requested


def add_settings(folder: Path, **settings: Any) -> None:
    """Add settings to the config.json of a model."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | settings))


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
@pytest.mark.parametrize("value", ["owner/kernel", "owner/kernel@v1:attention", {"": "owner/kernel"}])
def test_attention_kernels_do_not_run(key: str, value: Any, tmp_path: Path, requested_kernels: list[str]) -> None:
    folder = shutil.copytree(FOLDER / "model", tmp_path / "model")
    add_settings(folder, **{key: value})
    if key == "attn_implementation" and Version(transformers.__version__) < Version("5.1"):
        models.load(folder, "cpu")  # This version ignores the key.
        assert not requested_kernels
        return
    with pytest.raises(ValueError, match=r"requests the attention implementation 'owner/kernel.*remove") as error:
        models.load(folder, "cpu")
    assert "\n" not in str(error.value)
    assert not requested_kernels


def test_attention_kernels_of_a_part_of_a_model_do_not_run(tmp_path: Path, requested_kernels: list[str]) -> None:
    folder = zero_shot_models.save("clip", tmp_path)
    add_settings(folder, _attn_implementation={"vision_config": "owner/kernel"})
    with pytest.raises(ValueError, match="requests the attention implementation 'owner/kernel'"):
        models.load(folder, "cpu", classes=["cat", "dog"])
    assert not requested_kernels


@pytest.mark.parametrize("value", [None, "eager", "sdpa"])
def test_the_attention_of_transformers_is_accepted(value: str | None, tmp_path: Path) -> None:
    folder = shutil.copytree(FOLDER / "model", tmp_path / "model")
    add_settings(folder, attn_implementation=value)
    x = torch.randn(1, 3, 56, 56)
    with torch.no_grad():
        logits = models.load(folder, "cpu").model(x).logits
        torch.testing.assert_close(logits, demo_classifier("cpu").model(x).logits)
