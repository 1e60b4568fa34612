"""Interleaved timing of commands: wall and CPU seconds, least of several rounds."""

import os
import subprocess
import time


def spend(command: list[str], **options) -> tuple[float, float]:
    """Wall and CPU seconds of one run; raises when the command fails."""
    before, start = os.times(), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, **options)
    wall, after = time.perf_counter() - start, os.times()
    cpu = after.children_user + after.children_system
    return wall, cpu - before.children_user - before.children_system


def compare(commands: dict[str, list[str]], rounds: int = 5, **options) -> None:
    """Run all commands round by round and print the least times, as ratios to the first too."""
    best = {name: (float("inf"), float("inf")) for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            wall, cpu = spend(command, **options)
            best[name] = (min(best[name][0], wall), min(best[name][1], cpu))
    first = next(iter(best.values()))
    print(f"{'least of ' + str(rounds):40}  wall s   CPU s   x CPU of the first")
    for name, (wall, cpu) in best.items():
        print(f"{name:40}  {wall:6.2f}  {cpu:6.2f}   {cpu / first[1]:6.1f}")
