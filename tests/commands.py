"""What the tests of whole runs share: the two commands, and what a dry run says it would do."""

from __future__ import annotations

import atexit
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import fast_yaml

from diffbench.plan.jobs import Plan
from diffbench.plan.loading import load_plan
from diffbench.server import client

REPOSITORY = Path(__file__).resolve().parent.parent
TINY = REPOSITORY / "examples" / "tiny.yaml"
#: The benchmark file's name in every working directory of these tests.
CONFIG = "bench.yaml"
#: Seconds after which an event that should have come is given up: far more than it takes.
PATIENCE = 120

Done = subprocess.CompletedProcess[str]


def environment(**more: str) -> dict[str, str]:
    """The environment without what would point at another diffbench, with little on PATH, and with a job server."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DIFFBENCH_", "SNAKEMAKE_"))}
    threads = dict.fromkeys(client.THREAD_VARIABLES, "1")
    return {
        **kept,
        **threads,
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": "",
        client.VARIABLE: server(),
        **more,
    }


@cache
def server() -> str:
    """The socket of a job server that ends with this process; empty where jobs are not forked."""
    if sys.platform != "linux":
        return ""
    # As in `environment`: a command is only run by a server that has the same path.
    with mock.patch.dict(os.environ, {"PYTHONPATH": ""}):
        process, path = client.start()
    # The server ends, and removes its socket, when its input is closed.
    atexit.register(process.stdin.close)
    until(path.exists, "the job server")
    return str(path)


def snakemake(*arguments: object, cwd: Path) -> Done:
    """Run this repository's Snakefile in a folder."""
    command = [Path(sys.executable).with_name("snakemake"), "-s", REPOSITORY / "Snakefile"]
    return subprocess.run(
        [*map(str, command), *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        env=environment(XDG_CACHE_HOME=str(cwd / ".cache")),
    )


def bench(*arguments: object, cwd: Path) -> Done:
    """Run the Snakefile on the folder's own benchmark file."""
    return snakemake(*arguments, "--configfile", CONFIG, cwd=cwd)


def diffbench(*arguments: object) -> list[str]:
    """A command line of diffbench."""
    return [sys.executable, "-m", "diffbench", *map(str, arguments)]


def start(*arguments: object, cwd: Path) -> subprocess.Popen[str]:
    """Start a command of diffbench."""
    return subprocess.Popen(
        diffbench(*arguments),
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(PYTHONPATH=str(REPOSITORY)),
    )


def run(*arguments: object, cwd: Path) -> Done:
    """Run a command of diffbench."""
    process = start(*arguments, cwd=cwd)
    out, err = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def said(done: Done) -> str:
    """All that a command printed."""
    return done.stdout + done.stderr


def until(ready: Callable[[], Any], what: str) -> Any:
    """Wait for something and return it."""
    end = time.monotonic() + PATIENCE
    while not (found := ready()):
        assert time.monotonic() < end, f"{what}: not within {PATIENCE} s"
        time.sleep(0.01)
    return found


def the_reason(written: str) -> str:
    """The last line that a failed job wrote; those before it may say only what was done."""
    *before, last = written.splitlines()
    assert last.startswith("diffbench ")
    assert not [line for line in before if re.search(r"^diffbench |^Traceback|^ |Error", line)]
    return last


def planned(done: Done) -> set[str]:
    """The jobs of a dry run, as ``sample edm heun-3``; without seeds, and without ``all``."""
    assert done.returncode == 0, said(done)
    jobs: list[str] = []
    for line in said(done).splitlines():
        if found := re.match(r"(?:local)?rule (\w+):$", line):
            jobs.append(found[1])
        elif found := re.match(r" +wildcards: (.*)", line):
            wildcards = dict(each.split("=", 1) for each in found[1].split(", "))
            wildcards.pop("seed", None)
            jobs[-1] = " ".join([jobs[-1], *wildcards.values()])
    return set(jobs) - {"all"}


def jobs_of(plan: Plan) -> set[str]:
    """All jobs of a plan, in the words of `planned`."""
    named = ([run.stage, run.variant, run.item.replace("/", " ")] for run in plan.jobs)
    jobs = {" ".join(filter(None, words)) for words in named}
    return jobs | {"tables"}


def digests(plan: Plan) -> dict[tuple[str, str, str], str]:
    """The hash of each job's spec, by stage, variant and item."""
    return {(run.stage, run.variant, run.item): run.spec.digest() for run in plan.jobs}


def write_config(folder: Path, changes: Mapping[str, Any] | None = None, text: str = "") -> None:
    """Write the tiny benchmark's file into a folder: as it is, or changed; with text added."""
    content = TINY.read_text()
    if changes:
        content = fast_yaml.dump(merged(fast_yaml.load(content), changes), sort_keys=False)
    (folder / CONFIG).write_text(content + text)


def merged(base: Any, over: Any) -> Any:
    """Mappings merged key by key, all else replaced."""
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    return {**base, **{key: merged(base.get(key), value) for key, value in over.items()}}


def plan_of(folder: Path) -> Plan:
    """The plan of the folder's benchmark file; its paths are relative to the folder."""
    return load_plan([folder / CONFIG], {}, REPOSITORY)


def forget(path: Path) -> None:
    """Forget what an extension file registered, and its module."""
    # Tests that start no extension need neither.
    from diffbench.conform.file import registered
    from diffbench.specs.extensions import source

    for kind, name, _ in list(registered(source(path))):
        del kind.known[name]
    sys.modules.pop(source(path).module, None)
