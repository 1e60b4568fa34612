"""Whole runs that are stopped at random moments end in the bytes of one that was not."""

import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import CONFIG, REPOSITORY, bench, environment, said, write_config

from diffbench.server.client import VARIABLE
from diffbench.store import files
from diffbench.store.manifest import manifest

pytestmark = [pytest.mark.slow, pytest.mark.long]
MOMENTS = 20
#: Seconds between a start and a signal, at most: about a third of a run on two cores, so that some runs get far.
LONGEST = 30.0
#: Seconds after a signal in which a run ends: its jobs save what is worth it.  One that waits for itself never does.
MOST = 300.0


def start(folder: Path) -> subprocess.Popen[str]:
    """Start the workflow as a process group of its own, with a job server of its own."""
    surroundings = environment(XDG_CACHE_HOME=str(folder / ".cache"))
    del surroundings[VARIABLE]
    command = [Path(sys.executable).with_name("snakemake"), "-s", REPOSITORY / "Snakefile", "-c2"]
    return subprocess.Popen(
        [*map(str, command), "--configfile", CONFIG],
        cwd=folder,
        env=surroundings,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_stopped_at_random_moments_ends_in_the_same_bytes(first, tmp_path, number):
    root = Path("results/tiny")
    write_config(tmp_path)
    moments = random.Random(int(number))
    stops = ends = 0
    while stops < MOMENTS:
        running = start(tmp_path)
        try:
            assert running.wait(moments.uniform(0.0, LONGEST)) == 0
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, number)
            stops += 1
            running.wait(MOST)
            # After a kill Snakemake's lock is still there.
            bench("--unlock", cwd=tmp_path)
            continue
        # It came to its end: it is compared, and another begins.
        assert manifest(tmp_path / root) == manifest(first[0] / root)
        shutil.rmtree(tmp_path / root)
        ends += 1
    done = bench("-c2", cwd=tmp_path)
    assert done.returncode == 0, said(done)
    assert manifest(tmp_path / root) == manifest(first[0] / root)
    left = [path.name for path in (tmp_path / root).rglob(f"{files.TEMPORARY}*")]
    print(f"{signal.Signals(number).name}: {stops} stops, {ends + 1} runs; files left: {left}")
