"""The expected costs of a plan's jobs: only numbers, which are measured elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from diffbench.plan.jobs import Job, Plan
from diffbench.store.products import status_of


@dataclass(frozen=True)
class Cost:
    """The cost of one piece of work.

    Attributes:
        hours: hours of the device; None where they are not estimated.
        size: bytes left on disk, with the training state; 0 where they are few.
        notes: the assumptions.
    """

    hours: float | None
    size: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class JobCost(Cost):
    """The cost of one job of a plan.

    Attributes:
        job: the job.
        done: whether its products exist already, so that it costs nothing any more.
    """

    job: Job
    done: bool = False


@dataclass(frozen=True)
class Timed:
    """One timed call: ``seconds`` for a batch of ``batch`` images, measured with ``images`` of them."""

    what: str
    batch: int
    images: int
    seconds: float


@dataclass(frozen=True)
class Estimate:
    """The costs of all jobs of a plan, the timings behind them, its stages that are estimated, and the machine."""

    plan: Plan
    costs: tuple[JobCost, ...]
    timed: tuple[Timed, ...]
    stages: tuple[str, ...]
    machine: str
    repeats: int


def is_done(plan: Plan, job: Job) -> bool:
    """Return whether all products of a job exist and are undamaged."""
    return all(status_of(path, job.spec) == "ok" for path in job.products)


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
