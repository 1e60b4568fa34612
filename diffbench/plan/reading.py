"""YAML with line numbers, and error messages of one line that say where the error is.

A ``Tree`` is a plain value with the origin (``config/digits.yaml:12``) of each of its keys; merging
trees keeps the origins, so a mistake is reported where it was written even after defaults, methods,
overrides and the command line have been laid over each other.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import ValidationError

from diffbench.plan import document
from diffbench.plan.document import Keys
from diffbench.specs.base import Registered, Spec
from diffbench.specs.errors import PlanError, shown
from diffbench.store import files

T = TypeVar("T")

#: The key at the top of a YAML file that lets Snakemake's own reader run code in it.
CODE = "__use_yte__"


@dataclass(frozen=True)
class Tree:
    """A value, and for each path of keys in it the place where it was written."""

    value: Any
    origins: dict[Keys, str] = field(default_factory=dict)

    def part(self, *keys: str | int) -> Tree:
        """Return the part below ``keys``; an empty mapping where there is none."""
        tree = self
        for key in keys:
            value = tree.value.get(key, {}) if isinstance(tree.value, dict) else {}
            tree = Tree(value, tree._below.get(key, {}))
        return tree

    @cached_property
    def _below(self) -> dict[str | int, dict[Keys, str]]:
        """The origins below each key; a benchmark's methods have thousands."""
        below: dict[str | int, dict[Keys, str]] = {}
        for path, origin in self.origins.items():
            if path:
                below.setdefault(path[0], {})[path[1:]] = origin
        return below

    def where(self, keys: Keys) -> str:
        """Return the origin of ``keys``, or of the nearest key above them."""
        for n in range(len(keys), -1, -1):
            if keys[:n] in self.origins:
                return self.origins[keys[:n]]
        return "config"

    def under(self, over: Tree) -> Tree:
        """Lay another tree over this one.

        Mappings merge key by key.  A mapping that chooses another ``name`` replaces the one below it,
        because the parameters of the old choice are not those of the new one.
        """
        if not (isinstance(self.value, dict) and isinstance(over.value, dict)):
            return over
        chosen = over.value.get("name")
        if chosen is not None and self.value.get("name", chosen) != chosen:
            return over
        return self.merged(over)

    def merged(self, over: Tree) -> Tree:
        """Lay another mapping over this one, key by key; a ``name`` is a key like any other."""
        first = self if self.value else over
        both: dict[str, Tree] = {}
        for key in [*self.value, *(key for key in over.value if key not in self.value)]:
            parts = [tree.part(key) for tree in (self, over) if key in tree.value]
            both[key] = parts[0] if len(parts) == 1 else parts[0].under(parts[1])
        return Tree({}, {(): first.where(())}).having(both)

    def having(self, parts: Mapping[str, Tree]) -> Tree:
        """Return this mapping with each of these keys set to a tree."""
        value, origins = dict(self.value), dict(self.origins)
        for key, part in parts.items():
            value[key] = part.value
            origins.update({(key, *path): origin for path, origin in part.origins.items()})
        return Tree(value, origins)

    def mapped(self, change: Callable[[Any], Any]) -> Tree:
        """Return this tree with every scalar changed by a function."""
        return Tree(_mapped(self.value, change), self.origins)

    def without(self, key: str) -> Tree:
        """Return this mapping without one key."""
        kept = {name: value for name, value in self.value.items() if name != key}
        origins = {path: origin for path, origin in self.origins.items() if path[:1] != (key,)}
        return Tree(kept, origins)


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, dict):
        return {key: _mapped(each, change) for key, each in value.items()}
    if isinstance(value, list):
        return [_mapped(each, change) for each in value]
    return change(value)


def read(path: Path) -> Tree:
    """Read a YAML file whose top is a mapping.

    Raises:
        PlanError: when the file is missing, unreadable or too large, is not YAML, or has a key twice.
    """
    name = shown(path)
    try:
        text = files.read_bytes(path, document.LARGEST).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise PlanError(f"{name}: not UTF-8 text") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise PlanError(f"{name}: {reason.lower()}") from None
    return parsed(text, name)


@lru_cache(maxsize=16)
def parsed(text: str, name: str) -> Tree:
    """Return the tree of a YAML text whose top is a mapping, and whose file is called ``name`` in messages.

    All who read the same text share the tree, so that nobody may change it.

    Raises:
        PlanError: when it is not YAML, has a key twice, or is larger than a document may be.
    """
    value, origins = document.parsed(text, name)
    if not isinstance(value, dict):
        raise PlanError(f"{name}: must be a mapping (key: value)")
    if CODE in value:
        raise PlanError(
            f"{origins[CODE,]}: {CODE}: Snakemake would run the code in a file with this key: remove it, and take "
            "benchmark files only from people whom you trust with your account"
        )
    return Tree(value, origins)


def overriding(values: Mapping[str, Any], origin: str = "--config") -> Tree:
    """Make a tree of the command line's values; ``training.lr`` means ``training: {lr: ...}``."""
    tree = Tree({}, {(): origin})
    for key, value in values.items():
        for part in reversed(str(key).split(".")):
            value = {part: value}
        tree = tree.under(Tree(value, {(): origin}))
    return Tree(tree.value, {(): origin} | _paths(tree.value, (), origin))


def _paths(value: Any, keys: Keys, origin: str) -> dict[Keys, str]:
    children = value.items() if isinstance(value, dict) else ()
    found = {keys: origin}
    for key, child in children:
        found |= _paths(child, (*keys, key), origin)
    return found


def dotted(keys: Iterable[str | int]) -> str:
    """Return a path of keys as users write it; of a long key its start."""
    return ".".join(_start(str(key)) for key in keys)


def nearest(word: object, known: Iterable[str]) -> str:
    """Return ``; did you mean 'beta_min'?`` for the nearest known name, else what is known."""
    names = list(known)
    close = difflib.get_close_matches(str(word), names, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(sorted(names))}" if names else ""


def refuse_unknown(what: str, name: str, known: Iterable[str], where: object) -> None:
    """Refuse a name that is not among the known ones of a file.

    Raises:
        PlanError: with the nearest name.
    """
    names = list(known)
    if name not in names:
        raise PlanError(f"no {what} {name!r} in {where}{nearest(name, names)}")


def validated(make: Callable[[Any], T], model: Any, tree: Tree, prefix: Keys = ()) -> T:
    """Return what a tree is validated to, or raise an error of one line.

    Args:
        make: turns the tree's value into a spec (``BenchmarkSpec.model_validate``).
        model: the type of what is made, whose field names are suggested for a wrong key.
        tree: the value and its origins.
        prefix: keys to show before the tree's own.

    Raises:
        PlanError: with the file, the line, the key, the value and the nearest valid name.
    """
    try:
        return make(tree.value)
    except ValidationError as error:
        # A misspelt key is reported rather than the key that is missing because of it.
        errors = error.errors(include_url=False)
        first = min(errors, key=lambda each: each["type"] != "extra_forbidden")
        keys = _keys(tree.value, first["loc"])
        reason = _reason(model, tree.value, keys, first)
        parts = [tree.where(keys), dotted((*prefix, *keys)), reason]
        raise PlanError(": ".join(part for part in parts if part)) from None


def _keys(value: Any, located: tuple[str | int, ...]) -> Keys:
    """Return the keys in the value of where pydantic located an error, without the kinds and branches between them."""
    found: list[str | int] = []
    for key in located:
        inside = (isinstance(value, dict) and key in value) or (
            isinstance(value, list | tuple) and isinstance(key, int) and 0 <= key < len(value)
        )
        # A key that is missing is not inside; nothing can lie below it.
        if inside or (key == located[-1] and isinstance(value, dict) and key != "[key]"):
            found.append(key)
            value = value[key] if inside else None
    return tuple(found)


#: What users call the types that pydantic names.
WORDS = {
    "dict_type": "must be a mapping (key: value)",
    "model_type": "must be a mapping (key: value)",
    "model_attributes_type": "must be a mapping (key: value)",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "string_type": "must be text",
    "int_from_float": "must be a whole number",
    "int_type": "must be a whole number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "less_than_equal": "must be at most {le:,}",
    "too_short": "must have at least {min_length} {items}",
    "too_long": "must have at most {max_length} {items}",
}


def _message(error: Mapping[str, Any]) -> str:
    """Return what is wrong, in a user's words."""
    context = dict(error.get("ctx", {}))
    count = context.get("min_length", context.get("max_length"))
    if words := WORDS.get(error["type"]):
        return words.format(**context, items="item" if count == 1 else "items")
    message = str(error["msg"]).removeprefix("Value error, ")
    return re.sub("^(Input|Value|String) should", "must", message)


def _reason(model: Any, value: Any, keys: Keys, error: Mapping[str, Any]) -> str:
    given = error["input"]
    if error["type"] == "extra_forbidden":
        parent = _model_at(model, value, keys[:-1])
        names = parent.model_fields if parent else ()
        return f"unknown key {keys[-1]!r} (its value is {_short(given)}){nearest(keys[-1], names)}"
    if error["type"] == "missing":
        return "this key is missing"
    if error["type"] == "literal_error":
        choices = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        if given is None:
            return f"it is empty; must be one of {', '.join(choices)}"
        return f"{_short(given)} is not one of {', '.join(choices)}{nearest(given, choices)}"
    kind = _model_at(model, value, keys)
    if error["type"] == "value_error" and kind and Registered in kind.__bases__:
        name = given.get(kind.chosen_by) if isinstance(given, dict) else given
        if not isinstance(name, str) or name not in kind.known:
            return _unknown(kind, name)
    message = _message(error)
    return f"{message}{_given(given, message)}"


#: The number of characters of a value that a message shows.
LONGEST_SHOWN = 80


def _short(value: Any) -> str:
    """Return a value as a message shows it: its start, where it is long."""
    return _start(repr(value))


def _start(text: str) -> str:
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}.."


def _unknown(kind: type[Registered], name: object) -> str:
    if name is None:
        return f"a {kind.kind} needs a {kind.chosen_by}; known: {', '.join(sorted(kind.known))}"
    return f"{_short(name)} is not a known {kind.kind}{nearest(name, kind.known)}"


def _given(value: Any, message: str) -> str:
    """Return the end of a message that does not name the value yet; lists and mappings are too long to show."""
    if isinstance(value, dict | list) or " not " in message:
        return ""
    return (
        " (it is empty; the word for nothing is none)"
        if value is None
        else f", not {_short(value)}"
    )


def _model_at(annotation: Any, value: Any, keys: Keys) -> type[Any] | None:
    """Return the spec class at a path of keys: where a name chooses, the chosen one."""
    model = _spec_class(annotation)
    if model is not None and Registered in model.__bases__ and isinstance(value, dict):
        name = value.get(model.chosen_by, model.default_name)
        model = model.known.get(name, model) if isinstance(name, str) else model
    if not keys:
        return model
    inner = value.get(keys[0]) if isinstance(value, dict) else None
    if isinstance(value, list) and isinstance(keys[0], int) and keys[0] < len(value):
        inner = value[keys[0]]
    if model is None:
        arguments = get_args(annotation)
        return _model_at(arguments[-1], inner, keys[1:]) if arguments else None
    known = model.model_fields.get(str(keys[0]))
    return _model_at(known.annotation, inner, keys[1:]) if known else None


def _spec_class(annotation: Any) -> type[Any] | None:
    if isinstance(annotation, type) and issubclass(annotation, Spec):
        return annotation
    if get_origin(annotation) in (dict, list, tuple):
        return None
    found = (_spec_class(each) for each in get_args(annotation))
    return next((each for each in found if each is not None), None)
