"""Laws: what every class of a kind must obey, stated once for the package's own tests and for extensions.

A law is a function of a spec of its kind.  It returns where the class obeys it, raises ``LawError`` with the equation
that failed and the numbers, and ``IdleError`` where the law asks nothing of the class.  A kind is a direct subclass of
``Registered``: a law of ``ProcessSpec`` is asked of every process, and a law of ``Registered`` of every spec.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch

from diffbench.specs.base import Registered
from diffbench.specs.errors import printable
from diffbench.specs.extensions import extension_line

Check = Callable[[Any], None]
Outcome = Literal["passed", "failed", "does not apply"]


class LawError(Exception):
    """A law is not obeyed; the message has both sides of the equation."""


class IdleError(Exception):
    """A law asks nothing of a class; the message says why."""


@dataclass(frozen=True)
class Law:
    """A law of a kind: its ``name`` in a few words, its ``equation`` in symbols, and the ``check``."""

    kind: type[Registered]
    name: str
    equation: str
    check: Check


@dataclass(frozen=True)
class Verdict:
    """What a law says of a class; ``reason`` is why it failed or does not apply."""

    law: Law
    outcome: Outcome
    reason: str = ""

    @property
    def line(self) -> str:
        """The verdict in one line: the outcome, the law, and the equation with the numbers where it failed."""
        told = f"{self.reason}; the law: {self.law.equation}" if self.failed else self.reason
        return f"  {self.outcome:15} {self.law.name}" + (f": {told}" if told else "")

    @property
    def failed(self) -> bool:
        """Whether the law is not obeyed."""
        return self.outcome == "failed"


#: All laws, in the order in which they are asked.
LAWS: list[Law] = []


def law(kind: type[Registered], name: str, equation: str) -> Callable[[Check], Check]:
    """Return a decorator that makes a function of a spec a law of a kind."""

    def register(check: Check) -> Check:
        LAWS.append(Law(kind, name, equation, check))
        return check

    return register


def laws_of(kind: type[Registered]) -> Iterator[Law]:
    """Return the laws of a spec's class: those of its kind and those of all specs."""
    return (each for each in LAWS if issubclass(kind, each.kind))


def judged(spec: Registered) -> list[Verdict]:
    """Return the verdict of every law of a spec's kind, in their order."""
    return [verdict(each, spec) for each in laws_of(type(spec))]


def verdict(asked: Law, spec: Registered) -> Verdict:
    """Return what a law says of the class of a spec; an error of the class is a failure.

    The global random state of torch is as it was before.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            asked.check(spec)
    except IdleError as why:
        return Verdict(asked, "does not apply", str(why))
    except LawError as why:
        return Verdict(asked, "failed", str(why))
    except Exception as error:
        place = extension_line(error)
        raised = f"{type(error).__name__}: {printable(error)}"
        return Verdict(asked, "failed", f"{place}: {raised}" if place else raised)
    return Verdict(asked, "passed")


def demand(holds: object, reason: str) -> None:
    """Refuse what is not so.

    Raises:
        LawError: with the reason.
    """
    if not holds:
        raise LawError(reason)


def unless(idle: object, reason: str) -> None:
    """Leave a law that asks nothing.

    Raises:
        IdleError: with the reason, where it asks nothing.
    """
    if idle:
        raise IdleError(reason)
