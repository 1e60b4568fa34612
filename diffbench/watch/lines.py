"""A run as lines of text: one that sums it up, and one for each running job."""

from __future__ import annotations

import os
from collections.abc import Iterator

from diffbench.store.progress import spelled
from diffbench.watch.run import Run, Running, Took, written

#: The bytes at the end of a log in which its last line is looked for.
END = 2000


def summary(run: Run) -> str:
    """Return how many jobs are done, running, waiting and failed, the time since the start and the time left."""
    counts = [f"{run.done} of {run.total} jobs done"]
    counts += [f"{len(run.running)} running"] if run.running else []
    counts += [f"{len(run.waiting)} waiting"] if run.waiting else []
    counts += [f"{len(run.failed)} failed"] if run.failed else []
    return f"{run.title}: {', '.join(counts)}; {spelled(run.now() - run.start)}{left(run)}"


def left(run: Run) -> str:
    """Return the time left in words; empty where it is not known, or nothing is left."""
    seconds = run.left() if run.running or run.waiting else None
    return "" if seconds is None else f", about {spelled(seconds)} left"


def rows(run: Run, most: int) -> Iterator[str]:
    """Yield a line for each running job, of at most so many: its time, and the end of its log."""
    jobs = sorted(run.running.values(), key=lambda job: job.start)
    width = max((len(job.name) for job in jobs[:most]), default=0)
    for job in jobs[:most]:
        yield f"  {job.name:{width}}  {times(run, job)}  {last_line(job)}".rstrip()
    if len(jobs) > most:
        yield f"  and {len(jobs) - most} more"


def times(run: Run, job: Running) -> str:
    """Return how long a job has been running and how long it is expected to."""
    expected = run.expect(job.name)
    whole = f" of about {spelled(expected)}" if expected else ""
    return f"{spelled(run.now() - job.start)}{whole}"


def ended(run: Run, name: str, took: Took) -> str:
    """Return the line of a job that is done, for a log."""
    waiting = left(run)
    return f"{run.done} of {run.total} jobs done: {name}, {spelled(took.seconds)}{waiting}"


def last_line(job: Running) -> str:
    """Return the last line of a job's log without control characters; empty where the job has not written any."""
    if written(job.log) == job.earlier:
        return ""
    try:
        with job.log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(file.tell() - END, 0))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    line = next((each for each in reversed(text.splitlines()) if each.strip()), "")
    return "".join(each for each in line.strip() if each.isprintable())
