"""Parts of a run: Parquet files with rows, in which any change is detected.

A part contains a checksum of all its other bytes, so a part that was damaged or edited is not read. It also contains
the id of its run, so a part of another run is not read either. Page checksums let other readers of Parquet verify the
values, for example ``pandas.read_parquet(part, page_checksum_verification=True)``.
"""

import hashlib
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from captum_moxi.evaluation.rows import SCHEMA, Row

# The checksum follows this text in the metadata of the file. Nothing that depends on the rows comes after the metadata.
MARKER = b"captum-moxi-sha256:"
CHECKSUM_LENGTH = 64
RUN_KEY = b"captum-moxi-run"


def encode_part(rows: Sequence[Row], *, run: str | None) -> bytes:
    """Encode rows as a Parquet file that contains its own checksum.

    Args:
        rows (Sequence[Row]): The rows.
        run (str or None): Id of the run. None for a run of a version without ids.

    Returns:
        bytes: Contents of the file.
    """
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, SCHEMA, write_page_checksum=True) as writer:
        writer.write_table(pa.Table.from_pylist(list(rows), schema=SCHEMA))
        writer.add_key_value_metadata({RUN_KEY: run or "", "checksum": MARKER + b"0" * CHECKSUM_LENGTH})
    contents: bytes = sink.getvalue().to_pybytes()
    start = contents.rindex(MARKER) + len(MARKER)
    return contents[:start] + _checksum(contents, start) + contents[start + CHECKSUM_LENGTH :]


def decode_part(contents: bytes, *, run: str | None, columns: Sequence[str]) -> pa.Table:
    """Read the rows of a part.

    Args:
        contents (bytes): Contents of the file.
        run (str or None): Id of the run. None for a run of a version without ids, whose parts have no checksums.
        columns (Sequence[str]): Names of columns in ``SCHEMA``.

    Returns:
        pyarrow.Table: The rows. Columns that the part does not contain are null.

    Raises:
        ValueError: If the file was changed, or belongs to another run.
    """
    marker = contents.rfind(MARKER)
    if marker >= 0:
        start = marker + len(MARKER)
        if contents[start : start + CHECKSUM_LENGTH] != _checksum(contents, start):
            raise ValueError("it does not match its checksum")
    elif run is not None:
        raise ValueError("it has no checksum")
    try:
        file = pq.ParquetFile(pa.BufferReader(contents))
        part_run = (file.metadata.metadata or {}).get(RUN_KEY, b"").decode()
        table = file.read([name for name in columns if name in file.schema_arrow.names])
        # Columns that were added to the schema after the part was written become null.
        rows = pa.concat_tables([_empty_table(columns), table], promote_options="default")
    except (OSError, pa.ArrowException) as error:
        raise ValueError(str(error)) from None
    if part_run != (run or ""):
        raise ValueError("it belongs to another run")
    return rows


def _checksum(contents: bytes, start: int) -> bytes:
    """Return the checksum of a file without the checksum that it contains."""
    digest = hashlib.sha256(contents[:start])
    digest.update(contents[start + CHECKSUM_LENGTH :])
    return digest.hexdigest().encode()


def _empty_table(columns: Sequence[str]) -> pa.Table:
    return SCHEMA.empty_table().select(list(columns))
