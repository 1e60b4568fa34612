"""What a job asks of a cluster, by an estimate: minutes and memory, and more after an attempt that had too little.

    minutes    2^n (2 s + 600) / 60
    MB         2^k (2 m + 4 (d + p))

s: seconds by the estimate.  m: memory of the process that made the estimate.  d, p: sizes of the images and of the
job's products.  The tasks of an array all get what the first one asks for, so a job asks for what the largest of its
rule needs.

n = k = the number of earlier attempts, except for a training: stopped at a limit it goes on from its state, so n = 0,
and k is how many attempts were killed without a word.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffbench.plan.jobs import Job, Plan
from diffbench.specs.errors import PlanError, printable
from diffbench.store import paths, status

#: The multiple of an estimate that a job is given, and the seconds for starting and reading.
FACTOR, STARTING = 2, 600
#: Copies of images and products that a job may hold in memory.
COPIES = 4
#: Minutes of a job that is not estimated.
UNKNOWN = 120
#: From this number of doublings on a job asks for no more.
MOST = 10


@dataclass(frozen=True)
class Size:
    """What a job asks for: whole minutes and MB."""

    minutes: int
    memory: int


@dataclass(frozen=True)
class Sizes:
    """What jobs of a plan ask for.

    Attributes:
        first: what a first attempt asks for, by rule.
        limits: what no job asks for more than.
    """

    first: Mapping[str, Size]
    limits: Size

    def of(self, job: Job, attempt: int) -> Size:
        """Return what a job asks for in an attempt (1, 2, ..)."""
        first, again, killed = self.first[job.spec.rule], attempt - 1, attempt - 1
        if job.spec.resumes:
            again, killed = 0, status.times_killed(paths.state(job.root, job.spec))
        return Size(
            min(first.minutes << min(again, MOST), self.limits.minutes),
            min(first.memory << min(killed, MOST), self.limits.memory),
        )


def estimated(plan: Plan, file: Path, limits: Size) -> Sizes:
    """Return what jobs ask for by the estimate that ``diffbench estimate --json`` wrote to a file.

    Raises:
        PlanError: when the file cannot be read, or lacks a job.
    """
    again = f"make it with: diffbench estimate {plan.config} --json --write {file}"
    try:
        found = json.loads(file.read_bytes())
        needs = [(job.spec.rule, _needed(found, job.name)) for job in plan.every]
    except (OSError, ValueError) as error:
        raise PlanError(f"{file}: {printable(error)}: {again}") from None
    except (LookupError, TypeError) as error:
        raise PlanError(
            f"{file}: not an estimate of this plan ({printable(error)}): {again}"
        ) from None
    first: dict[str, Size] = {}
    for rule, size in needs:
        other = first.get(rule, size)
        first[rule] = Size(max(size.minutes, other.minutes), max(size.memory, other.memory))
    return Sizes(first, limits)


def _needed(found: Any, name: str) -> Size:
    """Return what a first attempt of a job needs by an estimate."""
    job, images = found["jobs"][name], found["jobs"]["data"]["bytes"]
    seconds = job["seconds"]
    minutes = UNKNOWN if seconds is None else math.ceil((FACTOR * seconds + STARTING) / 60)
    held = COPIES * (images + job["bytes"]) + FACTOR * found["memory_mib"] * 2**20
    return Size(minutes, math.ceil(held / 1e6))
