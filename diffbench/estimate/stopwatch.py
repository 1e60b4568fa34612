"""Seconds of a call on this machine: of a GPU's time, or of this process's on all the CPU's cores that it uses.

The latter does not notice what else runs on the machine.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch

from diffbench.estimate.costs import Timed

Clock = Callable[[], float]

#: With how many images a batch is tried first.
FEW = 4
#: Seconds above which a batch is not tried as a whole: its time is that of a few images, times how many more there are.
PATIENCE = 20.0


class Stopwatch:
    """Times calls: one to warm up, then the mean of ``repeats``."""

    def __init__(self, device: torch.device, repeats: int, clock: Clock | None = None) -> None:
        self.device, self.repeats = device, repeats
        self.clock = clock or (time.process_time if device.type == "cpu" else time.perf_counter)

    def now(self) -> float:
        """The time at which all that was asked of the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return self.clock()

    def seconds(self, call: Callable[[], object]) -> float:
        """Of one call."""
        call()
        start = self.now()
        for _ in range(self.repeats):
            call()
        return (self.now() - start) / self.repeats

    def of_batch(self, what: str, batch: int, make: Callable[[int], Callable[[], object]]) -> Timed:
        """Of what ``make`` makes for a batch; of a few images alone, where the batch would take too long."""
        print(f"timing {what}", file=sys.stderr, flush=True)
        few = min(batch, FEW)
        seconds = self.seconds(make(few)) * batch / few
        if few == batch or seconds * (self.repeats + 1) > PATIENCE:
            return Timed(what, batch, few, seconds)
        return Timed(what, batch, batch, self.seconds(make(batch)))
