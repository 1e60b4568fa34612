"""Which GPU a job takes: the first that no other job of this user on this machine holds.

Snakemake counts GPUs but does not say which one a job has.  So each GPU has a lock, a file with the GPU's UUID as its
name, which does not depend on CUDA_VISIBLE_DEVICES.  Only visible GPUs are taken.  The kernel frees a lock when its
process ends, however it ends.  Locks lie in a folder that is this user's alone (``store.runtime``); they are empty, and
are opened without following links and without changing what is there.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from diffbench.store import runtime

#: The environment variable with the folder of the locks; by default it is in this user's runtime folder.
FOLDER = "DIFFBENCH_GPU_LOCKS"
VISIBLE = "CUDA_VISIBLE_DEVICES"
#: Seconds between two attempts while too few GPUs are free.
PAUSE = 1.0

#: The open lock files that this process holds until it ends.
_held: list[int] = []


def folder() -> Path:
    """The folder of the locks, which is made when it is missing."""
    if chosen := os.environ.get(FOLDER):
        Path(chosen).mkdir(parents=True, exist_ok=True)
        return Path(chosen)
    return runtime.private(runtime.folder() / "gpus")


def _open(path: Path) -> int:
    """Open a lock file, which is made when it is missing."""
    return os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)


def visible() -> list[str]:
    """The names of the GPUs that this process may use, in the order of their numbers."""
    import torch

    found = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return [
        str(getattr(each, "uuid", entry)) for each, entry in zip(found, entries(), strict=False)
    ]


def entries() -> list[str]:
    """The visible GPUs as CUDA_VISIBLE_DEVICES lists them; their numbers where it is not set."""
    import torch

    listed = [each.strip() for each in os.environ.get(VISIBLE, "").split(",") if each.strip()]
    return listed or [str(index) for index in range(torch.cuda.device_count())]


def claim(names: Sequence[str], count: int = 1) -> list[int]:
    """Take GPUs until this process ends; wait while too few are free.

    Args:
        names: the names of the visible GPUs.
        count: the number of GPUs to take: all at once, or none.

    Returns:
        The indices of the taken GPUs in ``names``.

    Raises:
        RuntimeError: when ``count`` is larger than the number of visible GPUs.
    """
    if count > len(names):
        raise RuntimeError(f"gpus: {count}, but only {len(names)} are visible here: lower gpus")
    waiting = False
    while (taken := _attempt(names, count)) is None:
        if not waiting:
            print(
                f"waiting for {count} of {len(names)} GPUs: other jobs hold the locks in {folder()}",
                file=sys.stderr,
                flush=True,
            )
        waiting = True
        time.sleep(PAUSE)
    return taken


def _attempt(names: Sequence[str], count: int) -> list[int] | None:
    """Take the first free GPUs and return their indices; None, with nothing taken, where too few are free."""
    locks = folder()
    with ExitStack() as stack:

        def opened(name: str) -> int:
            file = _open(locks / name)
            stack.callback(os.close, file)
            return file

        # One job at a time: two jobs that want both of two GPUs would each take one.
        gate = opened("gate")
        fcntl.flock(gate, fcntl.LOCK_EX)
        taken: dict[int, int] = {}
        for index, name in enumerate(names):
            file = opened(f"{name.replace('/', '-')}.lock")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            taken[index] = file
            if len(taken) == count:
                stack.pop_all()
                os.close(gate)
                _held.extend(taken.values())
                return list(taken)
    return None
