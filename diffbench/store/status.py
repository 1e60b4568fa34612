"""Why a job failed: one line in ``status.json`` of its state folder, for the tables to quote.

A job's parts (shards) have folders inside its own: where the job has no reason itself, that of a part is used.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from diffbench.specs.errors import printable
from diffbench.store import files

NAME = "status.json"


def one_line(reason: object, longest: int | None = None) -> str:
    """Return a reason as one line, for an error without a message its type; of a line above ``longest`` the end."""
    line = printable(reason)
    if not line and isinstance(reason, BaseException):
        line = type(reason).__name__
    return line if longest is None else line[-longest:]


def record_failure(folder: Path, stage: str, reason: object, trace: str = "") -> None:
    """Write why the job with this state folder failed, and the traceback."""
    time = datetime.now(UTC).isoformat(timespec="seconds")
    files.write_json(
        folder / NAME,
        {
            "status": "failed",
            "stage": stage,
            "reason": one_line(reason),
            "time": time,
            "traceback": trace,
        },
    )


def clear(folder: Path) -> None:
    """Remove the record of an earlier failure of a job and of its parts, when it starts again or is done."""
    for file in (folder / NAME, *folder.glob(f"*/{NAME}")):
        file.unlink(missing_ok=True)
    for each in (*folder.glob("*/"), folder):
        if each.is_dir() and not any(each.iterdir()):
            each.rmdir()


def read_status(folder: Path) -> dict[str, Any] | None:
    """Return the recorded failure (keys stage, reason, time, traceback...) of a job or a part; None without one."""
    for file in (folder / NAME, *sorted(folder.glob(f"*/{NAME}"))):
        try:
            return dict(json.loads(file.read_bytes()))
        except (FileNotFoundError, ValueError):
            continue
    return None
