"""Maintenance of a results folder: which files are stale, corrupt, torn or no longer needed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from diffbench.plan.jobs import Job, Plan
from diffbench.store import files, paths, products
from diffbench.store.state import generations, is_whole, kept


@dataclass(frozen=True)
class Finding:
    """A file that is not what the plan wants, and what is wrong with it."""

    path: Path
    status: str
    reason: str

    def line(self) -> str:
        """Return the finding as one line."""
        return f"{self.status:8} {self.path}  {self.reason}".rstrip()

    def remove(self) -> None:
        """Remove the file so that it is made again; with a product its sidecar and run record are removed."""
        if self.status == "torn":
            self.path.unlink(missing_ok=True)
        else:
            products.remove_product(self.path)


def examine(plan: Plan) -> Iterator[Finding]:
    """Yield what is missing, stale, corrupt (products) or torn (training states)."""
    for job in plan.jobs:
        for path in job.products:
            status = products.status_of(path, job.spec)
            if status != "ok":
                yield Finding(path, status, _reason(path, status, job))
        yield from _states(plan.root, job)


def _reason(path: Path, status: str, job: Job) -> str:
    if status == "missing":
        return ""
    try:
        products.read_product(path, job.spec)
    except products.StoreError as error:
        text = str(error).removesuffix(f": {products.REMEDY}")
        return text.removeprefix(f"{path} ").removeprefix("is stale, ")
    return ""


def _states(root: Path, job: Job) -> Iterator[Finding]:
    folder = paths.state(root, job.spec)
    for path in [*generations(folder), *kept(folder)] if folder.is_dir() else []:
        if not is_whole(path):
            yield Finding(path, "torn", "its checksum is not the one in its name")


def unneeded(plan: Plan) -> list[Path]:
    """Return the files that no job of the plan needs: states of other specs, and unfinished files.

    The plan should be of the whole benchmark (no ``only``), else the rest of it counts as unneeded.
    """
    needed = {job.spec.digest() for job in plan.jobs}
    folder = paths.states(plan.root)
    states = sorted(folder.iterdir()) if folder.is_dir() else []
    unfinished = sorted(plan.root.rglob(f"{files.TEMPORARY}*")) if plan.root.is_dir() else []
    return [path for path in states if path.name not in needed] + unfinished


def remove(path: Path) -> None:
    """Remove a file or a folder."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
