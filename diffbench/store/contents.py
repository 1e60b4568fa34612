"""What a set of files holds: the identity of images that are known by their path alone.

    contents = sha256 over the sorted lines "key/name sha256(bytes of the file)"

of all images, and of a `dataset.json` with their classes; where large files hold them (LMDB, parquet, npz), of these.
Outer folders do not count, nor does whether a set is a folder or an archive, as for the identity of pixels
(`diffbench.data.folder`): a copy elsewhere has the same contents.

Reading all files takes long, so what was read is remembered in the cache by a quick look: names, sizes and times of
the files.  A look that is not known is read again, to the same contents where files were only touched.  Among the times
is that of the last change of a file's facts, which programs cannot set: a file that was overwritten and given its old
time is noticed.  Files that changed a moment ago are not remembered, because they could change again within one tick of
the clock.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from diffbench.specs.data import Listing
from diffbench.store import downloads, files
from diffbench.store.image_files import LABELS, SUFFIXES, ImageFiles, find_images
from diffbench.store.picture_files import PictureError
from diffbench.store.progress import announce
from diffbench.store.seals import opened, sealed

#: The coarsest clock of file systems, FAT's, in nanoseconds.
TICK = 2 * 10**9
#: The most bytes of what is remembered of a look.
LARGEST = 1024
#: From how many images, and bytes of other files, on it is said that they are read.
MANY, LARGE = 10_000, 10**9
#: Key -> file, folder or archive.
Places = Mapping[str, Path]
PICTURES = Listing()


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


def contents(places: Places, listing: Listing = PICTURES) -> str:
    """Return the contents of the files at some places, by a quick look where it is known.

    Raises:
        ValueError: when a place is not laid out as such a set.
        OSError: when it cannot be read.
    """
    return _remembered(_look(places, listing), lambda: again(places, listing))


def again(places: Places, listing: Listing = PICTURES) -> str:
    """Return the contents of the files at some places, all of them read; raises as ``contents``."""
    large = {key: whole_files(path, listing) for key, path in places.items()}
    pictures = {
        key: find_images(path, listing.flat) for key, path in places.items() if not large[key]
    }
    return read(pictures, {key: found for key, found in large.items() if found})


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, by a quick look where it is known; raises OSError as reading does."""
    facts = path.stat()
    look = f"{facts.st_dev} {facts.st_ino} {_facts(facts)}"
    key = hashlib.sha256(f"file {look}".encode()).hexdigest()
    return _remembered((key, max(facts.st_mtime_ns, facts.st_ctime_ns)), lambda: files.sha256(path))


def _remembered(look: tuple[str, int], make: Callable[[], str]) -> str:
    """Return what is remembered of a look, else what ``make`` returns, which is remembered from then on."""
    name, latest = look
    kept = _kept(name)
    with suppress(OSError, ValueError, LookupError):
        return str(opened(files.read_bytes(kept, LARGEST), name, needed=True)["contents"])
    found = make()
    if time.time_ns() - latest > TICK:
        with suppress(OSError):
            files.write_json(kept, sealed({"contents": found}, name))
    return found


def forget(places: Places, listing: Listing = PICTURES) -> None:
    """Forget what the quick look at some places stands for, so that they are read again."""
    files.remove(_kept(_look(places, listing)[0]))


def whole_files(path: Path, listing: Listing) -> dict[str, Path]:
    """Return name -> large file at a place whose images are in such files; none where they are picture files.

    Raises:
        ValueError: when one is a pipe or a device, which may never end.
    """
    if path.is_dir():
        found = [file for pattern in listing.whole for file in path.glob(pattern)]
    else:
        found = [path] if path.suffix in {Path(each).suffix for each in listing.whole} else []
    if strange := [file for file in found if not file.is_file()]:
        raise ValueError(f"{strange[0]} is not a regular file")
    return {file.name: file for file in found}


def read(listed: Mapping[str, ImageFiles], large: Mapping[str, Mapping[str, Path]]) -> str:
    """Return the contents of listed images and of large files.  An image that cannot be read is so by its name."""
    count = sum(len(each.names) for each in listed.values())
    if count >= MANY:
        announce(f"data: reading {count:,} images to know their contents, once")
    size = sum(file.stat().st_size for each in large.values() for file in each.values())
    if size >= LARGE:
        announce(f"data: reading {size / 1e9:.0f} GB to know their contents, once")
    found = Contents()
    for key, each_large in large.items():
        for name, file in each_large.items():
            found.lines.append(f"{key}/{name} {files.sha256(file)}")
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


def _look(places: Places, listing: Listing) -> tuple[str, int]:
    """Return the hash of names, sizes and times of the files, and the latest of the times, in nanoseconds."""
    lines, latest = [], 0
    for key, path in places.items():
        for name, facts in _seen(path, listing):
            latest = max(latest, facts.st_mtime_ns, facts.st_ctime_ns)
            lines.append(f"{key}/{name} {_facts(facts)}")
    text = "\n".join(sorted(lines)).encode(errors="surrogateescape")
    return hashlib.sha256(text).hexdigest(), latest


def _facts(facts: os.stat_result) -> str:
    return f"{facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns}"


def _seen(path: Path, listing: Listing) -> Iterator[tuple[str, os.stat_result]]:
    """Return the files at a place, each with its size and times."""
    large = whole_files(path, listing)
    if large or not path.is_dir():
        return iter([(name, file.stat()) for name, file in (large or {"": path}).items()])
    return _within(path)


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
