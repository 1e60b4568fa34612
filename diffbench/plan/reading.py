"""YAML with line numbers, and error messages of one line that say where the error is.

A ``Tree`` is a plain value with the origin (``config/digits.yaml:12``) of each of its keys; merging
trees keeps the origins, so a mistake is reported where it was written even after defaults, methods,
overrides and the command line have been laid over each other.

Scalars follow YAML 1.2 where PyYAML follows 1.1: ``1e-4`` is a number, ``no`` is a word, ``010`` is
ten.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import ValidationError

from diffbench.specs.base import Registered, Spec
from diffbench.specs.errors import PlanError, shown

Keys = tuple[str | int, ...]
T = TypeVar("T")

#: The levels of lists and mappings up to which a text is given to libyaml.
DEEPEST = 10_000
#: Why a text has no end for a reader.
ENDLESS = "lists and mappings nest too deep, or an alias contains itself"

_CORE = "tag:yaml.org,2002:"
_KINDS = ("map", "seq", "str", "int", "float", "bool", "null", "timestamp", "merge", "value")
_TAGS = {_CORE + kind for kind in _KINDS}
_WORDS: dict[str, Any] = {"": None, "~": None} | {
    form: value
    for word, value in {"null": None, "true": True, "false": False}.items()
    for form in (word, word.capitalize(), word.upper())
}
_INTEGER = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_DECIMAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


def scalar(text: str) -> Any:
    """Read an unquoted YAML 1.2 scalar."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _BASED.fullmatch(text):
        return int(text, 0)
    if _DECIMAL.fullmatch(text):
        return float(text)
    if _SPECIAL.fullmatch(text):
        return float(text.replace(".", ""))
    return text


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
        PlanError: when the file is missing or unreadable, is not YAML, or has a key twice.
    """
    try:
        return parsed(path.read_text(encoding="utf-8"), shown(path))
    except OSError as error:
        raise PlanError(f"{shown(path)}: {(error.strerror or 'unreadable').lower()}") from None
    except UnicodeDecodeError:
        raise PlanError(f"{shown(path)}: not UTF-8 text") from None


@lru_cache(maxsize=16)
def parsed(text: str, name: str) -> Tree:
    """Return the tree of a YAML text whose top is a mapping, and whose file is called ``name`` in messages.

    All who read the same text share the tree, so that nobody may change it.

    Raises:
        PlanError: when it is not YAML, or has a key twice.
    """
    tree = Tree(None)
    try:
        node = composed(text)
        if not isinstance(node, yaml.MappingNode):
            raise PlanError(f"{name}: must be a mapping (key: value)")
        return Tree(_value(node, (), name, tree.origins), tree.origins)
    except RecursionError:
        raise PlanError(f"{name}: {ENDLESS}") from None
    except yaml.YAMLError as error:
        raise PlanError(_yaml_reason(name, error)) from None


def composed(text: str) -> yaml.Node | None:
    """Return the nodes of a YAML text: by libyaml where there is one, several times as fast as PyYAML's own parser.

    Raises:
        yaml.YAMLError: when it is not YAML, in the words of PyYAML's own parser.
        RecursionError: when its lists and mappings nest too deep.
    """
    # A level takes a bracket, or a place in the indentation of a line. At 200,000 levels
    # libyaml's composer ends the process; at 20,000 it does not.
    deepest = text.count("[") + text.count("{") + max(map(len, text.splitlines()), default=0)
    if deepest <= DEEPEST:
        with suppress(yaml.YAMLError):
            fast: yaml.Node | None = yaml.compose(
                text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)
            )
            return fast
    slow: yaml.Node | None = yaml.compose(text, yaml.SafeLoader)
    return slow


def _yaml_reason(name: str, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    origin = f"{name}:{mark.line + 1}" if mark else name
    return f"{origin}: not YAML: {getattr(error, 'problem', None) or error}"


def _value(node: yaml.Node, keys: Keys, name: str, origins: dict[Keys, str]) -> Any:
    origins.setdefault(keys, f"{name}:{node.start_mark.line + 1}")
    if node.tag not in _TAGS:
        raise PlanError(f"{origins[keys]}: {dotted(keys)}: the tag {node.tag} is not known")
    if isinstance(node, yaml.SequenceNode):
        return [_value(each, (*keys, i), name, origins) for i, each in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, keys, name, origins)
    assert isinstance(node, yaml.ScalarNode)
    return scalar(node.value) if not node.style else node.value


def _mapping(
    node: yaml.MappingNode, keys: Keys, name: str, origins: dict[Keys, str]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key_node, value_node in node.value:
        origin = f"{name}:{key_node.start_mark.line + 1}"
        if not isinstance(key_node, yaml.ScalarNode):
            raise PlanError(
                f"{origin}: {dotted(keys)}: a key must be a word, not a list or mapping"
            )
        key = key_node.value
        if key in found:
            raise PlanError(f"{origin}: {dotted((*keys, key))}: the key {key!r} appears twice")
        origins[(*keys, key)] = origin
        found[key] = _value(value_node, (*keys, key), name, origins)
    return found


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
    """Return a path of keys as users write it."""
    return ".".join(str(key) for key in keys)


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
        keys = tuple(key for key in first["loc"] if key != "[key]")
        reason = _reason(model, tree.value, keys, first)
        parts = [tree.where(keys), dotted((*prefix, *keys)), reason]
        raise PlanError(": ".join(part for part in parts if part)) from None


def _reason(model: Any, value: Any, keys: Keys, error: Mapping[str, Any]) -> str:
    given = error["input"]
    if error["type"] == "extra_forbidden":
        parent = _model_at(model, value, keys[:-1])
        names = parent.model_fields if parent else ()
        return f"unknown key {keys[-1]!r} (its value is {given!r}){nearest(keys[-1], names)}"
    if error["type"] == "missing":
        return "this key is missing"
    if error["type"] == "literal_error":
        choices = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        return f"{given!r} is not one of {', '.join(choices)}{nearest(given, choices)}"
    kind = _model_at(model, value, keys)
    if error["type"] == "value_error" and kind and Registered in kind.__bases__:
        name = given.get(kind.chosen_by) if isinstance(given, dict) else given
        if not isinstance(name, str) or name not in kind.known:
            return _unknown(kind, name)
    message = error["msg"].removeprefix("Value error, ").replace("Input should", "must")
    return f"{message}{_given(given, message)}"


def _unknown(kind: type[Registered], name: object) -> str:
    if name is None:
        return f"a {kind.kind} needs a {kind.chosen_by}; known: {', '.join(sorted(kind.known))}"
    return f"{name!r} is not a known {kind.kind}{nearest(name, kind.known)}"


def _given(value: Any, message: str) -> str:
    """Return the end of a message that does not name the value yet; lists and mappings are too long to show."""
    if isinstance(value, dict | list) or " not " in message:
        return ""
    return " (it is empty; the word for nothing is none)" if value is None else f", not {value!r}"


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
