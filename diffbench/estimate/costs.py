"""What the jobs of a plan are expected to cost; numbers alone, measured elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from diffbench.plan.jobs import Job, Plan
from diffbench.store.products import status_of


@dataclass(frozen=True)
class Cost:
    """What a job costs.

    Attributes:
        hours: of the device; None where nobody has estimated it.
        size: bytes of what it leaves on disk, its training state with it; 0 where it is little.
        notes: what was assumed.
    """

    hours: float | None
    size: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class JobCost(Cost):
    """The cost of one job of a plan.

    Attributes:
        job: the job.
        done: whether its products are there already, so that it costs nothing any more.
    """

    job: Job
    done: bool = False


@dataclass(frozen=True)
class Timed:
    """One thing that was timed: ``seconds`` for a batch of ``batch`` images, found with ``images`` of them."""

    what: str
    batch: int
    images: int
    seconds: float


@dataclass(frozen=True)
class Estimate:
    """The costs of all jobs of a plan, what they were computed from, the stages that are estimated, and the machine."""

    plan: Plan
    costs: tuple[JobCost, ...]
    timed: tuple[Timed, ...]
    stages: tuple[str, ...]
    machine: str
    repeats: int


def is_done(plan: Plan, job: Job) -> bool:
    """Say whether all products of a job are there and whole."""
    return all(status_of(path, job.spec) == "ok" for path in job.products)


def left(costs: Iterable[JobCost]) -> float:
    """Return the hours of the jobs that are not done yet; those that nobody has estimated count nothing."""
    return sum(cost.hours or 0.0 for cost in costs if not cost.done)


def size(costs: Iterable[JobCost]) -> int:
    """Return the bytes of all jobs, done or not."""
    return sum(cost.size for cost in costs)


def with_upstream(plan: Plan, jobs: Iterable[Job]) -> list[Job]:
    """Return jobs and all that they are built on, each once."""
    found: dict[int, Job] = {}
    waiting = list(jobs)
    while waiting:
        job = waiting.pop()
        if id(job) not in found:
            found[id(job)] = job
            waiting += plan.upstream(job)
    return list(found.values())
