"""Several processes train as one does: the same losses, the same weights, one state, one log."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import commands
import pytest
import torch
from commands import run, start, until
from safetensors.torch import load_file

from diffbench.cli import jobs
from diffbench.jobs import data
from diffbench.jobs.train import denoiser_trainer, train_network
from diffbench.specs.data import DigitsSpec
from diffbench.specs.errors import STOPPED
from diffbench.specs.jobs import DataStageSpec, TrainSpec
from diffbench.specs.networks.network import NetworkSpec
from diffbench.specs.registry import build
from diffbench.store import files, paths, status
from diffbench.store.products import write_product
from diffbench.store.state import SpectatorStore, StateStore, generations
from diffbench.training import launch
from diffbench.training.loop import TrainingError
from diffbench.training.team import ProcessGroup, SingleProcess
from diffbench.training.trainer import Trainer

CPU = torch.device("cpu")
DATA = DataStageSpec(data=DigitsSpec())
ROOT = Path("results/team")
STEPS, HALF, LATER, BATCH = 12, 6, 8, 11
#: Whatever draws, in shares of 5 and 6 images and parts of 2 and 3.  ``eps`` keeps Adam from making steps of rounding
#: where a gradient is zero (a bias before a norm over its channel alone has no effect).
SPEC = TrainSpec.model_validate(
    {
        "variant": "some",
        "seed": 3,
        "data": {"name": "digits"},
        "dequantise": "uniform",
        "process": {"name": "discrete", "schedule": "cosine", "steps": 5},
        "denoiser": {"predict": "eps", "conditional": True, "variance": "learned"},
        "objective": {
            "name": "vlb",
            "variance": "learned",
            "label_dropout": 0.3,
            "times": {"name": "importance", "history": 2, "draw": "stratified"},
        },
        "network": {
            "name": "unet",
            "channels": 8,
            "inner_channels": 8,
            "heads": 2,
            "embedding": 16,
        },
        "training": {
            "steps": STEPS,
            "batch": BATCH,
            "accumulate": 2,
            "lr": 1e-2,
            "eps": 1e-2,
            "flip": True,
            "snapshots": [LATER],
        },
    }
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the data set and no more of the data stage."""
    monkeypatch.chdir(tmp_path)
    digits = build(DATA.data).load()
    write_product(paths.dataset(ROOT), lambda file: data.save(digits, file), DATA)
    return tmp_path


def trainer() -> Trainer:
    return denoiser_trainer(SPEC, data.load(ROOT, SPEC.data), CPU)


def events(name: str) -> list[dict]:
    return [
        each for each in StateStore(paths.state(ROOT, SPEC), SPEC).events() if each["event"] == name
    ]


@pytest.mark.slow
def test_two_processes_go_on_as_one_would(folder):
    torch.set_num_threads(1)
    whole = trainer()
    losses = [float(whole.advance()) for _ in range(HALF)]
    state = StateStore(paths.state(ROOT, SPEC), SPEC)
    state.save(whole.state(), HALF)
    losses += [float(whole.advance()) for _ in range(LATER - HALF)]
    later = {name: each.clone() for name, each in whole.averaged().items()}
    losses += [float(whole.advance()) for _ in range(STEPS - LATER)]

    command = ["train", "--root", ROOT, "--spec", SPEC.canonical(), "--device", "cpu"]
    done = run(*command, "--processes", 2, cwd=folder)
    assert done.returncode == 0, done.stderr
    # One of them speaks and writes.
    assert done.stderr.count(f"resume at step {HALF}\n") == 1
    assert [each["step"] for each in events("resume")] == [HALF]
    assert [each["executed"] for each in events("end")] == [STEPS - HALF]
    record = json.loads(paths.run_record(paths.product(ROOT, SPEC)).read_text())
    assert record["notes"]["processes"] == 2
    # Saved every second step: the losses of a whole batch, in float32, whose sums differ in order.
    found = {each["step"]: each["loss"] for each in events("saved")}
    assert list(found) == [8, 10, 12]
    for step, loss in found.items():
        assert loss == pytest.approx(losses[step - 1], rel=1e-5)
    # Six steps of lr g/eps at most: an error of 1e-7 of a gradient of order 1 becomes 6e-7.
    for path, averaged in zip(paths.products(ROOT, SPEC), (whole.averaged(), later), strict=True):
        found = load_file(path)
        for name, expected in averaged.items():
            torch.testing.assert_close(found[name], expected, rtol=0, atol=1e-6, msg=name)
    # The state is one that a single process takes up, with what the times learned.
    again = trainer()
    again.restore(StateStore(paths.state(ROOT, SPEC), SPEC).load())
    assert again.step == STEPS
    learned = again.objective.times.state(), whole.objective.times.state()
    assert torch.equal(learned[0]["seen"], learned[1]["seen"])
    torch.testing.assert_close(learned[0]["losses"], learned[1]["losses"], rtol=1e-4, atol=0)


#: `srun` for nodes that are all this machine: it starts the command once for each.
SRUN = """#!{python}
import subprocess, sys
from itertools import dropwhile

words = sys.argv[1:]
(count,) = [int(word.partition("=")[2]) for word in words if word.startswith("--ntasks=")]
command = list(dropwhile(lambda word: word.startswith("--"), words))
tasks = [subprocess.Popen(command) for _ in range(count)]
sys.exit(max(task.wait() for task in tasks))
"""


@pytest.fixture
def srun(tmp_path, monkeypatch):
    """Two nodes, both this machine."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/srun"
    program.write_text(SRUN.format(python=sys.executable))
    program.chmod(0o755)
    real = commands.environment
    path = f"{program.parent}:/usr/bin:/bin"
    monkeypatch.setattr(commands, "environment", lambda **more: real(**more, PATH=path))


@pytest.mark.slow
def test_processes_of_two_nodes_make_what_those_of_one_make(folder, srun):
    def made(root, *nodes):
        write_product(paths.dataset(root), paths.dataset(ROOT).read_bytes(), DATA)
        command = ["train", "--root", root, "--spec", SPEC.canonical(), "--device", "cpu"]
        done = run(*command, "--processes", 2, *nodes, cwd=folder)
        assert done.returncode == 0, done.stderr
        record = json.loads(paths.run_record(paths.product(root, SPEC)).read_text())
        assert record["notes"]["processes"] == 2
        return [path.read_bytes() for path in paths.products(root, SPEC)]

    # A sum of two numbers has one rounding, whatever their order: the bits are the same.
    assert made(ROOT.with_name("two"), "--nodes", 2) == made(ROOT.with_name("one"))


def test_processes_that_nodes_cannot_share_are_refused(tmp_path, monkeypatch):
    with pytest.raises(RuntimeError, match=r"^gpus: 3 processes cannot be shared equally by 2"):
        launch.launch(3, ["train"], tmp_path, on_gpus=False, nodes=2)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match=r"^nodes: 2 need Slurm's srun, which is not found"):
        launch.launch(2, ["train"], tmp_path, on_gpus=False, nodes=2)


@pytest.mark.slow
def test_asked_to_stop_all_processes_do_at_the_same_step(folder):
    budget = SPEC.training.model_copy(update={"steps": 10**5})
    spec = SPEC.model_copy(update={"training": budget})
    command = ["train", "--root", ROOT, "--spec", spec.canonical(), "--device", "cpu"]
    log = paths.state(ROOT, spec) / "events.jsonl"
    process = start(*command, "--processes", 2, cwd=folder)
    until(lambda: log.exists() and "start" in log.read_text(), "the first step")
    # Before the first step there is nothing to save.
    time.sleep(2)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate()
    assert process.returncode == STOPPED, error
    stopped = StateStore(paths.state(ROOT, spec), spec).events()[-1]
    assert stopped["event"] == "saved"
    assert stopped["step"] % ProcessGroup.EVERY == 0
    assert (
        f"stopped at step {stopped['step']}, state saved: run the command again to go on\n" in error
    )
    assert not paths.product(ROOT, spec).exists()
    reason = status.read_status(paths.state(ROOT, spec))["reason"]
    assert reason == "stopped when asked to: run the command again"


@pytest.mark.slow
def test_a_process_that_fails_leaves_its_reason(folder):
    spec = SPEC.model_copy(update={"training": SPEC.training.model_copy(update={"batch": 3})})
    command = ["train", "--root", ROOT, "--spec", spec.canonical(), "--device", "cpu"]
    done = run(*command, "--processes", 2, cwd=folder)
    reason = (
        "training.batch: 3 images are fewer than 2 processes times 2 parts (training.accumulate)"
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"diffbench train: {reason}"
    assert status.read_status(paths.state(ROOT, spec))["reason"] == reason
    assert not paths.product(ROOT, spec).exists()


class Third(SingleProcess):
    """One of four processes, for its share alone."""

    rank, size = 2, 4


def test_shares_make_the_batch():
    def share(rank: int, count: int) -> range:
        member = Third()
        member.rank = rank
        return range(count)[member.share(count)]

    for count in range(4, 30):
        shares = [share(rank, count) for rank in range(4)]
        assert [row for each in shares for row in each] == list(range(count))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_too_many_processes_for_a_batch_are_refused(folder):
    digits = data.load(ROOT, SPEC.data)
    training = SPEC.training.model_copy(update={"batch": 7})
    with pytest.raises(TrainingError, match=r"^training\.batch: 7 images are fewer than 4"):
        denoiser_trainer(SPEC.model_copy(update={"training": training}), digits, CPU, Third())


def test_processes_that_resume_at_different_steps_stop(folder):
    class Behind(Third):
        def total(self, x):
            return 4 * x - 1

    with pytest.raises(
        TrainingError, match=r"process 2 resumes at step 0, and other processes at another step"
    ):
        train_network(
            SPEC,
            ROOT,
            CPU,
            lambda _: denoiser_trainer(SPEC, data.load(ROOT, SPEC.data), CPU, Behind()),
        )


def test_spectators_read_and_write_nothing(tmp_path):
    spectator = SpectatorStore(tmp_path / "state", SPEC)
    assert spectator.load() is None
    spectator.save({}, 3)
    spectator.event("saved", step=3)
    assert not (tmp_path / "state").exists()
    state = StateStore(tmp_path / "state", SPEC)
    parts = {f"{part}.x": torch.ones(1) for part in ("model", "ema", "optimiser", "rng")}
    state.save(parts, 3)
    with state.lock(), spectator.lock():
        assert int(spectator.load()["step"]) == 3
    before = {path.name: files.sha256(path) for path in state.folder.iterdir()}
    spectator.save(parts, 4)
    spectator.event("saved", step=4)
    assert {path.name: files.sha256(path) for path in state.folder.iterdir()} == before
    assert len(generations(state.folder)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(NetworkSpec.known))
def test_every_parameter_of_a_network_gets_a_gradient(name):
    """DistributedDataParallel waits for all of them."""
    shape = (3, 32, 32)
    with torch.device("meta"):
        spec = NetworkSpec.choose(name)
        network = build(spec, image_shape=shape, in_channels=3, out_channels=3, classes=10)
        x, y = torch.empty(2, *shape), torch.zeros(2, dtype=torch.long)
        network(x, torch.empty(2), y, x).sum().backward()
    parameters = dict(network.named_parameters()).items()
    assert [key for key, each in parameters if each.requires_grad and each.grad is None] == []


def test_the_first_process_keeps_the_reason_of_one_that_failed_before_it(tmp_path, monkeypatch):
    folder = paths.state(tmp_path, SPEC)
    monkeypatch.setenv(launch.LAUNCHED, "x")
    monkeypatch.setenv("RANK", "0")
    status.record_failure(folder, "train", "out of memory")

    class Stage:
        @staticmethod
        def run(spec, root, device_name):
            raise RuntimeError("connection closed by peer")

    monkeypatch.setattr("importlib.import_module", lambda name: Stage)
    assert jobs.run_job(SPEC, tmp_path, "cpu") == 1
    assert status.read_status(folder)["reason"] == "out of memory"


def test_torchrun_waits_for_processes_that_save(tmp_path, monkeypatch):
    api = pytest.importorskip("torch.distributed.launcher.api")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    seen = {}

    class Child:
        def __init__(self, command, env):
            seen.update(env)

        def wait(self):
            return 0

    monkeypatch.setattr(launch.subprocess, "Popen", Child)
    assert launch.launch(2, ["train"], tmp_path / "state", on_gpus=False) == 0
    name, patience = launch.PATIENCE
    assert (seen[name], int(seen["OMP_NUM_THREADS"])) == (patience, 1)
    monkeypatch.setenv(name, seen[name])
    config = api.LaunchConfig(min_nodes=1, max_nodes=1, nproc_per_node=2)
    # Releases before it have no such setting.
    assert getattr(config, "shutdown_timeout", 300) == 300
    monkeypatch.setenv(name, "7")
    launch.launch(2, ["train"], tmp_path / "state", on_gpus=False)
    assert seen[name] == "7"


def test_without_torchrun_a_process_is_alone(monkeypatch):
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert "TORCHELASTIC_RUN_ID" not in os.environ
    assert not launch.launched()
    assert launch.rank() == launch.local_rank() == 0
