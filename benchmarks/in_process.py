"""Interleaved timing and peak memory of functions in this process, on one thread."""

import ctypes
import gc
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from diffbench.training import machine


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


#: The environment variable for the file to which `bench.py` lets each script add its rows.
ROWS = "DIFFBENCH_BENCH"


def report(item: str, peer: str, ratios: Sequence[float], what: str = "CPU time") -> None:
    """Add a row to the table of `bench.py`, if that is who asks: the peer's need in units of ours, each round."""
    if path := os.environ.get(ROWS):
        row = {"item": item, "peer": peer, "what": what, "ratios": list(ratios)}
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def compare(
    functions: dict[str, Callable[[], object]],
    rounds: int = 9,
    item: str = "",
    *,
    with_memory: bool = False,
) -> None:
    """Print the CPU time and the peak memory of each, and the ratios to the last, medians over rounds.

    All run as a job of one thread does: with deterministic kernels, and a C library that keeps what is freed.

    Args:
        functions: name -> function; the last is ours, and the order is reversed in every other round.
        rounds: how many.
        item: what `bench.py` calls the row of each but the last; empty where it has none.
        with_memory: whether `bench.py` has a row of the peak memory too.
    """
    machine.prepare("cpu")
    *others, last = functions
    spent: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(rounds):
        for name in list(functions)[:: -1 if turn % 2 else 1]:
            start = time.process_time()
            functions[name]()
            spent[name].append(time.process_time() - start)
    memory = {name: peak(function) for name, function in functions.items()}
    print(f"{'median of ' + str(rounds):44}  CPU ms      x [least, most]      peak MiB      x")
    for name, seconds in spent.items():
        ratios = [each / own for each, own in zip(seconds, spent[last], strict=True)]
        between = f"[{min(ratios):.2f}, {max(ratios):.2f}]"
        print(
            f"{name:44}  {1e3 * statistics.median(seconds):6.2f} {statistics.median(ratios):6.2f} {between:14}"
            f"   {memory[name]:8.1f} {memory[name] / max(memory[last], 1e-9):6.1f}"
        )
        if item and name in others:
            report(item, name, ratios)
            if with_memory:
                report(item, name, [memory[name] / max(memory[last], 1e-9)], "peak memory")
