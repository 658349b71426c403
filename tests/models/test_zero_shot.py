from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
import zero_shot_models
from PIL import Image
from torch import Tensor
from transformers import (
    AutoModelForZeroShotImageClassification,
    AutoTokenizer,
    CLIPConfig,
    CLIPForImageClassification,
    CLIPImageProcessor,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES
from zero_shot_models import MODELS

from captum_moxi import (
    CoalitionGame,
    GradCam,
    GradientScreen,
    MoXIDeletion,
    MoXIInsertion,
    MoXILocalization,
    MoXISymmetric,
    TokenRemoval,
    load,
    patch_mask,
)
from captum_moxi.demo import FOLDER
from captum_moxi.models import ImageClassifier
from captum_moxi.removal import BaselineRemoval

CLASSES = ["a cat", "the dog on a desk", "coffee"]


@pytest.fixture(autouse=True)
def siglip_tokenizer(request: pytest.FixtureRequest) -> None:
    zero_shot_models.skip_without_tokenizer(request.node.name)


SIGMOIDS = {"siglip", "siglip2"}
PADDED = {"align", "siglip", "siglip2", "tipsv2"}
N_PREFIX = {"siglip": 0, "siglip2": 0, "tipsv2": 2}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("zero-shot")
    return {name: zero_shot_models.save(name, root / name) for name in MODELS}


@pytest.fixture
def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))


def patches_of(x: Tensor) -> dict[str, Tensor]:
    """What SigLIP 2 receives: one row of 8 x 8 x 3 values per patch."""
    squares = [x[:, :, 8 * i : 8 * i + 8, 8 * j : 8 * j + 8] for i in range(4) for j in range(4)]
    count = len(x)
    return {
        "pixel_values": torch.stack([square.permute(0, 2, 3, 1).flatten(1) for square in squares], 1),
        "pixel_attention_mask": torch.ones(count, 16, dtype=torch.long),
        "spatial_shapes": torch.tensor([[4, 4]] * count),
    }


def reference(folder: Path, x: Tensor, texts: list[str]) -> Tensor:
    """The logits of transformers' own model in the dtype of the images. It encodes the texts in each call."""
    model = AutoModelForZeroShotImageClassification.from_pretrained(
        folder, attn_implementation="eager", dtype=x.dtype
    ).eval()
    if folder.name == "tipsv2":
        # In half precision, its text encoder returns float32, and transformers' own model fails.
        model.text_model.register_forward_hook(
            lambda module, args, output: setattr(output, "pooler_output", output.pooler_output.to(x.dtype))
        )
    length = min(64, model.config.text_config.max_position_embeddings)
    padding = {"padding": "max_length", "max_length": length} if folder.name in PADDED else {"padding": True}
    tokens = AutoTokenizer.from_pretrained(folder)(texts, return_tensors="pt", **padding)
    tokens.pop("token_type_ids", None)
    images = patches_of(x) if folder.name == "siglip2" else {"pixel_values": x}
    with torch.no_grad():
        return model(**tokens, **images).logits_per_image


def masked_reference(
    monkeypatch: pytest.MonkeyPatch, folder: Path, x: Tensor, texts: list[str], present: Tensor
) -> Tensor:
    """The logits if no token attends to an absent patch: their scores are -inf in every softmax over the patches."""
    kept = torch.cat([torch.ones(N_PREFIX.get(folder.name, 1), dtype=torch.bool), present])
    softmax = torch.nn.functional.softmax

    def masked_softmax(scores: Tensor, *args: object, **kwargs: object) -> Tensor:
        if scores.shape[-1] == len(kept):
            scores = scores.masked_fill(~kept, -torch.inf)
        return softmax(scores, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(torch.nn.functional, "softmax", masked_softmax)
        return reference(folder, x, texts)


@pytest.mark.parametrize("name", MODELS)
def test_the_logits_are_those_of_transformers(folders: dict[str, Path], picture: Image.Image, name: str) -> None:
    classifier = load(folders[name], "cpu", classes=CLASSES)
    x = classifier.preprocess([picture, picture.rotate(90)])
    assert x.shape == (2, 3, 32, 32)
    torch.testing.assert_close(classifier.model(x).logits, reference(folders[name], x, CLASSES))
    assert classifier.labels == CLASSES
    assert classifier.class_index("dog") == 1
    assert classifier.model.config.problem_type == (
        "multi_label_classification" if name in SIGMOIDS else "single_label_classification"
    )


@pytest.mark.parametrize("name", [name for name in MODELS if name != "align"])
def test_absent_patches_are_removed_as_if_no_token_attends_to_them(
    folders: dict[str, Path], picture: Image.Image, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    classifier = load(folders[name], "cpu", classes=CLASSES)
    x = classifier.preprocess(picture)
    game = CoalitionGame(classifier.model, x, target=1, reward="logit")
    assert isinstance(game.removal, TokenRemoval)
    assert game.n_players == 16
    coalitions = torch.stack([torch.arange(16) < count for count in (1, 5, 15, 16)])[:, torch.randperm(16)]
    expected = [masked_reference(monkeypatch, folders[name], x, CLASSES, row)[0, 1] for row in coalitions]
    torch.testing.assert_close(game(coalitions), torch.stack(expected), rtol=1e-4, atol=1e-4)
    assert len(set(game(coalitions).tolist())) == 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", [name for name in MODELS if name != "align"])
def test_tokens_are_removed_in_half_precision(
    folders: dict[str, Path], picture: Image.Image, monkeypatch: pytest.MonkeyPatch, name: str, dtype: torch.dtype
) -> None:
    classifier = load(folders[name], "cpu", dtype, classes=CLASSES)
    x = classifier.preprocess(picture)
    assert x.dtype == dtype == classifier.model(x).logits.dtype
    game = CoalitionGame(classifier.model, x, target=1, reward="logit")
    coalitions = torch.arange(16) < torch.tensor([[1], [3], [8], [15], [16]])
    expected = [masked_reference(monkeypatch, folders[name], x, CLASSES, row)[0, 1] for row in coalitions]
    torch.testing.assert_close(game(coalitions).to(dtype), torch.stack(expected), rtol=0, atol=rounding_of(classifier))


def rounding_of(classifier: ImageClassifier) -> float:
    """Largest rounding error of a logit: a cosine is rounded several times before it is multiplied by the scale."""
    weight = classifier.model.classifier.weight
    return 8 * torch.finfo(weight.dtype).eps * weight.norm(dim=1).max().item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_absent_cells_are_filled(folders: dict[str, Path], picture: Image.Image, name: str, dtype: torch.dtype) -> None:
    classifier = load(folders[name], "cpu", dtype, classes=CLASSES)
    x = classifier.preprocess(picture)
    columns = torch.arange(4).repeat_interleave(8)
    game = CoalitionGame(classifier.model, x, target=1, reward="logit", removal="zero", feature_mask=columns[None])
    coalitions = torch.arange(4) < torch.tensor([[1], [2], [3], [4]])
    expected = [reference(folders[name], torch.where(row[columns], x, 0), CLASSES)[0, 1] for row in coalitions]
    torch.testing.assert_close(game(coalitions).to(dtype), torch.stack(expected), rtol=0, atol=rounding_of(classifier))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_every_attribution_is_finite_in_half_precision(
    folders: dict[str, Path], picture: Image.Image, name: str, dtype: torch.dtype
) -> None:
    classifier = load(folders[name], "cpu", dtype, classes=CLASSES)
    x = classifier.preprocess(picture)
    # In float16, ALIGN's features of an image without any present player are zeros.
    for method, removal in product((MoXIInsertion, MoXIDeletion, MoXISymmetric), (None, "zero")):
        _, selection = method(classifier, removal=removal).attribute(
            x, target=1, n_steps=2, feature_mask=patch_mask(32, grid=4), return_selection=True
        )
        assert selection.rewards.isfinite().all()
        assert selection.order.shape == (1, 2)
    assert GradCam(classifier).attribute(x, target=1).isfinite().all()


def test_features_without_any_value_have_the_logits_of_the_bias_in_every_dtype(folders: dict[str, Path]) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        model = load(folders["align"], "cpu", dtype, classes=CLASSES).model
        model.image_features = lambda encoder, images: images.new_zeros(len(images), encoder.config.projection_dim)
        assert model(torch.zeros(2, 3, 32, 32, dtype=dtype)).logits.tolist() == [[0, 0, 0]] * 2


def test_without_patches_clip_has_its_class_token_and_siglip_attends_to_nothing(
    folders: dict[str, Path], picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = torch.zeros(1, 16, dtype=torch.bool)
    classifier = load(folders["clip"], "cpu", classes=CLASSES)
    x = classifier.preprocess(picture)
    expected = masked_reference(monkeypatch, folders["clip"], x, CLASSES, nobody[0])[:, 2]
    torch.testing.assert_close(CoalitionGame(classifier.model, x, target=2, reward="logit")(nobody), expected)

    classifier = load(folders["siglip"], "cpu", classes=CLASSES)
    head = classifier.model.encoder.vision_model.head
    # the attention of the head returns the bias of its last layer, as the weighted sum of no values is 0
    pooled = head.attention.out_proj.bias
    pooled = pooled + head.mlp(head.layernorm(pooled))
    expected = classifier.model.classifier(pooled / pooled.norm())[2]
    torch.testing.assert_close(CoalitionGame(classifier.model, x, target=2, reward="logit")(nobody)[0], expected)


def test_align_has_a_grid_that_is_filled(folders: dict[str, Path], picture: Image.Image) -> None:
    classifier = load(folders["align"], "cpu", classes=CLASSES)
    game = CoalitionGame(classifier.model, classifier.preprocess(picture), target=0)
    assert isinstance(game.removal, BaselineRemoval)
    assert game.n_players == 36


@pytest.mark.parametrize("name", ["clip", "siglip", "siglip2"])
def test_searches_screens_and_localization_run_on_texts(
    folders: dict[str, Path], picture: Image.Image, name: str
) -> None:
    classifier = load(folders[name], "cpu", classes=CLASSES)
    x = classifier.preprocess([picture, picture.rotate(180)])
    attributions, selection = MoXIInsertion(classifier).attribute(x, target=[0, 2], return_selection=True)
    assert attributions.shape == x.shape
    assert selection.order.sort(1).values.tolist() == [list(range(16))] * 2
    exact = MoXIDeletion(classifier).attribute(x, target=1)
    torch.testing.assert_close(MoXIDeletion(classifier, screen=GradientScreen(16)).attribute(x, target=1), exact)
    assert MoXILocalization(classifier).attribute(x, target=classifier.class_index("coffee")).shape == x.shape


def test_a_single_class_of_siglip_has_a_sigmoid(folders: dict[str, Path], picture: Image.Image) -> None:
    classifier = load(folders["siglip"], "cpu", classes=["a cat"])
    x = classifier.preprocess(picture)
    logit = reference(folders["siglip"], x, ["a cat"])[:, 0]
    game = CoalitionGame(classifier.model, x, target=0)
    torch.testing.assert_close(game.full.rewards, logit)
    torch.testing.assert_close(game.full.confidences, logit.sigmoid())
    # another class does not change the probability of the first
    other = CoalitionGame(load(folders["siglip"], "cpu", classes=["a cat", "a dog"]).model, x, target=0)
    torch.testing.assert_close(other.full.confidences, game.full.confidences)


def test_a_template_is_part_of_the_text_but_not_of_the_name(folders: dict[str, Path], picture: Image.Image) -> None:
    classifier = load(folders["clip"], "cpu", classes=["cat", "dog"], template="a photo of a {}")
    x = classifier.preprocess(picture)
    expected = reference(folders["clip"], x, ["a photo of a cat", "a photo of a dog"])
    torch.testing.assert_close(classifier.model(x).logits, expected)
    assert classifier.labels == ["cat", "dog"]


def test_siglip2_accepts_images_of_any_shape(folders: dict[str, Path]) -> None:
    classifier = load(folders["siglip2"], "cpu", classes=CLASSES)
    wide = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 64, 3), dtype=np.uint8))
    x = classifier.preprocess(wide)
    assert x.shape == (1, 3, 16, 64)
    # the image already has the shape of its patches, so the processor changes only its values
    torch.testing.assert_close(classifier.to_images(x)[0], torch.from_numpy(np.asarray(wide).copy()) / 255)
    assert CoalitionGame(classifier.model, x, target=0).n_players == 16
    with pytest.raises(ValueError, match="the images have different shapes, in patches:"):
        classifier.preprocess([wide, wide.rotate(90, expand=True)])


def test_the_text_encoder_is_removed(folders: dict[str, Path]) -> None:
    classifier = load(folders["clip"], "cpu", classes=CLASSES)
    assert not any("text_model" in name for name, _ in classifier.model.named_parameters())
    assert not classifier.model.training
    assert (
        repr(classifier) == f"ImageClassifier({str(folders['clip'])!r}: ZeroShotForImageClassification with 3 classes)"
    )


def test_every_type_of_transformers_is_supported_or_rejected_with_a_message(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    for model_type, names in MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES.items():
        if model_type in folders:
            continue
        folder = tmp_path / model_type
        folder.mkdir()
        (folder / "config.json").write_text(f'{{"model_type": "{model_type}", "architectures": ["{names}"]}}')
        with pytest.raises(ValueError, match=f"is a zero-shot classifier of type {model_type}, .* pass a model of one"):
            load(folder, "cpu", classes=CLASSES)


@pytest.mark.parametrize(
    ("classes", "template", "error", "message"),
    [
        (None, None, ValueError, "is a zero-shot classifier, whose classes are texts; pass classes"),
        (None, "a {}", ValueError, "is a zero-shot classifier, whose classes are texts; pass classes"),
        ([], None, ValueError, r"classes is \[\]; pass at least one text"),
        (["cat", " "], None, ValueError, "and no empty text"),
        (["cat", "dog", "cat"], None, ValueError, "classes contains 'cat' more than once"),
        ("cat", None, TypeError, "classes is 'cat'; pass a list of texts"),
        ([1], None, TypeError, r"classes is \[1\]; pass a list of texts"),
        (["cat"], None, ValueError, "classes contains only 'cat', but clip compares classes with each other"),
        (["cat", "dog"], "a photo", ValueError, "template is 'a photo'; pass a text with one {}"),
        (["cat", "dog"], "{} {}", ValueError, "pass a text with one {}"),
        (["cat", "dog"], 3, TypeError, "template is 3; pass a text"),
        (
            ["cat " * 20, "dog"],
            None,
            ValueError,
            "classes contains 'cat cat .*' with 22 tokens, but the model accepts 20",
        ),
    ],
)
def test_unsuitable_classes_are_rejected(
    folders: dict[str, Path], classes: object, template: object, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        load(folders["clip"], "cpu", classes=classes, template=template)


@pytest.mark.parametrize("arguments", [{"classes": ["cat"]}, {"template": "a {}"}])
def test_a_classifier_with_classes_of_its_own_accepts_no_others(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"with classes of its own; leave out {next(iter(arguments))}"):
        load(FOLDER / "model", "cpu", **arguments)


def test_a_clip_with_a_trained_head_is_an_ordinary_classifier(tmp_path: Path) -> None:
    config = CLIPConfig(vision_config=zero_shot_models.VISION, text_config=zero_shot_models.TEXT, num_labels=4)
    CLIPForImageClassification(config).save_pretrained(tmp_path)
    CLIPImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    classifier = load(tmp_path, "cpu")
    assert isinstance(classifier, ImageClassifier)
    assert len(classifier.labels) == 4
