"""CPU seconds of short jobs as processes of their own and as forks of the job server, its start included.

    python benchmarks/job_server.py [--jobs 12]

A job reads the digits and stores their grey levels.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from diffbench.plan.loading import load_plan
from diffbench.server import client

ROOT = Path(__file__).resolve().parent.parent


def used() -> float:
    """The CPU seconds of all processes that this one has started and that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def seconds(jobs: int, spec: str, server: bool) -> float:
    """The CPU seconds of some jobs, with or without a job server."""
    before, process, environment = used(), None, os.environ | {client.VARIABLE: ""}
    # As the workflow sets them: a command that would start otherwise runs in its own process.
    environment |= dict.fromkeys(client.THREAD_VARIABLES, "1") | {"PYTHONPATH": str(ROOT)}
    if server:
        process, path = client.start()
        environment[client.VARIABLE] = str(path)
        while not path.exists():
            time.sleep(0.1)
    for _ in range(jobs):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "diffbench", "data", "--root", folder, "--spec", spec]
            subprocess.run(command, env=environment, check=True)
    if process:
        process.stdin.close()
        process.wait()
    return used() - before


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=12)
    jobs = parser.parse_args().jobs
    spec = load_plan([ROOT / "config" / "digits.yaml"], {}, ROOT).job("data").spec.canonical()
    own, forked = (min(seconds(jobs, spec, server) for _ in range(2)) for server in (False, True))
    print(
        f"{jobs} jobs: {own:.1f} s as processes, {forked:.1f} s by a server, {own / forked:.1f} x"
    )
