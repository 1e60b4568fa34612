"""Errors that a user reads as one line: what is wrong, in which key or file, and what would be right."""

from __future__ import annotations

from pathlib import Path


class UserError(Exception):
    """A mistake that the user can correct; its message is one line, printed without the error's type."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class PlanError(UserError, ValueError):
    """The configuration cannot be carried out."""


def shown(path: Path) -> str:
    """Return a path relative to the working directory where that is shorter."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
