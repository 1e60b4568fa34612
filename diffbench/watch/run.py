"""The state of a run: which of its jobs wait, run, are done or have failed, and the time that is left.

A job's time is expected to be its estimate times what finished jobs took, as a multiple of theirs: of all jobs

    F = (W + took) / (W + expected),        of a stage        (W F + took) / (W + expected)

with W = 60 s, so that a minute of finished jobs counts as much as the estimate.  Without an estimate it is the mean of
the finished jobs of the stage.  With n jobs at a time the time left is

    max(sum of all that is left / n, the longest job)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

#: Seconds of finished jobs that count as much as the estimate.
WEIGHT = 60.0


@dataclass(frozen=True)
class Running:
    """A job that runs: its name, its log, when it started, and when the log of an earlier run was last written."""

    name: str
    log: Path
    start: float
    earlier: int = 0


@dataclass(frozen=True)
class Took:
    """A finished job: seconds that it took and, where it has an estimate, that were expected."""

    stage: str
    seconds: float
    expected: float | None


@dataclass
class Run:
    """The state of a run.

    Attributes:
        title: the benchmark.
        names: the jobs that are to run (``Job.name``), all of them.
        slots: how many of them can run at a time.
        now: a clock, in seconds.
        expected: job -> seconds by the estimate, once there is one.
    """

    title: str
    names: Iterable[str]
    slots: int
    now: Callable[[], float]
    expected: Mapping[str, float] = field(default_factory=dict)
    running: dict[int, Running] = field(default_factory=dict)
    failed: dict[str, None] = field(default_factory=dict)
    took: list[Took] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.waiting = dict.fromkeys(self.names)
        self.total, self.start = len(self.waiting), self.now()

    @property
    def done(self) -> int:
        """The number of finished jobs."""
        return len(self.took)

    def started(self, number: int, name: str, log: Path) -> None:
        """Note that a job runs; it may have failed before."""
        self.waiting.pop(name, None)
        self.failed.pop(name, None)
        self.running[number] = Running(name, log, self.now(), written(log))

    def finished(self, number: int) -> Took | None:
        """Note that a job is done; None for one that was not known to run."""
        job = self.running.pop(number, None)
        if job is None:
            return None
        found = Took(stage_of(job.name), self.now() - job.start, self.expected.get(job.name))
        self.took.append(found)
        return found

    def fail(self, number: int) -> None:
        """Note that a job failed."""
        if (job := self.running.pop(number, None)) is not None:
            self.failed[job.name] = None

    def factor(self, stage: str) -> float:
        """Return what jobs of a stage take, as a multiple of their estimate."""
        known = [(each.stage, each.seconds, each.expected) for each in self.took]
        every = [(name, took, by) for name, took, by in known if by is not None]
        own = [(took, by) for name, took, by in every if name == stage]
        whole = (WEIGHT + sum(took for _, took, _ in every)) / (
            WEIGHT + sum(by for *_, by in every)
        )
        return (WEIGHT * whole + sum(took for took, _ in own)) / (WEIGHT + sum(by for _, by in own))

    def expect(self, name: str) -> float | None:
        """Return how many seconds a job takes; None where nothing is known.

        Where there is an estimate, a job that is not in it counts as nothing.
        """
        stage = stage_of(name)
        if name in self.expected:
            return self.expected[name] * self.factor(stage)
        own = [each.seconds for each in self.took if each.stage == stage]
        if own:
            return sum(own) / len(own)
        return 0.0 if self.expected else None

    def left(self) -> float | None:
        """Return the seconds until the end; None where too little is known."""
        whole = [self.expect(name) for name in self.waiting]
        now = self.now()
        for job in self.running.values():
            expected = self.expect(job.name)
            whole.append(None if expected is None else max(expected - (now - job.start), 0.0))
        known = [each for each in whole if each is not None]
        if len(known) < len(whole):
            return None
        return max(sum(known) / self.slots, max(known, default=0.0))


def written(log: Path) -> int:
    """Return when a log was last written, in nanoseconds; 0 where there is none."""
    try:
        return log.stat().st_mtime_ns
    except OSError:
        return 0


def stage_of(name: str) -> str:
    """Return the stage of a job's name."""
    return name.partition("/")[0]
