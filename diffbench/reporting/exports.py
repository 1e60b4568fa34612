"""Exports: the long table of a benchmark's results as a file that others can read, check and compare.

    records.csv     a row a number, or why there is none, with the columns of ``COLUMNS``; empty where there is nothing
    records.json    what the table is about: the columns, the metrics, the variants with everything merged into them,
                    how config/published.csv differs from the packaged one, the versions and devices, and the SHA-256
                    of the table

``make tables`` writes both into the results folder; ``diffbench export`` also writes the table as Parquet, with typed
columns.  Each row ends with a checksum of its own, so that a value that was changed by hand is found by name.  A
checksum shows mistakes; it is no signature, which would show who wrote the file.  So all that is read is checked
against the types of the columns, and its text made printable (``untrusted``).
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffbench.reporting import context, layout, untrusted
from diffbench.reporting.published import PublishedValues, differences, packaged
from diffbench.reporting.records import Records
from diffbench.specs.errors import UserError, shown
from diffbench.store import files, paths, run_record

if TYPE_CHECKING:
    import pandas as pd

    from diffbench.reporting.layout import Metrics

#: The name of the files in a results folder, and of the format.
NAME, FORMAT, VERSION = layout.EXPORT, "diffbench-records", 1
SUFFIXES = ("csv", "json")
#: Column -> its type in JSON's words, and what it is.
COLUMNS: Mapping[str, tuple[str, str]] = {
    "benchmark": ("string", "the benchmark's name"),
    "variant": ("string", "the variant's id; truth for the true images of restorations"),
    "seed": ("integer", "the seed of training and of all that follows"),
    "stage": ("string", "the stage that made the number"),
    "item": ("string", "a solver, a likelihood, task/restorer or an analysis"),
    "at": ("integer", "the step of the weights, where the item names one"),
    "metric": ("string", "the metric; empty where the job failed"),
    "value": ("number", "the number, in the metric's unit"),
    "se": ("number", "its standard error over samples or test images"),
    "floor": ("number", "what as many real images score"),
    "samples": ("integer", "images behind the number"),
    "nfe": ("number", "calls of the network for each image"),
    "seconds": ("number", "wall time of training and of the job, in seconds"),
    "gpu_seconds": ("number", "the part of it on a GPU, in seconds"),
    "protocol": ("string", "how the number was made: data, extractor, reference, precision"),
    "spec": ("string", "hash of the job's spec"),
    "sha256": ("string", "SHA-256 of the file that has the number"),
    "commit": ("string", "commit of the code that ran the job; -dirty with uncommitted changes"),
    "device": ("string", "what the job ran on"),
    "status": ("string", "ok, failed, stale or missing"),
    "reason": ("string", "why there is no number"),
    "check": ("string", "the first 8 digits of the SHA-256 of the row's other fields"),
}
CHECK = "check"
#: The keys of a benchmark file that all its numbers depend on.
SETTINGS = {"data", "extractor", "samples", "sampling", "floors", "restorations"}
#: What names a number of one seed.
KEYS = ("variant", "stage", "item", "at", "metric", "seed")
STATUSES = ("ok", "failed", "stale", "missing")
#: The most that is read: bytes of either file, rows, and characters of a field.
MOST_BYTES, MOST_ROWS, LONGEST = 100_000_000, 200_000, 20_000
#: How numbers are written, by type.
NUMBERS = {
    "integer": re.compile(r"-?[0-9]{1,15}"),
    "number": re.compile(r"-?[0-9]{1,17}(\.[0-9]{1,20})?(e[-+]?[0-9]{1,3})?"),
}
Rows = list[dict[str, str]]


#: The run record of each job: (variant, stage, item, seed) -> record; empty where there is none.
RunRecords = Mapping[tuple[str, str, str, int], Mapping[str, Any]]


class ExportError(UserError, ValueError):
    """A file is not an export, or was changed after it was written."""


@dataclass(frozen=True)
class Export:
    """An export that was read and found whole.

    Attributes:
        path: the file of the table.
        frame: the table, its numbers as float (NaN where there is none) and its words as text.
        about: the content of the JSON file.
    """

    path: Path
    frame: pd.DataFrame
    about: Mapping[str, Any]


def schema() -> dict[str, Any]:
    """Return the JSON schema of a row of an export, whose empty fields are null."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"A row of {FORMAT}, version {VERSION}",
        "type": "object",
        "additionalProperties": False,
        "required": list(COLUMNS),
        "properties": {
            name: {"type": [kind, "null"], "description": text}
            for name, (kind, text) in COLUMNS.items()
        },
    }


def rows(records: Records, ran: RunRecords) -> list[dict[str, str]]:
    """Return the rows of a benchmark's export as text, in the order of ``COLUMNS``."""
    found = []
    for line in lines(records.frame):
        key = line["variant"], line["stage"], line["item"], line["seed"]
        protocol = line["protocol"] if isinstance(line["protocol"], Mapping) else None
        words = {"protocol": context.protocol(line["metric"], protocol)}
        words |= {name: str(ran.get(key, {}).get(name) or "") for name in ("commit", "device")}
        row = {name: _text(kind, {**line, **words}.get(name)) for name, (kind, _) in _others()}
        found.append(row | {CHECK: check_of(row)})
    return found


def _others() -> list[tuple[str, tuple[str, str]]]:
    return [(name, each) for name, each in COLUMNS.items() if name != CHECK]


def lines(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table as column -> value."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def check_of(row: Mapping[str, str]) -> str:
    """Return the checksum of a row: of all its fields but the checksum's own, in the order of ``COLUMNS``."""
    text = "\x1f".join(row[name] for name, _ in _others())
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _text(kind: str, value: object) -> str:
    """Return a field as text that is read back to the same value; empty for nothing."""
    if value is None or value != value:
        return ""
    if kind == "integer":
        return f"{float(str(value)):.0f}"
    return repr(float(str(value))) if kind == "number" else " ".join(str(value).split())


def _ran(records: Records) -> RunRecords:
    """Return the run record of each job."""
    return {
        (job.variant, job.stage, job.item, job.seed): run_record.known(
            paths.product(records.root, job.spec)
        )
        for job in records.plan.jobs
    }


def about(
    records: Records, metrics: Metrics, every: RunRecords, table: bytes, count: int, origin: str
) -> dict[str, Any]:
    """Return what the JSON file says of a table of ``count`` rows."""
    plan = records.plan
    ran = [each for each in every.values() if each]
    starts = sorted(str(each["start"]) for each in ran if each.get("start"))
    return {
        "format": FORMAT,
        "version": VERSION,
        "benchmark": plan.benchmark.name,
        **({"origin": origin} if origin else {}),
        "title": plan.benchmark.data.title,
        "note": plan.benchmark.note,
        "ran": [starts[0], starts[-1]] if starts else [],
        "rows": count,
        "sha256": hashlib.sha256(table).hexdigest(),
        "columns": [
            {"name": name, "type": kind, "is": text} for name, (kind, text) in COLUMNS.items()
        ],
        "metrics": {
            name: each.model_dump(mode="json", include={"head", "unit", "better", "ranks"})
            for name, each in metrics.items()
        },
        "settings": plan.benchmark.model_dump(mode="json", include=SETTINGS),
        "remark": plan.benchmark.data.remark,
        "published": differences(
            PublishedValues(plan.repository / layout.PUBLISHED).rows, packaged()
        ),
        "variants": {
            name: each.model_dump(mode="json", exclude_none=True)
            for name, each in plan.variants.items()
        },
        "environment": {
            "commits": _distinct(each.get("commit") for each in ran),
            "devices": _distinct(each.get("device") for each in ran),
            "platforms": _distinct(each.get("platform") for each in ran),
            "versions": {
                package: _distinct(each.get("versions", {}).get(package) for each in ran)
                for package in sorted({name for each in ran for name in each.get("versions", {})})
            },
        },
    }


def _distinct(values: Iterable[Any]) -> list[str]:
    return sorted({str(each) for each in values if each})


def contents(
    records: Records, metrics: Metrics, suffix: str = "csv", origin: str = ""
) -> dict[str, bytes]:
    """Return the two files of a benchmark's export, by suffix: the table, and the JSON file.

    ``origin`` says who made it.
    """
    ran = _ran(records)
    found = rows(records, ran)
    table = WRITERS[suffix](found)
    described = about(records, metrics, ran, table, len(found), " ".join(origin.split()))
    return {suffix: table, "json": files.json_bytes(described)}


def _csv(found: Sequence[Mapping[str, str]]) -> bytes:
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
    "csv": _csv,
    "parquet": _parquet,
}


def of(records: Records, metrics: Metrics) -> Export:
    """Return a benchmark's export without writing it."""
    return held(records.root, contents(records, metrics))


def held(root: Path, made: Mapping[str, bytes]) -> Export:
    """Return the export of a results folder from its two files, by suffix."""
    described = json.loads(made["json"])
    return Export(paths.table(root, NAME, "csv"), typed(_of_csv(made["csv"])), described)


def write(records: Records, metrics: Metrics, path: Path, origin: str = "") -> list[Path]:
    """Write a benchmark's export: the table, as CSV or as Parquet by the path's suffix, and its JSON file beside it.

    Raises:
        ExportError: for another suffix, or when Parquet is asked for without pyarrow; nothing is written then.
    """
    suffix = path.suffix.removeprefix(".")
    if suffix not in WRITERS:
        raise ExportError(f"{path}: an export ends in .csv or .parquet, not in {path.suffix!r}")
    made = contents(records, metrics, suffix, origin)
    for name, content in made.items():
        files.write(path.with_suffix(f".{name}"), content)
    return [path.with_suffix(f".{name}") for name in made]


def rewritten(export: Export) -> dict[str, bytes]:
    """Return the two files of an export that was read, by suffix: the table as CSV, without formulas in its words.

    An export without any comes out as it was.
    """
    kept = []
    for line in lines(export.frame):
        row = {name: _text(kind, line[name]) for name, (kind, _) in _others()}
        row |= {
            name: untrusted.neutral(row[name]) for name, (kind, _) in _others() if kind == "string"
        }
        kept.append(row | {CHECK: check_of(row)})
    table = _csv(kept)
    described = {**export.about, "sha256": hashlib.sha256(table).hexdigest()}
    return {"csv": table, "json": files.json_bytes(described)}


def located(path: Path) -> Path:
    """Return the table of an export that is named by its file or by its results folder.

    Raises:
        ExportError: when there is none.
    """
    table = paths.table(path, NAME, "csv") if path.is_dir() else path
    if table.is_file():
        return table
    raise ExportError(
        f"{shown(path)}: there is no {table.relative_to(path)} in it: run diffbench table --config FILE first"
        if path.is_dir()
        else f"{shown(path)}: there is no such export"
    )


def read(path: Path) -> Export:
    """Return an export, named by its table, CSV or Parquet, or by its results folder.

    Raises:
        ExportError: when it is not whole, or not of the documented columns and types; a row that was changed is named.
    """
    table = located(path)
    described = table.with_suffix(".json")
    found = _described(table, described)
    content = _content(table)
    try:
        read_rows = READERS.get(table.suffix, _of_csv)(content)
        _check(read_rows)
        count, digest = len(read_rows), hashlib.sha256(content).hexdigest()
        if (count, digest) != (found["rows"], found["sha256"]):
            raise ValueError(
                f"rows were added, removed or moved after it was exported, or {described.name} is of another table"
            )
        _check_once(read_rows)
    except ValueError as error:
        raise ExportError(f"{shown(table)}: {error}") from None
    return Export(table, typed(read_rows), found)


def _described(table: Path, path: Path) -> dict[str, Any]:
    """Return the content of an export's JSON file."""
    if not path.is_file():
        raise ExportError(f"{shown(table)}: {path.name} is missing beside it")
    try:
        found = untrusted.described(_content(path))
        kind, version = found["format"], found["version"]
    except (ValueError, KeyError) as error:
        why = f": {error}" if isinstance(error, ValueError) else ""
        raise ExportError(f"{shown(path)} does not describe an export of diffbench{why}") from None
    if (kind, version) != (FORMAT, VERSION):
        raise ExportError(
            f"{shown(path)} is of format {_brief(kind)}, version {_brief(version)}: only "
            f"{FORMAT!r}, version {VERSION}, can be read"
        )
    if why := untrusted.refusal(found):
        raise ExportError(f"{shown(path)} does not describe an export of diffbench: {why}")
    return found


def _content(path: Path) -> bytes:
    try:
        _check_bytes(path.stat().st_size)
    except ValueError as error:
        raise ExportError(f"{shown(path)}: {error}") from None
    return path.read_bytes()


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _of_csv(content: bytes) -> Rows:
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
        _check_size(file.metadata.num_rows)
        groups = range(file.metadata.num_row_groups)
        _check_bytes(sum(file.metadata.row_group(i).total_byte_size for i in groups))
        table = file.read()
        _check_bytes(sum(_bytes(chunk) for name in words for chunk in table[name].chunks))
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"it is not a Parquet file: {_brief(str(error))}") from None
    return [
        {name: _text(kind, row[name]) for name, (kind, _) in COLUMNS.items()}
        for row in table.to_pylist()
    ]


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


#: What reads the rows of a table, by the suffix of its file; CSV by others.
READERS: Mapping[str, Callable[[bytes], Rows]] = {".parquet": _of_parquet}


def _check_columns(names: Sequence[str]) -> None:
    if list(names) != list(COLUMNS):
        raise ValueError(f"it does not have the columns of an export of version {VERSION}")


def _check_size(count: int) -> None:
    if count > MOST_ROWS:
        raise ValueError(f"{count:,} rows are more than an export has ({MOST_ROWS:,})")


def _check_bytes(count: int) -> None:
    if count > MOST_BYTES:
        raise ValueError(f"{count:,} bytes are more than an export has ({MOST_BYTES:,})")


def _check(found: Rows) -> None:
    """Check each row of an export.

    Raises:
        ValueError: naming the line and the cell of the first that is wrong.
    """
    _check_size(len(found))
    for number, row in enumerate(found, start=2):
        if why := _wrong(row):
            raise ValueError(f"{_line(number, row)}: {why}")


def _check_once(found: Rows) -> None:
    """Refuse a cell that is there twice."""
    known: set[tuple[str, ...]] = set()
    for number, row in enumerate(found, start=2):
        key = tuple(row[name] for name in KEYS)
        if key in known:
            raise ValueError(f"{_line(number, row)}: the cell is there twice")
        known.add(key)


def _line(number: int, row: Mapping[str, str]) -> str:
    named = untrusted.printable(" ".join(row[name] for name in KEYS if row[name]))
    return f"line {number} ({named[:100]})"


def _wrong(row: Mapping[str, str]) -> str:
    """Return what is wrong with a row; empty where nothing is."""
    if check_of(row) != row[CHECK]:
        return "the row was changed after it was exported"
    for name, (kind, _) in COLUMNS.items():
        value = row[name]
        if len(value) > LONGEST:
            return f"{name} has {len(value):,} characters, and {LONGEST:,} are the most"
        if value and kind != "string" and not _is_finite(kind, value):
            return f"{name} must be a finite {kind}, not {_brief(value)}"
    if not row["seed"]:
        return "seed must be an integer, and is empty"
    if row["status"] not in STATUSES:
        return f"status must be {', '.join(STATUSES[:-1])} or {STATUSES[-1]}, not {_brief(row['status'])}"
    return ""


def _is_finite(kind: str, value: str) -> bool:
    return bool(NUMBERS[kind].fullmatch(value)) and math.isfinite(float(value))


def typed(found: Sequence[Mapping[str, str]]) -> pd.DataFrame:
    """Return rows of text as a table: numbers as float, NaN where there is none; the seed as int; printable words."""
    import pandas as pd

    frame = pd.DataFrame(found, columns=list(COLUMNS))
    numbers = [name for name, (kind, _) in COLUMNS.items() if kind != "string"]
    words = [name for name in COLUMNS if name not in numbers]
    return frame.assign(
        **{name: pd.to_numeric(frame[name]) for name in numbers},
        **{name: frame[name].map(untrusted.printable) for name in words},
    ).astype({name: float for name in numbers if name != "seed"} | {"seed": int})
