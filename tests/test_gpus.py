"""GPUs are taken by lock: devices are names here, and each claim has open files of its own, as each process has."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from commands import REPOSITORY, environment, until

from diffbench.training import gpus, launch, machine

NAMES = ["GPU-a", "GPU-b", "MIG/c"]


@pytest.fixture(autouse=True)
def locks(tmp_path, monkeypatch):
    """A folder of locks of this test's; what was taken is given back."""
    monkeypatch.setenv(gpus.FOLDER, str(tmp_path / "locks"))
    monkeypatch.setattr(gpus, "_held", [])
    machine.own_gpu.cache_clear()
    yield tmp_path / "locks"
    for file in gpus._held:
        os.close(file)
    machine.own_gpu.cache_clear()


@pytest.fixture
def machine_of_three(monkeypatch):
    """Three GPUs, of which the second and third are hidden or renamed as CUDA_VISIBLE_DEVICES says."""
    uuids = {"3": "a", "5": "b", "7": "c", "0": "x", "1": "y", "2": "z"}

    def listed():
        return os.environ.get(gpus.VISIBLE, "0,1,2").split(",")

    monkeypatch.delenv(gpus.VISIBLE, raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(listed()))
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda i: SimpleNamespace(uuid=uuids[listed()[i]])
    )


def test_each_job_takes_the_first_that_is_free():
    assert [gpus.claim(NAMES) for _ in range(3)] == [[0], [1], [2]]


def test_when_all_are_taken_a_job_waits_and_says_so_once(monkeypatch, capsys, locks):
    for _ in NAMES:
        gpus.claim(NAMES)
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        if len(pauses) == 3:
            os.close(gpus._held.pop(1))

    monkeypatch.setattr(gpus.time, "sleep", pause)
    assert gpus.claim(NAMES) == [1]
    assert pauses == [gpus.PAUSE] * 3
    assert capsys.readouterr().err == (
        f"waiting for 1 of 3 GPUs: other jobs hold the locks in {locks}\n"
    )


def test_a_job_that_wants_several_takes_all_or_none():
    assert gpus.claim(NAMES) == [0]
    assert gpus._attempt(NAMES, 3) is None
    assert gpus.claim(NAMES, 2) == [1, 2]


def test_more_than_are_visible_are_refused():
    with pytest.raises(RuntimeError, match=r"^gpus: 4, but only 3 are visible here"):
        gpus.claim(NAMES, 4)


def test_a_killed_process_frees_its_gpu():
    script = f"from diffbench.training import gpus; gpus.claim({NAMES!r}, 2); print('held', flush=True); input()"
    command = [sys.executable, "-c", script]
    extra = {gpus.FOLDER: os.environ[gpus.FOLDER], "PYTHONPATH": str(REPOSITORY)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment(**extra), **pipes) as other:
        assert other.stdout.readline() == "held\n"
        assert gpus._attempt(NAMES, 2) is None
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert until(lambda: gpus._attempt(NAMES, 3), "all GPUs") == [0, 1, 2]


def test_a_lock_is_the_gpus_own_whatever_it_is_called(machine_of_three, monkeypatch):
    assert (gpus.entries(), gpus.visible()) == (["0", "1", "2"], ["x", "y", "z"])
    monkeypatch.setenv(gpus.VISIBLE, "7,5")
    assert (gpus.entries(), gpus.visible()) == (["7", "5"], ["c", "b"])
    assert gpus.claim(gpus.visible()) == [0]
    # Another job sees the same GPU under another number: it takes the other one.
    monkeypatch.setenv(gpus.VISIBLE, "7")
    assert gpus._attempt(gpus.visible(), 1) is None
    monkeypatch.setenv(gpus.VISIBLE, "3,7")
    assert gpus.claim(gpus.visible()) == [0]


def test_a_stage_uses_the_gpu_that_it_holds(machine_of_three, monkeypatch):
    current = []
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    gpus.claim(gpus.visible())
    assert machine.device_of("cuda") == torch.device("cuda", 1)
    # The next stage in this process uses the same; no other device is asked for.
    assert machine.device_of("cuda") == torch.device("cuda", 1)
    assert machine.device_of("cuda:2") == torch.device("cuda", 2)
    assert machine.device_of("cpu") == torch.device("cpu")
    assert current == [1, 1]


def test_one_of_several_processes_uses_the_gpu_of_its_rank(machine_of_three, monkeypatch, locks):
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: None)
    monkeypatch.setenv(launch.LAUNCHED, "some")
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert machine.device_of("cuda") == torch.device("cuda", 2)
    assert not locks.exists()


def test_the_launcher_shows_its_processes_what_it_holds(machine_of_three, monkeypatch, tmp_path):
    started = []

    class Child:
        def __init__(self, command, env):
            started.append((command, env))

        def wait(self):
            return 0

    monkeypatch.setattr(launch.subprocess, "Popen", Child)
    monkeypatch.setenv(gpus.VISIBLE, "3,5,7")
    gpus.claim(gpus.visible())
    before = signal.getsignal(signal.SIGTERM)
    assert launch.launch(2, ["train", "--root", "r"], tmp_path / "state", on_gpus=True) == 0
    command, env = started[0]
    assert env[gpus.VISIBLE] == "5,7"
    assert command[-4:] == [launch.PACKAGE, "train", "--root", "r"]
    assert signal.getsignal(signal.SIGTERM) == before
