import json
from pathlib import Path

import pytest
import torch

from captum_moxi.evaluation.records import Records, machine, table


def test_what_is_measured_is_not_measured_again(tmp_path: Path) -> None:
    path, calls = tmp_path / "kept.jsonl", []

    def measure() -> dict[str, int]:
        calls.append(1)
        return {"seconds": len(calls)}

    assert Records(path).get({"m": 4}, measure) == {"seconds": 1}
    again = Records(path)
    assert again.get({"m": 4}, measure) == {"seconds": 1}
    assert again.get({"m": 8}, measure) == {"seconds": 2}
    assert [json.loads(line)["settings"] for line in path.read_text().splitlines()] == [{"m": 4}, {"m": 8}]


def test_a_line_cut_by_a_kill_is_measured_again_and_the_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "kept.jsonl"
    Records(path).get({"m": 4}, lambda: {"seconds": 1})
    with path.open("a") as file:
        file.write('{"settings": {"m": 8}, "meas')
    records = Records(path)
    assert records.get({"m": 8}, lambda: {"seconds": 2}) == {"seconds": 2}
    assert Records(path).get({"m": 4}, pytest.fail) == {"seconds": 1}
    assert Records(path).get({"m": 8}, pytest.fail) == {"seconds": 2}


@pytest.mark.parametrize("text", ["hello\n", "hello", '{"a": 1}', '{"settings": 1}\n', "[1, 2]\n"])
def test_another_file_is_refused_and_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match="line 1, is no measurement"):
        Records(path)
    assert path.read_text() == text


def test_a_table_is_markdown() -> None:
    got = table(["name", "seconds", "rows"], [["a", 0.12345, 1234567], ["b", 1234.5, 3]])
    assert got.splitlines() == [
        "| name | seconds | rows |",
        "| --- | --- | --- |",
        "| a | 0.123 | 1,234,567 |",
        "| b | 1,234 | 3 |",
    ]


def test_the_machine_is_named_with_its_threads_and_torch() -> None:
    said = machine(torch.device("cpu"))
    assert torch.__version__ in said
    assert f"{torch.get_num_threads()} threads" in said
