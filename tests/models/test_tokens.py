from types import MethodType

import pytest
import torch
import zoo
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

from captum_moxi import CoalitionGame, models, patch_mask
from captum_moxi.models import PatchGrid

PREFIX = {"vit": 1, "deit": 2, "deit_with_teacher": 2, "vit_msn": 1, "dinov2": 1, "dinov2_with_registers": 4}


@pytest.mark.parametrize("name", zoo.TOKEN_MODELS)
def test_models_with_patch_tokens(name: str) -> None:
    model, x = zoo.token_model(name), torch.randn(2, 3, 32, 32)
    assert models.token_layout(model) is not None
    assert not models.needs_grid(model)
    assert models.token_layout(model).patch_size == models.find_patch_size(models.LogitsModel(model)) == (8, 8)
    assert models.token_layout(model).n_prefix == PREFIX[name]
    tokens = models.token_layout(model).embeddings(x)
    assert tokens.shape == (2, PREFIX[name] + 16, 32)
    assert models.fits_prefix(tokens.shape[1], 16)
    layers = models.token_layout(model).layers
    assert len(layers) == 3
    # the layers follow the embeddings: run them in order and compare with the model's own hidden states
    hidden_states = model(x, output_hidden_states=True).hidden_states
    for layer, expected in zip(layers, hidden_states[1:-1], strict=False):
        tokens = layer(tokens)
        torch.testing.assert_close(tokens, expected)


@pytest.mark.parametrize("build", [zoo.swin, zoo.resnet])
def test_other_image_models_need_the_whole_grid(build: object) -> None:
    model = build()
    assert models.token_layout(model) is None
    assert models.needs_grid(model)
    assert not models.needs_grid(lambda x: x)


def test_the_default_players_of_other_image_models_are_a_grid_of_6_by_6() -> None:
    for model in (zoo.swin(), zoo.resnet()):
        game = CoalitionGame(model.eval(), torch.randn(1, 3, 32, 32), target=0)
        assert torch.equal(game.call.players.positions[0][0, 0], patch_mask(32, grid=6)[0, 0])
    # An image that is smaller than the grid has a player for each of its 4 x 5 pixels.
    assert CoalitionGame(zoo.resnet().eval(), torch.randn(1, 3, 4, 5), target=0).n_players == 20
    assert CoalitionGame(nn.Flatten(), torch.randn(1, 3, 4, 4), target=0).n_players == 48


def test_more_patches_than_players_are_grouped() -> None:
    config = {**zoo.SIZE, "image_size": 104, "patch_size": 4, "num_hidden_layers": 1}
    model = ViTForImageClassification(ViTConfig(**config)).eval()
    game = CoalitionGame(model, torch.randn(1, 3, 104, 104), target=0)
    # 26 x 26 patches are more than 600
    assert torch.equal(game.call.players.positions[0][0, 0], patch_mask(104, 8)[0, 0])


def test_a_convolutional_network_of_another_package_has_a_grid() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert CoalitionGame(network, torch.randn(1, 3, 20, 20), target=0).n_players == 36
    # as in Captum, each value of a small input is a player
    assert CoalitionGame(network, torch.randn(1, 3, 5, 5), target=0).n_players == 75


@pytest.mark.parametrize("build", [zoo.TimmLayout, zoo.TorchvisionLayout])
def test_the_patch_size_of_other_layouts_is_that_of_the_patch_projection(build: type[nn.Module]) -> None:
    assert models.find_patch_size(build()) == (8, 8)
    assert models.find_patch_size(zoo.Classes(4)) is None
    assert models.find_patch_size(lambda x: x) is None


@pytest.mark.parametrize(
    ("n_tokens", "n_patches", "fits"),
    [(16, 16, True), (17, 16, True), (15, 16, False), (196 + 16, 196, True), (196 + 17, 196, False), (8, 4, False)],
)
def test_a_sequence_may_have_up_to_16_prefix_tokens_and_fewer_than_patches(
    n_tokens: int, n_patches: int, fits: bool
) -> None:
    assert models.fits_prefix(n_tokens, n_patches) is fits


@pytest.mark.parametrize("name", ["vit", "deit", "vit_msn"])
def test_only_the_first_token_is_needed_after_the_last_attention(name: str) -> None:
    model = zoo.token_model(name)
    last = models.token_layout(model).layers[-1].layernorm_after
    for wrapped in (model, models.LogitsModel(model), nn.DataParallel(model), model.forward):
        assert models.first_token_module(wrapped) is last
    hook = last.register_forward_hook(lambda *_: None)
    assert models.first_token_module(model) is None
    hook.remove()
    assert models.first_token_module(model) is last


@pytest.mark.parametrize("name", ["deit_with_teacher", "dinov2", "dinov2_with_registers"])
def test_some_classifiers_need_more_than_the_first_token(name: str) -> None:
    assert models.first_token_module(zoo.token_model(name)) is None


def test_a_forward_function_other_than_the_models_own_may_need_more_than_the_first_token() -> None:
    model = zoo.token_model("vit")

    def mean(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.vit(x).last_hidden_state.mean(1))

    assert models.first_token_module(MethodType(mean, model)) is None
    assert models.first_token_module(nn.Sequential(model)) is None


def test_a_patch_grid_maps_tokens_to_the_image_and_its_pixels_back_to_patches() -> None:
    # 2 x 3 patches of 4 x 2 pixels, and a margin of one row and one column
    images = torch.randn(2, 3, 9, 7)
    grid = PatchGrid.of(images, (4, 2))
    assert (grid.rows, grid.columns, grid.height, grid.width, grid.n_patches) == (2, 3, 4, 2, 6)
    tokens = torch.arange(2 * 7 * 1.0).reshape(2, 7, 1)
    patch_map = grid.tokens_to_map(tokens)
    assert patch_map.shape == (2, 1, 2, 3)
    assert patch_map[0, 0].tolist() == [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    pixels = grid.map_to_pixels(patch_map, (9, 7))
    assert pixels.shape == (2, 1, 9, 7)
    for row in range(9):
        for column in range(7):
            inside = row < 8 and column < 6
            expected = patch_map[:, 0, row // 4, column // 2] if inside else torch.zeros(2)
            assert torch.equal(pixels[:, 0, row, column], expected)
    patches = grid.pixels_to_patches(images)
    assert patches.shape == (2, 2, 3, 24)
    assert torch.equal(patches[1, 1, 2].sort().values, images[1, :, 4:8, 4:6].flatten().sort().values)
