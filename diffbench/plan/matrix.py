"""Which registered solvers and likelihoods can serve which registered processes, and why the others cannot.

The needs of specs (``specs.needs``) decide this without a benchmark.  Each spec has its defaults; a solver with the key
``steps`` has ``STEPS`` of them, and a required choice is the first that is allowed.  A spec that cannot be made so,
because a required number has no default, serves no process here, and the footnote says why.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError

from diffbench.specs.base import Registered
from diffbench.specs.likelihoods import LikelihoodSpec
from diffbench.specs.processes import ProcessSpec
from diffbench.specs.solvers import SolverSpec

YES = "yes"
STEPS = 50
WIDTH = 100


@dataclass(frozen=True)
class Matrix:
    """The matrix of what serves which process; as text it has aligned columns.

    Attributes:
        processes: the names of the columns.
        rows: ``solvers`` and ``likelihoods`` -> name -> a cell for each process, ``yes`` or the number
            of a footnote, ``[1]``.
        footnotes: each distinct reason once, the first with the number 1.
    """

    processes: Sequence[str]
    rows: Mapping[str, Mapping[str, Sequence[str]]]
    footnotes: Sequence[str]

    def __str__(self) -> str:
        """Return the matrix as text; footnotes are wrapped."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        named = [*self.rows, *(name for rows in self.rows.values() for name in rows)]
        first = max(map(len, named))
        for heading, rows in self.rows.items():
            yield from ([""] if heading != next(iter(self.rows)) else [])
            for name, cells in {heading: self.processes, **rows}.items():
                yield f"{name:{first}}  {self._aligned(cells)}".rstrip()
        yield from [""] if self.footnotes else []
        for number, reason in enumerate(self.footnotes, 1):
            yield from _hanging(f"[{number}] ", reason)

    def _aligned(self, cells: Sequence[str]) -> str:
        widths = (max(len(process), len(YES) + 1) for process in self.processes)
        return "  ".join(f"{cell:{width}}" for cell, width in zip(cells, widths, strict=True))


def _hanging(number: str, reason: str) -> list[str]:
    return wrap(reason, WIDTH, initial_indent=number, subsequent_indent=" " * len(number))


def matrix() -> Matrix:
    """Return the matrix of everything that is registered now."""
    processes = {name: example(model) for name, model in sorted(ProcessSpec.known.items())}
    footnotes: dict[str, int] = {}

    def cell(choice: Any, process: Any) -> str:
        reason = refusal(choice, process)
        return f"[{footnotes.setdefault(reason, len(footnotes) + 1)}]" if reason else YES

    choices = {
        "solvers": {name: example(model, STEPS) for name, model in _sorted(SolverSpec)},
        "likelihoods": {name: example(model) for name, model in _sorted(LikelihoodSpec)},
    }
    rows = {
        heading: {
            name: [cell(choice, process) for process in processes.values()]
            for name, choice in named.items()
        }
        for heading, named in choices.items()
    }
    return Matrix(list(processes), rows, list(footnotes))


def _sorted(kind: type[Registered]) -> list[tuple[str, type[Registered]]]:
    return sorted(kind.known.items())


def refusal(choice: Any, process: Any) -> str | None:
    """Return why a solver or likelihood cannot serve a process; None when it can.

    Args:
        choice: its spec, or the reason why there is none (see ``example``).
        process: the process's spec, or the reason why there is none.
    """
    lacking = next((each for each in (choice, process) if isinstance(each, str)), None)
    reason: str | None = lacking or choice.refusal(process)
    return reason


def example(model: type[Registered], steps: int | None = None) -> Registered | str:
    """Return a spec with its defaults, or the reason why there is none.

    Args:
        model: the spec's class; of each required choice the first is taken.
        steps: its ``steps``, where it has such a field; None for the default.
    """
    name, fields = model.model_fields["name"].default, model.model_fields
    required = {key: field.annotation for key, field in fields.items() if field.is_required()}
    given = {key: get_args(t)[0] for key, t in required.items() if get_origin(t) is Literal}
    if steps is not None and "steps" in fields:
        given["steps"] = steps
    if lacking := [key for key in required if key not in given]:
        return f"{name} has no default for {', '.join(lacking)}"
    try:
        return model.model_validate(given)
    except ValidationError as error:
        return f"the defaults of {name} are not a valid {model.kind}: {error.errors()[0]['msg']}"
