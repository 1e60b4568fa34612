"""Which GPU a job takes: the first that no other job of this user on this machine holds.

Snakemake counts GPUs but names none.  So each GPU has a lock, a file called by the GPU's UUID, which is the same
whatever CUDA_VISIBLE_DEVICES shows a job and calls it; only what is visible is ever taken.  The kernel frees a lock
when its process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

#: Where the locks are, when not in a folder of this user's for temporary files.
FOLDER = "DIFFBENCH_GPU_LOCKS"
VISIBLE = "CUDA_VISIBLE_DEVICES"
#: Seconds between two looks at GPUs that are all taken.
PAUSE = 1.0

#: What this process holds, until it ends.
_held: list[IO[str]] = []


def folder() -> Path:
    """The folder of the locks."""
    own = f"diffbench-gpus-{os.getuid()}"
    return Path(os.environ.get(FOLDER) or Path(tempfile.gettempdir()) / own)


def visible() -> list[str]:
    """The names of the GPUs that this process may use, in the order of their numbers."""
    import torch

    found = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return [
        str(getattr(each, "uuid", entry)) for each, entry in zip(found, entries(), strict=False)
    ]


def entries() -> list[str]:
    """What CUDA_VISIBLE_DEVICES calls the visible GPUs; their numbers where it is not set."""
    import torch

    listed = [each.strip() for each in os.environ.get(VISIBLE, "").split(",") if each.strip()]
    return listed or [str(index) for index in range(torch.cuda.device_count())]


def claim(names: Sequence[str], count: int = 1) -> list[int]:
    """Take GPUs until this process ends; wait while too few are free.

    Args:
        names: of the visible GPUs.
        count: how many are wanted: all of them are taken at once, or none.

    Returns:
        Their indices in ``names``.

    Raises:
        RuntimeError: when more are wanted than there are.
    """
    if count > len(names):
        raise RuntimeError(
            f"gpus: {count} are wanted, and {len(names)} are visible here: a smaller `gpus:`"
        )
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
    """Take the first free ones; None, and nothing taken, where they are too few."""
    place = folder()
    place.mkdir(parents=True, exist_ok=True)
    with (place / "gate").open("w") as gate, ExitStack() as stack:
        # One job looks at a time: two that want two of two would each take one.
        fcntl.flock(gate, fcntl.LOCK_EX)
        taken: dict[int, IO[str]] = {}
        for index, name in enumerate(names):
            file = stack.enter_context((place / f"{name.replace('/', '-')}.lock").open("w"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            taken[index] = file
            if len(taken) == count:
                stack.pop_all()
                _held.extend(taken.values())
                return list(taken)
    return None
