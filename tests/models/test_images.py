"""Inputs that do not fit the model are reported before it runs."""

import warnings

import pytest
import torch
import zoo
from torch import Tensor, nn
from transformers import (
    CLIPConfig,
    CLIPForImageClassification,
    PreTrainedModel,
    ResNetConfig,
    VideoMAEConfig,
    VideoMAEForVideoClassification,
)

from captum_moxi import AttentionRollout, CoalitionGame, GradCam, LogitsModel, MoXIInsertion, models


def never_run(model: PreTrainedModel) -> PreTrainedModel:
    """Makes a model fail if it runs."""

    def fail(*args: object) -> None:
        raise AssertionError("the model ran")

    model.register_forward_pre_hook(fail)
    return model


@pytest.mark.parametrize("wrap", [lambda model: model, LogitsModel, lambda model: model.forward])
def test_an_image_without_a_batch_dimension_is_reported(wrap: object) -> None:
    model = never_run(zoo.token_model("vit"))
    with pytest.raises(ValueError, match=r"inputs has shape \(3, 32, 32\).*pass x\[None\]"):
        MoXIInsertion(wrap(model)).attribute(torch.randn(3, 32, 32), target=0)
    for method in (GradCam(model), AttentionRollout(model)):
        with pytest.raises(ValueError, match=r"pass x\[None\]"):
            method.attribute(torch.randn(3, 32, 32), target=0)


def test_channels_in_the_wrong_place_are_reported() -> None:
    model = never_run(zoo.token_model("vit"))
    with pytest.raises(ValueError, match=r"expects 3 channels along dimension 1; pass x.permute\(0, 3, 1, 2\)"):
        CoalitionGame(model, torch.randn(1, 32, 32, 3), target=0)
    with pytest.raises(ValueError, match=r"pass images of shape \(B, 3, H, W\)"):
        CoalitionGame(model, torch.randn(1, 1, 32, 32), target=0)


@pytest.mark.parametrize("shape", [(5,), (2, 5), (1, 32, 32), (1, 1, 3, 32, 32)])
def test_inputs_that_are_no_batch_of_images_are_reported(shape: tuple[int, ...]) -> None:
    model = never_run(zoo.token_model("vit"))
    with pytest.raises(ValueError, match=r"ViTForImageClassification expects a batch of images; .*\(B, 3, H, W\)"):
        CoalitionGame(model, torch.randn(shape), target=0)


def test_a_video_is_no_image() -> None:
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = VideoMAEConfig(**size, image_size=16, patch_size=8, num_frames=2, tubelet_size=2, num_labels=3)
    model, video = VideoMAEForVideoClassification(config).eval(), torch.randn(1, 2, 3, 16, 16)
    game = CoalitionGame(model, video, target=0, feature_mask=torch.arange(2)[None, :, None, None, None])
    with torch.no_grad():
        expected = model(video).logits.softmax(1)[0, 0]
    torch.testing.assert_close(game.full.confidences[0], expected)


@pytest.mark.parametrize("name", ["vit", "swin"])
def test_an_image_of_another_size_causes_a_warning_if_the_model_accepts_it(name: str) -> None:
    model = zoo.swin() if name == "swin" else zoo.token_model("vit")
    message = f"images of 48 x 40 pixels, but {type(model).__name__} expects 32 x 32, the size that it was trained on"
    with pytest.warns(UserWarning, match=message) as caught:
        CoalitionGame(model, torch.randn(1, 3, 48, 40), target=0)
    # Swin has no positions to interpolate.
    assert "interpolated" not in str(caught[0].message)


def test_an_image_of_another_size_is_rejected_if_the_model_needs_its_own() -> None:
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = CLIPConfig(
        vision_config={**size, "image_size": 32, "patch_size": 8}, text_config=size, num_labels=3, projection_dim=8
    )
    model = CLIPForImageClassification(config).eval()
    # transformers itself rejects these images.
    with pytest.raises(ValueError, match="doesn't match model"):
        model(torch.randn(1, 3, 48, 48))
    with pytest.raises(ValueError, match="48 x 48 pixels, but CLIPForImageClassification expects 32 x 32; pass images"):
        CoalitionGame(never_run(model), torch.randn(1, 3, 48, 48), target=0)


@pytest.mark.parametrize("name", ["dinov2", "resnet"])
def test_models_for_images_of_any_size_cause_no_warning(name: str) -> None:
    model = zoo.resnet().eval() if name == "resnet" else zoo.token_model(name)
    assert not hasattr(ResNetConfig(), "image_size")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CoalitionGame(model, torch.randn(1, 3, 48, 48), target=0)


def test_raw_pixels_cause_one_warning() -> None:
    model = zoo.token_model("vit")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        MoXIInsertion(model).attribute(torch.randint(0, 256, (2, 3, 32, 32)).float(), target=0, n_steps=2)
    (warning,) = caught
    assert "which look like raw pixels; pass normalized pixel values" in str(warning.message)
    assert warning.filename == __file__


class Normalize(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, :32, :32] / 255 - 0.5


def test_modules_that_may_prepare_their_inputs_are_not_checked() -> None:
    model = nn.Sequential(Normalize(), zoo.token_model("vit"))
    assert models.transformer(model) is not None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        models.check_images(model, (torch.full((1, 3, 48, 48), 255.0),))
        models.warn_about_images(model, (torch.full((1, 3, 48, 48), 255.0),))
        models.check_images(lambda x: x, (torch.zeros(3, 32, 32),))
