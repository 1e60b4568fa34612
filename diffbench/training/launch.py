"""One training job on several processes: torchrun starts them on this machine, each with a GPU of its own.

The launcher waits, passes on the request to stop (SIGTERM, SIGUSR1, Ctrl-C) and takes no part in the training.  Without
GPUs the processes share the CPU, for tests.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from diffbench.specs.errors import INTERRUPTED, STOPPED
from diffbench.store import status
from diffbench.store.stopping import SIGNALS
from diffbench.training import gpus

#: The arguments of torchrun: a rendezvous for this run alone, on a free port.
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--max-restarts", "0")
#: The environment variable for the seconds that torchrun waits at a stop before it kills its processes, and its value
#: here, which leaves time to save the state (torchrun's default is 30).
PATIENCE = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "300"
#: This package, which the processes run by its path.
PACKAGE = str(Path(__file__).resolve().parents[1])
#: The environment variable that torchrun sets for each of its processes.
LAUNCHED = "TORCHELASTIC_RUN_ID"


def launched() -> bool:
    """Whether torchrun started this process."""
    return LAUNCHED in os.environ


def rank() -> int:
    """The number of this process among those that train together."""
    return int(os.environ.get("RANK", 0)) if launched() else 0


def local_rank() -> int:
    """The number of this process among those on its machine."""
    return int(os.environ.get("LOCAL_RANK", 0)) if launched() else 0


def launch(processes: int, arguments: Sequence[str], state: Path, *, on_gpus: bool) -> int:
    """Run ``diffbench`` with the given arguments in several processes; return the exit status.

    Args:
        processes: the number of processes, two or more.
        arguments: the arguments of the command line, the stage first.
        state: the job's state folder, in which the processes write why they failed.
        on_gpus: whether each process gets a GPU of its own; this process waits until enough are free.

    Raises:
        RuntimeError: when there are fewer GPUs than processes.
    """
    command = [sys.executable, *TORCHRUN, "--nproc-per-node", str(processes), PACKAGE]
    environment = dict([("OMP_NUM_THREADS", "1"), PATIENCE]) | os.environ
    if on_gpus:
        names = gpus.entries()
        chosen = gpus.claim(gpus.visible(), processes)
        environment[gpus.VISIBLE] = ",".join(names[index] for index in chosen)
    # A started program inherits ignored signals.  SIGUSR1, which is sent to all, would otherwise end torchrun.
    before = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    child = subprocess.Popen([*command, *arguments], env=environment)
    asked: int | None = None

    def hand_on(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = number
        child.terminate()

    for number in SIGNALS:
        signal.signal(number, hand_on)
    code = child.wait()
    for number, handler in before.items():
        signal.signal(number, handler)
    if code and asked is not None:
        return INTERRUPTED if asked == signal.SIGINT else STOPPED
    if code:
        failure = status.read_status(state) or {"reason": f"{processes} processes ended early"}
        print(f"diffbench {arguments[0]}: {failure['reason']}", file=sys.stderr)
    return min(abs(code), 1)
