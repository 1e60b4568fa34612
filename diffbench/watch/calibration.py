"""An estimate that is made in a process of its own, beside the first jobs of a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from diffbench.server.client import PACKAGE, THREAD_VARIABLES, VARIABLE

#: What makes an estimate short; finished jobs correct it.
SHORT = ("--steps", "1", "--no-compile", "--json")


class Calibration:
    """The command ``diffbench estimate``, as a process.

    Where the run has a job server, it is the server's client, and starts once the server is there: it then does not
    import torch.

    Args:
        arguments: the benchmark's file and settings.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self.arguments = arguments
        self.process: subprocess.Popen[bytes] | None = None
        self.over = False

    def seconds(self) -> dict[str, float] | None:
        """Return the seconds of each job when the estimate is there, once; start it when it can be."""
        if self.over:
            return None
        if self.process is None:
            self.start()
        elif self.process.poll() is not None:
            self.over = True
            return self.result()
        return None

    def start(self) -> None:
        """Start the process, unless a job server is still to come."""
        socket = os.environ.get(VARIABLE)
        if socket and not Path(socket).exists():
            return
        self.output = tempfile.TemporaryFile()  # noqa: SIM115, read when the process has ended
        environment = os.environ | dict.fromkeys(THREAD_VARIABLES, "1")
        self.process = subprocess.Popen(
            [sys.executable, str(PACKAGE), "estimate", *self.arguments, *SHORT],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def result(self) -> dict[str, float] | None:
        """Return the seconds of each job that is estimated; None where the command failed."""
        self.output.seek(0)
        try:
            jobs = json.loads(self.output.read())["jobs"]
            return {
                name: job["seconds"] for name, job in jobs.items() if job["seconds"] is not None
            }
        except (ValueError, KeyError, TypeError):
            return None
        finally:
            self.output.close()

    def stop(self) -> None:
        """End the process."""
        self.over = True
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
