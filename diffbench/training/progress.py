"""Progress: a bar with rate and time left on a terminal, a plain line every few seconds in a log."""

from __future__ import annotations

import sys
import time
from typing import Any, SupportsFloat


class Progress:
    """The display of a job's progress: ``total`` units, of which an earlier attempt finished ``done``."""

    def __init__(self, title: str, total: int, unit: str, done: int = 0) -> None:
        self.title, self.total, self.unit, self.done = title, total, unit, done
        self.first = done
        self.start = self.shown = time.monotonic()
        self.bar: Any = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=total, initial=done, desc=title, unit=f" {unit}")

    def advance(self, count: int = 1, **values: SupportsFloat) -> None:
        """Count more units as done; ``values`` (a loss) are shown with them, and read only when they are shown."""
        self.done += count
        now = time.monotonic()
        if self.done < self.total and now - self.shown < (0.5 if self.bar else 5.0):
            return
        self.shown = now
        numbers = {name: float(value) for name, value in values.items()}
        if self.bar is not None:
            self.bar.set_postfix(numbers, refresh=False)
            self.bar.update(self.done - self.bar.n)
        else:
            print(self.line(**numbers), file=sys.stderr, flush=True)

    def line(self, **values: float) -> str:
        """The line of a log: units done, values, rate, time left."""
        rate = (self.done - self.first) / max(time.monotonic() - self.start, 1e-9)
        left = (self.total - self.done) / max(rate, 1e-9)
        shown = "".join(f", {name} {value:.4g}" for name, value in values.items())
        counted = f"{self.unit} {self.done}/{self.total}{shown}"
        return f"{self.title}: {counted}, {rate:.3g} {self.unit}/s, {left:.0f} s left"

    def close(self) -> None:
        """End the bar's line."""
        if self.bar is not None:
            self.bar.close()


class Silent:
    """The progress of a process that displays nothing, because another one does."""

    def advance(self, count: int = 1, **values: SupportsFloat) -> None:
        """Display nothing."""

    def close(self) -> None:
        """Display nothing."""
