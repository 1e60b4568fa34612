"""Training that is killed, stopped or robbed of its state ends in the same bits or says why not."""

import json
import os
import shutil
import signal
import subprocess
from functools import partial

import pytest
import torch
from commands import REPOSITORY, diffbench, plan_of, run, start, until, write_config
from safetensors.torch import load_file, save_file

from diffbench import cli
from diffbench.jobs import data, train
from diffbench.server import client
from diffbench.specs.errors import STOPPED
from diffbench.specs.objectives import ImportanceTimesSpec, VLBObjectiveSpec
from diffbench.store import files, paths
from diffbench.store.state import PARTS, generations
from diffbench.training.loop import TrainingError

STEPS = 300
#: Dropout draws from torch's own generator, which the state must hold too.
#: A signal comes soon after step 30: one snapshot is kept before it, and some after.
LONG = {
    "training": {"steps": STEPS, "batch": 8, "snapshots": [10, 40, 0.5]},
    "network": {"dropout": 0.2},
}

pytestmark = pytest.mark.slow


class Training:
    """One training job in a working directory of its own."""

    def __init__(self, folder):
        self.folder = folder
        write_config(folder, LONG)
        job = plan_of(folder).job("train", "edm")
        self.root, self.state = job.root, folder / paths.state(job.root, job.spec)
        self.model, *self.snapshots = [folder / path for path in job.products]
        self.command = ["train", "--root", job.root, "--spec", job.spec.canonical()]
        self.command += ["--device", "cpu"]

    def hashes(self):
        """Of all products in order."""
        assert len(self.snapshots) == 3
        return [files.sha256(path) for path in (self.model, *self.snapshots)]

    def events(self, name):
        """The events of a name, a line that a kill cut short left out."""
        path = self.state / "events.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        events = [json.loads(line) for line in lines if line.endswith("}\n")]
        return [event for event in events if event["event"] == name]

    def run(self):
        return run(*self.command, cwd=self.folder)

    def interrupt(self, number):
        """Start, send a signal once a state is saved; returns exit status and stderr."""
        process = start(*self.command, cwd=self.folder)
        until(lambda: self.events("saved") or process.poll() is not None, "a saved state")
        process.send_signal(number)
        _, error = process.communicate()
        return process.returncode, error


@pytest.fixture(scope="module")
def undisturbed(first, tmp_path_factory):
    """A training that nothing interrupted."""
    folder = tmp_path_factory.mktemp("undisturbed")
    shutil.copytree(first[0] / "results" / "tiny" / "data", folder / "results" / "tiny" / "data")
    training = Training(folder)
    done = training.run()
    assert done.returncode == 0, done.stderr
    assert [event["executed"] for event in training.events("end")] == [STEPS]
    return training


def test_after_a_kill_training_goes_on_and_ends_in_the_same_bits(undisturbed, prepared):
    training = Training(prepared)
    status, error = training.interrupt(signal.SIGKILL)
    assert status == -signal.SIGKILL, error
    assert not training.model.exists()
    reached = training.events("saved")[-1]["step"]
    done = training.run()
    assert done.returncode == 0, done.stderr
    resumed = training.events("resume")[-1]["step"]
    assert f"resume at step {resumed}\n" in done.stderr
    assert resumed > 0
    # Executed: the first attempt from 0 to its last save and at most one interval of saving beyond;
    # the second from where it resumed to the end.
    assert reached + STEPS // 10 + (STEPS - resumed) < 1.5 * STEPS
    assert training.events("end")[-1]["executed"] == STEPS - resumed
    assert training.hashes() == undisturbed.hashes()


def test_asked_to_stop_training_saves_and_later_ends_in_the_same_bits(undisturbed, prepared):
    training = Training(prepared)
    status, error = training.interrupt(signal.SIGTERM)
    assert status == STOPPED == 85, error
    stopped = training.events("saved")[-1]["step"]
    assert f"stopped at step {stopped}, state saved: run the command again to go on\n" in error
    assert not training.model.exists()
    done = training.run()
    assert done.returncode == 0, done.stderr
    assert training.events("resume")[-1]["step"] == stopped
    assert training.events("end")[-1]["executed"] == STEPS - stopped
    assert training.hashes() == undisturbed.hashes()


@pytest.mark.parametrize("part", [*PARTS, "step", "nothing"])
def test_a_state_without_one_of_its_parts_is_refused(
    undisturbed, tmp_path, monkeypatch, capsys, part
):
    training = Training(shutil.copytree(undisturbed.folder, tmp_path / "copy"))
    training.model.unlink()
    tensors = load_file(generations(training.state)[0])
    kept = {name: each for name, each in tensors.items() if name.partition(".")[0] != part}
    assert (len(kept) < len(tensors)) == (part != "nothing")
    for path in generations(training.state):
        path.unlink()
    save_file(kept, training.state / "new")
    digest = files.sha256(training.state / "new")[:16]
    (training.state / "new").rename(training.state / f"state-{STEPS:09d}-{digest}.safetensors")
    monkeypatch.chdir(training.folder)
    status = cli.main([str(word) for word in training.command])
    error = capsys.readouterr().err
    if part == "nothing":
        assert status == 0, error
        assert training.hashes() == undisturbed.hashes()
    else:
        assert status == 1
        assert f"lacks {part}: remove the folder" in error
        assert error.count("\n") == 1
        assert not training.model.exists()


def test_the_history_of_importance_sampled_times_is_part_of_the_state(first, tmp_path):
    folder, _ = first
    job = plan_of(folder).job("train", "iddpm-hybrid")
    objective = VLBObjectiveSpec(times=ImportanceTimesSpec(history=2))
    training = job.spec.training.model_copy(update={"steps": 12, "batch": 40})
    spec = job.spec.model_copy(update={"objective": objective, "training": training})
    dataset = data.load(folder / job.root, spec.data)

    def trained(trainer, steps):
        for _ in range(steps):
            trainer.advance()
        return trainer

    make = partial(train.denoiser_trainer, spec, dataset, torch.device("cpu"))
    whole = trained(make(), 12)
    # Twelve batches of 40 are enough for two losses of each of the 20 times: sampling is no longer uniform.
    assert whole.objective.times.probability.std() > 0
    half = trained(make(), 6).state() | {"step": torch.tensor(6)}
    save_file({name: each.contiguous() for name, each in half.items()}, tmp_path / "half")
    resumed = make()
    resumed.restore(load_file(tmp_path / "half"))
    ends = zip(whole.averaged().values(), trained(resumed, 6).averaged().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in ends)
    without = {name: each for name, each in half.items() if name != "times.losses"}
    with pytest.raises(TrainingError, match=r"lacks times\.losses"):
        make().restore(without)


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU: torch.cuda.is_available() is false"
)
def test_the_tiny_model_trains_resumes_and_samples_on_a_gpu(tmp_path):
    write_config(tmp_path)
    plan = plan_of(tmp_path)
    model, samples = plan.job("train", "edm"), plan.job("sample", "edm", 0, "heun-3")

    def on_a_gpu(job):
        """Neither Snakemake nor a job server is needed here: a machine with a GPU may have little else."""
        command = [job.stage, "--root", job.root, "--spec", job.spec.canonical()]
        found = filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")])
        done = subprocess.run(
            diffbench(*command, "--device", "cuda"),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(found), client.VARIABLE: ""},
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    on_a_gpu(plan.job("data"))
    for job in (model, samples):
        on_a_gpu(job)
        record = json.loads((tmp_path / paths.run_record(job.product)).read_text())
        assert record["device"].startswith("cuda")
        assert record["device_memory_mib"] > 0
    # A state that was saved on the GPU is taken up there.
    digest = files.sha256(tmp_path / model.product)
    (tmp_path / model.product).unlink()
    assert "resume at step 4" in on_a_gpu(model)
    assert files.sha256(tmp_path / model.product) == digest
