"""Results of several folders gathered in one, and the times of files by which Snakemake sees that they are up to date.

A job's products count where all of them are whole and of the plan's spec (``store.products``).  Two folders that both
have a job must have the same bytes; else nothing is written.

Snakemake makes a product again when an input is newer, and a copy made without ``-a`` has its files in any order of
time.  ``settle`` gives the outputs of whole jobs one time, at which none is older than its inputs.  It leaves those of
jobs that read files from outside the results, such as a folder of images, whose change must be seen.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from diffbench.plan.jobs import Job, Plan
from diffbench.specs.errors import UserError, shown
from diffbench.store import files, paths, products


class MergeError(UserError, ValueError):
    """Folders of results that cannot be made one."""


@dataclass(frozen=True)
class Merged:
    """What came of a merge: the numbers of jobs copied, there before, and in none of the folders; what was left out."""

    copied: int
    present: int
    missing: int
    left_out: Sequence[str]


def merge(plan: Plan, folders: Sequence[Path]) -> Merged:
    """Copy every job's products that are whole from these folders of results into the plan's own.

    Raises:
        MergeError: when a folder does not exist, or two have other bytes of one product; nothing is written then.
    """
    for folder in folders:
        if not folder.is_dir():
            raise MergeError(f"{shown(folder)}: there is no such results folder")
    left_out: list[str] = []
    found: list[tuple[Job, Path | None]] = []
    conflicts: list[str] = []
    for job in plan.jobs:
        holders = [each for each in (plan.root, *folders) if _whole(each, job, left_out)]
        found.append((job, holders[0] if holders else None))
        conflicts += _conflicts(job, holders)
    if conflicts:
        more = f"; {len(conflicts) - 1} more differ" if len(conflicts) > 1 else ""
        raise MergeError(f"{conflicts[0]}{more}: remove the one that is not to be kept")
    copied = [(job, source) for job, source in found if source not in (None, plan.root)]
    for job, source in copied:
        assert source is not None
        _copy(job, source, plan.root)
    settle(plan, [job for job, source in found if source is not None])
    present = sum(source == plan.root for _, source in found)
    return Merged(len(copied), present, len(found) - len(copied) - present, left_out)


def _whole(root: Path, job: Job, left_out: list[str]) -> bool:
    """Return whether a folder has a job's products, all whole; what is stale or corrupt is added to ``left_out``."""
    states = {path: products.status_of(path, job.spec) for path in paths.products(root, job.spec)}
    if set(states.values()) == {"ok"}:
        return True
    left_out += [f"{state} {shown(path)}" for path, state in states.items() if state != "missing"]
    return False


def _conflicts(job: Job, holders: Sequence[Path]) -> list[str]:
    """Return a line for each product of which two folders have other bytes."""
    found = []
    for path in job.products:
        digests: dict[str, Path] = {}
        for root in holders:
            here = root / path.relative_to(job.root)
            digests.setdefault(products.read_sidecar(here)["sha256"][here.name], here)
        if len(digests) > 1:
            (one, first), (other, second), *_ = digests.items()
            found.append(
                f"{shown(first)} and {shown(second)} differ (sha256 {one[:8]} and {other[:8]})"
            )
    return found


def _copy(job: Job, source: Path, target: Path) -> None:
    for one, other in zip(paths.made(source, job.spec), paths.made(target, job.spec), strict=True):
        if one.is_file():
            files.write(other, partial(shutil.copyfile, one))
            shutil.copystat(one, other)


def settle(plan: Plan, jobs: Sequence[Job]) -> None:
    """Give the outputs of whole jobs one time, so that none is older than what it was made from."""
    now = time.time()
    for job in jobs:
        if job.spec.sources:
            continue
        for path in paths.made(plan.root, job.spec):
            if path.is_file():
                os.utime(path, (now, now))
