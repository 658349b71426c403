import json
import os
import subprocess
import sys
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


@pytest.mark.skipif(os.name != "posix", reason="uses the file size limit of POSIX")
def test_measurements_survive_a_partial_last_line_and_a_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    Records(path).get({"m": 4}, lambda: {"seconds": 1})
    contents = path.read_bytes()
    path.write_bytes(contents + b'{"settings": {"m": 8}, "meas')
    code = """
import resource, sys
from pathlib import Path
from captum_moxi.evaluation.records import Records
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
try:
    Records(Path(sys.argv[1])).get({"m": 8}, lambda: {"seconds": 2})
except OSError:
    print("disk full")
"""
    run = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert run.stdout == "disk full\n"
    assert path.read_bytes() == contents


@pytest.mark.parametrize("text", ["hello\n", "hello", '{"a": 1}', '{"settings": 1}\n', "[1, 2]\n"])
def test_a_file_of_other_content_is_rejected_and_left_unchanged(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"line 1 of .* is not a measurement"):
        Records(path)
    assert path.read_text() == text


def test_no_flipped_bit_changes_a_measurement(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    for m in (4, 8):
        Records(path).get({"m": m}, lambda: {"seconds": 1.25, "orders": {"MoXI": [3, 10]}})
    contents = path.read_bytes()
    for bit in range(8 * len(contents)):
        changed = bytearray(contents)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        try:
            records = Records(path)
        except ValueError as error:
            assert "line 1 of" in str(error) or "line 2 of" in str(error)
            continue
        assert contents[bit // 8 : bit // 8 + 1] == b"\n"
        # If the last line has no end, it is measured again.
        for m in (4, 8):
            record = records.get({"m": m}, lambda: {"seconds": 1.25, "orders": {"MoXI": [3, 10]}})
            assert record == {"seconds": 1.25, "orders": {"MoXI": [3, 10]}}
        assert records.measured <= 1


def test_lines_of_a_version_without_checksums_are_read(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text('{"settings": {"m": 4}, "measured": {"seconds": 1}}\n')
    assert Records(path).get({"m": 4}, fail_to_measure) == {"seconds": 1}
