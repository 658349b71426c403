"""Files are written completely or not at all."""

import os
from pathlib import Path

import pytest

from captum_moxi.files import write_file


def test_text_and_bytes_are_written(tmp_path: Path) -> None:
    write_file(tmp_path / "text", "größer\n")
    write_file(tmp_path / "bytes", b"\0\1")
    assert (tmp_path / "text").read_bytes() == "größer\n".encode()
    assert (tmp_path / "bytes").read_bytes() == b"\0\1"


def test_a_full_disk_leaves_the_earlier_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "page.html"
    write_file(path, "earlier")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*page\.html'") as error:
        write_file(path, "later")
    assert error.value.errno == 28
    assert path.read_text() == "earlier"
    assert [entry.name for entry in tmp_path.iterdir()] == ["page.html"]
