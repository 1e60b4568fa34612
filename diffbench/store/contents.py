"""What a set of image files holds: the identity of a data set that is known by its path alone.

    contents = sha256 over the sorted lines "key/name sha256(bytes of the file)"

of all images, and of a `dataset.json` with their classes.  Outer folders do not count, nor does whether a set is a
folder or an archive, as for the identity of pixels (`diffbench.data.folder`): a copy elsewhere has the same contents.

Reading all images takes long, so what was read is remembered in the cache by a quick look: names, sizes and times of
the files.  A look that is not known is read again, to the same contents where files were only touched.  Among the times
is that of the last change of a file's facts, which programs cannot set: a file that was overwritten and given its old
time is noticed.  Files that changed a moment ago are not remembered, because they could change again within one tick of
the clock.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from diffbench.store import downloads, files
from diffbench.store.image_files import LABELS, SUFFIXES, ImageFiles, find_images
from diffbench.store.picture_files import PictureError
from diffbench.store.progress import announce
from diffbench.store.seals import opened, sealed

#: The coarsest clock of file systems, FAT's, in nanoseconds.
TICK = 2 * 10**9
#: The most bytes of what is remembered of a look.
LARGEST = 1024
#: From how many images on it is said that they are read.
MANY = 10_000


class Contents:
    """The contents of image files that are added in any order."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, name: str, content: bytes) -> None:
        """Add a file."""
        self.lines.append(f"{name} {hashlib.sha256(content).hexdigest()}")

    def sha256(self) -> str:
        """Return the SHA-256 of all that was added."""
        text = "\n".join(sorted(self.lines))
        return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def contents(places: Mapping[str, Path]) -> str:
    """Return the contents of the images at some places, key -> folder, zip or tar, by a quick look where it is known.

    Raises:
        ValueError: when a place is not laid out as a data set.
        OSError: when it cannot be read.
    """
    look, latest = _look(places)
    kept = _kept(look)
    with suppress(OSError, ValueError, LookupError):
        return str(opened(files.read_bytes(kept, LARGEST), look, needed=True)["contents"])
    found = read({key: find_images(path) for key, path in places.items()})
    if time.time_ns() - latest > TICK:
        with suppress(OSError):
            files.write_json(kept, sealed({"contents": found}, look))
    return found


def forget(places: Mapping[str, Path]) -> None:
    """Forget what the quick look at some places stands for, so that they are read again."""
    files.remove(_kept(_look(places)[0]))


def read(listed: Mapping[str, ImageFiles]) -> str:
    """Return the contents of listed images, all of them read.  What cannot be read is so by its name."""
    count = sum(len(each.names) for each in listed.values())
    if count >= MANY:
        announce(f"data: reading {count:,} images to know their contents, once")
    found = Contents()
    for key, each in listed.items():
        add_labels(found, key, each)
        for name, inner in zip(each.names, each.inner, strict=True):
            try:
                found.add(f"{key}/{inner}", each.files.read(name))
            except (PictureError, OSError):
                found.add(f"{key}/{inner} cannot be read", b"")
    return found.sha256()


def add_labels(found: Contents, key: str, listed: ImageFiles) -> None:
    """Add the classes in a `dataset.json`, in the order of the images' names."""
    if listed.numbered:
        found.add(f"{key}/{LABELS}", " ".join(map(str, listed.labels)).encode())


def _look(places: Mapping[str, Path]) -> tuple[str, int]:
    """Return the hash of names, sizes and times of the files, and the latest of the times, in nanoseconds."""
    lines, latest = [], 0
    for key, path in places.items():
        for name, facts in _within(path) if path.is_dir() else [("", path.stat())]:
            latest = max(latest, facts.st_mtime_ns, facts.st_ctime_ns)
            lines.append(f"{key}/{name} {facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns}")
    text = "\n".join(sorted(lines)).encode(errors="surrogateescape")
    return hashlib.sha256(text).hexdigest(), latest


def _within(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the images below a folder and what gives their classes, each with its size and times."""
    for inner, _, names in os.walk(folder, followlinks=True):
        below = os.path.relpath(inner, folder)
        for name in names:
            if name == LABELS or os.path.splitext(name)[1].lower() in SUFFIXES:
                with suppress(OSError):
                    yield f"{below}/{name}", os.stat(f"{inner}/{name}")


def _kept(look: str) -> Path:
    return downloads.cache() / "contents" / look
