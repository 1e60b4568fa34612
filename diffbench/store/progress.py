"""Progress: what a job does, how far it is, how long it will take: a bar on a terminal, plain lines in a log.

A log gets a line when work begins, and then at most one every `PERIOD` seconds, for as long as units or calls go on.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Self, SupportsFloat, TypeVar

Item = TypeVar("Item")

#: The least seconds between two lines of a log, and between two changes of a bar.
PERIOD, REFRESH = 10.0, 0.5


def now() -> float:
    """Return seconds of a clock that never goes back."""
    return time.monotonic()


def spelled(seconds: float) -> str:
    """Return a duration in two units at most: ``44 s``, ``12 min 05 s``, ``3 h 20 min``, ``2 d 4 h``."""
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    hours = round(whole / 3600) if whole >= 48 * 3600 else whole // 3600
    return (
        f"{hours // 24} d {hours % 24} h" if hours >= 48 else f"{hours} h {whole // 60 % 60:02} min"
    )


def announce(what: str) -> None:
    """Print what is done next, where there is nothing to count."""
    print(what, file=sys.stderr, flush=True)


class Progress:
    """The display of a job's progress, as a block or until ``close``.

    Args:
        title: what is done.
        total: the number of units, more than 0.
        unit: what is counted: image, step.
        done: the units that an earlier attempt finished.
    """

    #: Whether the end is reported however short the work was.
    ends: bool = True

    def __init__(self, title: str, total: int, unit: str, done: int = 0) -> None:
        self.title, self.total, self.unit, self.done = title, total, unit, done
        self.first, self.calls = done, 0
        self.start = self.shown = now()
        self.bar: Any = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(
                total=total,
                initial=done,
                desc=title,
                unit=f" {unit}",
                leave=self.ends,
                delay=REFRESH,
            )
        else:
            self.print()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def advance(self, count: int = 1, **values: SupportsFloat) -> None:
        """Count more units as done; ``values`` (a loss) are shown with them, and read only when they are shown."""
        self.done += count
        self.calls = 0
        ended = self.done >= self.total
        if self.due() or (ended and (self.ends or self.shown > self.start)):
            self.show({name: float(value) for name, value in values.items()})

    def over(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield items, each of which is a unit that is done when the next is asked for."""
        for item in items:
            yield item
            self.advance()

    def call(self) -> None:
        """Count a call of the network, which is a part of the next units: a batch may take minutes."""
        self.calls += 1
        if self.due():
            self.show({})

    def due(self) -> bool:
        """Return whether enough time has passed to show something again."""
        return now() - self.shown >= (PERIOD if self.bar is None else REFRESH)

    def show(self, values: dict[str, float]) -> None:
        """Change the bar, or print a line."""
        self.shown = now()
        if self.bar is None:
            self.print(**values)
            return
        if self.calls:
            self.bar.set_postfix_str(f"{self.calls} network calls", refresh=False)
        else:
            self.bar.set_postfix(values, refresh=False)
        if not self.bar.update(self.done - self.bar.n):
            self.bar.refresh()

    def print(self, **values: float) -> None:
        """Print a line in the log."""
        announce(self.line(**values))

    def line(self, **values: float) -> str:
        """The line of a log: units done, values, calls of the network since; once it is known, rate and time left."""
        shown = "".join(f", {name} {value:.4g}" for name, value in values.items())
        calls = f", {self.calls:,} network calls since" if self.calls else ""
        counted = f"{self.title}: {self.unit} {self.done}/{self.total}{shown}{calls}"
        if self.done == self.first:
            return counted
        rate = (self.done - self.first) / max(now() - self.start, 1e-9)
        left = spelled((self.total - self.done) / rate)
        return f"{counted}, {rate:.3g} {self.unit}/s, {left} left"

    def close(self) -> None:
        """End the bar's line."""
        if self.bar is not None:
            self.bar.close()


class Step(Progress):
    """The progress of a part of a job; its end is reported only where it took long."""

    ends = False


class Silent:
    """The progress of a process that displays nothing, because another one does."""

    def advance(self, count: int = 1, **values: SupportsFloat) -> None:
        """Display nothing."""

    def close(self) -> None:
        """Display nothing."""
