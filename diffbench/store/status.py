"""Why a job failed: one line in ``status.json`` of its state folder, for the tables to quote."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from diffbench.store import files

NAME = "status.json"


def one_line(reason: object) -> str:
    """Return a reason as one line."""
    return " ".join(str(reason).split())


def record_failure(folder: Path, stage: str, reason: object, trace: str = "") -> None:
    """Write why the job with this state folder failed, and the traceback for who looks closer."""
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
    """Forget an earlier failure: the job is starting again, or done."""
    (folder / NAME).unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def read_status(folder: Path) -> dict[str, Any] | None:
    """Return the recorded failure (keys stage, reason, time, traceback...); None without one."""
    try:
        return dict(json.loads((folder / NAME).read_bytes()))
    except (FileNotFoundError, ValueError):
        return None
