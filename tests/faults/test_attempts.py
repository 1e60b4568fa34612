"""However a job ends, it leaves a reason, and its attempts are counted."""

import signal
import subprocess
import sys

import pytest
from commands import REPOSITORY, environment, plan_of, run, start, until, write_config

from diffbench.specs.extensions import source
from diffbench.store import paths, status
from diffbench.store.products import StoreError

HOLD = """
import sys, time
from pathlib import Path
from diffbench.store import status
with status.started(Path(sys.argv[1]), "train"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """A process that runs a job, and the job's folder."""
    folder = tmp_path / "abc"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(PYTHONPATH=str(REPOSITORY)),
    )
    with process:
        assert process.stdout.readline() == "held\n"
        yield process, folder
        process.kill()


def test_a_killed_process_leaves_a_reason_and_its_attempts_are_counted(other):
    process, folder = other
    assert status.read_status(folder) is None
    process.kill()
    process.wait()
    found = status.read_status(folder)
    assert "ended without a word: it was killed, or the machine stopped" in found["reason"]
    assert found["stage"] == "train"
    assert status.times_killed(folder) == 1
    status.record_death(folder, "train", signal.SIGKILL, 41.2)
    reason = "killed (signal 9: out of memory?) after 41 s"
    assert status.quoted(status.read_status(folder)) == reason
    with pytest.raises(RuntimeError), status.started(folder, "train"):
        status.record_failure(folder, "train", "no")
        raise RuntimeError
    assert status.quoted(status.read_status(folder)) == "no (attempt 2)"
    assert status.times_killed(folder) == 1
    with status.started(folder, "train"):
        pass
    assert not folder.exists()


def test_a_job_that_runs_again_keeps_the_number_of_times_it_was_killed(other):
    process, folder = other
    assert status.times_killed(folder) == 0
    process.kill()
    process.wait()
    with pytest.raises(RuntimeError), status.started(folder, "train"):
        # It runs: its own mark is no sign that it was killed.
        assert status.times_killed(folder) == 1
        raise RuntimeError
    # Here the mark stays as after a kill.
    assert status.times_killed(folder) == 2


def test_the_loser_of_two_leaves_nothing(other):
    process, folder = other
    with (
        pytest.raises(StoreError, match="another process runs this job"),
        status.started(folder, "train"),
    ):
        pass
    status.record_death(folder, "train", 9, 1)
    assert not (folder / status.NAME).exists()
    process.communicate("")
    assert not folder.exists()


class DataStage:
    """The data stage's command with an extension that has some code."""

    def __init__(self, folder, code):
        (folder / "code.py").write_text(code)
        write_config(folder)
        job = plan_of(folder).job("data")
        self.spec = job.spec.model_copy(
            update={"extensions": {"code.py": source(folder / "code.py").digest}}
        )
        self.state = folder / paths.state(job.root, self.spec)
        self.command = ["data", "--root", job.root, "--spec", self.spec.canonical()]
        self.command += ["--extension", "code.py"]


#: Replaces what the stage does.
INSTEAD = """
import os, signal, sys, time
import diffbench.jobs.data
from pathlib import Path

def run(*_):
    {}

diffbench.jobs.data.run = run
"""


@pytest.mark.parametrize(
    ("line", "code", "reason", "served"),
    [
        ("os.kill(os.getpid(), 9)", -9, r"killed (signal 9: out of memory?) after ", True),
        ("os.kill(os.getpid(), 9)", -9, r"killed (signal 9: out of memory?) after ", False),
        ("os.abort()", -6, r"killed (signal 6) after ", True),
        ("sys.exit(0)", 1, "sys.exit(0) was called", True),
        ("assert None", 1, "code.py:7: AssertionError", True),
    ],
)
def test_a_stage_leaves_a_reason_however_it_ends(tmp_path, monkeypatch, line, code, reason, served):
    if not served:
        monkeypatch.setattr("commands.server", lambda: "")
    stage = DataStage(tmp_path, INSTEAD.format(line))
    for attempt in (1, 2) if code == -9 and served else (1,):
        done = run(*stage.command, cwd=tmp_path)
        assert done.returncode == code, done.stderr
        found = status.read_status(stage.state)
        assert (found["stage"], found["attempts"]) == ("data", attempt)
        assert found["reason"].startswith(reason)


#: Says that it runs, and waits: for the whole command at its start, or while it works.
WAIT = "Path('process').write_text(str(os.getpid())); time.sleep(600)"
STARTING = f"import os, time\nfrom pathlib import Path\n{WAIT}\n"


@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGTERM, STARTING, id="starting"),
        pytest.param(signal.SIGUSR1, INSTEAD.format(WAIT), id="working"),
        pytest.param(signal.SIGINT, INSTEAD.format(WAIT), id="interrupted"),
    ],
)
def test_every_stage_heeds_every_signal_in_one_line(tmp_path, number, code):
    stage = DataStage(tmp_path, code)
    process = start(*stage.command, cwd=tmp_path)
    until(lambda: (tmp_path / "process").exists() or process.poll() is not None, "the command")
    process.send_signal(number)
    _, error = process.communicate()
    wanted = (130, "interrupted") if number == signal.SIGINT else (85, f"stopped by {number.name}")
    assert (process.returncode, error) == (
        wanted[0],
        f"diffbench data: {wanted[1]}: run the command again\n",
    )
    if code != STARTING:
        assert status.read_status(stage.state)["reason"].startswith(wanted[1])
