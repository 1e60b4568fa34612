"""The job server: imports once what jobs need, and forks a process for each command that a client hands over.

A job's process starts in the client's folder, with its environment, umask and open files, and ends as any process: a
crash is its own. The server itself computes nothing, so that no thread and no GPU is in use when it forks. It ends
when its standard input is closed, that is with the process that started it, and no job is left. It is for Linux.
"""

from __future__ import annotations

import array
import atexit
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import traceback
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffbench.cli import main
from diffbench.server.client import PASSED_ON, die_with_parent, send, start_of
from diffbench.specs.errors import Stopped
from diffbench.specs.jobs import STAGES
from diffbench.store import run_record, runtime, stopping

#: What jobs import late, beside their own modules; the compiler's front is imported by every optimiser of PyTorch.
#: What reads data is left out: the first job imports it while this server starts.
LATE = ("diffbench.cli.jobs", "scipy.linalg", "torch.utils.flop_counter", "torch._dynamo")


def preload() -> None:
    """Import what jobs need; what fails to import is left to the job that needs it, which says why."""
    for name in (*(stage.module() for stage in STAGES.values()), *LATE):
        with suppress(Exception):
            importlib.import_module(name)
    with suppress(Exception):
        from diffbench.training import machine

        # What every job records.
        run_record.versions(), run_record.commit(), machine.kernels()
    forget_ends()
    gc.collect()
    # Pages with these objects are shared with all jobs as long as the collector leaves them alone.
    gc.freeze()


def forget_ends() -> None:
    """Let the libraries imported so far do nothing when a process ends, for that takes as long as a short job.

    What a job leaves for its end is done.
    """
    # Nothing public lists what `weakref.finalize` would call.
    for each in list(getattr(weakref.finalize, "_registry", ())):
        each.atexit = False
    with suppress(Exception):
        atexit.unregister(importlib.import_module("torch._dynamo.utils").dump_compile_times)


@dataclass
class Client:
    """A client's connection: what it has sent so far, its open files, and the process of its command."""

    connection: socket.socket
    received: bytearray = field(default_factory=bytearray)
    files: array.array[int] = field(default_factory=lambda: array.array("i"))
    process: int | None = None


class Server:
    """The server of one socket."""

    def __init__(self, path: Path) -> None:
        self.start = start_of(os.environ)
        self.clients: dict[int, Client] = {}
        self.listening = socket.socket(socket.AF_UNIX)
        # A client that finds the path must be heard: the socket gets it when it listens.
        unheard = path.with_name(f"{path.name}.new")
        self.listening.bind(str(unheard))
        self.listening.listen(64)
        unheard.rename(path)
        self.selector = selectors.DefaultSelector()
        self.ended, self.child_ended = socket.socketpair()
        self.child_ended.setblocking(False)
        self.open = True

    def serve(self) -> None:
        """Serve until standard input is closed and every job has ended."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self.child_ended.fileno(), warn_on_full_buffer=False)
        self.on(sys.stdin.fileno(), self.close)
        self.on(self.listening, self.accept)
        self.on(self.ended, self.reap)
        while self.open or self.clients:
            for key, _ in self.selector.select():
                # A connection may have been closed by an event before it.
                if key.fd in self.selector.get_map():
                    key.data()

    def on(self, source: Any, call: Callable[[], None]) -> None:
        """Call a function whenever there is something to read."""
        self.selector.register(source, selectors.EVENT_READ, call)

    def close(self) -> None:
        """Accept no further client once standard input is closed."""
        if not os.read(sys.stdin.fileno(), 1024):
            self.open = False
            self.selector.unregister(sys.stdin.fileno())
            self.selector.unregister(self.listening)
            self.listening.close()

    def accept(self) -> None:
        """Wait for the request of a new client."""
        connection, _ = self.listening.accept()
        client = Client(connection)
        self.clients[connection.fileno()] = client
        self.on(connection, lambda: self.read(client))

    def read(self, client: Client) -> None:
        """Take what a client sends: its request, then signals for its command; where it has ended, end its command."""
        try:
            data, files, _, _ = socket.recv_fds(client.connection, 2**16, 4)
        except OSError:
            data, files = b"", []
        client.files.extend(files)
        if not data:
            self.forget(client)
        elif client.process is not None:
            self.send_signals(client, data)
        else:
            client.received += data
            request, complete, signals = client.received.partition(b"\n")
            if complete:
                self.run(client, json.loads(request))
                self.send_signals(client, signals)

    def run(self, client: Client, request: Mapping[str, Any]) -> None:
        """Fork a process for a client's command, if it would have started as this server did."""
        if request["start"] != self.start:
            self.answer(client, refused=True)
            return
        # A signal waits until the command can heed it.
        signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
        process = os.fork()
        if process == 0:
            self.become(client, request)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
        client.process = process
        self.close_files(client)

    def become(self, client: Client, request: Mapping[str, Any]) -> None:
        """Be the process of a command, and end with it."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, *PASSED_ON):
                signal.signal(number, signal.SIG_DFL)
            for ignored in request["ignored"]:
                signal.signal(ignored, signal.SIG_IGN)
            stopping.heed()
            os.setsid()
            die_with_parent()
            for standard, file in enumerate(client.files[:3]):
                os.dup2(file, standard)
            others = [os.dup(file) for file in client.files[3:]]
            self.leave()
            os.chdir(request["folder"])
            os.umask(request["umask"])
            os.environ.clear()
            os.environ.update(request["environment"])
            # The number that the environment names is free now.
            for file in others:
                os.dup2(file, int(os.environ[runtime.OWN_STDERR]))
            sys.argv = ["diffbench", *request["arguments"]]
            status = exit_status(request["arguments"])
        finally:
            with suppress(Exception):
                atexit._run_exitfuncs()
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):
                    stream.flush()
            os._exit(status)

    def leave(self) -> None:
        """Close all that is the server's own in a process that it has forked."""
        self.selector.close()
        for each in (self.listening, self.ended, self.child_ended):
            each.close()
        for client in self.clients.values():
            client.connection.close()
            self.close_files(client)

    @staticmethod
    def send_signals(client: Client, numbers: Iterable[int]) -> None:
        """Send signals to the process of a command."""
        for number in numbers:
            if client.process is not None:
                with suppress(ProcessLookupError):
                    os.kill(client.process, number)

    def reap(self) -> None:
        """Tell the clients whose command has ended how it ended."""
        self.ended.recv(1024)
        for client in list(self.clients.values()):
            if client.process is None:
                continue
            process, status = os.waitpid(client.process, os.WNOHANG)
            if process:
                client.process = None
                code = os.waitstatus_to_exitcode(status)
                self.answer(client, **({"signal": -code} if code < 0 else {"status": code}))

    def answer(self, client: Client, **message: Any) -> None:
        """Answer a client and close its connection."""
        with suppress(OSError):
            send(client.connection, message)
        self.forget(client)

    def forget(self, client: Client) -> None:
        """Close a connection; a command whose client has ended ends too, as it would have with it."""
        if client.process is not None:
            with suppress(ProcessLookupError):
                os.kill(client.process, signal.SIGKILL)
            os.waitpid(client.process, 0)
        self.close_files(client)
        self.selector.unregister(client.connection)
        del self.clients[client.connection.fileno()]
        client.connection.close()

    @staticmethod
    def close_files(client: Client) -> None:
        """Close the copies of a client's files."""
        for file in client.files:
            os.close(file)
        del client.files[:]


def exit_status(arguments: list[str]) -> int:
    """Run a command and return the exit status, as the interpreter would at its end."""
    try:
        # What came since the process was forked can be heeded now.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
        return main(arguments)
    except Stopped as stopped:
        return stopping.last_words(" ".join(arguments[:1]), stopped)
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        print(error.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    return 1
