"""One training job on several processes: torchrun starts them, each with a GPU of its own.

They are on this machine, or on the nodes of an allocation of Slurm: then ``srun`` starts a launcher on each node, whose
torchruns meet at a port of the first.  A launcher waits, passes on the request to stop (SIGTERM, SIGUSR1, Ctrl-C) and
takes no part in the training.  Without GPUs the processes share the CPU, for tests.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from diffbench.specs.errors import INTERRUPTED, STOPPED
from diffbench.store import status
from diffbench.store.stopping import SIGNALS
from diffbench.training import gpus

#: torchrun, which does not start again what failed: the next call of the job goes on from its state.
TORCHRUN = ("-m", "torch.distributed.run", "--max-restarts", "0")
#: What starts a launcher on each node, beside the step of the allocation in which the job's own launcher runs.
SRUN = ("srun", "--overlap", "--cpu-bind=none", "--mem=0")
#: The environment variable for the seconds that torchrun waits at a stop before it kills its processes, and its value
#: here, which leaves time to save the state (torchrun's default is 30).
PATIENCE = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "300"
#: This package, which the processes run by its path.
PACKAGE = str(Path(__file__).resolve().parents[1])
#: The environment variable that torchrun sets for each of its processes.
LAUNCHED = "TORCHELASTIC_RUN_ID"
#: The environment variable with the place where the nodes of a job meet, HOST:PORT, for the launcher of each node.
MEETING = "DIFFBENCH_MEETING"


def launched() -> bool:
    """Whether torchrun started this process."""
    return LAUNCHED in os.environ


def rank() -> int:
    """The number of this process among those that train together."""
    return int(os.environ.get("RANK", 0)) if launched() else 0


def local_rank() -> int:
    """The number of this process among those on its machine."""
    return int(os.environ.get("LOCAL_RANK", 0)) if launched() else 0


def is_part() -> bool:
    """Whether this process has a part of a job that another began: one of torchrun's, or the launcher of a node."""
    return launched() or MEETING in os.environ


def launch(
    processes: int, arguments: Sequence[str], state: Path, *, on_gpus: bool, nodes: int = 1
) -> int:
    """Run ``diffbench`` with the given arguments in several processes; return the exit status.

    Args:
        processes: the number of processes on all nodes, two or more.
        arguments: the arguments of the command line, the stage first.
        state: the job's state folder, in which the processes write why they failed.
        on_gpus: whether each process gets a GPU of its own; the launcher of a node waits until enough are free.
        nodes: the number of nodes of the allocation, of which each has the same number of processes.

    Raises:
        RuntimeError: when there are fewer GPUs than processes, the nodes cannot share them, or there is no srun.
    """
    if processes % nodes:
        raise RuntimeError(
            f"gpus: {processes} processes cannot be shared equally by {nodes} nodes: make gpus a multiple of nodes"
        )
    if nodes > 1 and MEETING not in os.environ:
        code = _on_nodes(nodes, [*arguments, "--processes", str(processes), "--nodes", str(nodes)])
    else:
        code = _here(processes // nodes, nodes, arguments, on_gpus)
    if code == 1 and MEETING not in os.environ:
        failure = status.read_status(state) or {"reason": f"{processes} processes ended early"}
        print(f"diffbench {arguments[0]}: {failure['reason']}", file=sys.stderr)
    return code


def _on_nodes(nodes: int, arguments: Sequence[str]) -> int:
    """Start a launcher on each node; return the exit status."""
    if not shutil.which(SRUN[0]):
        raise RuntimeError(
            f"nodes: {nodes} need Slurm's srun, which is not found here: set nodes: 1"
        )
    with socket.socket() as free:
        free.bind(("", 0))
        place = f"{socket.gethostname()}:{free.getsockname()[1]}"
    command = [*SRUN, f"--ntasks={nodes}", sys.executable, PACKAGE, *arguments]
    # srun hands SIGUSR1 on to its tasks, and kills them when it gets SIGTERM itself.
    return _waited(command, os.environ | {MEETING: place}, signal.SIGUSR1)


def _here(processes: int, nodes: int, arguments: Sequence[str], on_gpus: bool) -> int:
    """Start the processes of this node; return the exit status."""
    environment = dict([("OMP_NUM_THREADS", "1"), PATIENCE]) | os.environ
    if on_gpus:
        names = gpus.entries()
        chosen = gpus.claim(gpus.visible(), processes)
        environment[gpus.VISIBLE] = ",".join(names[index] for index in chosen)
    meeting = ["--standalone"]
    if nodes > 1:
        place = os.environ[MEETING]
        meeting = ["--nnodes", str(nodes), "--rdzv-backend", "c10d", "--rdzv-id", place]
        meeting += ["--rdzv-endpoint", place]
    own = ["--nproc-per-node", str(processes), PACKAGE]
    command = [sys.executable, *TORCHRUN, *meeting, *own, *arguments]
    return _waited(command, environment, signal.SIGTERM)


def _waited(command: Sequence[str], environment: Mapping[str, str], stop: signal.Signals) -> int:
    """Run a command, hand the first request to stop on to it as a signal, and return the exit status."""
    # A started program inherits ignored signals.  SIGUSR1, which is sent to all, would otherwise end torchrun.
    before = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    child = subprocess.Popen(command, env=environment)
    asked: int | None = None

    def hand_on(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked is None:
            child.send_signal(stop)
        asked = number

    for number in SIGNALS:
        signal.signal(number, hand_on)
    code = child.wait()
    for number, handler in before.items():
        signal.signal(number, handler)
    if code and asked is not None:
        return INTERRUPTED if asked == signal.SIGINT else STOPPED
    return code if code in (STOPPED, INTERRUPTED) else min(abs(code), 1)
