import pytest
import reference
import torch
import zoo
from derivatives import check_derivatives
from torch import Tensor, nn

from captum_moxi import AttentionRemoval, CoalitionGame, TokenRemoval, patch_mask


@pytest.fixture
def image() -> Tensor:
    return torch.randn(1, 3, 32, 32)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", zoo.TOKEN_MODELS)
def test_the_effect_of_a_token_is_the_derivative_in_its_share_of_attention(
    name: str, attention: str, image: Tensor
) -> None:
    model, x = zoo.token_model(name).double(), image.double()
    model.set_attn_implementation(attention)
    game = CoalitionGame(model, x, target=2, reward="output")
    present = torch.rand(16) < 0.7
    effects = game.effects(present[None])[0]
    assert effects.shape == (3, 16)
    for layer in range(3):

        def value(gates: Tensor, layer: int = layer) -> float:
            layer_gates = present.double().repeat(3, 1)
            layer_gates[layer] = gates
            return float(reference.gated_logits(model, x, layer_gates)[2])

        check_derivatives(effects[layer], value, present.double())
    assert model.config._attn_implementation == attention


def with_torchvision_layout(timm: zoo.TimmLayout) -> zoo.TorchvisionLayout:
    """The same network in the other layout."""
    other = zoo.TorchvisionLayout()
    pairs = [(other.conv_proj, timm.patch_embed.proj), (other.encoder.ln, timm.norm), (other.heads, timm.head)]
    for target, source in zip(other.encoder.layers, timm.blocks, strict=True):
        pairs += [(target.ln_1, source.norm1), (target.ln_2, source.norm2), (target.mlp, source.mlp)]
        pairs += [(target.self_attention.out_proj, source.attn.proj)]
        target.self_attention.in_proj_weight.data = source.attn.qkv.weight.data.clone()
        target.self_attention.in_proj_bias.data = source.attn.qkv.bias.data.clone()
    for target, source in pairs:
        target.load_state_dict(source.state_dict())
    other.class_token.data, other.encoder.pos_embedding.data = timm.cls_token.data, timm.pos_embed.data
    return other.eval()


@pytest.mark.parametrize("frozen", [False, True])
def test_effects_in_other_layouts_are_derivatives_in_the_share_of_attention(
    frozen: bool, image: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    timm = zoo.randomised(zoo.TimmLayout("token")).double()
    torchvision = with_torchvision_layout(timm).double()
    x, everyone = image.double(), torch.ones(1, 16, dtype=torch.bool)
    options = {"target": 1, "feature_mask": patch_mask(32, 8), "reward": "output"}
    effects = {}
    for model, site in ((timm, "norm_pre"), (torchvision, "encoder.dropout")):
        model.requires_grad_(not frozen)
        game = CoalitionGame(model, x, removal=TokenRemoval(site), **options)
        effects[site] = game.effects(everyone)[0].sum(0)
        assert all(parameter.grad is None for parameter in model.parameters())
    torch.testing.assert_close(effects["norm_pre"], effects["encoder.dropout"])

    def value(gates: Tensor) -> float:
        weights = torch.cat([torch.ones(1), gates]).double()

        def attention(query: Tensor, key: Tensor, values: Tensor) -> Tensor:
            shares = weights * (query @ key.transpose(2, 3) / query.shape[-1] ** 0.5).exp()
            return shares / shares.sum(-1, keepdim=True) @ values

        with monkeypatch.context() as patched, torch.no_grad():
            patched.setattr(nn.functional, "scaled_dot_product_attention", attention)
            return float(timm(x)[0, 1])

    check_derivatives(effects["norm_pre"], value, torch.ones(16, dtype=torch.float64))


def test_gates_start_at_the_layer_from_which_attention_is_masked(image: Tensor) -> None:
    model, everyone = zoo.token_model("vit"), torch.ones(1, 16)
    late, early, tokens = (
        CoalitionGame(model, image, target=1, removal=removal).effects(everyone)[0]
        for removal in (AttentionRemoval(2), AttentionRemoval(0), TokenRemoval())
    )
    torch.testing.assert_close(early, tokens)
    torch.testing.assert_close(late, early[2:])
    # the last layer alone is nearly linear in a gate, so that the effect is close to the loss of removing the token
    game = CoalitionGame(model, image, target=1, removal=AttentionRemoval(2))
    absent = ~torch.eye(16, dtype=torch.bool)
    losses = game.full.rewards - game.outcome(absent).rewards
    assert torch.corrcoef(torch.stack([late[0], losses]))[0, 1] > 0.9


def test_the_attention_implementation_is_restored_after_an_exception(image: Tensor) -> None:
    model = zoo.token_model("vit")
    model.set_attn_implementation("eager")
    game = CoalitionGame(model, image, target=1)

    def fail(*_args: object) -> None:
        raise KeyboardInterrupt

    hook = model.classifier.register_forward_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        game.effects(torch.ones(1, 16))
    hook.remove()
    assert model.config._attn_implementation == "eager"
    assert not model.vit.embeddings._forward_hooks
    torch.testing.assert_close(model(image).logits, zoo.token_model("vit")(image).logits)
