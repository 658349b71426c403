from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pictures import TOTAL
from PIL import Image
from torch import Tensor, nn
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from captum_moxi import (
    BaselineRemoval,
    CoalitionGame,
    GradCam,
    Method,
    MoXIDeletion,
    MoXIInsertion,
    Selection,
    insertion_curve,
    patch_mask,
)
from captum_moxi.arguments import Mode, Stop
from captum_moxi.demo import demo_images
from captum_moxi.evaluation import store
from captum_moxi.evaluation.curves import read_run_curves
from captum_moxi.evaluation.data import ImageSet
from captum_moxi.evaluation.evaluator import Evaluator, remaining_batches
from captum_moxi.evaluation.rows import Row
from captum_moxi.evaluation.settings import Settings
from captum_moxi.models import call_model
from captum_moxi.search import greedy

MASK = patch_mask(56, grid=2)


def select(rows: list[Row], **columns: object) -> list[Row]:
    return [row for row in rows if all(row.get(name) == value for name, value in columns.items())]


def find(evaluator: Evaluator, suffix: str) -> int:
    return next(index for index, name in enumerate(evaluator.images.names) if name.endswith(suffix))


def find_correct(evaluator: Evaluator) -> list[int]:
    names = evaluator.images.names
    return [index for index, name in enumerate(names) if "wrong" not in name and "broken" not in name]


@pytest.fixture
def evaluator(settings: Settings) -> Evaluator:
    return Evaluator.load(replace(settings, methods=["moxi", "gradcam", "random"], stop=None), device="cpu")


@pytest.mark.parametrize(("mode", "method"), [("insertion", MoXIInsertion), ("deletion", MoXIDeletion)])
def test_a_row_has_the_result_of_the_attribution_class(
    evaluator: Evaluator, mode: str, method: type[MoXIInsertion] | type[MoXIDeletion]
) -> None:
    index = find_correct(evaluator)[4]
    (row,) = select(evaluator.rows([index]), method="MoXI", mode=mode)
    x = evaluator.classifier.preprocess(evaluator.images.open(index))
    y = int(call_model(evaluator.classifier.model, x).argmax())
    _, selection = method(evaluator.classifier.model).attribute(x, target=y, feature_mask=MASK, return_selection=True)
    assert row["order"] == selection.order[0].tolist() and row["target"] == row["label"] == y
    assert row["predictions"] == selection.predictions[0].tolist()
    for name, values in (
        ("rewards", row["rewards"]),
        ("confidences", row["confidences"]),
        ("shapley", row["shapley"]),
        ("interactions", row["interactions"]),
    ):
        torch.testing.assert_close(torch.tensor(values), getattr(selection, name)[0])
    assert (row["n_steps"], row["players"], row["flipped"]) == (4, 4, True)
    assert row["seconds"] > 0 and row["rows"] > 0


def test_a_row_of_another_method_has_its_curve(evaluator: Evaluator) -> None:
    index = find_correct(evaluator)[4]
    (row,) = select(evaluator.rows([index]), method="Grad-CAM", mode="insertion")
    model, x = evaluator.classifier.model, evaluator.classifier.preprocess(evaluator.images.open(index))
    y = row["target"]
    attributions = GradCam(model).attribute(x, target=y)
    curve = insertion_curve(model, x, attributions=attributions, target=y, feature_mask=MASK)
    torch.testing.assert_close(torch.tensor(row["confidences"]), curve.confidences[0])
    # One row that also goes backward.
    assert row["shapley"] is None and row["rows"] == 3


def test_rows_do_not_depend_on_the_batch(settings: Settings) -> None:
    evaluator = Evaluator.load(replace(settings, methods=["moxi", "gradcam"]), device="cpu")
    indices = range(len(evaluator.images))
    together = evaluator.rows(indices)
    alone = [row for index in indices for row in evaluator.rows([index])]
    assert len(together) == len(alone)
    for row in alone:
        (other,) = select(together, image=row["image"], method=row.get("method"), mode=row.get("mode"))
        for column in ("status", "order", "predictions"):
            assert row.get(column) == other.get(column)
        if "rewards" in row:
            assert row["rewards"] == pytest.approx(other["rewards"], abs=1e-3)


def test_misclassified_and_unreadable_images_are_recorded(evaluator: Evaluator) -> None:
    rows = evaluator.rows([find(evaluator, "wrong.png"), find(evaluator, "broken.png")])
    (wrong,) = select(rows, status="wrong")
    assert wrong["label"] is not None and wrong["target"] == wrong["label"] - 1
    (unreadable,) = select(rows, status="unreadable")
    assert unreadable["error"]


def test_misclassified_images_are_explained_if_all_are_kept(settings: Settings) -> None:
    evaluator = Evaluator.load(replace(settings, keep="all"), device="cpu")
    rows = evaluator.rows([find(evaluator, "wrong.png")])
    assert [row["status"] for row in rows] == ["explained", "explained"]
    assert all(row["label"] is not None and row["target"] == row["label"] - 1 for row in rows)


@contextmanager
def failing_model(model: nn.Module, image: Tensor | None = None, *, error: Exception | None = None) -> Iterator[None]:
    """Lets the model fail for every batch, or for those that contain an image."""

    def fail(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = args[0] if args else kwargs["pixel_values"]
        if image is None or bool((x == image).flatten(1).all(1).any()):
            raise error or RuntimeError("out of\nmemory")

    hook = model.register_forward_pre_hook(fail, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def test_an_image_that_fails_does_not_affect_the_others(evaluator: Evaluator) -> None:
    indices = find_correct(evaluator)[:3]
    x = evaluator.classifier.preprocess(evaluator.images.open(indices[1]))
    with failing_model(evaluator.classifier.model, x):
        rows = evaluator.rows(indices)
    (failed,) = select(rows, status="failed")
    assert (failed["image"], failed["error"]) == (evaluator.images.names[indices[1]], "out of memory")
    assert len(select(rows, status="explained")) == 2 * 3 * 2


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "out of memory"),
        (MemoryError("Unable to allocate 3 GiB"), "Unable to allocate 3 GiB"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_an_image_that_needs_too_much_memory_does_not_affect_the_others(
    evaluator: Evaluator, error: Exception, message: str
) -> None:
    indices = find_correct(evaluator)[:3]
    x = evaluator.classifier.preprocess(evaluator.images.open(indices[1]))
    with failing_model(evaluator.classifier.model, x, error=error):
        rows = evaluator.rows(indices)
    (failed,) = select(rows, status="failed")
    assert (failed["image"], failed["error"]) == (evaluator.images.names[indices[1]], message)
    assert len(select(rows, status="explained")) == 2 * 3 * 2


def test_an_image_that_is_too_large_to_open_does_not_affect_the_others(
    evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    indices = find_correct(evaluator)[:2]
    open_image = ImageSet.open

    def run_out_of_memory(images: ImageSet, index: int) -> Image.Image:
        if index == indices[0]:
            raise MemoryError
        return open_image(images, index)

    monkeypatch.setattr(ImageSet, "open", run_out_of_memory)
    rows = evaluator.rows(indices)
    assert [row["error"] for row in select(rows, status="failed")] == ["out of memory"]
    assert len(select(rows, status="explained")) == 3 * 2


def test_a_batch_of_which_every_image_fails_raises_an_error(evaluator: Evaluator) -> None:
    indices = find_correct(evaluator)[:2]
    with failing_model(evaluator.classifier.model):
        with pytest.raises(RuntimeError, match="every image of a batch failed: out of"):
            evaluator.rows(indices)
        assert [row["status"] for row in evaluator.rows(indices[:1])] == ["failed"]


@pytest.mark.parametrize("stop", [None, "flip"])
def test_a_row_ends_at_n_steps_or_at_the_flip(settings: Settings, stop: Stop) -> None:
    methods = ["moxi", "moxi-minus", "moxi-symmetric", "random"]
    evaluator = Evaluator.load(replace(settings, methods=methods, n_steps=3, stop=stop), device="cpu")
    for row in select(evaluator.rows(range(6)), status="explained"):
        is_target = [prediction == row["target"] for prediction in row["predictions"]]
        flips = is_target if row["mode"] == "insertion" else [not hit for hit in is_target]
        assert len(row["order"]) == row["n_steps"] == len(row["rewards"]) - 1
        if stop is None:
            assert row["n_steps"] == 3
        else:
            assert not any(flips[:-1]) and row["flipped"] == flips[-1]
            assert row["flipped"] or row["n_steps"] == 3


def test_a_symmetric_search_has_one_order_for_both_modes(settings: Settings) -> None:
    evaluator = Evaluator.load(replace(settings, methods=["moxi-symmetric"], n_steps=3, stop=None), device="cpu")
    rows = select(evaluator.rows(range(4)), status="explained")
    insertions, deletions = select(rows, mode="insertion"), select(rows, mode="deletion")
    assert insertions and [row["order"] for row in insertions] == [row["order"] for row in deletions]
    # Both rows state the cost of the one search.
    assert [row["rows"] for row in insertions] == [row["rows"] for row in deletions]


def test_a_selection_of_another_mode_is_followed(settings: Settings) -> None:
    def attribute(game: CoalitionGame, mode: Mode, *, n_steps: int | None, stop: Stop) -> Selection:
        return greedy(game, "symmetric", n_steps=n_steps, stop=stop)

    evaluator = Evaluator.load(replace(settings, n_steps=2, stop=None), device="cpu")
    rows = replace(evaluator, methods=[Method("own", attribute)]).rows(range(4))
    assert {row["mode"] for row in select(rows, status="explained")} == {"insertion", "deletion"}


def test_random_orders_depend_on_the_image_and_not_on_the_batch(evaluator: Evaluator) -> None:
    indices = find_correct(evaluator)
    alone = [row["order"] for i in indices for row in select(evaluator.rows([i]), method="Random", mode="insertion")]
    assert len(set(map(tuple, alone))) > 3
    together = select(evaluator.rows(indices), method="Random", mode="insertion")
    assert [row["order"] for row in together] == alone


def save_single_logit_model(folder: Path) -> None:
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=56, patch_size=14
    )
    model = ViTForImageClassification(config)
    model.classifier = nn.Linear(32, 1)
    model.config.id2label = {0: "sum"}
    model.num_labels = 1
    model.save_pretrained(folder)
    ViTImageProcessor(size={"height": 56, "width": 56}).save_pretrained(folder)


def test_the_only_class_of_a_single_logit_is_explained(settings: Settings, tmp_path: Path) -> None:
    save_single_logit_model(tmp_path / "model")
    (tmp_path / "data").mkdir()
    for name, image, _ in demo_images():
        image.save(tmp_path / "data" / name)
    model, data = str(tmp_path / "model"), str(tmp_path / "data")
    settings = replace(settings, model=model, data=data, keep="all", stop=None)
    rows = Evaluator.load(settings, device="cpu").rows(range(4))
    assert [row["target"] for row in rows] == [0] * 8
    store.open_run(tmp_path / "run", settings.to_dict())
    store.write_part(tmp_path / "run", rows)
    for curve in read_run_curves(tmp_path / "run"):
        stored = sorted(select(rows, mode=curve.mode), key=lambda row: row["image"])
        assert curve.flip_counts.isfinite().tolist() == [row["flipped"] for row in stored]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ["magic"]}, "method 'magic' is unknown"),
        ({"methods": ["moxi", "moxi"]}, "different titles"),
        ({"reward": "money"}, "reward 'money'|reward is 'money'"),
        ({"removal": "magic"}, "removal 'magic' is unknown"),
        ({"screen": "magic"}, "screen 'magic' is unknown"),
        ({"label_pattern": "x(y)"}, "finds no label"),
    ],
)
def test_unknown_names_are_rejected_when_a_run_is_loaded(
    settings: Settings, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Evaluator.load(replace(settings, **changes), device="cpu")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": 3}, "grid"),
        ({"grid": 4, "methods": ["shapley-exact"]}, "16 players"),
    ],
)
def test_unsuitable_settings_are_rejected_before_a_run_starts(
    settings: Settings, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Evaluator.load(replace(settings, **changes), device="cpu").check()


def test_suitable_settings_pass_the_check(settings: Settings) -> None:
    Evaluator.load(settings, device="cpu").check()


@pytest.mark.parametrize(
    ("name", "message"),
    [("a.png", "has no labels"), ("cats/a.png", "has the label 'cats' for 'cats/a.png', which matches none")],
)
def test_labels_are_needed_only_to_keep_correct_images(
    settings: Settings, tmp_path: Path, name: str, message: str
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    Evaluator.load(settings, device="cpu").images.open(0).save(tmp_path / name)
    settings = replace(settings, data=str(tmp_path), removal="zero")
    with pytest.raises(ValueError, match=message):
        Evaluator.load(settings, device="cpu").check()
    evaluator = Evaluator.load(replace(settings, keep="all"), device="cpu")
    rows = evaluator.rows([0])
    assert [(row["label"], row["status"]) for row in rows] == [(None, "explained")] * 2
    assert isinstance(evaluator.removal, BaselineRemoval)


def test_a_label_map_to_an_unknown_class_is_rejected(settings: Settings) -> None:
    evaluator = Evaluator.load(settings, device="cpu")
    label = str(evaluator.images.label_names[0]) if evaluator.images.label_names else ""
    with pytest.raises(ValueError, match=f"label_map has 'lion' for '{label}', which matches none"):
        Evaluator.load(replace(settings, label_map={label: "lion"}), device="cpu").check()


def test_labels_beyond_the_limit_are_not_checked(settings: Settings, tmp_path: Path) -> None:
    images = Evaluator.load(settings, device="cpu").images
    label = str(images.labels[0]) if images.labels else ""
    data = tmp_path / "data"
    for name, index in ((f"{label}/a.png", 0), ("zebra/b.png", 1)):
        (data / name).parent.mkdir(parents=True)
        images.open(index).save(data / name)
    evaluator = Evaluator.load(replace(settings, data=str(data)), device="cpu", limit=1)
    evaluator.check()
    store.open_run(tmp_path / "run", evaluator.settings.to_dict())
    # An existing run can be loaded without its limit, but it cannot continue.
    loaded = Evaluator.of_run(tmp_path / "run", device="cpu")
    assert loaded.images.index_of(f"{label}/a.png") == 0
    with pytest.raises(ValueError, match="has the label 'zebra'"):
        loaded.check()


def test_batches_contain_the_images_without_rows(settings: Settings, tmp_path: Path) -> None:
    evaluator = Evaluator.load(settings, device="cpu")
    store.open_run(tmp_path, settings.to_dict())
    batches = remaining_batches(evaluator, set(), batch_size=3)
    assert [index for batch in batches for index in batch] == list(range(TOTAL))
    store.write_part(tmp_path, evaluator.rows([0, 2, 4, 5]))
    finished = store.finished_images(tmp_path)
    assert remaining_batches(evaluator, finished, batch_size=4) == [[1, 3, 6, 7], [8, 9, 10, 11], [12, 13]]


def test_minimal_and_disjoint_groups_are_those_of_the_attribution_class(settings: Settings) -> None:
    changes: dict[str, Any] = {"methods": ["moxi", "random"], "screen": "all", "grid": 4, "keep": "all"}
    evaluator = Evaluator.load(replace(settings, **changes, alternatives=2), device="cpu")
    evaluator.check()
    indices = find_correct(evaluator)
    rows = evaluator.rows(indices)
    classifier, mask = evaluator.classifier, patch_mask(56, grid=4)
    x = classifier.preprocess([evaluator.images.open(index) for index in indices])
    y = call_model(classifier.model, x).argmax(1)
    for mode, search in (("insertion", MoXIInsertion), ("deletion", MoXIDeletion)):
        moxi = search(classifier.model)
        _, selection = moxi.attribute(x, target=y, feature_mask=mask, stop="flip", minimal=True, return_selection=True)
        alternatives = moxi.alternatives(x, target=y, feature_mask=mask, at_most=2)
        for example, index in enumerate(indices):
            (row,) = select(rows, image=evaluator.images.names[index], method="MoXI", mode=mode)
            assert row["order"] == [player for player in selection.order[example].tolist() if player >= 0]
            assert row["left_out"] == [player for player in selection.left_out[example].tolist() if player >= 0]
            assert row["minimal"] == bool(selection.minimal[example])
            flipping = [group for group in alternatives if group.flipped[example]]
            assert row["groups"] == [[p for p in group.order[example].tolist() if p >= 0] for group in flipping]
    # Methods that do not search have no groups.
    assert all("minimal" not in row and "groups" not in row for row in select(rows, method="Random"))


def test_minimal_groups_need_a_method_that_searches(settings: Settings) -> None:
    evaluator = Evaluator.load(replace(settings, methods=["random"], minimal=True), device="cpu")
    with pytest.raises(ValueError, match="none of them searches minimal groups; add moxi"):
        evaluator.check()


def test_minimal_groups_survive_the_store_and_without_alternatives_have_no_counts(
    settings: Settings, tmp_path: Path
) -> None:
    settings = replace(settings, minimal=True, methods=["moxi", "random"])
    evaluator = Evaluator.load(settings, device="cpu")
    rows = select(evaluator.rows(find_correct(evaluator)), status="explained")
    store.open_run(tmp_path / "run", settings.to_dict())
    store.write_part(tmp_path / "run", rows)
    for curve in read_run_curves(tmp_path / "run"):
        written = select(rows, method=curve.method, mode=curve.mode)
        assert (curve.groups is not None) == (curve.method == "MoXI")
        if curve.groups is not None:
            assert curve.groups.counts is None
            assert sorted(curve.groups.left_out.tolist()) == sorted(len(row["left_out"] or []) for row in written)
            sizes = sorted(len(row["order"]) if row["minimal"] else float("inf") for row in written)
            assert sorted(curve.groups.sizes.tolist()) == sizes
