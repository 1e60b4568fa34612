"""One training job on several processes: torchrun starts them on this machine, each with a GPU of its own.

The launcher waits, hands on the request to stop (SIGTERM, SIGUSR1) and has no part in the training.  Without GPUs the
processes share the CPU, which is for tests.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from diffbench.store import status
from diffbench.training import gpus

#: Exit status of a run that saved its state when asked to stop: call again to go on.
STOPPED = 85
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
#: What torchrun is asked: a meeting point of this run alone, on a port that is free.
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--max-restarts", "0")
#: Seconds that torchrun gives its processes to save their state when asked to stop, before it kills them; 30 otherwise.
PATIENCE = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "300"
#: Set by torchrun for each of its processes.
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
    """Run ``diffbench`` with these arguments in so many processes; return the exit status.

    Args:
        processes: two or more.
        arguments: of the command line, the stage first.
        state: the job's state folder, whose earlier failure is forgotten; the processes note theirs.
        on_gpus: whether each is to have a GPU of its own; this process waits until as many are free.

    Raises:
        RuntimeError: when there are fewer GPUs than processes.
    """
    status.clear(state)
    command = [sys.executable, *TORCHRUN, "--nproc-per-node", str(processes), "-m", "diffbench"]
    environment = dict([("OMP_NUM_THREADS", "1"), PATIENCE]) | os.environ
    if on_gpus:
        names = gpus.entries()
        chosen = gpus.claim(gpus.visible(), processes)
        environment[gpus.VISIBLE] = ",".join(names[index] for index in chosen)
    # Ignored signals stay so in the programs that are started: SIGUSR1, sent to all, would end torchrun.
    before = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    child = subprocess.Popen([*command, *arguments], env=environment)
    asked = False

    def hand_on(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        child.terminate()

    for number in SIGNALS:
        signal.signal(number, hand_on)
    code = child.wait()
    for number, handler in before.items():
        signal.signal(number, handler)
    if code and asked:
        return STOPPED
    if code:
        failure = status.read_status(state) or {"reason": f"{processes} processes ended early"}
        print(f"diffbench {arguments[0]}: {failure['reason']}", file=sys.stderr)
    return min(abs(code), 1)
