"""The view of a run in place of Snakemake's own lines: a block that changes on a terminal, a line a job in a log.

It is a handler of Snakemake's logger, whose records say which job starts, ends or fails.  Warnings, errors and failed
jobs are shown as Snakemake shows them, with the end of their logs; all else is in Snakemake's log file, as ever.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

from diffbench.store import progress
from diffbench.watch import lines
from diffbench.watch.calibration import Calibration
from diffbench.watch.run import Run

#: The environment variable which, empty, leaves Snakemake's own lines.
VARIABLE = "DIFFBENCH_VIEW"
#: The name of the handler in whose place the view is put.
DEFAULT = "DefaultStreamHandler"
#: Seconds between two changes of the block.
REFRESH = 1.0
#: The most running jobs that are shown.
MOST = 16
#: Events that are not shown, and the beginnings of messages of no event.
UNSEEN = {"shellcmd", "job_started", "progress", "resources_info", "run_info", "rulegraph"}
NOISE = ("Select jobs", "Touching output", "Removing temporary", "Storing output")


class View(logging.Handler):
    """The view of one run.

    Args:
        run: the state of the run.
        logs: the folder of the jobs' logs; a job is called by its log's path below it.
        under: Snakemake's own handler.
        calibration: the estimate that is being made; None without one.
    """

    def __init__(
        self, run: Run, logs: Path, under: Any, calibration: Calibration | None = None
    ) -> None:
        super().__init__()
        self.run, self.logs, self.under, self.calibration = run, logs, under, calibration
        self.stream: TextIO = under.stream
        self.live = is_terminal(self.stream)
        self.drawn = 0
        self.over = threading.Event()
        self.events: dict[str, Callable[[Any], None]] = {
            "job_info": self.started,
            "job_finished": self.finished,
            "job_error": self.failed,
        }

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record of Snakemake; a mistake in the view must not end the run."""
        try:
            self.take(record, str(getattr(record, "event", None) or ""))
        except Exception:
            self.handleError(record)

    def take(self, record: logging.LogRecord, event: str) -> None:
        """Change the state of the run and the view as an event asks for; show what is no event of a job."""
        if event in self.events:
            self.events[event](record)
        elif not (event in UNSEEN or (not event and str(record.msg).startswith(NOISE))):
            self.passed_on(record)

    def started(self, record: Any) -> None:
        """Note that a job starts; one without a log only gathers others."""
        for log in map(Path, record.log[:1]):
            self.run.started(record.jobid, self.name_of(log), log)
        self.draw()

    def finished(self, record: Any) -> None:
        """Note that a job is done; a log gets its line."""
        job = self.run.running.get(record.job_id)
        took = self.run.finished(record.job_id)
        if job and took and not self.live:
            self.say(lines.ended(self.run, job.name, took))
        self.draw()

    def failed(self, record: Any) -> None:
        """Note that a job failed, and show what Snakemake says of it."""
        job = self.run.running.get(record.jobid)
        self.run.fail(record.jobid)
        self.passed_on(record)
        if job:
            self.say(f"failed: {job.name}: {lines.last_line(job) or 'its log is empty'}")

    def say(self, line: str) -> None:
        """Print a line above the block."""
        self.erase()
        print(line, file=self.stream, flush=True)
        self.draw()

    def passed_on(self, record: logging.LogRecord) -> None:
        """Let Snakemake's own handler show a record, above the block."""
        self.erase()
        self.under.handle(record)
        self.draw()

    def name_of(self, log: Path) -> str:
        """Return the name of the job with a log."""
        path = os.path.relpath(log, self.logs)
        return path.removesuffix(".log")

    def draw(self) -> None:
        """Draw the block anew, where there is a terminal."""
        if not self.live or self.over.is_set():
            return
        columns, height = shutil.get_terminal_size()
        shown = [lines.summary(self.run), *lines.rows(self.run, min(MOST, max(height - 4, 1)))]
        self.erase()
        # The last column stays free: some terminals break the line there.
        self.stream.write("".join(f"{line[: columns - 1]}\n" for line in shown))
        self.stream.flush()
        self.drawn = len(shown)

    def erase(self) -> None:
        """Remove the block."""
        if self.drawn:
            self.stream.write(f"\x1b[{self.drawn}A\x1b[J")
            self.drawn = 0

    def refresh(self) -> None:
        """Draw every second until the end, with the estimate once it is there."""
        while not self.over.wait(REFRESH):
            with self.lock or threading.RLock():
                found = self.calibration.seconds() if self.calibration else None
                if found is not None:
                    self.run.expected = found
                self.draw()

    def begin(self, logger: logging.Logger) -> None:
        """Take the place of Snakemake's own handler."""
        logger.removeHandler(self.under)
        logger.addHandler(self)
        if self.live:
            threading.Thread(target=self.refresh, daemon=True).start()

    def end(self, logger: logging.Logger) -> None:
        """Leave the place to Snakemake's own handler, and the last summary above it."""
        if self.calibration:
            self.calibration.stop()
        with self.lock or threading.RLock():
            self.erase()
            self.over.set()
            print(lines.summary(self.run), file=self.stream, flush=True)
        logger.removeHandler(self)
        logger.addHandler(self.under)


def begin(
    logger: logging.Logger,
    title: str,
    logs: Path,
    jobs: Iterable[Sequence[str]],
    slots: int,
    estimated: Sequence[str] | None,
) -> View | None:
    """Begin the view of a run, and return it; None where Snakemake's lines are wanted.

    They are with ``DIFFBENCH_VIEW=`` in the environment, a logger plugin that writes to the terminal, or an option
    about what Snakemake says (--quiet, --verbose, --printshellcmds).

    Args:
        logger: Snakemake's logger.
        title: the benchmark's name.
        logs: the folder of the jobs' logs.
        jobs: the logs of each job that is to run.
        slots: how many jobs can run at a time.
        estimated: the arguments of ``diffbench estimate``; None where nothing can be timed here.
    """
    under = next((each for each in logger.handlers if each.name == DEFAULT), None)
    if os.environ.get(VARIABLE) == "" or under is None or asked(under):
        return None
    live = is_terminal(under.stream)  # type: ignore[attr-defined]
    calibration = Calibration(estimated) if live and estimated is not None else None
    view = View(Run(title, [], slots, progress.now), logs, under, calibration)
    view.run = Run(title, [view.name_of(Path(log[0])) for log in jobs if log], slots, progress.now)
    view.begin(logger)
    return view


def is_terminal(stream: TextIO) -> bool:
    """Return whether lines that were written to a stream can be removed again."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def asked(under: Any) -> bool:
    """Return whether Snakemake was told what to say: the filter of its handler has these settings."""
    settings = ("quiet", "verbose", "printshellcmds", "debug_dag")
    return any(getattr(each, name, False) for each in under.filters for name in settings)
