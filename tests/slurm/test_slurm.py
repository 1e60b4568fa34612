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
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from cluster import Cluster, until
from commands import REPOSITORY, bench, environment, plan_of, run, said, write_config

from diffbench.reporting.cells import DASH
from diffbench.server.client import VARIABLE
from diffbench.specs.errors import STOPPED

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
def started(folder: Path, *arguments: object, site: Sequence[str] = HERE, **more: str):
    """A block in which the workflow runs on the cluster; it has ended at the block's end, or is ended."""
    command = [
        sys.executable,
        REPOSITORY / "tests/slurm/polling.py",
        "-s",
        REPOSITORY / "Snakefile",
    ]
    command += ["--configfile", "bench.yaml", "--workflow-profile", REPOSITORY / "profiles/slurm"]
    alone = environment(XDG_CACHE_HOME=str(folder / ".cache"), **more)
    del alone[VARIABLE]
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(
            [str(word) for word in (*command, *arguments, *site)],
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
    """The events of the folder's training so far, the oldest first; the extractor is trained too."""
    for state in (folder / "results/tiny/.state").glob("*/spec.json"):
        if json.loads(state.read_text())["spec"]["stage"] == "train":
            log = state.with_name("events.jsonl")
            lines = log.read_text().splitlines() if log.is_file() else []
            return [json.loads(line) for line in lines if line.endswith("}")]
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
    # An estimate that says 50 MiB and no time: in truth Snakemake alone, twice, takes more than the 100 MB asked for.
    needs = {"seconds": 0, "bytes": 0}
    jobs = {job.name: needs for job in plan_of(folder).every}
    (folder / "estimate").write_text(json.dumps({"memory_mib": 50, "jobs": jobs}))
    arguments = [DATA, "--retries", "4", "--resources", "max_runtime=30", "max_mem_mb=1000"]
    with started(folder, *arguments, DIFFBENCH_ESTIMATE="estimate") as process:
        text = ended(process, folder)
    every = sorted(set(slurm.jobs()) - before, key=int)
    first, *_, last = every
    asked = [slurm.asked(number, "%m %l") for number in every]
    most = [f"{min(105 * 2**n, 1000)}M {(10, 20, 30)[min(n, 2)]}:00" for n in range(len(every))]
    assert asked == most
    # Without control groups Slurm itself looks at the memory, and calls the job failed.
    assert slurm.jobs()[first] == "FAILED"
    assert "exceeded memory limit" in (slurm.folder / "slurmd.log").read_text()
    assert slurm.jobs()[last] == "COMPLETED"
    assert f"'{first}' failed" in text
    assert (folder / DATA).read_bytes() == (here / DATA).read_bytes()


#: Read by Python as it starts: the data stage's process ends only when the file `hold` is gone.
HOLD = """
import atexit, sys, time
from pathlib import Path

def wait():
    while Path("hold").exists():
        time.sleep(0.1)

if "--spec" in sys.orig_argv and "data" in sys.orig_argv:
    atexit.register(wait)
"""


def test_a_job_that_is_ended_after_it_has_finished_keeps_its_product(slurm, here, tmp_path):
    folder = prepared(tmp_path / "run")
    (tmp_path / "sitecustomize.py").write_text(HOLD)
    (folder / "hold").touch()
    record = folder / "results/tiny/data/levels.run.json"
    with started(folder, DATA, "--retries=1", PYTHONPATH=str(tmp_path)) as process:
        until(lambda: list(folder.glob("results/tiny/.state/finished/*/data/manifest.json")), slurm)
        number = list(slurm.of("rule_data"))[-1]
        made = record.read_bytes()
        # As a time limit does, it ends the job that has written all and has not yet returned.
        slurm.ask("scancel", number)
        until(lambda: slurm.jobs()[number] == "CANCELLED", slurm)
        (folder / "hold").unlink()
        text = ended(process, folder)
    assert f"'{number}' failed, SLURM status is: 'CANCELLED'" in text
    assert "Removing output files of failed job data" in text
    # The second attempt put the first one's files back, its record among them, and no failure is on record.
    assert "its files are put back" in (folder / "results/tiny/logs/data.log").read_text()
    assert record.read_bytes() == made
    assert (folder / DATA).read_bytes() == (here / DATA).read_bytes()
    assert not list(folder.glob("results/tiny/.state/*/status.json"))
    # The run ended well, so that the links are gone, and there is nothing to do.
    assert not (folder / "results/tiny/.state/finished").exists()
    again = bench("-n", DATA, cwd=folder)
    assert "Nothing to be done" in said(again)


@pytest.mark.parametrize(
    ("resources", "asked"),
    [
        pytest.param(["train:runtime=5"], "TresPerJob=gres:gpu:2", id="gpus"),
        pytest.param(["train:gpu=0", "train:gres=gpu:2"], "TresPerNode=gres:gpu:2", id="gres"),
    ],
)
def test_a_training_on_two_gpus_asks_for_two_and_starts_two_processes(
    slurm, here, tmp_path, resources, asked
):
    folder = prepared(tmp_path / "run")
    shutil.copytree(here / "results/tiny/data", folder / "results/tiny/data")
    before = set(slurm.of("rule_train"))
    arguments = [MODEL, "--config", "gpus=2", "device=cuda", "--retries=0"]
    with started(folder, *arguments, "--set-resources", *resources) as process:
        until(lambda: set(slurm.of("rule_train")) - before, slurm, "the training")
        (training,) = set(slurm.of("rule_train")) - before
        assert asked in slurm.ask("scontrol", "show", "job", training)
        ended(process, folder, status=1)
    # There is no GPU here; it is missed by the process that starts the two.
    log = (folder / "results/tiny/logs/train/ddpm-cosine/seed0.log").read_text()
    assert "gpus: 2, but only 0 are visible here" in log


def test_a_training_on_two_nodes_is_stopped_and_goes_on_to_the_bits_of_one_node(
    slurm, here, tmp_path
):
    folder = prepared(tmp_path / "run")
    write_config(folder, CHANGES | {"training": {"steps": 120}})
    shutil.copytree(here / "results/tiny/data", folder / "results/tiny/data")
    shutil.copytree(folder, tmp_path / "one")
    spec = plan_of(folder).job("train", "ddpm-cosine").spec
    words = ["train", "--root", "results/tiny", "--spec", spec.canonical(), "--device", "cpu"]
    words += ["--processes", "2"]
    done = run(*words, cwd=tmp_path / "one")
    assert done.returncode == 0, said(done)
    # One node has two tasks here: each starts a torchrun of one process, as on a node of its own.
    text = shlex.join([sys.executable, str(REPOSITORY / "diffbench"), *words, "--nodes", "2"])
    (folder / "job.sh").write_text(f"#!/bin/sh\nexec {text}\n")
    alone = environment()
    del alone[VARIABLE]

    def submitted() -> str:
        submit = ["sbatch", "--parsable", "--ntasks=2", "--mem=1500", "--output=output", "job.sh"]
        done = subprocess.run(submit, cwd=folder, env=alone, capture_output=True, text=True)
        return done.stdout.strip()

    def exit_status(number: str) -> str:
        until(lambda: slurm.jobs()[number] not in ("PENDING", "RUNNING", "COMPLETING"), slurm)
        return re.search(r"ExitCode=(\d+)", slurm.ask("scontrol", "show", "job", number))[1]

    first = submitted()
    until(lambda: saved(folder), slurm, "a saved state")
    slurm.ask("scancel", "--batch", "--signal=TERM", first)
    assert exit_status(first) == str(STOPPED), (folder / "output").read_text()
    assert exit_status(submitted()) == "0", (folder / "output").read_text()
    assert len(resumed(folder)) == 1
    assert (folder / MODEL).read_bytes() == (tmp_path / "one" / MODEL).read_bytes()
