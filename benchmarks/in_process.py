"""Interleaved timing and peak memory of functions in this process, on one thread."""

import ctypes
import gc
import time
from collections.abc import Callable
from pathlib import Path

import torch


def status(key: str) -> float:
    """A line of this process's status in MiB; Linux alone."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(f"{key}:"))


def peak(function: Callable[[], object]) -> float:
    """By how many MiB the process grows at most while it runs, its result included."""
    function()
    gc.collect()
    # What was freed would be used again without showing.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    function()
    return status("VmHWM") - before


def compare(functions: dict[str, Callable[[], object]], rounds: int = 9) -> None:
    """Print the least CPU time of each and its peak memory, and ratios to the last."""
    torch.set_num_threads(1)
    best = dict.fromkeys(functions, float("inf"))
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.process_time()
            function()
            best[name] = min(best[name], time.process_time() - start)
    memory = {name: peak(function) for name, function in functions.items()}
    *_, last = best
    print(f"{'least of ' + str(rounds):44}  CPU ms      x   peak MiB      x")
    for name, seconds in best.items():
        ratios = seconds / best[last], memory[name] / max(memory[last], 1e-9)
        print(
            f"{name:44}  {1e3 * seconds:6.2f} {ratios[0]:6.1f}   {memory[name]:8.1f} {ratios[1]:6.1f}"
        )
