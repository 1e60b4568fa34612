"""Second links to what jobs elsewhere have finished, in ``.state/finished``, until a run ends well.

A job that finishes as its time limit comes has made its products, but the cluster calls it failed, and Snakemake
removes what it made.  The next attempt puts the links back in place of doing the work again.  A link takes no space on
the disk; on a file system without links nothing is kept.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from diffbench.specs.jobs import StageSpec
from diffbench.store import files, paths
from diffbench.store.products import status_of


def keep(root: Path, spec: StageSpec) -> None:
    """Make a link to each file of a job that is done; products that are removed in a run anyway are left out."""
    if spec.temporary:
        return
    folder = _folder(root, spec)
    files.remove(folder)
    with suppress(OSError):
        for file in paths.made(root, spec):
            link = folder / file.relative_to(root)
            link.parent.mkdir(parents=True, exist_ok=True)
            os.link(file, link)


def restored(root: Path, spec: StageSpec) -> bool:
    """Put the files of a job back, and say whether its products are whole; links that are of no use are removed."""
    folder = _folder(root, spec)
    if not folder.is_dir():
        return False
    with suppress(OSError):
        for file in paths.made(root, spec):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.unlink(missing_ok=True)
            os.link(folder / file.relative_to(root), file)
            # Newer than what the job reads, which may have been made again.
            os.utime(file)
        if all(status_of(path, spec) == "ok" for path in paths.products(root, spec)):
            return True
    files.remove(folder)
    return False


def clear(root: Path) -> None:
    """Remove all links, when a run is done."""
    files.remove(paths.finished(root))


def _folder(root: Path, spec: StageSpec) -> Path:
    return paths.finished(root) / spec.digest()
