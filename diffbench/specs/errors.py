"""Errors that a user reads as one line: what is wrong, in which key or file, and what would be right."""

from __future__ import annotations

import signal
from pathlib import Path


def printable(text: object) -> str:
    r"""Return text in one line that a terminal shows as it is: control characters as ``\x1b``."""
    line = " ".join(str(text).split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


#: The exit status of a command that was asked to stop, whose next call goes on, and of one that Ctrl-C ended.
STOPPED, INTERRUPTED = 85, 130
#: Arguments of numpy and torch that let a file run code; their messages advise to set them.
UNSAFE = ("allow_pickle", "weights_only")


def told(error: BaseException) -> str:
    """Return what a library says of a file, without its advice to load the file in a way that runs code in it."""
    text = printable(error)
    return "it holds Python objects" if any(word in text for word in UNSAFE) else text


class Stopped(SystemExit):
    """The end of a command that was asked to stop; ``line`` says what became of its work."""

    def __init__(self, number: int = signal.SIGTERM, line: str = "") -> None:
        super().__init__(INTERRUPTED if number == signal.SIGINT else STOPPED)
        self.number = number
        how = (
            "interrupted"
            if number == signal.SIGINT
            else f"stopped by {signal.Signals(number).name}"
        )
        self.line = line or f"{how}: run the command again"


class UserError(Exception):
    """A mistake that the user can correct; its message is one line, printed without the error's type."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class PlanError(UserError, ValueError):
    """The configuration cannot be carried out."""


def shown(path: Path) -> str:
    """Return a path relative to the working directory where that is shorter."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
