"""What an export is about, in the JSON file beside its table."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffbench.reporting import layout, untrusted
from diffbench.reporting.exports.column import COLUMNS, FORMAT, VERSION, ExportError
from diffbench.reporting.exports.row import RunRecords, brief
from diffbench.reporting.exports.table import check_bytes
from diffbench.reporting.published import PublishedValues, differences, packaged
from diffbench.reporting.records import Records
from diffbench.specs.errors import shown

if TYPE_CHECKING:
    from diffbench.reporting.layout import Metrics

#: The keys of a benchmark file that all its numbers depend on.
SETTINGS = {"data", "extractor", "samples", "sampling", "floors", "restorations"}


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


def described(table: Path, path: Path) -> dict[str, Any]:
    """Return the content of an export's JSON file at ``path``, which lies beside its table.

    Raises:
        ExportError: when it is missing, or does not describe an export.
    """
    if not path.is_file():
        raise ExportError(f"{shown(table)}: {path.name} is missing beside it")
    try:
        found = untrusted.described(content_of(path))
        kind, version = found["format"], found["version"]
    except (ValueError, KeyError) as error:
        why = f": {error}" if isinstance(error, ValueError) else ""
        raise ExportError(f"{shown(path)} does not describe an export of diffbench{why}") from None
    if (kind, version) != (FORMAT, VERSION):
        raise ExportError(
            f"{shown(path)} is of format {brief(kind)}, version {brief(version)}: only "
            f"{FORMAT!r}, version {VERSION}, can be read"
        )
    if why := untrusted.refusal(found):
        raise ExportError(f"{shown(path)} does not describe an export of diffbench: {why}")
    return found


def content_of(path: Path) -> bytes:
    """Return the content of a file that is not too large.

    Raises:
        ExportError: when it is.
    """
    try:
        check_bytes(path.stat().st_size)
    except ValueError as error:
        raise ExportError(f"{shown(path)}: {error}") from None
    return path.read_bytes()
