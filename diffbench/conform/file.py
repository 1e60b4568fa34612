"""What the laws say of the classes that an extension registers."""

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
from diffbench.specs.errors import PlanError, printable
from diffbench.specs.extensions import ExtensionSource, source, source_of


def registered(
    loaded: ExtensionSource,
) -> Iterator[tuple[type[Registered], str, type[Registered]]]:
    """Yield the kind, the name and the class of every spec that a source has registered."""
    for kind in Registered.__subclasses__():
        for name, model in kind.known.items():
            found = source_of(model)
            if found is not None and found.words == loaded.words:
                yield kind, name, model


def verdicts(named: str | Path, given: Mapping[str, Any] | None = None) -> dict[str, list[Verdict]]:
    """Return kind and name -> the verdicts on each class that an extension registers.

    Args:
        named: a Python file, a folder that is a package, or the name of an installed extension.
        given: values of keys, for classes that have these keys; others have their defaults, or a small value.

    Raises:
        PlanError: when it cannot be imported or registers nothing; when a class cannot be tried with its keys.
    """
    loaded = source(named)
    loaded.load()
    found = list(registered(loaded))
    if not found:
        raise PlanError(
            f"{loaded.told} registers nothing: define a spec class with a name, such as name: Literal['mine'] = 'mine'"
        )
    return {
        f"{kind.kind} {name}": judged(_spec(kind, name, model, given or {}, loaded.told))
        for kind, name, model in found
    }


def _spec(
    kind: type[Registered], name: str, model: type[Registered], given: Mapping[str, Any], told: str
) -> Registered:
    """Return the spec with which a class is tried."""
    keys = {key: value for key, value in given.items() if key in model.model_fields}
    try:
        return example(model, {kind.chosen_by: name, **keys})
    except IdleError as why:
        raise PlanError(f"{told}: {kind.kind} {name}: {why}") from why
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "its keys"
        reason = printable(first["msg"])
        raise PlanError(
            f"{told}: {kind.kind} {name}: {key}: {reason}; give keys with --set KEY=VALUE"
        ) from error


def report(named: str | Path, found: Mapping[str, list[Verdict]]) -> list[str]:
    """Return the verdicts in lines, with a sum at the end."""
    lines, told = [], source(named).told
    for what, each in found.items():
        lines += [f"{told}: {what}", *(verdict.line for verdict in each)]
    every = [verdict for each in found.values() for verdict in each]
    count = {
        outcome: sum(each.outcome == outcome for each in every) for outcome in ("passed", "failed")
    }
    rest = len(every) - sum(count.values())
    lines.append(f"{count['passed']} laws passed, {count['failed']} failed, {rest} do not apply")
    return lines
