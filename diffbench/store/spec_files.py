"""The specs of a run's jobs as files, ``.state/specs/{digest}.json``, while the run lasts.

A command line has no room for the spec of a score of a hundred solvers: Linux allows 128 KiB for one argument.  The
name is the spec's digest, so that a job that is given the name is given the spec.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from diffbench.specs.base import digest_of
from diffbench.specs.jobs import StageSpec
from diffbench.store import files, paths
from diffbench.store.products import StoreError


def write(root: Path, specs: Iterable[StageSpec]) -> None:
    """Write the specs of jobs in place of those of an earlier run."""
    clear(root)
    paths.spec_files(root).mkdir(parents=True, exist_ok=True)
    for spec in specs:
        text = spec.canonical()
        # Not forced to the disk, as products are: the next run writes them again, and a reader compares the digest.
        paths.spec_file(root, digest_of(text)).write_text(text, "utf-8")


def read(path: Path) -> str:
    """Return the canonical text of a spec.

    Raises:
        StoreError: when the file is missing, or is not the spec that its name says.
    """
    try:
        content = files.awaited(path).read_bytes()
    except OSError as error:
        raise StoreError(
            f"--spec: {path} cannot be read ({error.strerror}): a run writes it, and removes it when it is done"
        ) from None
    if not is_whole(path, content):
        raise StoreError(f"--spec: {path} is not the spec that its name says: run Snakemake again")
    return content.decode()


def is_whole(path: Path, content: bytes) -> bool:
    """Say whether a file's content is the spec that its name says."""
    return hashlib.sha256(content).hexdigest()[: len(path.stem)] == path.stem


def clear(root: Path) -> None:
    """Remove the files, when a run is done."""
    files.remove(paths.spec_files(root))
