"""The rows of an export as text, each with a checksum of its own, and what may be wrong with one."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from diffbench.reporting import context, untrusted
from diffbench.reporting.exports.column import CHECK, CHECKED, COLUMNS
from diffbench.reporting.records import Records

if TYPE_CHECKING:
    import pandas as pd

#: What names a number of one seed.
KEYS = ("variant", "stage", "item", "at", "metric", "seed")
STATUSES = ("ok", "failed", "stale", "missing")
#: The most rows that are read, and characters of a field.
MOST_ROWS, LONGEST = 200_000, 20_000
#: How numbers are written, by type.
NUMBERS = {
    "integer": re.compile(r"-?[0-9]{1,15}"),
    "number": re.compile(r"-?[0-9]{1,17}(\.[0-9]{1,20})?(e[-+]?[0-9]{1,3})?"),
}
Rows = list[dict[str, str]]
#: The run record of each job: (variant, stage, item, seed) -> record; empty where there is none.
RunRecords = Mapping[tuple[str, str, str, int], Mapping[str, Any]]


def rows(records: Records, ran: RunRecords) -> Rows:
    """Return the rows of a benchmark's export as text, in the order of ``COLUMNS``."""
    found = []
    for line in lines(records.frame):
        key = line["variant"], line["stage"], line["item"], line["seed"]
        protocol = line["protocol"] if isinstance(line["protocol"], Mapping) else None
        words = {"protocol": context.protocol(line["metric"], protocol)}
        words |= {name: str(ran.get(key, {}).get(name) or "") for name in ("commit", "device")}
        row = {name: text(name, {**line, **words}.get(name)) for name in CHECKED}
        found.append(row | {CHECK: check_of(row)})
    return found


def lines(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table as column -> value."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def check_of(row: Mapping[str, str]) -> str:
    """Return the checksum of a row: of all its fields but the checksum's own, in the order of ``COLUMNS``."""
    joined = "\x1f".join(row[name] for name in CHECKED)
    return hashlib.sha256(joined.encode()).hexdigest()[:8]


def text(name: str, value: object) -> str:
    """Return a field of a column as text that is read back to the same value; empty for nothing."""
    kind, _ = COLUMNS[name]
    if value is None or value != value:
        return ""
    if kind == "integer":
        return f"{float(str(value)):.0f}"
    return repr(float(str(value))) if kind == "number" else " ".join(str(value).split())


def check(found: Rows) -> None:
    """Check each row of an export.

    Raises:
        ValueError: naming the line and the cell of the first that is wrong.
    """
    check_size(len(found))
    for number, row in enumerate(found, start=2):
        if why := _wrong(row):
            raise ValueError(f"{_line(number, row)}: {why}")


def check_once(found: Rows) -> None:
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
            return f"{name} must be a finite {kind}, not {brief(value)}"
    if not row["seed"]:
        return "seed must be an integer, and is empty"
    if row["status"] not in STATUSES:
        return f"status must be {', '.join(STATUSES[:-1])} or {STATUSES[-1]}, not {brief(row['status'])}"
    return ""


def _is_finite(kind: str, value: str) -> bool:
    return bool(NUMBERS[kind].fullmatch(value)) and math.isfinite(float(value))


def check_size(count: int) -> None:
    """Refuse more rows than are read."""
    if count > MOST_ROWS:
        raise ValueError(f"{count:,} rows are more than an export has ({MOST_ROWS:,})")


def brief(value: object) -> str:
    """Return a value in at most 40 characters, for a message."""
    whole = repr(value)
    return whole if len(whole) <= 40 else f"{whole[:37]}..."
