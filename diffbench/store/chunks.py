"""Chunks of samples: images that are drawn together, kept on disk until all samples are drawn.

A chunk has its own random stream, so its images do not depend on the job that draws it, and a job that was stopped
continues with the chunks that are missing.  Each is one file whose name carries its number and the first 16 digits
of its SHA-256,

    chunk-{index:06d}-{sha256[:16]}.npz

as with a training state (``state``).  A file that does not fit its name is left out with a warning and drawn again.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffbench.store import files

_NAME = re.compile(r"chunk-(\d{6,})-([0-9a-f]{16})\.npz")


@dataclass(frozen=True)
class Chunk:
    """The images of one chunk, and the cost of drawing them.

    Attributes:
        images: in grey levels, uint8 (n, H, W, C).
        calls: evaluations of the denoiser for the whole chunk.
        moved: the fraction of pixels that were brought back inside the walls; 0 where there are no walls.
        seconds: the time that drawing took.
    """

    images: NDArray[np.uint8]
    calls: int
    moved: float
    seconds: float = 0.0


def indices(samples: int, chunk: int) -> range:
    """Return the numbers of the chunks of ``samples`` images, ``chunk`` at a time; the last may be smaller."""
    return range(-(-samples // chunk))


def share(samples: int, chunk: int, shard: int, shards: int) -> range:
    """Return the numbers of the chunks of shard 1 to ``shards``: consecutive, and of sizes that differ by at most 1."""
    count = len(indices(samples, chunk))
    return range((shard - 1) * count // shards, shard * count // shards)


class ChunkStore:
    """The chunks in a folder: those of one sample job, whatever its shards."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _files(self) -> dict[int, list[Path]]:
        found: dict[int, list[Path]] = {}
        for path in sorted(self.folder.iterdir()) if self.folder.is_dir() else ():
            if match := _NAME.fullmatch(path.name):
                found.setdefault(int(match[1]), []).append(path)
        return found

    def load(self, wanted: Iterable[int]) -> dict[int, Chunk]:
        """Return the wanted chunks that are in the folder and whole, by number."""
        here = self._files()
        read = {index: _read(path) for index in wanted for path in here.get(index, ())}
        return {index: chunk for index, chunk in read.items() if chunk is not None}

    def save(self, index: int, chunk: Chunk) -> None:
        """Save a chunk under its number."""
        with files.temporary(self.folder / f"chunk-{index:06d}.npz") as unfinished:
            np.savez(
                unfinished,
                levels=chunk.images,
                calls=np.array(chunk.calls),
                moved=np.array(chunk.moved),
                seconds=np.array(chunk.seconds),
            )
            digest = files.sha256(unfinished)[:16]
            files.publish(unfinished, self.folder / f"chunk-{index:06d}-{digest}.npz")

    def remove(self, wanted: Iterable[int]) -> None:
        """Remove chunks, and the folder when nothing is left in it."""
        here = self._files()
        for index in wanted:
            for path in here.get(index, ()):
                path.unlink(missing_ok=True)
        with suppress(OSError):
            self.folder.rmdir()


def _read(path: Path) -> Chunk | None:
    if files.sha256(path)[:16] != path.stem.rpartition("-")[2]:
        warnings.warn(f"the chunk {path} is torn: it is drawn again", stacklevel=3)
        return None
    with np.load(path) as archive:
        numbers = (archive[name].item() for name in ("calls", "moved", "seconds"))
        return Chunk(archive["levels"], *numbers)
