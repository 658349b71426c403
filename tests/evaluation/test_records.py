import json
from pathlib import Path

import pytest

from captum_moxi.evaluation.records import Record, Records


def fail_to_measure() -> Record:
    pytest.fail("measured again")


def test_a_stored_measurement_is_not_repeated(tmp_path: Path) -> None:
    path, calls = tmp_path / "records.jsonl", []

    def measure() -> Record:
        calls.append(1)
        return {"seconds": len(calls)}

    assert Records(path).get({"m": 4}, measure) == {"seconds": 1}
    records = Records(path)
    assert records.get({"m": 4}, measure) == {"seconds": 1}
    assert records.get({"m": 8}, measure) == {"seconds": 2}
    assert (records.reused, records.measured) == (1, 1)
    assert [json.loads(line)["settings"] for line in path.read_text().splitlines()] == [{"m": 4}, {"m": 8}]


def test_without_a_file_measurements_are_remembered_but_not_stored() -> None:
    records = Records()
    assert records.get({"m": 4}, lambda: {"seconds": 1}) == {"seconds": 1}
    assert records.get({"m": 4}, fail_to_measure) == {"seconds": 1}


def test_a_partial_last_line_is_measured_again_and_the_others_remain(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    Records(path).get({"m": 4}, lambda: {"seconds": 1})
    with path.open("a") as file:
        file.write('{"settings": {"m": 8}, "meas')
    assert Records(path).get({"m": 8}, lambda: {"seconds": 2}) == {"seconds": 2}
    assert Records(path).get({"m": 4}, fail_to_measure) == {"seconds": 1}
    assert Records(path).get({"m": 8}, fail_to_measure) == {"seconds": 2}


@pytest.mark.parametrize("text", ["hello\n", "hello", '{"a": 1}', '{"settings": 1}\n', "[1, 2]\n"])
def test_a_file_of_other_content_is_rejected_and_left_unchanged(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"line 1 of .* is not a measurement"):
        Records(path)
    assert path.read_text() == text
