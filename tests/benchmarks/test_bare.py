"""The bare model against the whole model, and the rows of a search against their number by hand."""

from collections.abc import Callable

import pytest
import torch
import zoo

from captum_moxi import models
from captum_moxi.benchmarks import Bench
from captum_moxi.benchmarks.bare import BareEncoder, BareNetwork, bare_model, compare_with_bare_model


def test_full_searches_evaluate_the_expected_rows(
    bench: Bench, parse_table: Callable[[str], dict[str, list[str]]]
) -> None:
    columns = parse_table(compare_with_bare_model(bench))
    rows = {
        mode: rows
        for mode, extent, rows in zip(columns["mode"], columns["extent"], columns["rows"], strict=True)
        if extent == "all steps"
    }
    # Four players: the image, the empty coalition (insertion only), and 4 + 3 + 2 + 1 candidates.
    assert rows == {"insertion": "12", "deletion": "11"}


@pytest.mark.parametrize("name", list(zoo.TOKEN_MODELS))
def test_the_bare_encoder_is_the_model_after_its_embeddings(name: str) -> None:
    model, x = zoo.token_model(name), torch.rand(2, 3, 32, 32)
    bare = bare_model(model, x[:1])
    assert isinstance(bare, BareEncoder)
    with torch.no_grad(), bare.recorded_shapes() as shapes:
        hidden = models.token_layout(model).embeddings(x)
        torch.testing.assert_close(bare(hidden), model(x).logits)
    # Both calls reach the first layer with two rows.
    assert dict(shapes) == {tuple(hidden.shape[1:]): 4}


def test_the_bare_network_is_the_whole_model() -> None:
    model, x = zoo.resnet().eval(), torch.rand(3, 3, 32, 32)
    bare = bare_model(model, x[:1])
    assert isinstance(bare, BareNetwork)
    with torch.no_grad(), bare.recorded_shapes() as shapes:
        assert torch.equal(bare(x), model(x).logits)
        # A keyword argument is counted too.
        model(pixel_values=x[:1])
    assert dict(shapes) == {(3, 32, 32): 7}


@pytest.mark.parametrize("total", [1, 7, 8, 9])
def test_passes_contain_all_rows(total: int) -> None:
    bare = bare_model(zoo.token_model("vit"), torch.rand(1, 3, 32, 32))
    # Passes of 20 tokens have four rows of five tokens.
    passes = bare.random_passes((5, 32), total, size=20, layout=torch.contiguous_format)
    assert sum(map(len, passes)) == total
    assert all(rows.shape[1:] == (5, 32) and len(rows) <= 4 for rows in passes)
    assert len(passes) == -(-total // 4)
    bare.evaluate(passes)
