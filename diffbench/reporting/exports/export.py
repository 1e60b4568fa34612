"""Exports of a benchmark: made of its results, written, and read back from files of anyone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffbench.reporting import layout, untrusted
from diffbench.reporting.cells import Cell, Key, cells_of
from diffbench.reporting.exports.column import CHECK, CHECKED, COLUMNS, ExportError, typed
from diffbench.reporting.exports.description import about, content_of, described
from diffbench.reporting.exports.row import (
    RunRecords,
    check,
    check_of,
    check_once,
    lines,
    rows,
    text,
)
from diffbench.reporting.exports.table import READERS, WRITERS, of_csv, to_csv
from diffbench.reporting.records import Records
from diffbench.specs.errors import shown
from diffbench.store import files, paths, run_record

if TYPE_CHECKING:
    import pandas as pd

    from diffbench.reporting.layout import Metrics

#: The name of an export's files in a results folder, and their suffixes.
NAME, SUFFIXES = layout.EXPORT, ("csv", "json")


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

    @cached_property
    def cells(self) -> Mapping[Key, Cell]:
        """The cell of each number over seeds: (variant, stage, item, metric) -> cell."""
        return cells_of(self.frame)


def contents(
    records: Records, metrics: Metrics, suffix: str = "csv", origin: str = ""
) -> dict[str, bytes]:
    """Return the two files of a benchmark's export, by suffix: the table, and the JSON file.

    ``origin`` says who made it.
    """
    ran = _ran(records)
    found = rows(records, ran)
    table = WRITERS[suffix](found)
    told = about(records, metrics, ran, table, len(found), " ".join(origin.split()))
    return {suffix: table, "json": files.json_bytes(told)}


def _ran(records: Records) -> RunRecords:
    """Return the run record of each job."""
    return {
        (job.variant, job.stage, job.item, job.seed): run_record.known(
            paths.product(records.root, job.spec)
        )
        for job in records.plan.jobs
    }


def of(records: Records, metrics: Metrics) -> Export:
    """Return a benchmark's export without writing it."""
    return held(records.root, contents(records, metrics))


def held(root: Path, made: Mapping[str, bytes]) -> Export:
    """Return the export of a results folder from its two files, by suffix."""
    return Export(
        paths.table(root, NAME, "csv"), typed(of_csv(made["csv"])), json.loads(made["json"])
    )


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
    words = [name for name in CHECKED if COLUMNS[name][0] == "string"]
    for line in lines(export.frame):
        row = {name: text(name, line[name]) for name in CHECKED}
        row |= {name: untrusted.neutral(row[name]) for name in words}
        kept.append(row | {CHECK: check_of(row)})
    table = to_csv(kept)
    told = {**export.about, "sha256": hashlib.sha256(table).hexdigest()}
    return {"csv": table, "json": files.json_bytes(told)}


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
    beside = table.with_suffix(".json")
    found = described(table, beside)
    content = content_of(table)
    try:
        read_rows = READERS.get(table.suffix, of_csv)(content)
        check(read_rows)
        count, digest = len(read_rows), hashlib.sha256(content).hexdigest()
        if (count, digest) != (found["rows"], found["sha256"]):
            raise ValueError(
                f"rows were added, removed or moved after it was exported, or {beside.name} is of another table"
            )
        check_once(read_rows)
    except ValueError as error:
        raise ExportError(f"{shown(table)}: {error}") from None
    return Export(table, typed(read_rows), found)
