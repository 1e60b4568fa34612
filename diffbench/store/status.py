"""Why a job failed: one line in ``status.json`` of its state folder, for the tables to quote.

A job's parts (shards) have folders inside its own: where the job itself left no reason, a part's is the job's.
"""

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
    """Forget an earlier failure of a job and of its parts: it is starting again, or done."""
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
