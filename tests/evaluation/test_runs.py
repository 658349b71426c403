from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from captum_moxi import BaselineRemoval, GradCam, MoXIDeletion, MoXIInsertion, insertion_curve, patch_mask
from captum_moxi.demo import demo_images
from captum_moxi.evaluation import store
from captum_moxi.evaluation.engines import run_local
from captum_moxi.evaluation.reports import read_series
from captum_moxi.evaluation.runs import Evaluator, Settings, open_evaluator, place_of, to_do
from captum_moxi.models import call_model

MASK = patch_mask(56, grid=2)


def by(rows: list[dict[str, Any]], **wanted: Any) -> list[dict[str, Any]]:
    return [row for row in rows if all(row.get(name) == value for name, value in wanted.items())]


@pytest.fixture
def evaluator(settings: Settings) -> Evaluator:
    return Evaluator(replace(settings, methods=["moxi", "gradcam", "random"], stop=None), "cpu")


def place(evaluator: Evaluator, name: str) -> int:
    return next(index for index, found in enumerate(evaluator.images.names) if found.endswith(name))


def test_a_row_is_what_the_class_says(evaluator: Evaluator) -> None:
    index = [i for i, name in enumerate(evaluator.images.names) if "wrong" not in name and "broken" not in name][4]
    rows = evaluator.rows([index])
    x = evaluator.classifier.preprocess(evaluator.images.open(index))
    y = int(call_model(evaluator.classifier.model, x).argmax())
    for mode, method in (("insertion", MoXIInsertion), ("deletion", MoXIDeletion)):
        _, wanted = method(evaluator.classifier.model).attribute(x, target=y, feature_mask=MASK, return_selection=True)
        (row,) = by(rows, method="MoXI", mode=mode)
        assert row["order"] == wanted.order[0].tolist() and row["target"] == row["label"] == y
        for name in ("rewards", "confidences", "shapley", "interactions"):
            torch.testing.assert_close(torch.tensor(row[name]), getattr(wanted, name)[0])
        assert row["predictions"] == wanted.predictions[0].tolist()
        assert (row["n_steps"], row["players"], row["flipped"]) == (4, 4, True)
    (row,) = by(rows, method="Grad-CAM", mode="insertion")
    curve = insertion_curve(
        evaluator.classifier.model, x, GradCam(evaluator.classifier.model).attribute(x, target=y), y, feature_mask=MASK
    )
    torch.testing.assert_close(torch.tensor(row["confidences"]), curve.confidences[0])
    assert row["shapley"] is None


def test_images_of_a_batch_are_as_alone(settings: Settings) -> None:
    evaluator = Evaluator(replace(settings, methods=["moxi", "gradcam"]), "cpu")
    everything = list(range(len(evaluator.images)))
    together, alone = evaluator.rows(everything), [row for index in everything for row in evaluator.rows([index])]
    for row in alone:
        (other,) = by(together, **{name: row.get(name) for name in ("image", "method", "mode")})
        assert (row["status"], row.get("order"), row.get("predictions")) == (
            other["status"],
            other.get("order"),
            other.get("predictions"),
        )
        if "rewards" in row:
            assert row["rewards"] == pytest.approx(other["rewards"], abs=1e-3)


def test_wrong_and_unreadable_images_are_recorded(evaluator: Evaluator, settings: Settings) -> None:
    wrong, broken = place(evaluator, "wrong.png"), place(evaluator, "broken.png")
    rows = evaluator.rows([wrong, broken])
    (row,) = by(rows, status=store.WRONG)
    assert row["target"] == row["label"] - 1
    (row,) = by(rows, status=store.UNREADABLE)
    assert "no image that Pillow can read" in row["error"]
    kept = Evaluator(replace(settings, keep="all"), "cpu").rows([wrong])
    assert {row["status"] for row in kept} == {store.EXPLAINED}
    assert {row["target"] + 1 for row in kept} == {row["label"] for row in kept}


def test_an_image_that_fails_does_not_take_others_with_it(
    evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = evaluator._explained
    good = [i for i, name in enumerate(evaluator.images.names) if "wrong" not in name and "broken" not in name][:3]

    def explained(indices: list[int], images: list[Any]) -> list[dict[str, Any]]:
        if good[1] in indices:
            raise RuntimeError("out of\nmemory")
        return found(indices, images)

    monkeypatch.setattr(evaluator, "_explained", explained)
    rows = evaluator.rows(good)
    (row,) = by(rows, status=store.FAILED)
    assert (row["image"], row["error"]) == (evaluator.images.names[good[1]], "out of memory")
    assert len(by(rows, status=store.EXPLAINED)) == 2 * 3 * 2
    good[1:] = good[1:2]
    monkeypatch.setattr(evaluator, "_explained", lambda *of: explained([good[1]], []))
    with pytest.raises(RuntimeError, match="no image of a batch could be explained"):
        evaluator.rows(good)


def test_a_run_goes_on_where_it_stopped(settings: Settings, tmp_path: Path) -> None:
    evaluator = Evaluator(settings, "cpu")
    store.open_run(tmp_path, asdict(settings))
    run = run_local(evaluator, tmp_path, to_do(evaluator, tmp_path, 3))
    assert [next(run), next(run)] == [3, 3]
    left = to_do(evaluator, tmp_path, 5)
    assert [len(batch) for batch in left] == [5, 3]
    assert sum(run_local(evaluator, tmp_path, left)) == 8
    assert to_do(evaluator, tmp_path, 5) == []
    keys = [(row["image"], row["method"], row["mode"]) for row in store.read_rows(tmp_path).to_pylist()]
    assert len(keys) == len(set(keys)) == 12 * 2 + 2


def test_n_steps_and_the_flip_end_a_row(settings: Settings) -> None:
    of = replace(settings, methods=["moxi", "moxi-minus", "random"], n_steps=3)
    for stop in (None, "flip"):
        for row in Evaluator(replace(of, stop=stop), "cpu").rows(range(6)):
            if row["status"] == store.EXPLAINED:
                hit = [prediction == row["target"] for prediction in row["predictions"]]
                flip = [(one if row["mode"] == "insertion" else not one) for one in hit]
                assert len(row["order"]) == row["n_steps"] == len(row["rewards"]) - 1
                if stop is None:
                    assert row["n_steps"] == 3
                else:
                    assert not any(flip[:-1]) and row["flipped"] == flip[-1]
                    assert row["flipped"] or row["n_steps"] == 3


def test_random_orders_differ_by_image(evaluator: Evaluator) -> None:
    good = [i for i, name in enumerate(evaluator.images.names) if "wrong" not in name and "broken" not in name]
    alone = [row["order"] for i in good for row in by(evaluator.rows([i]), method="Random", mode="insertion")]
    assert len(set(map(tuple, alone))) > 3
    # and not by batch
    assert [row["order"] for row in by(evaluator.rows(good), method="Random", mode="insertion")] == alone


def test_the_one_class_of_a_single_logit_is_explained(settings: Settings, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=56, patch_size=14
    )
    model = ViTForImageClassification(config)
    model.classifier = torch.nn.Linear(32, 1)
    model.config.id2label = {0: "sum"}
    model.num_labels = 1
    model.save_pretrained(tmp_path / "model")
    ViTImageProcessor(size={"height": 56, "width": 56}).save_pretrained(tmp_path / "model")
    of = replace(settings, model=str(tmp_path / "model"), data=str(tmp_path / "data"), keep="all", stop=None)
    (tmp_path / "data").mkdir()
    for name, image, _ in demo_images():
        image.save(tmp_path / "data" / name)
    rows = Evaluator(of, "cpu").rows(range(4))
    assert [row["target"] for row in rows] == [0] * 8
    store.open_run(tmp_path / "run", asdict(of))
    store.write_part(tmp_path / "run", rows)
    for one in read_series(tmp_path / "run"):
        stored = [row for row in rows if row["mode"] == one.mode]
        assert np.isfinite(one.flips).tolist() == [row["flipped"] for row in sorted(stored, key=lambda r: r["image"])]


def test_what_does_not_fit_is_refused_before_anything_runs(settings: Settings) -> None:
    for change, said in (
        ({"methods": ["magic"]}, "method 'magic' is unknown"),
        ({"reward": "money"}, "reward is 'money'"),
        ({"removal": "magic"}, "'magic' is not a removal"),
        ({"candidates": "magic"}, "'magic' is not a choice of candidates"),
        ({"label_pattern": "x(y)"}, "finds no class"),
    ):
        with pytest.raises(ValueError, match=said):
            Evaluator(replace(settings, **change), "cpu")
    with pytest.raises(ValueError, match="a grid of 3 cuts patches"):
        Evaluator(replace(settings, grid=3), "cpu").check()
    with pytest.raises(ValueError, match="exact Shapley values take all orders of 16 players"):
        Evaluator(replace(settings, grid=4, methods=["shapley-exact"]), "cpu").check()
    Evaluator(settings, "cpu").check()


@pytest.mark.parametrize(
    ("name", "said"),
    [("a.png", "has no labels"), ("cats/a.png", "has the label 'cats' for 'cats/a.png', which is none")],
)
def test_images_without_labels_need_not_be_right(settings: Settings, tmp_path: Path, name: str, said: str) -> None:
    evaluator = Evaluator(settings, "cpu")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    evaluator.images.open(0).save(tmp_path / name)
    of = replace(settings, data=str(tmp_path))
    with pytest.raises(ValueError, match=said):
        Evaluator(of, "cpu").check()
    (row, _) = Evaluator(replace(of, keep="all", removal="zero"), "cpu").rows([0])
    assert row["label"] is None and row["status"] == store.EXPLAINED
    assert isinstance(Evaluator(replace(of, keep="all", removal="zero"), "cpu").removal, BaselineRemoval)


def test_labels_beyond_the_limit_do_not_matter(settings: Settings, tmp_path: Path) -> None:
    whole = Evaluator(settings, "cpu")
    label = whole.images.labels[0] if whole.images.labels else None
    data = tmp_path / "data"
    for name, index in ((f"{label}/a.png", 0), ("zebra/b.png", 1)):
        (data / name).parent.mkdir(parents=True)
        whole.images.open(index).save(data / name)
    evaluator = Evaluator(replace(settings, data=str(data)), "cpu", limit=1)
    evaluator.check()
    store.open_run(tmp_path / "run", asdict(evaluator.settings))
    # a run that was begun can be opened, and not gone on with
    opened = open_evaluator(tmp_path / "run", "cpu")
    assert place_of(opened, f"{label}/a.png") == 0
    with pytest.raises(ValueError, match="has the label 'zebra'"):
        opened.check()
