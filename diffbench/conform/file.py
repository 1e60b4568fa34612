"""What the laws say of the classes that an extension file registers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from diffbench.conform import (  # noqa: F401, each makes its laws known
    data,
    denoisers,
    inverse,
    likelihoods,
    measures,
    networks,
    objectives,
    processes,
    solvers,
    specs,
)
from diffbench.conform.law import IdleError, Verdict, judged
from diffbench.conform.trial import example
from diffbench.specs.base import Registered
from diffbench.specs.errors import PlanError, printable, shown
from diffbench.specs.registry import load_extension


def registered(module: str) -> Iterator[tuple[type[Registered], str, type[Registered]]]:
    """Return the kind, the name and the class of every spec that a module, or a module in it, has registered."""
    for kind in Registered.__subclasses__():
        for name, model in kind.known.items():
            if model.__module__ == module or model.__module__.startswith(f"{module}."):
                yield kind, name, model


def verdicts(path: Path, given: Mapping[str, Any] | None = None) -> dict[str, list[Verdict]]:
    """Return kind and name -> the verdicts on each class that a file registers.

    Args:
        path: the extension file.
        given: values of keys, for classes that have these keys; others have their defaults, or a small value.

    Raises:
        PlanError: when the file cannot be imported or registers nothing; when a class cannot be tried with its keys.
    """
    # A whole path: errors are known to be of this file by it.
    module = load_extension(path.resolve()).__name__
    found = list(registered(module))
    if not found:
        raise PlanError(
            f"{shown(path)} registers nothing: define a spec class with a name, such as name: Literal['mine'] = 'mine'"
        )
    return {
        f"{kind.kind} {name}": judged(_spec(kind, name, model, given or {}, path))
        for kind, name, model in found
    }


def _spec(
    kind: type[Registered], name: str, model: type[Registered], given: Mapping[str, Any], path: Path
) -> Registered:
    """Return the spec with which a class is tried."""
    keys = {key: value for key, value in given.items() if key in model.model_fields}
    try:
        return example(model, {kind.chosen_by: name, **keys})
    except IdleError as why:
        raise PlanError(f"{shown(path)}: {kind.kind} {name}: {why}") from why
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "its keys"
        told = printable(first["msg"])
        raise PlanError(
            f"{shown(path)}: {kind.kind} {name}: {key}: {told}; give keys with --set KEY=VALUE"
        ) from error


def report(path: Path, found: Mapping[str, list[Verdict]]) -> list[str]:
    """Return the verdicts in lines, with a sum at the end."""
    lines = []
    for what, each in found.items():
        lines += [f"{shown(path)}: {what}", *(verdict.line for verdict in each)]
    every = [verdict for each in found.values() for verdict in each]
    count = {
        outcome: sum(each.outcome == outcome for each in every) for outcome in ("passed", "failed")
    }
    rest = len(every) - sum(count.values())
    lines.append(f"{count['passed']} laws passed, {count['failed']} failed, {rest} do not apply")
    return lines
