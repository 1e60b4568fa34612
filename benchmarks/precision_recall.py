"""Precision and recall of features: what they cost here, and in torch-fidelity, in float64 and in float32.

    python benchmarks/precision_recall.py [--count 10000] [--width 2048] [--rounds 3]

One thread's CPU time, in turns; the additional peak memory, of a process each.  The features are normal.
Both precisions of torch-fidelity give the same balls here; in general float32 decides some of them wrongly.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from in_process import report

from diffbench.metrics import neighbours
from diffbench.metrics.torchvision_operators import torch_fidelity
from diffbench.training import machine

OTHERS = {"torch-fidelity, float64": torch.float64, "torch-fidelity, float32": torch.float32}


def peak() -> float:
    """Of this process's memory since the last reset, in MiB."""
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def calls(count: int, width: int) -> dict[str, Callable[[], tuple[float, float]]]:
    """Each way to compute them, of the same features."""
    torch_fidelity()
    from torch_fidelity.metric_prc import calculate_precision_recall_full

    generator = np.random.default_rng(0)
    z, reference = (generator.standard_normal((count, width)) + 0.01 * step for step in range(2))

    def other(dtype: torch.dtype) -> tuple[float, float]:
        found = calculate_precision_recall_full(
            *(torch.from_numpy(each).to(dtype) for each in (z, reference)), 3, 10_000
        )
        return float(found[0]), float(found[1])

    ways = {name: lambda dtype=dtype: other(dtype) for name, dtype in OTHERS.items()}
    balls = neighbours.reach(reference)
    return {
        "ours": lambda: neighbours.precision_recall(z, reference),
        "ours, the reference's radii known": lambda: neighbours.precision_recall(
            z, reference, balls=balls
        ),
        **ways,
    }


def main(count: int, width: int, rounds: int) -> None:
    ways = calls(count, width)
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds):
        for name in list(ways)[:: 1 if turn % 2 else -1]:
            start = time.process_time()
            found = ways[name]()
            spent[name].append(time.process_time() - start)
            if turn == 0:
                print(f"{name}: precision {found[0]:.6f}, recall {found[1]:.6f}")
    for name in ways:
        command = [
            sys.executable,
            __file__,
            f"--count={count}",
            f"--width={width}",
            "--memory",
            name,
        ]
        memory = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        ratios = [other / own for other, own in zip(spent[name], spent["ours"], strict=True)]
        if name in OTHERS:
            report(f"precision and recall, {count} x {count} x {width}", name, ratios)
        print(
            f"{name}: {statistics.median(spent[name]):.1f} CPU s, x {statistics.median(ratios):.2f} of ours, "
            f"{memory:,.0f} MiB beyond the features"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", help="print only the memory of one of them")
    options = parser.parse_args()
    machine.prepare("cpu")
    if options.memory:
        way = calls(options.count, options.width)[options.memory]
        before = peak()
        way()
        print(peak() - before)
    else:
        main(options.count, options.width, options.rounds)
