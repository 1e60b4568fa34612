"""The expected costs of a plan's jobs: only numbers, which are measured elsewhere."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from diffbench.plan.jobs import Job, Plan
from diffbench.store import run_record
from diffbench.store.products import StoreError, status_of


class Known(IntEnum):
    """How hours are known, the best way first; of a sum of costs, the least good way."""

    RECORDED = 0
    TIMED = 1
    COUNTED = 2

    @property
    def text(self) -> str:
        """The way in words."""
        return ("done jobs here", "timed here", "a guess from counts")[self]


@dataclass(frozen=True)
class Cost:
    """The cost of one piece of work.

    Attributes:
        hours: hours of the device; None where they are not estimated.
        size: bytes left on disk, with the training state; 0 where they are few.
        notes: the assumptions.
        known: how the hours are known.
        whole: hours from the beginning, where a part is done already; None where they are ``hours``.
    """

    hours: float | None
    size: int = 0
    notes: tuple[str, ...] = ()
    known: Known = Known.TIMED
    whole: float | None = None

    def __add__(self, other: Cost) -> Cost:
        """The cost of both; its hours are not known where one of them is not."""
        hours = None if self.hours is None or other.hours is None else self.hours + other.hours
        notes = tuple(dict.fromkeys((*self.notes, *other.notes)))
        return Cost(hours, self.size + other.size, notes, max(self.known, other.known))

    @classmethod
    def guess(cls, seconds: float) -> Cost:
        """The cost of work whose seconds were not timed."""
        return cls(seconds / 3600, known=Known.COUNTED)


@dataclass(frozen=True, kw_only=True)
class JobCost(Cost):
    """The cost of one job of a plan.

    Attributes:
        job: the job.
        done: whether its products exist already, so that it costs nothing any more.
        took: hours that it took on this machine, if it is done and was made here.
    """

    job: Job
    done: bool = False
    took: float | None = None


@dataclass(frozen=True)
class Timed:
    """One timed call: ``seconds`` for a batch of ``batch`` images, measured with ``images`` of them."""

    what: str
    batch: int
    images: int
    seconds: float


@dataclass(frozen=True)
class Estimate:
    """The costs of all jobs of a plan, the timings behind them, its stages that are estimated, and the machine.

    ``factors``: by stage, what done jobs took as a multiple of what was timed or counted, and how many these are; the
    costs are multiplied by it already.
    """

    plan: Plan
    costs: tuple[JobCost, ...]
    timed: tuple[Timed, ...]
    stages: tuple[str, ...]
    factors: Mapping[str, tuple[float, int]]
    machine: str
    repeats: int


def is_done(job: Job) -> bool:
    """Return whether all products of a job exist and are undamaged."""
    return all(status_of(path, job.spec) == "ok" for path in job.products)


def hours_taken(job: Job, machine: str) -> float | None:
    """Return the hours that a job took in one piece on this machine; None where no record says so.

    They are of the same clock as timings: CPU time on a CPU, else time.
    """
    try:
        record = run_record.read(job.product)
        here = (record["host"], record["device"]) == (platform.node(), machine)
        resumed = record["notes"].get("start", 0) > 0
        seconds = float(record["cpu_seconds" if machine == "cpu" else "seconds"])
    except (StoreError, ValueError, KeyError, AttributeError, TypeError):
        return None
    return seconds / 3600 if here and not resumed else None


def factors(costs: Iterable[JobCost]) -> dict[str, tuple[float, int]]:
    """Return what done jobs took, as a multiple of their estimates, and the number of these jobs, by stage."""
    sums: dict[str, NDArray[np.float64]] = {}
    for cost in costs:
        whole = cost.hours if cost.whole is None else cost.whole
        if cost.done and cost.took is not None and whole:
            sums[cost.job.stage] = sums.get(cost.job.stage, np.zeros(3)) + (cost.took, whole, 1)
    return {stage: (took / hours, int(count)) for stage, (took, hours, count) in sums.items()}


def corrected(costs: Iterable[JobCost], known: Mapping[str, tuple[float, int]]) -> list[JobCost]:
    """Return costs times what done jobs of the stage took (``factors``)."""

    def one(cost: JobCost) -> JobCost:
        if cost.hours is None or cost.job.stage not in known:
            return cost
        factor, _ = known[cost.job.stage]
        return replace(cost, hours=cost.hours * factor, known=Known.RECORDED)

    return [one(cost) for cost in costs]


def left(costs: Iterable[JobCost]) -> float:
    """Return the hours of the jobs that are not done yet; jobs without an estimate count as 0."""
    return sum(cost.hours or 0.0 for cost in costs if not cost.done)


def size(costs: Iterable[JobCost]) -> int:
    """Return the bytes of all jobs, done or not."""
    return sum(cost.size for cost in costs)


def with_upstream(plan: Plan, jobs: Iterable[Job]) -> list[Job]:
    """Return jobs and all jobs that they build on, each once."""
    found: dict[int, Job] = {}
    waiting = list(jobs)
    while waiting:
        job = waiting.pop()
        if id(job) not in found:
            found[id(job)] = job
            waiting += plan.upstream(job)
    return list(found.values())
