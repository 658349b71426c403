import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import zoo

from captum_moxi import CoalitionGame, deletion_curve, insertion_curve
from captum_moxi.metrics import (
    Replay,
    check_fit,
    check_removals,
    join_replays,
    play_replays,
    replay_records,
    replay_rows,
)
from captum_moxi.tables import csv_table

REPLAY = Replay("zero", "A", np.array([7 / 8, 1 / 8]), np.array([1 / 8, 7 / 8]), fraction=1.0, is_complete=True)


@pytest.mark.parametrize("removal", ["token", "zero", "blur"])
@pytest.mark.parametrize("fractions", [None, [0, 0.25, 0.5]])
def test_each_replay_has_the_areas_of_the_curves_under_its_removal(removal: str, fractions: list[float] | None) -> None:
    model, x, target = zoo.token_model("vit"), torch.randn(2, 3, 32, 32), [1, 3]
    orders = {"A": torch.stack([torch.randperm(16) for _ in range(2)]), "B": torch.arange(16).repeat(2, 1)}
    game = CoalitionGame(model, x, target=target)
    points = None if fractions is None else torch.tensor(fractions, dtype=torch.float64)
    replays = play_replays(game, orders, ["mean", removal], fractions=points, show_progress=True)
    assert [(replay.removal, replay.order) for replay in replays] == [
        (name, order) for name in ("mean", removal) for order in "AB"
    ]
    for replay in replays[2:]:
        insertion, deletion = (
            curve(model, x, attributions=orders[replay.order], target=target, removal=removal, fractions=fractions)
            for curve in (insertion_curve, deletion_curve)
        )
        np.testing.assert_allclose(replay.insertion, insertion.area().numpy(), atol=1e-6)
        np.testing.assert_allclose(replay.deletion, deletion.area().numpy(), atol=1e-6)
        if fractions is None:
            assert replay.srg is not None
            np.testing.assert_allclose(replay.srg, (insertion.area() - deletion.area()).numpy(), atol=1e-6)
        else:
            assert replay.srg is None and replay.fraction == 0.5


def test_records_computed_by_hand() -> None:
    (record,) = replay_records([join_replays([REPLAY] * 5)], resamples=4000)
    assert (record["insertion area"], record["deletion area"], record["SRG"]) == (0.5, 0.5, 0)
    # Half of the images have an SRG of 0.75, the others of -0.75. The 95 % interval of the number of the former in a
    # resample of 10 images extends from 2 to 8, as in the binomial distribution.
    assert (record["SRG, low"], record["SRG, high"]) == pytest.approx((-0.45, 0.45))
    single = replace(REPLAY, insertion=REPLAY.insertion[:1], deletion=REPLAY.deletion[:1])
    (record,) = replay_records([single], resamples=10)
    assert record["SRG"] == 0.75 and record["SRG, low"] is None and record["SRG, high"] is None
    header, cells = replay_rows([record])
    assert header == ["removal", "order", "images", "fraction of patches", "insertion area", "deletion area", "SRG"]
    assert cells == [["zero", "A", 1, 1.0, 7 / 8, 1 / 8, 3 / 4]]


def test_truncated_orders_have_no_srg() -> None:
    partial = replace(REPLAY, fraction=0.5, is_complete=False)
    assert partial.srg is None
    for records in (replay_records([partial]), replay_records([REPLAY, partial])):
        assert all("SRG" not in record and record["area difference"] == 0 for record in records)


def test_unknown_values_are_null_in_json_and_empty_in_tables() -> None:
    unknown = replace(REPLAY, insertion=np.array([np.nan, 1.0]))
    records = replay_records([REPLAY, unknown], resamples=10)
    assert records[1]["SRG"] is None and records[1]["insertion area, low"] is None
    assert records[1]["deletion area"] == 0.5
    assert json.loads(json.dumps(records, allow_nan=False)) == records
    header, cells = replay_rows(records)
    assert cells[1][header.index("SRG")] == ""
    assert [row["SRG"] for row in csv.DictReader(io.StringIO(csv_table(records)))] == ["0.0", ""]


def test_joined_replays_have_the_images_of_all() -> None:
    joined = join_replays([REPLAY, replace(REPLAY, insertion=np.array([0.5]), deletion=np.array([0.25]))])
    assert joined.insertion.tolist() == [7 / 8, 1 / 8, 0.5] and joined.deletion.tolist() == [1 / 8, 7 / 8, 0.25]


def test_wrong_names_are_rejected() -> None:
    with pytest.raises(ValueError, match="removal 'hail' is unknown"):
        check_removals(["zero", "hail"], argument="removals")
    for names in ([], ["zero", "zero"]):
        with pytest.raises(ValueError, match=r"replay_removals is \[.*; pass one or more different names"):
            check_removals(names, argument="replay_removals")
    for wrong in ("zero", [3]):
        with pytest.raises(TypeError, match="pass a list of names"):
            check_removals(wrong, argument="removals")  # type: ignore[arg-type]


def test_removals_that_do_not_fit_are_rejected_with_the_reason() -> None:
    game = CoalitionGame(zoo.resnet(), torch.randn(1, 3, 32, 32), target=1, baselines=0.5)
    check_fit(game.call, ["zero", "mean", "blur"], argument="removals")
    with pytest.raises(ValueError, match=r"removals='token' does not fit the model .*; pass other removals"):
        check_fit(game.call, ["zero", "token"], argument="removals")
