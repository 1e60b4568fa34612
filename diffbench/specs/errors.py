"""Errors that a user reads as one line: what is wrong, in which key or file, and what would be right."""

from __future__ import annotations

from pathlib import Path


def printable(text: object) -> str:
    r"""Return text in one line that a terminal shows as it is: control characters as ``\x1b``."""
    line = " ".join(str(text).split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


#: The exit status of a run that saved its state when asked to stop; the same call continues it.
STOPPED = 85
#: Arguments of numpy and torch that let a file run code; their messages advise to set them.
UNSAFE = ("allow_pickle", "weights_only")


def told(error: BaseException) -> str:
    """Return what a library says of a file, without its advice to load the file in a way that runs code in it."""
    text = printable(error)
    return "it holds Python objects" if any(word in text for word in UNSAFE) else text


def asked_to_stop(error: BaseException) -> bool:
    """Whether an error is the exit of a run that was asked to stop, which is no failure."""
    return isinstance(error, SystemExit) and error.code == STOPPED


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
