"""Exports: the long table of a benchmark's results as a file that others can read, check and compare.

    records.csv     a row a number, or why there is none, with the columns of ``COLUMNS``; empty where there is nothing
    records.json    what the table is about: the columns, the metrics, the variants with everything merged into them,
                    how config/published.csv differs from the packaged one, the versions and devices, and the SHA-256
                    of the table

``make tables`` writes both into the results folder.  Each row ends with a checksum of its own, so that a value that was
changed by hand is found by name.  A checksum shows mistakes; it is no signature, which would show who wrote the file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffbench.reporting import context, layout
from diffbench.reporting.published import PublishedValues, differences, packaged
from diffbench.reporting.records import Records
from diffbench.reporting.results import run_record
from diffbench.specs.errors import UserError, shown
from diffbench.store import files, paths

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
        return str(int(float(str(value))))
    return repr(float(str(value))) if kind == "number" else " ".join(str(value).split())


def _ran(records: Records) -> RunRecords:
    """Return the run record of each job."""
    return {
        (job.variant, job.stage, job.item, job.seed): run_record(
            paths.product(records.root, job.spec)
        )
        for job in records.plan.jobs
    }


def about(
    records: Records, metrics: Metrics, every: RunRecords, table: bytes, count: int
) -> dict[str, Any]:
    """Return what the JSON file says of a table of ``count`` rows."""
    plan = records.plan
    ran = [each for each in every.values() if each]
    return {
        "format": FORMAT,
        "version": VERSION,
        "benchmark": plan.benchmark.name,
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


def contents(records: Records, metrics: Metrics) -> dict[str, bytes]:
    """Return the two files of a benchmark's export, by suffix."""
    ran = _ran(records)
    found = rows(records, ran)
    table = _csv(found)
    described = about(records, metrics, ran, table, len(found))
    return {"csv": table, "json": files.json_bytes(described)}


def _csv(found: Sequence[Mapping[str, str]]) -> bytes:
    import pandas as pd

    return str(pd.DataFrame(found, columns=list(COLUMNS)).to_csv(index=False)).encode()


def of(records: Records, metrics: Metrics) -> Export:
    """Return a benchmark's export without writing it."""
    return held(records.root, contents(records, metrics))


def held(root: Path, made: Mapping[str, bytes]) -> Export:
    """Return the export of a results folder from its two files, by suffix."""
    described = json.loads(made["json"])
    return Export(paths.table(root, NAME, "csv"), typed(_frame(made["csv"])), described)


def write(records: Records, metrics: Metrics, path: Path) -> list[Path]:
    """Write a benchmark's export: the table, as CSV or as Parquet by the path's suffix, and its JSON file beside it.

    Raises:
        ExportError: for another suffix, or when Parquet is asked for without pyarrow.
    """
    made = contents(records, metrics)
    beside = path.with_suffix(".json")
    if path.suffix == ".csv":
        files.write(path, made["csv"])
    elif path.suffix == ".parquet":
        _write_parquet(path, made["csv"])
    else:
        raise ExportError(f"{path}: an export ends in .csv or .parquet, not in {path.suffix!r}")
    files.write(beside, made["json"])
    return [path, beside]


def _write_parquet(path: Path, table: bytes) -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise ExportError(
            f"{path}: Parquet needs pyarrow: pip install 'diffbench[parquet]'"
        ) from None
    frame = typed(_frame(table))
    files.write(path, lambda unfinished: frame.to_parquet(unfinished, index=False))


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
    """Return an export, named by its CSV file or by its results folder.

    Raises:
        ExportError: when it is not whole; a row that was changed is named.
    """
    table = located(path)
    described = table.with_suffix(".json")
    try:
        found = json.loads(described.read_bytes())
        kind, version, digest = found["format"], found["version"], found["sha256"]
    except FileNotFoundError:
        raise ExportError(f"{shown(table)}: {described.name} is missing beside it") from None
    except (ValueError, KeyError, TypeError):
        raise ExportError(f"{shown(described)} does not describe an export of diffbench") from None
    if (kind, version) != (FORMAT, VERSION):
        raise ExportError(
            f"{shown(described)} is of format {kind!r}, version {version!r}: only "
            f"{FORMAT!r}, version {VERSION}, can be read"
        )
    content = table.read_bytes()
    frame = _frame(content)
    if list(frame.columns) != list(COLUMNS):
        raise ExportError(
            f"{shown(table)} does not have the columns of an export of version {VERSION}"
        )
    for number, row in enumerate(lines(frame), start=2):
        if check_of(row) != row[CHECK]:
            named = " ".join(row[name] for name in KEYS if row[name])
            raise ExportError(
                f"{shown(table)}, line {number} ({named}): the row was changed after it was exported"
            )
    if hashlib.sha256(content).hexdigest() != digest:
        raise ExportError(
            f"{shown(table)}: rows were added, removed or moved after it was exported"
        )
    return Export(table, typed(frame), found)


def _frame(content: bytes) -> pd.DataFrame:
    import io

    import pandas as pd

    try:
        return pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
    except (ValueError, UnicodeDecodeError) as error:
        raise ExportError(f"not a CSV file: {error}") from None


def typed(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table of text with its numbers as float, NaN where there is none; the seed as int."""
    import pandas as pd

    numbers = [name for name, (kind, _) in COLUMNS.items() if kind != "string"]
    return frame.assign(**{name: pd.to_numeric(frame[name]) for name in numbers}).astype(
        {name: float for name in numbers if name != "seed"} | {"seed": int}
    )
