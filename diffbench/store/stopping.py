"""Requests to stop: SIGTERM, SIGUSR1 and Ctrl-C, heeded from the first line of a command to its last.

A request ends what a command does by an exception, which a stage may catch to save what it has.  In a block under
`noted` it does not: the block asks `asked` when it can stop, as a training does after a step.

It imports no library, so that it is the first thing that a command does.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from diffbench.specs.errors import Stopped

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
#: Seconds within which several signals are one request: a terminal and a parent process may both send it.
ONE_REQUEST = 1.0


class _Requests:
    """The requests that this process got: the number of the first, and when the last was heeded."""

    number: int | None = None
    heeded: float = float("-inf")
    noting: bool = False

    def take(self, number: int, frame: FrameType | None) -> None:
        now, again = time.monotonic(), self.number is not None
        if now - self.heeded < ONE_REQUEST:
            return
        self.number, self.heeded = number, now
        # Whoever presses Ctrl-C twice does not want to wait for the end of a step.
        if not self.noting or (again and number == signal.SIGINT):
            raise Stopped(number)


_requests = _Requests()


def heed() -> None:
    """Heed requests to stop from now on; signals that this process ignores stay ignored."""
    _requests.number, _requests.heeded = None, float("-inf")
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _requests.take)


@contextmanager
def noted() -> Iterator[None]:
    """Only note requests in the block, for the block to ask for; outside of a command it heeds them too."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    unheeded = [
        number
        for number, handler in before.items()
        if handler in (signal.SIG_DFL, signal.default_int_handler)
    ]
    if unheeded:
        _requests.number = None
    for number in unheeded:
        signal.signal(number, _requests.take)
    _requests.noting = True
    try:
        yield
    finally:
        _requests.noting = False
        for number, handler in before.items():
            signal.signal(number, handler)


def asked() -> int | None:
    """Return the signal by which this process was asked to stop; None when it was not."""
    return _requests.number


def last_words(name: str, stopped: Stopped) -> int:
    """Print in one line what became of a command that was asked to stop, and return its exit status."""
    print(f"diffbench {name}: {stopped.line}", file=sys.stderr)
    return int(stopped.code or 0)
