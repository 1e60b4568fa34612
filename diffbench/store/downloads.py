"""Published files: weights and archives that are fetched once, checked, and kept in a cache.

A file is identified by its SHA-256, so it does not matter where it came from: a path that the configuration
names, the cache, or its address.  It is checked each time it is used.

The cache is the folder ``$DIFFBENCH_CACHE``, else ``$XDG_CACHE_HOME/diffbench``, else
``~/.cache/diffbench``.  A download goes to a temporary name there and is renamed once it is whole; jobs
that need the same file wait for the first of them.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError

from diffbench.store import files
from diffbench.store.products import StoreError
from diffbench.store.progress import Step
from diffbench.store.status import one_line

#: Seconds without a byte after which a download ends with an error.
TIMEOUT = 60.0
#: The number of bytes that are read at a time.
BLOCK = 2**20


def cache() -> Path:
    """Return the folder of downloads."""
    if chosen := os.environ.get("DIFFBENCH_CACHE"):
        return Path(chosen).expanduser()
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "diffbench"


@dataclass(frozen=True)
class PublishedFile:
    """A file that somebody has published.

    Attributes:
        name: what messages call it.
        url: its address; None where it cannot be downloaded.
        sha256: of its content, 64 hexadecimal digits; None where nobody states it.  The first copy in the cache then
            says what later ones must be, and each use says that it is unverified.
        size: in bytes; None where it is not known.
        key: the configuration key that names a local copy.
    """

    name: str
    url: str | None
    sha256: str | None
    size: int | None
    key: str

    @property
    def cached(self) -> Path:
        """The path of the file in the cache; files of one name and different content have different paths."""
        filename = (self.url or "").partition("?")[0].rstrip("/").rpartition("/")[2]
        unverified = hashlib.sha256((self.url or "").encode()).hexdigest()[:16] + "-unverified"
        return cache() / f"{self.sha256[:16] if self.sha256 else unverified}-{filename}"

    @property
    def first(self) -> Path:
        """The path of the SHA-256 of the first copy, where nobody states one."""
        return self.cached.with_name(f"{self.cached.name}.sha256")

    @property
    def wanted(self) -> str | None:
        """The SHA-256 that a copy must have; None before there is a first one."""
        if self.sha256 is None and self.first.is_file():
            return self.first.read_text(encoding="ascii", errors="replace").strip()
        return self.sha256

    def local(self, path: Path | None = None) -> Path:
        """Return a whole local copy: ``path`` where one is given, else the cache's, downloaded if need be.

        Raises:
            StoreError: when it is missing and cannot be downloaded, or is another file.  The message says
                what is missing, where it comes from, its SHA-256 and the key for a local path.
        """
        if path is not None:
            if not path.is_file():
                raise self._error(f"there is no file {path}")
            self._check(path, str(path))
            return path
        if not self.cached.is_file():
            if self.url is None:
                raise self._error("it is not in the cache")
            self._download(self.url)
        self._check(self.cached, f"{self.cached} (remove it)")
        return self.cached

    def _download(self, url: str) -> None:
        print(f"{self.name}: downloading {url} to {self.cached}", file=sys.stderr)
        try:
            with _alone(self.cached), files.temporary(self.cached) as unfinished:
                if self.cached.is_file():
                    return
                _fetch(url, unfinished, f"{self.name}: downloading")
                self._check(unfinished, "what was downloaded")
                files.publish(unfinished, self.cached)
        except (OSError, HTTPException) as error:
            raise self._error(
                f"it cannot be downloaded to {cache()} ({one_line(error)})"
            ) from error

    def _check(self, path: Path, shown: str) -> None:
        size = path.stat().st_size
        if self.size is not None and size != self.size:
            raise self._error(f"{shown} has {size:,} bytes")
        found, wanted = files.sha256(path), self.wanted
        if wanted is None:
            files.write(self.first, f"{found}\n".encode())
        elif found != wanted:
            raise self._error(f"{shown} has sha256 {found}")
        if self.sha256 is None:
            print(
                f"{self.name}: sha256 {found}, unverified: nobody is known to state it; kept in {self.first}, and "
                "later copies must have it",
                file=sys.stderr,
            )

    def _error(self, problem: str) -> StoreError:
        size = f", {self.size:,} bytes" if self.size is not None else ""
        return StoreError(
            f"{self.name}: {problem}; expected: {self.url or 'a file'} (sha256 {self.wanted or 'unknown'}{size}); "
            f"`{self.key}` can name a local copy"
        )


def _fetch(url: str, path: Path, title: str) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": "diffbench"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer, path.open("wb") as file:
            size = int(answer.headers.get("Content-Length") or 0)
            with Step(title, -(-size // BLOCK), "MiB") as step:
                for block in step.over(iter(partial(answer.read, BLOCK), b"")):
                    file.write(block)
    except HTTPError as error:
        # The error is an open response too.
        error.close()
        raise


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until no other process downloads the file; the lock ends with the process that holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
