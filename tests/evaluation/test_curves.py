from pathlib import Path

import pytest
import torch
from handmade_runs import explained, write_full_run, write_run

from captum_moxi.evaluation.curves import read_run_curves


def test_a_curve_has_the_images_of_a_method_and_mode(tmp_path: Path) -> None:
    inserted, deleted = read_run_curves(write_full_run(tmp_path / "run"))
    assert (inserted.run, inserted.method, inserted.mode, deleted.mode) == ("run", "MoXI", "insertion", "deletion")
    assert list(inserted.images) == ["a", "b"] and inserted.targets.tolist() == [1, 1]
    assert inserted.curve is not None and deleted.curve is not None
    assert inserted.curve.confidences.tolist() == [[0, 0.5, 0.5, 0.5, 1], [0, 0, 0, 0.5, 1]]
    assert deleted.curve.accuracy.tolist() == [1, 1, 0.5, 0.5, 0.5]
    # By hand: trapezoids with a width of a quarter each.
    assert inserted.curve.area().tolist() == [0.5, 0.25] and deleted.curve.area().tolist() == [0.25, 1]
    assert inserted.flip_counts.tolist() == [1, 3] and deleted.flip_counts.tolist() == [2, torch.inf]
    assert (inserted.result.seconds, inserted.result.weighted_rows, inserted.max_steps) == (2, 10, 4)


def test_a_run_that_stopped_at_flips_has_flips_but_no_shared_curve(tmp_path: Path) -> None:
    rows = [
        explained("a", "MoXI", "insertion", "-x", [0.0, 0.5]),
        explained("b", "MoXI", "insertion", "---x", [0.0, 0.0, 0.0, 0.5]),
    ]
    (run,) = read_run_curves(write_run(tmp_path / "run", rows, stop="flip"))
    assert run.curve is None and run.up_to(0.5).curve is None
    assert run.flip_counts.tolist() == [1, 3] and run.max_steps == 3
    assert run.result.order.tolist() == [[0, -1, -1], [0, 1, 2]]
    assert run.result.curve.confidences[0, 1:].isnan().tolist() == [False, True, True]


def test_images_with_different_numbers_of_players_meet_at_fractions_of_their_players(tmp_path: Path) -> None:
    rows = [
        explained("a", "MoXI", "insertion", "-xxxx", [0.0, 0.1, 0.2, 0.3, 0.4]),
        explained("b", "MoXI", "insertion", "-xx", [0.0, 0.6, 0.8], players=2),
    ]
    (run,) = read_run_curves(write_run(tmp_path / "run", rows))
    assert run.curve is not None
    assert run.curve.fractions.tolist() == [0, 0.25, 0.5, 0.75, 1]
    # Of two players, one is the number closest to a quarter and to a half, and two to three quarters.
    assert run.curve.confidences[1].tolist() == [0, 0.6, 0.6, 0.8, 0.8]


@pytest.mark.parametrize(("players", "hits"), [(4, "---x"), (5, "----x"), (3, "--x"), (2, "-x"), (1, "x")])
def test_a_flip_at_the_last_step_is_found_for_any_number_of_players(tmp_path: Path, players: int, hits: str) -> None:
    steps = len(hits) - 1
    rows = [
        explained("a", "MoXI", "insertion", hits, [0.5] * (steps + 1), players=players),
        explained("b", "MoXI", "insertion", "-", [0.5], players=5),
    ]
    (run,) = read_run_curves(write_run(tmp_path / "run", rows, stop="flip"))
    assert run.flip_counts.tolist() == [steps, torch.inf] and run.max_steps == steps


def test_the_shared_curve_ends_where_the_shortest_image_ends(tmp_path: Path) -> None:
    rows = [
        explained("a", "MoXI", "insertion", "-xxxx", [0.0, 0.1, 0.2, 0.3, 0.4]),
        explained("b", "MoXI", "insertion", "-xx", [0.0, 0.6, 0.8]),
    ]
    (run,) = read_run_curves(write_run(tmp_path / "run", rows))
    assert run.curve is not None and run.curve.fractions.tolist() == [0, 0.25, 0.5]
    truncated = run.up_to(0.3).curve
    assert truncated is not None and truncated.confidences.tolist() == [[0, 0.1], [0, 0.6]]


def test_only_the_requested_images_are_read(tmp_path: Path) -> None:
    inserted, _ = read_run_curves(write_full_run(tmp_path / "run"), images=["b", "z"])
    assert list(inserted.images) == ["b"]


def test_a_run_without_explained_images_is_rejected(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", [{"image": "a", "status": "wrong"}])
    with pytest.raises(ValueError, match="has no explained images, but 1 others"):
        read_run_curves(folder)
