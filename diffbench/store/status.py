"""How a job's last attempt went: a mark while it runs, and why it failed, in the job's state folder.

    started       made when a job starts, locked while its process lives, removed when the job is done or has failed
    status.json   why it failed: one line for the tables to quote, and the traceback

A process that ends without a word (it was killed, or the machine stopped) leaves its mark, and nobody holds the lock.
Both files are records with a seal (``seals``); what is damaged is a reason like any other.  A job's parts (shards) have
folders inside its own: where the job has no reason itself, that of a part is used.
"""

from __future__ import annotations

import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from diffbench.specs.errors import printable
from diffbench.store import files
from diffbench.store.products import StoreError
from diffbench.store.seals import opened, sealed

NAME, MARK = "status.json", "started"
#: What may have ended a process that got this signal.
GUESSES = {9: ": out of memory?", 11: ": a crash", 7: ": a crash, or a full disk"}


def one_line(reason: object, longest: int | None = None) -> str:
    """Return a reason as one line, for an error without a message its type; of a line above ``longest`` the end."""
    line = printable(reason)
    if not line and isinstance(reason, BaseException):
        line = type(reason).__name__
    return line if longest is None else line[-longest:]


@contextmanager
def started(folder: Path, stage: str) -> Iterator[None]:
    """Mark a job as running while the block lasts; the reason of an earlier failure is forgotten.

    After an exception the mark stays, for `record_failure` to replace.

    Raises:
        StoreError: when another process runs the job.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mark = _locked(folder / MARK)
    if mark is None:
        raise StoreError(f"another process runs this job in {folder}: wait for it or stop it")
    try:
        attempts = _count(folder, "attempts") + 1
        # A mark that nobody holds is of an attempt that was killed.
        killed = _count(folder, "killed") + (os.fstat(mark).st_size > 0)
        _forget(folder)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        counts = {"attempts": attempts, "killed": killed}
        facts = {"stage": stage, "time": now, "host": platform.node()} | counts
        os.ftruncate(mark, 0)
        os.pwrite(mark, files.json_bytes(sealed(facts, folder.name)), 0)
        os.fsync(mark)
        yield
        _forget(folder)
        (folder / MARK).unlink(missing_ok=True)
        _remove_empty(folder)
    finally:
        os.close(mark)


def _locked(path: Path) -> int | None:
    """Open a mark and lock it until it is closed; None when another process holds it."""
    while True:
        mark = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(mark)
            return None
        except OSError:
            # A file system without locks: then nobody can say whether another process runs.
            return mark
        # The process that held it may have removed it in between.
        with suppress(FileNotFoundError):
            if os.fstat(mark).st_ino == path.stat().st_ino:
                return mark
        os.close(mark)


def is_running(folder: Path) -> bool:
    """Say whether a process holds the mark of a job."""
    try:
        with (folder / MARK).open("rb") as mark:
            fcntl.flock(mark, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def record_failure(
    folder: Path, stage: str, reason: object, trace: str = "", *, killed: bool = False
) -> None:
    """Write why the job with this state folder failed, and the traceback; the mark is removed."""
    time = datetime.now(UTC).isoformat(timespec="seconds")
    facts = {
        "status": "failed",
        "stage": stage,
        "reason": one_line(reason),
        "attempts": max(_count(folder, "attempts"), 1),
        "killed": _count(folder, "killed") + killed,
        "time": time,
        "traceback": trace,
    }
    files.write_json(folder / NAME, sealed(facts, folder.name))
    (folder / MARK).unlink(missing_ok=True)


def record_death(folder: Path, stage: str, number: int, seconds: float) -> None:
    """Write that a signal ended the process of a job, unless there is a reason already, or another process runs it."""
    if is_running(folder) or (folder / NAME).exists():
        return
    reason = f"killed (signal {number}{GUESSES.get(number, '')}) after {seconds:.0f} s"
    record_failure(folder, stage, reason, killed=True)


def times_killed(folder: Path) -> int:
    """Return how many attempts were killed without a word since the job was last done, as far as is known."""
    left = (folder / MARK).exists() and not is_running(folder)
    return _count(folder, "killed") + left


def _count(folder: Path, key: str) -> int:
    """Return how many ``attempts`` of a job there were, or were ``killed``, since it was last done; 0 if unknown."""
    found = [0]
    for name in (NAME, MARK):
        with suppress(OSError, ValueError, TypeError, KeyError):
            found.append(int(opened((folder / name).read_bytes(), folder.name)[key]))
    return max(found)


def _forget(folder: Path) -> None:
    """Remove the reasons of earlier failures of a job and of its parts."""
    parts = [part for part in folder.glob("*/") if not is_running(part)]
    stale = [part / MARK for part in parts]
    for file in (folder / NAME, *(part / NAME for part in parts), *stale):
        file.unlink(missing_ok=True)


def _remove_empty(folder: Path) -> None:
    for each in (*folder.glob("*/"), folder):
        with suppress(OSError):
            each.rmdir()


def read_status(folder: Path) -> dict[str, Any] | None:
    """Return why a job or a part failed (keys stage, reason, attempts, time, traceback...); None without a failure."""
    each = (_status(part) for part in (folder, *sorted(folder.glob("*/"))))
    return next((found for found in each if found), None)


def _status(folder: Path) -> dict[str, Any] | None:
    failed = _read(folder / NAME)
    if failed:
        return failed
    mark = _read(folder / MARK)
    if not mark or is_running(folder):
        return None
    begun = f"begun {mark['time']} on {mark['host']}, " if {"time", "host"} <= mark.keys() else ""
    reason = f"{begun}ended without a word: it was killed, or the machine stopped"
    return {**mark, "status": "failed", "reason": reason}


def _read(file: Path) -> dict[str, Any] | None:
    try:
        return opened(file.read_bytes(), file.parent.name)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        return {"status": "failed", "reason": f"{file.name} is damaged ({one_line(error)})"}


def quoted(failure: dict[str, Any]) -> str:
    """Return the reason of a failure as one line, with the number of attempts where there were several."""
    attempts = failure.get("attempts")
    several = f" (attempt {attempts})" if isinstance(attempts, int) and attempts > 1 else ""
    return one_line(f"{failure.get('reason') or 'no reason'}{several}")
