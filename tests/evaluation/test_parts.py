import io
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captum_moxi.evaluation import parts
from captum_moxi.evaluation.parts import decode_part, encode_part
from captum_moxi.evaluation.rows import SCHEMA, Row

NAMES = SCHEMA.names


def row(image: str, **columns: Any) -> Row:
    return cast(Row, {"image": image, "status": "explained", "method": "MoXI", "mode": "insertion"} | columns)


# The error contains the text that marks the checksum.
MARKED = row("c.png", status="failed", error="captum-moxi-sha256:" + "0" * 64)
ROWS = [
    row("a.png", label=3, target=3, order=[2, 0], rewards=[0.5, 1.5, 1e-3], flipped=True, seconds=0.25),
    row("b.png", order=[1], rewards=[float("-inf"), 2.0]),
]


def flip(contents: bytes, bit: int) -> bytes:
    changed = bytearray(contents)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_rows_are_decoded_as_they_were_encoded() -> None:
    rows = [*ROWS, MARKED]
    contents = encode_part(rows, run="1")
    decoded = decode_part(contents, run="1", columns=NAMES).to_pylist()
    assert [{name: read[name] for name in written} for read, written in zip(decoded, rows, strict=True)] == rows
    assert decoded[1]["seconds"] is None
    assert decode_part(contents, run="1", columns=["order"]).to_pydict() == {"order": [[2, 0], [1], None]}
    # Any reader of Parquet reads the same rows.
    assert pq.read_table(io.BytesIO(contents)).to_pylist() == decoded


def test_every_flipped_bit_and_every_truncation_is_detected() -> None:
    contents = encode_part([*ROWS, MARKED], run="1")
    for bit in range(8 * len(contents)):
        with pytest.raises(ValueError, match="checksum"):
            decode_part(flip(contents, bit), run="1", columns=NAMES)
    for length in range(len(contents)):
        with pytest.raises(ValueError, match="checksum"):
            decode_part(contents[:length], run="1", columns=NAMES)


def test_other_readers_can_verify_pages() -> None:
    contents = encode_part(ROWS, run="1")
    column = pq.read_metadata(io.BytesIO(contents)).row_group(0).column(NAMES.index("seconds"))
    last_byte = column.dictionary_page_offset + column.total_compressed_size - 1
    damaged = io.BytesIO(flip(contents, 8 * last_byte))
    with pytest.raises(OSError, match=r"(?i)crc"):
        pq.read_table(damaged, page_checksum_verification=True)


def test_a_part_that_was_edited_with_another_program_is_rejected() -> None:
    table = decode_part(encode_part(ROWS, run="1"), run="1", columns=NAMES)
    edited = io.BytesIO()
    pq.write_table(table.set_column(NAMES.index("seconds"), "seconds", pa.array([9.0, 9.0])), edited)
    with pytest.raises(ValueError, match="checksum"):
        decode_part(edited.getvalue(), run="1", columns=NAMES)


def test_a_part_of_another_run_is_rejected() -> None:
    with pytest.raises(ValueError, match="it belongs to another run"):
        decode_part(encode_part(ROWS, run="2"), run="1", columns=NAMES)


def test_a_part_with_fewer_or_more_columns_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = [field for field in SCHEMA if field.name != "versions"]
    with monkeypatch.context() as earlier_version:
        earlier_version.setattr(parts, "SCHEMA", pa.schema(fields))
        fewer = encode_part(ROWS, run="1")
    table = decode_part(fewer, run="1", columns=["image", "versions"])
    assert table.schema == pa.schema([SCHEMA.field("image"), SCHEMA.field("versions")])
    assert table.to_pydict() == {"image": ["a.png", "b.png"], "versions": [None, None]}
    with monkeypatch.context() as later_version:
        later_version.setattr(parts, "SCHEMA", SCHEMA.append(pa.field("heat", pa.float64())))
        more = encode_part(ROWS, run="1")
    assert decode_part(more, run="1", columns=NAMES).schema == SCHEMA


def test_a_run_without_an_id_has_parts_without_checksums() -> None:
    contents = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(cast(list[dict[str, Any]], ROWS), schema=SCHEMA), contents)
    for part in (contents.getvalue(), encode_part(ROWS, run=None)):
        assert decode_part(part, run=None, columns=["image"])["image"].to_pylist() == ["a.png", "b.png"]
    with pytest.raises(ValueError, match=r".+"):
        decode_part(contents.getvalue()[:-20], run=None, columns=NAMES)
