import shutil
from pathlib import Path

import pytest
from described import assert_described

from captum_moxi import patch_mask
from captum_moxi.demo import FOLDER
from captum_moxi.evaluation import store
from captum_moxi.evaluation.evaluator import Evaluator
from captum_moxi.evaluation.records import Records
from captum_moxi.evaluation.replays import read_orders, run_attack
from captum_moxi.evaluation.replays.attack import (
    AttackRecord,
    AttackSettings,
    UnreadableError,
    attack_run,
    attack_table,
    describe_attacks,
    measure_attacks,
    plot_attacks,
)
from captum_moxi.evaluation.settings import Settings
from captum_moxi.models import call_model
from captum_moxi.perturbations.adversarial import attack

MASK = patch_mask(56, grid=2)

ATTACKS: list[AttackRecord] = [
    {"fooled": True, "norm": 1.0, "mean": 0.5, "orders": {"a": [1.0, 0.5], "b": [0.5]}},
    {"fooled": False, "norm": 2.0, "mean": 2.0, "orders": {"a": [2.0, 2.0, 2.0, 2.0, 2.0], "b": [6.0]}},
]


def test_the_norms_are_those_of_the_attack_on_each_player(run: Path) -> None:
    orders = read_orders(run, mode="deletion", limit=2, device="cpu")
    classifier, images = orders.evaluator.classifier, orders.evaluator.images
    rows = store.read_rows(run).to_pylist()
    attacks = dict(attack_run(orders, Records(), settings=AttackSettings(radius=0.5, n_steps=3)))
    assert len(attacks) == 2
    for name, record in attacks.items():
        assert not isinstance(record, UnreadableError)
        x = classifier.preprocess(images.open(images.index_of(name)))
        (row,) = [row for row in rows if (row["image"], row["method"], row["mode"]) == (name, "MoXI", "deletion")]
        attacked = attack(classifier, x, target=row["target"], radius=0.5, step_size=0.2, n_steps=3)
        difference = (classifier.to_images(attacked) - classifier.to_images(x))[0]
        norms = [float(difference[MASK[0, 0] == player].norm()) for player in row["order"]]
        assert record["orders"]["MoXI"] == pytest.approx(norms, rel=1e-5)
        assert record["norm"] == pytest.approx(float(difference.norm()), rel=1e-5) and record["norm"] <= 0.5 + 1e-6
        assert record["fooled"] == (int(call_model(classifier.model, attacked).argmax()) != row["target"])


def test_an_attack_is_not_repeated(run: Path, tmp_path: Path) -> None:
    orders = read_orders(run, mode="deletion", limit=2, device="cpu")
    path, settings = tmp_path / "attack.jsonl", AttackSettings(n_steps=1)
    first, second = Records(path), Records(path)
    attacks = dict(attack_run(orders, first, settings=settings))
    records = Records(path)
    assert dict(attack_run(orders, records, settings=settings)) == attacks
    assert (first.measured, records.measured, records.reused) == (2, 0, 2)
    # Other settings are measured.
    assert dict(attack_run(orders, second, settings=AttackSettings(n_steps=2))) != attacks
    assert second.measured == 2


def test_an_attack_of_the_version_before_minimal_groups_is_not_repeated(run: Path) -> None:
    orders = read_orders(run, mode="deletion", limit=1, device="cpu")
    (image,) = orders.images
    settings = orders.evaluator.settings.to_dict()
    del settings["minimal"], settings["alternatives"]
    key = {"image": image.name, "target": image.target, "orders": dict(image.orders), "run": settings}
    records = Records()
    records.get(key | {"radius": 1.0, "step_size": 0.2, "n_steps": 10}, lambda: dict(ATTACKS[0]))
    assert dict(attack_run(orders, records)) == {image.name: ATTACKS[0]}
    assert records.measured == 1


def test_the_table_has_norms_relative_to_the_mean_of_each_image() -> None:
    assert describe_attacks(ATTACKS) == "2 images, 1 with a changed prediction; mean norm of a perturbation 1.5."
    text = attack_table(ATTACKS)
    # The first player of a has twice the mean of its image and once, the first of b once and three times. An image
    # with two players counts with both in the mean of the first five: (1.5 + 1) / 2.
    assert "| a | 1.5 | 1.25 |" in text and "| b | 2 |" in text


def test_the_norms_of_each_image_are_measured() -> None:
    first, fifth = measure_attacks(ATTACKS)
    assert (first.quantity, fifth.quantity) == ("norm on the first patch", "norm on the first 5 patches")
    assert {method: values.tolist() for method, values in first.values.items()} == {"a": [2, 1], "b": [1, 3]}
    # b has no five players.
    assert {method: values.tolist() for method, values in fifth.values.items()} == {"a": [1.5, 1]}


def test_the_figure_has_the_running_means() -> None:
    figure = plot_attacks(ATTACKS)
    assert_described(figure)
    (ax,) = figure.axes
    lines = {line.get_label(): list(line.get_ydata()) for line in ax.lines}
    assert lines["a"] == pytest.approx([1.5, 1.25, 1.25, 1.25, 1.25]) and lines["b"] == pytest.approx([2])


def test_the_attack_of_a_run_is_summarized_in_files(run: Path, tmp_path: Path) -> None:
    text = run_attack(run, tmp_path / "out", n_steps=1, limit=1, device="cpu")
    assert "1 images, " in text and "L2 PGD with radius 1 and 1 steps of 0.2, in deletion orders" in text
    assert (tmp_path / "out" / "attack.md").read_text() == text + "\n"
    assert (tmp_path / "out" / "attack.png").read_bytes().startswith(b"\x89PNG")
    assert len((tmp_path / "out" / "attack.jsonl").read_text().splitlines()) == 1


def test_images_that_cannot_be_read_do_not_stop_the_attack(pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(pictures, tmp_path / "data")
    settings = Settings(
        model=str(FOLDER / "model"), data=str(tmp_path / "data"), grid=2, methods=["random"], stop=None, keep="all"
    )
    store.open_run(tmp_path / "run", settings.to_dict())
    store.write_part(tmp_path / "run", Evaluator.load(settings, device="cpu").rows(range(3)))
    first, second, third = (image.name for image in read_orders(tmp_path / "run", mode="deletion").images)
    picture = (tmp_path / "data" / first).read_bytes()
    (tmp_path / "data" / first).write_text("torn")
    (tmp_path / "data" / second).unlink()
    out = tmp_path / "out"
    text = run_attack(tmp_path / "run", out, n_steps=1, device="cpu")
    assert "1 images, " in text and "2 images could not be replayed:" in text
    assert f"\n{first}: " in text and f"\n{second}: image {second!r} is not in the data" in text
    # A restored image is attacked when the command is repeated. The other one is not attacked again.
    (tmp_path / "data" / first).write_bytes(picture)
    assert "2 images, " in run_attack(tmp_path / "run", out, n_steps=1, device="cpu")
    assert len((out / "attack.jsonl").read_text().splitlines()) == 2
    for name in (first, third):
        (tmp_path / "data" / name).write_text("torn")
    with pytest.raises(ValueError, match="no image could be replayed"):
        run_attack(tmp_path / "run", tmp_path / "torn", n_steps=1, device="cpu")


def test_wrong_settings_are_not_taken_for_an_unreadable_image(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="radius"):
        run_attack(run, tmp_path / "out", radius=0.0, limit=1, device="cpu")


def test_a_bad_run_is_reported_before_the_folder_is_created(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="run"):
        run_attack(tmp_path / "run", tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()
