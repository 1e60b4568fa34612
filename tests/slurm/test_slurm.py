"""The workflow on a real Slurm: the same results as here, whatever happens to its jobs."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from cluster import Cluster, until
from commands import REPOSITORY, bench, environment, plan_of, run, said, write_config

from diffbench.reporting.cells import DASH
from diffbench.server.client import VARIABLE

pytestmark = pytest.mark.slurm

#: One model with two samples and a bound, and a control; the training is long enough to be met while it runs.
CHANGES = {
    "training": {"steps": 400},
    "variants": ["ddpm-cosine", "control-test"],
    "tables": ["overview"],
    "claims": [],
    "figures": [],
}
DATA = "results/tiny/data/levels.npz"
MODEL = "results/tiny/runs/ddpm-cosine/seed0/model.safetensors"
LIMIT = "train:slurm_extra='--signal=USR1@20'"
#: No accounting here, and two jobs have to fit into a small machine's memory.
HERE = [
    "--slurm-no-account",
    "--slurm-status-command=squeue",
    "--slurm-init-seconds-before-status-checks=1",
    "--latency-wait=5",
    *("--default-resources", "runtime=30", "mem_mb=900", "tasks_per_gpu=0"),
]


def prepared(folder: Path) -> Path:
    """A new working directory with the benchmark of these tests."""
    folder.mkdir()
    write_config(folder, CHANGES)
    return folder


@contextmanager
def started(folder: Path, *arguments: object):
    """A block in which the workflow runs on the cluster; it has ended at the block's end, or is ended."""
    command = [
        sys.executable,
        REPOSITORY / "tests/slurm/polling.py",
        "-s",
        REPOSITORY / "Snakefile",
    ]
    command += ["--configfile", "bench.yaml", "--workflow-profile", REPOSITORY / "profiles/slurm"]
    alone = environment(XDG_CACHE_HOME=str(folder / ".cache"))
    del alone[VARIABLE]
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(
            [str(word) for word in (*command, *arguments, *HERE)],
            cwd=folder,
            env=alone,
            stdout=output,
            stderr=output,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def ended(process: subprocess.Popen[str], folder: Path, status: int = 0) -> str:
    """What a run printed, which has ended with that status."""
    found = process.wait(timeout=900)
    text = (folder / "output").read_text()
    assert found == status, text[-6000:]
    return text


def events(folder: Path) -> list[dict[str, object]]:
    """The events of the folder's training so far, the oldest first."""
    for file in (folder / "results/tiny/.state").glob("*/events.jsonl"):
        found = [json.loads(line) for line in file.read_text().splitlines() if line.endswith("}")]
        if any("step" in event for event in found):
            return found
    return []


def saved(folder: Path) -> list[int]:
    """The steps at which the training has saved its state."""
    return [event["step"] for event in events(folder) if event["event"] == "saved"]


def resumed(folder: Path) -> list[int]:
    """The steps at which the training was resumed."""
    return [event["step"] for event in events(folder) if event["event"] == "resume"]


def manifest(folder: Path) -> str:
    """The hashes of all products."""
    done = run("manifest", "results/tiny", cwd=folder)
    assert done.returncode == 0, said(done)
    return done.stdout


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Path:
    """The benchmark, run on this machine without a cluster."""
    folder = prepared(tmp_path_factory.mktemp("local") / "run")
    done = bench("-c2", cwd=folder)
    assert done.returncode == 0, said(done)
    return folder


def test_a_drained_node_and_a_requeued_training_change_nothing(slurm: Cluster, here, tmp_path):
    folder = prepared(tmp_path / "run")
    node = f"nodename={slurm.node}"
    slurm.ask("scontrol", "update", node, "state=drain", "reason=test")
    with started(folder, "--slurm-requeue") as process:
        first = until(lambda: list(slurm.jobs().items()), slurm, "the first job")
        assert first[0][1] == "PENDING"
        slurm.ask("scontrol", "update", node, "state=resume")
        until(lambda: saved(folder), slurm, "the first saved state")
        (training,) = slurm.of("rule_train")
        slurm.ask("scontrol", "requeue", training)
        ended(process, folder)
    assert manifest(folder) == manifest(here)
    # The same job went on where it was when it had to stop, and Snakemake did not submit it again.
    assert list(slurm.of("rule_train")) == [training]
    assert resumed(folder) and set(resumed(folder)) <= set(saved(folder))
    # Each job of the plan is one of Slurm's; the samples of a model, ready at the same time, were submitted together.
    states = slurm.jobs()
    assert set(states.values()) == {"COMPLETED"}
    assert len(states) == len(plan_of(folder).jobs)
    samples = [number for number in states if "_" in number]
    assert len(samples) == 2 and len({number.partition("_")[0] for number in samples}) == 1


def test_a_whole_benchmark_in_one_allocation(slurm: Cluster, here, tmp_path):
    folder = prepared(tmp_path / "run")
    command = [Path(sys.executable).with_name("snakemake"), "-s", REPOSITORY / "Snakefile"]
    command += ["--configfile", "bench.yaml", "--cores", "2"]
    alone = environment(XDG_CACHE_HOME=str(folder / ".cache"))
    del alone[VARIABLE]
    submit = ["sbatch", "--wait", "--parsable", "--cpus-per-task=2", "--output=output", "--wrap"]
    done = subprocess.run(
        [*submit, shlex.join(map(str, command))], cwd=folder, env=alone, capture_output=True
    )
    assert done.returncode == 0, (folder / "output").read_text()[-6000:]
    assert manifest(folder) == manifest(here)


def test_a_time_limit_saves_the_training_and_a_cancelled_one_is_a_dash(slurm, here, tmp_path):
    folder, before = prepared(tmp_path / "run"), set(slurm.of("rule_train"))
    shutil.copytree(here / "results/tiny/data", folder / "results/tiny/data")
    # A limit of two minutes, far more work, and a warning that Slurm may send up to a minute earlier than asked: 40 s
    # after the start at the earliest, when a busy machine has begun to train too.
    arguments = ["--config", "training={steps: 1000000}", "--retries", "1", "--set-resources"]
    with started(folder, *arguments, "train:runtime=2", LIMIT) as process:
        until(lambda: resumed(folder), slurm, "the second job")
        assert resumed(folder)[0] == saved(folder)[-1] > 0
        first, second = sorted(set(slurm.of("rule_train")) - before, key=int)
        slurm.ask("scancel", second)
        text = ended(process, folder, status=1)
    states = slurm.jobs()
    assert states[first] in ("FAILED", "TIMEOUT")
    assert states[second] == "CANCELLED"
    assert f"'{second}' failed, SLURM status is: 'CANCELLED'" in text
    # What was saved on the way out is there for the next run; the control has its row, the model has dashes.
    assert saved(folder)[-1] >= resumed(folder)[0]
    assert not (folder / MODEL).exists()
    rows = (folder / "results/tiny/tables/overview.md").read_text().splitlines()
    numbers = {name: [row for row in rows if name in row] for name in CHANGES["variants"]}
    assert "died by signal" not in (slurm.folder / "slurmd.log").read_text()
    assert all(DASH in row for row in numbers["ddpm-cosine"])
    assert any(re.search(r"\d\.\d", row) for row in numbers["control-test"])


def test_a_job_without_enough_memory_is_ended_and_gets_more_the_next_time(slurm, here, tmp_path):
    folder, before = prepared(tmp_path / "run"), set(slurm.jobs())
    more = "data:mem_mb=100*attempt**4"
    with started(folder, DATA, "--retries", "2", "--set-resources", more) as process:
        text = ended(process, folder)
    first, *_, last = sorted(set(slurm.jobs()) - before, key=int)
    # Without control groups Slurm itself looks at the memory, and calls the job failed.
    assert slurm.jobs()[first] == "FAILED"
    assert "exceeded memory limit" in (slurm.folder / "slurmd.log").read_text()
    assert slurm.jobs()[last] == "COMPLETED"
    assert f"'{first}' failed" in text
    assert (folder / DATA).read_bytes() == (here / DATA).read_bytes()
