import pytest
import torch
import zoo
from reference import masked_logits

from captum_moxi import AttentionRemoval, CoalitionGame, TokenRemoval


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("from_layer", [0, 1, 2])
@pytest.mark.parametrize("name", ["vit", "deit", "deit_with_teacher", "vit_msn"])
def test_logits_are_those_of_masked_attention(name: str, from_layer: int, implementation: str) -> None:
    model = zoo.token_model(name)
    model.set_attn_implementation(implementation)
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    rows = torch.rand(4, 16, generator=torch.Generator().manual_seed(2)) < torch.tensor([[0.0], [0.3], [0.7], [1.1]])
    for target in range(5):
        game = CoalitionGame(model, image, target=target, reward="output", removal=AttentionRemoval(from_layer))
        got = game(rows)
        for row, value in zip(rows, got, strict=True):
            expected = masked_logits(model, image, (~row).nonzero().flatten().tolist(), from_layer)[target]
            torch.testing.assert_close(value, expected, rtol=0, atol=1e-5)
    assert model.config._attn_implementation == implementation


@pytest.mark.parametrize("name", zoo.TOKEN_MODELS)
def test_masking_nothing_gives_the_models_own_logits(name: str) -> None:
    model, image = zoo.token_model(name), torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected = model(image).logits[0]
    for layer in range(3):
        for target in range(5):
            game = CoalitionGame(model, image, target=target, reward="output", removal=AttentionRemoval(layer))
            torch.testing.assert_close(game(torch.ones(1, 16))[0], expected[target], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", zoo.TOKEN_MODELS)
def test_masking_from_layer_0_is_token_removal(name: str) -> None:
    model, image = zoo.token_model(name), torch.randn(1, 3, 32, 32)
    rows = torch.rand(6, 16) < 0.5
    rows[0] = False
    games = [CoalitionGame(model, image, target=1, removal=r)(rows) for r in (AttentionRemoval(0), TokenRemoval())]
    torch.testing.assert_close(games[0], games[1], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("build", "layers"), [(zoo.TimmLayout, "blocks"), (zoo.TorchvisionLayout, "encoder.layers")])
def test_layers_that_the_user_names(build: type[torch.nn.Module], layers: str) -> None:
    model, image = zoo.randomised(build()), torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected = model(image)[0, 2]
    mask = torch.arange(16).reshape(4, 4).repeat_interleave(8, 0).repeat_interleave(8, 1)
    embeddings = "norm_pre" if build is zoo.TimmLayout else "encoder.dropout"
    rows = torch.rand(5, 16) < 0.5
    kwargs = {"target": 2, "reward": "output", "feature_mask": mask}
    by_tokens = CoalitionGame(model, image, removal=TokenRemoval(embeddings), **kwargs)
    for named in (layers, list(model.get_submodule(layers))):
        by_attention = CoalitionGame(model, image, removal=AttentionRemoval(0, named), **kwargs)
        torch.testing.assert_close(by_attention(rows), by_tokens(rows), rtol=0, atol=1e-5)
        late = CoalitionGame(model, image, removal=AttentionRemoval(2, named), **kwargs)
        torch.testing.assert_close(late(torch.ones(1, 16))[0], expected, rtol=0, atol=1e-5)
        assert not torch.allclose(late(rows), by_tokens(rows), atol=1e-3)


@pytest.mark.parametrize("layer", [-1, 1.5, None])
def test_a_layer_that_is_none_is_refused(layer: object) -> None:
    with pytest.raises(ValueError, match="from_layer"):
        AttentionRemoval(layer)
    with pytest.raises(ValueError, match="from_layer is 3; pass one of the model's, 0 to 2"):
        CoalitionGame(zoo.token_model("vit"), torch.randn(1, 3, 32, 32), target=0, removal=AttentionRemoval(3))
