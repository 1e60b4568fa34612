"""Seconds of a call on this machine: of a GPU's time, or of this process's time on all CPU cores that it uses.

The latter does not depend on what else runs on the machine.
"""

from __future__ import annotations

import contextlib
import io
import sys
import time
from collections.abc import Callable

import torch

from diffbench.estimate.costs import Timed

Clock = Callable[[], float]

#: The number of images with which a batch is tried first.
FEW = 4
#: Above this many seconds a batch is not run as a whole: its time is scaled from that of a few images.
PATIENCE = 20.0


class Stopwatch:
    """A stopwatch for calls: one call to warm up, then the mean of ``repeats``."""

    def __init__(self, device: torch.device, repeats: int, clock: Clock | None = None) -> None:
        self.device, self.repeats = device, repeats
        self.clock = clock or (time.process_time if device.type == "cpu" else time.perf_counter)

    def now(self) -> float:
        """Return the time at which the device has finished all its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return self.clock()

    def seconds(self, call: Callable[[], object]) -> float:
        """Return the seconds of one call."""
        # A call may show a progress, which says nothing about the estimate's.
        with contextlib.redirect_stderr(io.StringIO()):
            call()
            start = self.now()
            for _ in range(self.repeats):
                call()
            return (self.now() - start) / self.repeats

    def of_batch(self, what: str, batch: int, make: Callable[[int], Callable[[], object]]) -> Timed:
        """Return the time of the call that ``make`` makes for a batch; scaled from a few images where it is long."""
        print(f"timing {what}", file=sys.stderr, flush=True)
        few = min(batch, FEW)
        seconds = self.seconds(make(few)) * batch / few
        if few == batch or seconds * (self.repeats + 1) > PATIENCE:
            return Timed(what, batch, few, seconds)
        return Timed(what, batch, batch, self.seconds(make(batch)))
