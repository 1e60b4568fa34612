"""Files that are whole or absent.

A file is written under another name in its own folder, forced to the disk and renamed over the old
one; then the folder is forced to the disk, so that the name survives a power loss too.  The
temporary name is the final one behind ``.tmp.``: it keeps the suffix (numpy and matplotlib look at
it), and what a killed process leaves behind is overwritten by the next one.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from diffbench.store import runtime

TEMPORARY = ".tmp."
#: The environment variable for the seconds that a file of another machine may take to be seen here, and the seconds
#: between two looks.
LATENCY, PAUSE = "DIFFBENCH_LATENCY", 0.1
#: A new line of JSON, with its indent.
_INDENT = re.compile(rb"\n *")


def force(path: Path) -> None:
    """Force a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish(temporary: Path, path: Path) -> None:
    """Give a complete temporary file of the same folder its final name, durably, and the mode that the umask leaves."""
    # Some libraries make files that only their owner can read.
    temporary.chmod(0o666 & ~runtime.umask())
    force(temporary)
    os.replace(temporary, path)
    force(path.parent)


@contextmanager
def temporary(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, whose folder is made; remove what is left there in the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(TEMPORARY + path.name)
    try:
        yield unfinished
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


@contextmanager
def update(folder: Path, before: Collection[str]) -> Iterator[Path]:
    """Yield an empty folder, and move what is in it into ``folder`` in the end: all of it, or after an error nothing.

    Args:
        folder: where it goes; what else is there stays.
        before: names in the folder that an earlier call has moved there; they are replaced or removed.

    Raises:
        FileExistsError: when a name is there that is not of an earlier call.
    """
    whole = folder.resolve()
    unfinished = whole.with_name(TEMPORARY + whole.name)
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        made = {path.name: path for path in unfinished.iterdir()}
        for name in made:
            if (folder / name).exists() and name not in before:
                raise FileExistsError(
                    f"{folder / name} is there already, and not of an earlier call"
                )
        folder.mkdir(exist_ok=True)
        for name in {*before, *made}:
            remove(folder / name)
            if name in made:
                os.replace(made[name], folder / name)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def awaited(path: Path) -> Path:
    """Return a path once a file is seen there, or after the seconds that a network file system may take to show it."""
    end = time.monotonic() + float(os.environ.get(LATENCY) or 0)
    while not path.exists() and time.monotonic() < end:
        time.sleep(PAUSE)
    return path


def remove(path: Path) -> None:
    """Remove a file, a link or a folder, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write(path: Path, content: bytes | Callable[[Path], object]) -> str:
    """Write a file atomically: bytes, or what a callable writes to the path that it is given.

    Returns:
        The SHA-256 of the content.
    """
    with temporary(path) as unfinished:
        if isinstance(content, bytes):
            unfinished.write_bytes(content)
        else:
            content(unfinished)
        digest = sha256(unfinished)
        publish(unfinished, path)
    return digest


def is_json_bytes(text: bytes, value: Any) -> bool:
    """Return whether a text is a value's ``json_bytes``, up to the width of its indents.

    That takes a tenth of the time: Python's fast encoder makes no indents, and they hold nothing.
    """
    compact = json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ": "))
    return text.endswith(b"\n") and _INDENT.sub(b"", text) == compact.encode()


def json_bytes(value: Any) -> bytes:
    """Turn a value into JSON for people and for checksums: sorted keys, no nan or infinity.

    Raises:
        ValueError: for nan and infinity, with the keys that lead to the first of them.
    """
    try:
        return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
    except ValueError as error:
        place = next(_not_finite(value), None)
        raise ValueError(f"{place}: results must be finite numbers" if place else error) from None


def _not_finite(value: Any, keys: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield ``key.key is nan`` for each number that is not finite."""
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list | tuple)
        else ()
    )
    for key, each in inner:
        yield from _not_finite(each, (*keys, str(key)))
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{'.'.join(keys)} is {value}"


def write_json(path: Path, value: Any) -> str:
    """Write JSON atomically and return the file's SHA-256."""
    return write(path, json_bytes(value))


def read_bytes(path: Path, largest: int) -> bytes:
    """Return the content of a regular file.

    Raises:
        OSError: when it cannot be opened.
        ValueError: when it is a pipe or a device, whose end may never come, or has more bytes than ``largest``.
    """
    # A pipe would keep a plain open waiting for a writer.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise ValueError("not a regular file")
        content = file.read(largest + 1)
        if len(content) > largest:
            size = max(facts.st_size, len(content))
            raise ValueError(f"{size:,} bytes; at most {largest:,} are read")
    return content


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
