"""The canonical texts of jobs' specs, which hold the specs of other jobs, each made once.

The spec of a score of a thousand solvers holds the specs of a thousand samples, and each of these that of the one
training.  The text of the score is made of the texts of the samples, and theirs of the text of the training.  It is the
same as without that: JSON with sorted keys and no spaces is inside a larger one what it is alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import groupby
from typing import Any, get_args

from pydantic import BaseModel

_encoded = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


class Texts:
    """Canonical texts of jobs' specs; one that is held by several others is written once."""

    def __init__(self) -> None:
        # Each with its spec, so that no other spec gets its identity.
        self._known: dict[int, tuple[BaseModel, str]] = {}

    def of(self, spec: BaseModel) -> str:
        """Return a spec as JSON with sorted keys: the same text for the same spec, on any machine."""
        if id(spec) not in self._known:
            self._known[id(spec)] = spec, _object(self._members(spec))
        return self._known[id(spec)][1]

    def _members(self, spec: BaseModel) -> Iterator[str]:
        """Yield the members of the text in the order of their keys, several at once between those that are held."""
        held: dict[str, str] = {}
        for name, declared in _holding(type(spec)).items():
            if text := self._held(getattr(spec, name), declared):
                held[name] = text
        own = spec.model_dump(mode="json", exclude=set(held))
        for is_held, keys in groupby(sorted([*own, *held]), held.__contains__):
            if is_held:
                yield from (f"{_encoded(key)}:{held[key]}" for key in keys)
            else:
                yield _encoded({key: own[key] for key in keys})[1:-1]

    def _held(self, value: Any, declared: frozenset[Any]) -> str | None:
        """Return the text of jobs' specs in a field; None of anything else, as of a subclass that was not declared."""
        if type(value) in declared:
            return self.of(value)
        if isinstance(value, dict) and all(type(each) in declared for each in value.values()):
            return _object(f"{_encoded(key)}:{self.of(value[key])}" for key in sorted(value))
        return None


def _object(members: Iterable[str]) -> str:
    return f"{{{','.join(members)}}}"


@cache
def _holding(kind: type[BaseModel]) -> Mapping[str, frozenset[Any]]:
    """Return the fields that are always written and can hold specs of jobs, each with the classes it declares."""
    fields = {
        name: frozenset(_jobs_in(field.annotation))
        for name, field in kind.model_fields.items()
        if not (field.exclude or field.exclude_if or field.metadata)
    }
    return {name: declared for name, declared in fields.items() if declared}


def _jobs_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the classes of jobs' specs, which have a stage, in the type of a field."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if "stage" in annotation.model_fields:
            yield annotation
    else:
        for each in get_args(annotation):
            yield from _jobs_in(each)
