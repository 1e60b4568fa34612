"""The table of an export as a file: CSV, or Parquet with typed columns.

A file by others may be anything: it is checked before its rows are made.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from diffbench.reporting.exports.column import COLUMNS, VERSION, ExportError, typed
from diffbench.reporting.exports.row import Rows, brief, check_size, text

#: The most bytes that are read of a file.
MOST_BYTES = 100_000_000


def to_csv(found: Sequence[Mapping[str, str]]) -> bytes:
    """Return rows as a CSV file."""
    import pandas as pd

    return str(pd.DataFrame(found, columns=list(COLUMNS)).to_csv(index=False)).encode()


def _parquet(found: Sequence[Mapping[str, str]]) -> bytes:
    content = io.BytesIO()
    _arrow()
    typed(found).to_parquet(content, index=False)
    return content.getvalue()


def _arrow() -> Any:
    """Return pyarrow's module for Parquet."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise ExportError("Parquet needs pyarrow: pip install 'diffbench[parquet]'") from None
    return pyarrow.parquet


#: What makes a table of rows, by the suffix of its file.
WRITERS: Mapping[str, Callable[[Sequence[Mapping[str, str]]], bytes]] = {
    "csv": to_csv,
    "parquet": _parquet,
}


def of_csv(content: bytes) -> Rows:
    """Return the rows of a CSV file, as text.

    Raises:
        ValueError: when it is no CSV file with the columns of an export.
    """
    try:
        reader = csv.reader(io.StringIO(content.decode(), newline=""), strict=True)
        head = next(reader, [])
        _check_columns(head)
        found = []
        for line in reader:
            if len(line) != len(head):
                raise ValueError(f"line {reader.line_num}: {len(line)} fields, not {len(head)}")
            found.append(dict(zip(head, line, strict=True)))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"it is not a CSV file: {error}") from None
    return found


def _of_parquet(content: bytes) -> Rows:
    """Return the rows of a Parquet file, as text.

    Raises:
        ValueError: when it is no Parquet file with the columns and types of an export.
    """
    parquet = _arrow()
    import pyarrow as pa

    words = [name for name, (kind, _) in COLUMNS.items() if kind == "string"]
    try:
        schema = parquet.read_schema(io.BytesIO(content))
        _check_columns(schema.names)
        for name, (kind, _) in COLUMNS.items():
            column = schema.field(name).type
            if not _is_of(column, kind):
                raise ValueError(f"the column {name} has the type {column}, and must be a {kind}")
        file = parquet.ParquetFile(io.BytesIO(content), read_dictionary=words)
        check_size(file.metadata.num_rows)
        groups = range(file.metadata.num_row_groups)
        check_bytes(sum(file.metadata.row_group(i).total_byte_size for i in groups))
        table = file.read()
        check_bytes(sum(_bytes(chunk) for name in words for chunk in table[name].chunks))
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"it is not a Parquet file: {brief(str(error))}") from None
    return [{name: text(name, row[name]) for name in COLUMNS} for row in table.to_pylist()]


def _is_of(column: Any, kind: str) -> bool:
    """Return whether a type of Arrow is that of an export's column."""
    from pyarrow import types

    words, numbers = (types.is_string, types.is_large_string), (types.is_floating, types.is_integer)
    checks = (types.is_null, *(words if kind == "string" else numbers))
    return any(check(column) for check in checks)


def _bytes(chunk: Any) -> int:
    """Return the bytes of all words of a chunk, of which a dictionary holds each once."""
    from pyarrow import compute, types

    if not types.is_dictionary(chunk.type):
        return 0  # a column without any word
    lengths = compute.binary_length(chunk.dictionary).cast("int64")
    return int(compute.sum(lengths.take(chunk.indices)).as_py() or 0)


#: What reads the rows of a table, by the suffix of its file; ``of_csv`` reads others.
READERS: Mapping[str, Callable[[bytes], Rows]] = {".parquet": _of_parquet}


def _check_columns(names: Sequence[str]) -> None:
    if list(names) != list(COLUMNS):
        raise ValueError(f"it does not have the columns of an export of version {VERSION}")


def check_bytes(count: int) -> None:
    """Refuse more bytes than are read."""
    if count > MOST_BYTES:
        raise ValueError(f"{count:,} bytes are more than an export has ({MOST_BYTES:,})")
