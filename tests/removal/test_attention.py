from typing import Any

import pytest
import torch
import zoo
from reference import masked_logits

from captum_moxi import AttentionRemoval, CoalitionGame, TokenRemoval, patch_mask


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("from_layer", [0, 1, 2])
@pytest.mark.parametrize("name", ["vit", "deit", "deit_with_teacher", "vit_msn"])
def test_logits_equal_those_of_masked_attention(name: str, from_layer: int, implementation: str) -> None:
    model = zoo.token_model(name)
    model.set_attn_implementation(implementation)
    image = torch.randn(1, 3, 32, 32)
    coalitions = torch.rand(4, 16) < torch.tensor([[0.0], [0.3], [0.7], [1.1]])
    for target in range(5):
        game = CoalitionGame(model, image, target=target, reward="output", removal=AttentionRemoval(from_layer))
        for coalition, logit in zip(coalitions, game(coalitions), strict=True):
            expected = masked_logits(model, image, (~coalition).nonzero().flatten().tolist(), from_layer)[target]
            torch.testing.assert_close(logit, expected, rtol=0, atol=1e-5)
    assert model.config._attn_implementation == implementation


@pytest.mark.parametrize("name", zoo.TOKEN_MODELS)
def test_the_full_coalition_has_the_models_own_logits(name: str) -> None:
    model, image = zoo.token_model(name), torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected = model(image).logits[0]
    for layer in range(3):
        for target in range(5):
            game = CoalitionGame(model, image, target=target, reward="output", removal=AttentionRemoval(layer))
            torch.testing.assert_close(game(torch.ones(1, 16))[0], expected[target], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", zoo.TOKEN_MODELS)
def test_masking_from_layer_0_equals_token_removal(name: str) -> None:
    model, image = zoo.token_model(name), torch.randn(1, 3, 32, 32)
    coalitions = torch.rand(6, 16) < 0.5
    coalitions[0] = False
    masked, removed = (
        CoalitionGame(model, image, target=1, removal=removal)(coalitions)
        for removal in (AttentionRemoval(0), TokenRemoval())
    )
    torch.testing.assert_close(masked, removed, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("build", "layers", "embeddings"),
    [(zoo.TimmLayout, "blocks", "norm_pre"), (zoo.TorchvisionLayout, "encoder.layers", "encoder.dropout")],
)
def test_the_user_can_name_or_pass_the_layers(build: type[torch.nn.Module], layers: str, embeddings: str) -> None:
    model, image = zoo.randomised(build()), torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected = model(image)[0, 2]
    coalitions = torch.rand(5, 16) < 0.5
    kwargs = {"target": 2, "reward": "output", "feature_mask": patch_mask(32, 8)}
    by_tokens = CoalitionGame(model, image, removal=TokenRemoval(embeddings), **kwargs)
    for layers_or_name in (layers, list(model.get_submodule(layers))):
        by_attention = CoalitionGame(model, image, removal=AttentionRemoval(0, layers_or_name), **kwargs)
        torch.testing.assert_close(by_attention(coalitions), by_tokens(coalitions), rtol=0, atol=1e-5)
        late = CoalitionGame(model, image, removal=AttentionRemoval(2, layers_or_name), **kwargs)
        torch.testing.assert_close(late(torch.ones(1, 16))[0], expected, rtol=0, atol=1e-5)
        assert not torch.allclose(late(coalitions), by_tokens(coalitions), atol=1e-3)


@pytest.mark.parametrize(("layer", "error"), [(-1, ValueError), (1.5, TypeError), (None, TypeError), (True, TypeError)])
def test_a_layer_that_is_not_an_index_is_rejected(layer: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"from_layer is {layer}; pass an int of at least 0"):
        AttentionRemoval(layer)


def test_a_layer_that_the_model_does_not_have_is_rejected() -> None:
    with pytest.raises(ValueError, match="from_layer is 3, but the model has layers 0 to 2; pass one of them"):
        CoalitionGame(zoo.token_model("vit"), torch.randn(1, 3, 32, 32), target=0, removal=AttentionRemoval(3))
