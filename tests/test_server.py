"""Commands that the job server runs: they start, print, fail and end as processes of their own do."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from commands import CONFIG, REPOSITORY, diffbench, environment, plan_of, start, until

from diffbench.server import client
from diffbench.store import files

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="jobs are forked on Linux only")

#: A command that imports the extension of a benchmark file, which has the test's code.
COMMAND = ("check-config", CONFIG)
#: Prints what a process sees of its surroundings.
SEEN = """
import os, sys
mask = os.umask(0)
print(os.getcwd(), mask, os.environ["SOME"], sys.argv[0].endswith("diffbench"), sys.stdin.read())
print("here", file=sys.stderr)
"""
#: Says that it runs, and waits.
WAITING = """
import os, time
from pathlib import Path
Path("process").write_text(str(os.getpid()))
time.sleep(600)
"""


@pytest.fixture
def folder(tmp_path):
    """A working directory with a benchmark file whose extension runs a test's code."""
    (tmp_path / CONFIG).write_text("extensions: [code.py]\nvariants: [vp]\n")
    return tmp_path


@pytest.fixture
def heeded():
    """A process that heeds Ctrl-C, as what it starts inherits; in the background of a shell it may be ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def write(folder: Path, code: str) -> list[str]:
    """The command line that runs some code."""
    (folder / "code.py").write_text(textwrap.dedent(code))
    return diffbench(*COMMAND)


def call(
    command: list[str], folder: Path, text: str = "", **more: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, with a text as its input."""
    surroundings = environment(PYTHONPATH=str(REPOSITORY), SOME="thing", **more)
    return subprocess.run(
        command, cwd=folder, env=surroundings, input=text, capture_output=True, text=True
    )


def test_a_command_sees_the_folder_the_environment_and_the_files_of_its_client(folder):
    command = write(folder, SEEN)
    before = os.umask(0o027)
    try:
        served, own = (
            call(command, folder, "words"),
            call(command, folder, "words", DIFFBENCH_SERVER=""),
        )
    finally:
        os.umask(before)
    assert served.stdout.startswith(f"{folder} {0o027} thing ")
    assert "words" in served.stdout
    assert served.stderr.startswith("here\n")
    kept = slice(0, 3)
    assert served.stdout.split()[kept] == own.stdout.split()[kept]
    assert (served.returncode, served.stderr) == (own.returncode, own.stderr)


def test_the_server_forks_commands_that_start_as_it_did_and_leaves_others_alone(folder):
    command = write(folder, "import os; print('parent', os.getppid())")
    parents = [
        int(call(command, folder, **more).stdout.split()[1])
        for more in (
            {},
            {},
            {"OMP_NUM_THREADS": "2"},
            {"PYTHONHASHSEED": "1"},
            {"DIFFBENCH_SERVER": "gone"},
        )
    ]
    assert parents == [parents[0]] * 2 + [os.getpid()] * 3
    assert parents[0] != os.getpid()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("import sys; sys.exit(85)", 1),
        ("import os; os._exit(7)", 7),
        ("import sys; sys.exit('so')", 1),
        ("raise KeyError('so')", 1),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", -signal.SIGSEGV),
        ("raise KeyboardInterrupt", 130),
    ],
)
def test_a_command_ends_as_its_process_would(folder, code, status):
    command = write(folder, code)
    served, own = call(command, folder), call(command, folder, DIFFBENCH_SERVER="")
    assert served.returncode == own.returncode == status
    assert served.stdout == own.stdout
    # The frames above the command differ: the interpreter's own, or the server's.
    assert served.stderr.splitlines()[-1:] == own.stderr.splitlines()[-1:]


def test_what_a_command_leaves_for_its_end_is_done_and_what_libraries_left_is_not(folder):
    ends = (
        "import atexit, tempfile, weakref; atexit.register(print, 'own'); folder = tempfile.TemporaryDirectory();"
        "print(folder.name); print(sum(each.atexit for each in weakref.finalize._registry))"
    )
    served = call(write(folder, ends), folder).stdout.split()
    assert not Path(served[0]).exists()
    # Of those that end with the process only the folder's.
    assert served[1:] == ["1", "own"]


def test_a_command_finds_what_takes_long_to_import(folder):
    command = write(
        folder, "import sys; print({'torch._dynamo', 'scipy', 'diffbench.plan'} - set(sys.modules))"
    )
    assert call(command, folder).stdout.startswith("set()\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_signals_are_passed_on(folder, heeded, number):
    write(folder, WAITING)
    waiting = start(*COMMAND, cwd=folder)
    process = until(lambda: text(folder / "process"), "the command")
    waiting.send_signal(number)
    waiting.communicate()
    assert waiting.returncode == (130 if number == signal.SIGINT else 85)
    assert not alive(process)


def test_a_command_takes_the_signals_itself(folder):
    write(folder, WAITING)
    waiting = start(*COMMAND, cwd=folder)
    until(lambda: text(folder / "process"), "the command")
    waiting.terminate()
    waiting.communicate()
    assert waiting.returncode == 85


def test_an_ignored_signal_stays_ignored(folder):
    code = "import os, signal; os.kill(os.getpid(), signal.SIGINT); print('alive')"
    command = ["/bin/sh", "-c", "trap '' INT; exec \"$@\"", "sh", *write(folder, code)]
    assert call(command, folder).stdout.startswith("alive")


def test_a_command_ends_with_its_killed_client(folder):
    write(folder, WAITING)
    waiting = start(*COMMAND, cwd=folder)
    process = until(lambda: text(folder / "process"), "the command")
    waiting.kill()
    waiting.communicate()
    until(lambda: not alive(process), "the end of the command")


def test_without_its_server_a_command_has_failed(folder):
    command = write(folder, WAITING)
    own, path = client.start()
    until(path.exists, "the server")
    surroundings = environment(PYTHONPATH=str(REPOSITORY), DIFFBENCH_SERVER=str(path))
    waiting = subprocess.Popen(
        command, cwd=folder, env=surroundings, stderr=subprocess.PIPE, text=True
    )
    process = until(lambda: text(folder / "process"), "the command")
    own.kill()
    own.wait()
    # What it would have removed.
    path.unlink()
    path.parent.rmdir()
    _, error = waiting.communicate()
    assert (waiting.returncode, error) == (1, "diffbench check-config: the job server has ended\n")
    until(lambda: not alive(process), "the end of the command")


def test_the_server_ends_with_the_process_that_started_it(tmp_path):
    code = "from diffbench.server.client import start; process, path = start(); print(process.pid, path)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment(PYTHONPATH=str(REPOSITORY)),
    )
    number, path = done.stdout.split()
    until(lambda: not alive(number), "the end of the server")
    assert not Path(path).parent.exists()


@pytest.mark.slow
def test_jobs_make_the_same_bytes_with_and_without_it(made):
    plan = plan_of(made)
    jobs = [
        plan.job("train", "iddpm-hybrid"),
        *plan.of("sample")[:2],
        *plan.of("score")[:1],
        *plan.of("likelihood")[:1],
    ]
    for job in jobs:
        products = [made / path for path in job.products]
        before = [files.sha256(path) for path in products]
        for path in products:
            path.unlink()
        words = [job.stage, "--root", job.root, "--spec", job.spec.canonical(), "--device", "cpu"]
        done = call(diffbench(*words), made, DIFFBENCH_SERVER="")
        assert done.returncode == 0, done.stderr
        assert [files.sha256(path) for path in products] == before


@pytest.mark.slow
@pytest.mark.parametrize("wanted", [True, False])
def test_a_run_of_several_jobs_starts_a_server_of_its_own_unless_told_not_to(made, wanted):
    for job in plan_of(made).of("likelihood")[:2]:
        (made / job.product).unlink()
    surroundings = environment(XDG_CACHE_HOME=str(made / ".cache"), **{client.VARIABLE: ""})
    if wanted:
        del surroundings[client.VARIABLE]
    command = [Path(sys.executable).with_name("snakemake"), "-s", REPOSITORY / "Snakefile", "-c1"]
    command += ["--configfile", CONFIG]
    running = subprocess.Popen(command, cwd=made, env=surroundings, stderr=subprocess.DEVNULL)
    found = False
    while running.poll() is None:
        found = found or any(serves(child) for child in children(running.pid))
        time.sleep(0.05)
    assert running.returncode == 0
    assert found == wanted


def children(process: int) -> list[int]:
    """The numbers of the processes that a process has started."""
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return [int(number) for task in tasks for number in text(task).split()]


def serves(process: int) -> bool:
    """Whether a process is a job server."""
    return "diffbench/server" in text(Path(f"/proc/{process}/cmdline"))


def text(path: Path) -> str:
    """A file's text, empty when there is none."""
    try:
        return path.read_text()
    except OSError:
        return ""


def alive(process: str | int) -> bool:
    """Whether there is such a process and it has not ended."""
    status = Path(f"/proc/{process}/status")
    return status.exists() and "State:\tZ" not in status.read_text()
