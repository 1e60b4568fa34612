"""The client of the job server: hands a command over, passes signals on, and ends as the command ended.

It imports the standard library alone. Where there is no server, or where it has not the same start as this process
(interpreter, checkout, environment variables that are read at start), the command runs on its own: a stage's command in
a process that this one forks and waits for, so that there is somebody to say which signal killed it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from diffbench.store import runtime

#: The environment variable with the path of the server's socket.
VARIABLE = "DIFFBENCH_SERVER"
#: The signals that are passed on to the command.
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
#: Beginnings and ends of the environment variables that an interpreter or a library reads once, when it starts.
READ_AT_START = ("PYTHON", "LANG", "LC_", "LD_", "DYLD_", "MALLOC_", "TORCH_", "ATEN_", "DNNL_")
THREADS = "_THREADS"
#: The variables with the number of threads that Snakemake sets for a job.
THREAD_VARIABLES = tuple(
    f"{name}{THREADS}"
    for name in ("OMP_NUM", "GOTO_NUM", "OPENBLAS_NUM", "MKL_NUM", "NUMEXPR_NUM", "VECLIB_MAXIMUM")
)
#: Seconds after which the attempt to record a death is given up.
PATIENCE = 60
#: prctl's option for the signal that a process gets when its parent ends.
PARENT_DEATH = 1
#: Process, user and group at the other end of a socket.
CREDENTIALS = struct.Struct("3i")
PACKAGE = Path(__file__).resolve().parent.parent


def start() -> tuple[subprocess.Popen[bytes], Path]:
    """Start a job server for jobs of one thread; return its process and the path of its socket, there when it is ready.

    The server ends with this process, or when the standard input of the returned process is closed.
    """
    try:
        within: Path | None = runtime.folder()
    except runtime.RuntimeFolderError:
        # The name is random and the folder is new: it is this user's anywhere.
        within = None
    path = Path(tempfile.mkdtemp(prefix="diffbench-", dir=within)) / "socket"
    environment = os.environ | dict.fromkeys(THREAD_VARIABLES, "1")
    # A session of its own: Ctrl-C in a terminal is for the clients, which pass it on.
    process = subprocess.Popen(
        [sys.executable, str(PACKAGE / "server"), str(path)],
        env=environment,
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    return process, path


def start_of(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return what the start of a process depends on: a process that started otherwise may give other results."""
    read = {
        name: value
        for name, value in environment.items()
        if (name.startswith(READ_AT_START) or name.endswith(THREADS)) and name != "PYTHONPATH"
    }
    # The first entry is the checkout, or the folder in which a process started.
    path = [each for each in dict.fromkeys(sys.path[1:]) if each != str(PACKAGE.parent)]
    return {"python": sys.prefix, "package": str(PACKAGE), "path": path, "environment": read}


def watched(arguments: Sequence[str]) -> int | None:
    """Run a command in the job server, or a stage's command in a process of its own; return the exit status.

    A signal that ends the command is recorded as the job's failure, and ends this process too.

    Returns:
        None where the caller has to run the command: in the process that was forked for it, or where none was.
    """
    begin = time.monotonic()
    answer = served(arguments)
    if answer is None:
        answer = forked() if is_stage(arguments) else None
    if answer is None or "signal" not in answer:
        return None if answer is None else int(answer["status"])
    if is_stage(arguments):
        record_death(arguments, answer["signal"], time.monotonic() - begin)
    with contextlib.suppress(OSError):
        # SIGKILL has no handler.
        signal.signal(answer["signal"], signal.SIG_DFL)
    os.kill(os.getpid(), answer["signal"])
    return 1


def record_death(arguments: Sequence[str], number: int, seconds: float) -> None:
    """Record that a signal ended a stage's command, in a process of its own: an extension may end that one too."""
    process = os.fork()
    if process:
        os.waitpid(process, 0)
        return
    try:
        signal.alarm(PATIENCE)
        from diffbench.cli import jobs

        jobs.record_death(arguments, number, seconds)
    finally:
        os._exit(0)


def is_stage(arguments: Sequence[str]) -> bool:
    """Return whether a command runs one job, and not as one of several processes, which another one waits for."""
    on_linux = sys.platform == "linux"
    return on_linux and "--spec" in arguments and "TORCHELASTIC_RUN_ID" not in os.environ


def forked() -> dict[str, int] | None:
    """Fork a process and return how it ended, as the server's answer; None in that process.

    Signals are passed on to it, and it is killed when this process is.
    """
    parent = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
    process = os.fork()
    if process == 0:
        die_with_parent()
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
        return None

    def pass_on(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)

    for number in PASSED_ON:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    _, status = os.waitpid(process, 0)
    code = os.waitstatus_to_exitcode(status)
    return {"signal": -code} if code < 0 else {"status": code}


def die_with_parent() -> None:
    """Let this process be killed when its parent ends."""
    import ctypes

    ctypes.CDLL(None).prctl(PARENT_DEATH, signal.SIGKILL)


def served(arguments: Sequence[str]) -> dict[str, Any] | None:
    """Run a command in the job server; return its ``status``, or the ``signal`` that ended it.

    Returns:
        None where no server takes the command.
    """
    path = os.environ.get(VARIABLE)
    if not path:
        return None
    connection = socket.socket(socket.AF_UNIX)
    with connection:
        try:
            connection.connect(path)
        except OSError:
            # It has ended, is not ready yet, or belongs to another machine.
            return None
        if owner(connection) != os.getuid():
            return None
        with passing_on(connection) as heed:
            answer = asked(connection, arguments, heed)
    if answer.get("refused"):
        return None
    if "signal" in answer or "status" in answer:
        return answer
    print(f"diffbench {' '.join(arguments[:1])}: the job server has ended", file=sys.stderr)
    return {"status": 1}


def owner(connection: socket.socket) -> int:
    """Return the user at the other end of a connection: a command and its environment are for this user alone."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    return int(CREDENTIALS.unpack(credentials)[1])


def asked(
    connection: socket.socket, arguments: Sequence[str], heed: Callable[[], None]
) -> dict[str, Any]:
    """Send a command to the server and return the server's answer; an empty one when the server ends."""
    request = {
        "start": start_of(os.environ),
        "arguments": list(arguments),
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "umask": runtime.umask(),
        "ignored": [each for each in PASSED_ON if signal.getsignal(each) is signal.SIG_IGN],
    }
    try:
        own = runtime.own_stderr()
        send(connection, request, [0, 1, 2, *([] if own is None else [own])])
        heed()
        return receive(connection.makefile("rb"))
    except OSError:
        return {}


@contextlib.contextmanager
def passing_on(connection: socket.socket) -> Iterator[Callable[[], None]]:
    """A block in which the signals that this process gets are sent to the server, once the given function was called.

    Signals that are ignored stay so.
    """

    def pass_on(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(OSError):
            connection.sendall(bytes([number]))

    heard = [each for each in PASSED_ON if signal.getsignal(each) is not signal.SIG_IGN]
    # Held back until the request is sent: a signal's number must not stand in its middle.
    signal.pthread_sigmask(signal.SIG_BLOCK, heard)
    before = {each: signal.signal(each, pass_on) for each in heard}

    def heed() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, heard)

    try:
        yield heed
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        heed()


def send(connection: socket.socket, message: Mapping[str, Any], files: Sequence[int] = ()) -> None:
    """Send a message, and copies of open files with it."""
    line = json.dumps(message).encode() + b"\n"
    if files:
        socket.send_fds(connection, [line[:1]], list(files))
        line = line[1:]
    connection.sendall(line)


def receive(reader: Any) -> dict[str, Any]:
    """Return the next message; one without keys where the other side has ended."""
    line = reader.readline()
    found: dict[str, Any] = json.loads(line) if line.endswith(b"\n") else {}
    return found
