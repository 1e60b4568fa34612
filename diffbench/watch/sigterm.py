"""SIGTERM to a run: Snakemake's own handler, called in a thread of its own.

Snakemake's handler waits for its scheduler's lock.  A handler interrupts the main thread, which may hold that lock, as
it does while it finishes a job: the handler would then wait for ever, and the run with it (Snakemake 9.27.1,
``JobScheduler.exit_gracefully``).  In another thread it waits until the main thread has gone on.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType


def heed_apart() -> None:
    """Call the present handler of SIGTERM, if there is one, in a thread of its own from now on."""
    handler = signal.getsignal(signal.SIGTERM)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        return

    def heed(number: int, frame: FrameType | None) -> None:
        threading.Thread(target=handler, args=(number, frame), daemon=True).start()

    signal.signal(signal.SIGTERM, heed)
