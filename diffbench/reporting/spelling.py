"""Earlier names of keys of tables, figures, metrics and claims: refused with the new name (see ``migrate``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from diffbench.plan.document import Keys
from diffbench.plan.reading import Tree, dotted
from diffbench.specs.errors import PlanError, shown

GONE = "the metric's `better`"
#: The earlier path of a key (``*`` is any key or index, the last part the key) -> its name now.
MOVED: Mapping[tuple[str, ...], str] = {
    ("metrics", "*", "best"): "better",
    ("tables", "*", "name"): "layout",
    ("tables", "*", "metrics"): "columns",
    ("tables", "*", "truth"): "where_known",
    ("tables", "*", "each", "solvers"): "item",
    ("tables", "*", "each", "likelihoods"): "columns",
    ("tables", "*", "each", "cells"): "columns",
    ("tables", "*", "rows", "*", "solvers"): "item",
    ("tables", "*", "rows", "*", "likelihoods"): "cells",
    ("figures", "*", "name"): "layout",
    ("figures", "*", "analysis"): "item",
    ("figures", "*", "series", "*", "likelihood"): "item",
    ("figures", "*", "series", "*", "analysis"): "item",
    ("*", "direction"): GONE,
    **{
        ("*", side, *several, key): "item"
        for side in ("better", "worse")
        for several in ((), ("*",))
        for key in ("solver", "likelihood")
    },
}
#: The same by the key, for few keys of a file have moved.
BY_KEY: dict[str | int, list[tuple[str, ...]]] = {
    key: [path for path in MOVED if path[-1] == key] for key in {path[-1] for path in MOVED}
}


def refuse_old(tree: Tree, file: Path) -> None:
    """Refuse a file that has an earlier spelling.

    Raises:
        PlanError: naming the first such key, and its name now.
    """
    for keys, new in old_keys(tree.value):
        raise PlanError(
            f"{tree.where(keys)}: {dotted(keys)}: {keys[-1]!r} is now {_called(new)}: "
            f"`diffbench migrate {shown(file)}` rewrites the file"
        )


def _called(new: str) -> str:
    return new if new == GONE else repr(new)


def old_keys(value: Any, keys: Keys = ()) -> Iterator[tuple[Keys, str]]:
    """Yield the paths of keys that have moved, and their new names, in the order of the file."""
    children = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, child in children:
        path = (*keys, key)
        if isinstance(value, dict) and (new := _new_name(path)):
            yield path, new
        yield from old_keys(child, path)


def _new_name(path: Keys) -> str | None:
    for pattern in BY_KEY.get(path[-1], ()):
        pairs = zip(pattern, path, strict=False)
        if len(pattern) == len(path) and all(part in ("*", key) for part, key in pairs):
            return MOVED[pattern]
    return None
