"""The value of a YAML document, and the file and line of each key; nothing in it is run, and its size is bounded.

Scalars follow YAML 1.2 where PyYAML follows 1.1: ``1e-4`` is a number, ``no`` is a word, ``010`` is
ten.  Aliases and merge keys (``<<: *other`` or ``<<: [*one, *other]``: the keys of other mappings, which this mapping's
own and those earlier in the list replace) are expanded.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import yaml

from diffbench.specs.errors import PlanError

Keys = tuple[str | int, ...]

#: The largest document in bytes; the files of `config` have less than a tenth of it.
LARGEST = 2**20
#: The largest number of values in a document, with all that its aliases repeat.
MOST_VALUES = 100_000
#: The largest number of levels of lists and mappings.
DEEPEST = 64
#: The most digits of a number: a float has no more than 309 before its point.
MOST_DIGITS = 400
#: The levels of lists and mappings up to which a text is given to libyaml.
DEEPEST_FAST = 10_000
#: The length of a text up to which PyYAML's own parser, 0.1 MB a second, is asked to say what is wrong.
LONGEST_SLOW = 2**16
#: Why a text has no end for a reader.
ENDLESS = (
    f"lists and mappings nest too deep (at most {DEEPEST} levels), or an alias contains itself"
)

_CORE = "tag:yaml.org,2002:"
_MERGE = _CORE + "merge"
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
    """Read an unquoted YAML 1.2 scalar.

    Raises:
        ValueError: for a whole number of too many digits.
    """
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text) or _BASED.fullmatch(text):
        if len(text) > MOST_DIGITS:
            raise ValueError(f"a number of {len(text):,} digits; at most {MOST_DIGITS}")
        return int(text) if _INTEGER.fullmatch(text) else int(text, 0)
    if _DECIMAL.fullmatch(text):
        return float(text)
    if _SPECIAL.fullmatch(text):
        return float(text.replace(".", ""))
    return text


def parsed(text: str, name: str) -> tuple[Any, dict[Keys, str]]:
    """Return the value of a YAML text, and for each path of keys in it the place where it was written.

    Args:
        text: the document.
        name: what its file is called in messages.

    Raises:
        PlanError: when it is not YAML, has a key twice, or is larger than a document may be.
    """
    if len(text) > LARGEST:
        raise PlanError(f"{name}: {len(text):,} characters of YAML; at most {LARGEST:,}")
    reader = _Reader(name)
    try:
        node = composed(text)
        if node is None:
            return None, {}
        if (count := expanded(node, {})) > MOST_VALUES:
            raise PlanError(
                f"{name}: {count:,} values, with what its aliases repeat; at most {MOST_VALUES:,}"
            )
        return reader.value(node, ()), reader.origins
    except RecursionError:
        raise PlanError(f"{name}: {ENDLESS}") from None
    except yaml.YAMLError as error:
        raise PlanError(_yaml_reason(name, error)) from None


def composed(text: str) -> yaml.Node | None:
    """Return the nodes of a YAML text: by libyaml where there is one, several times as fast as PyYAML's own parser.

    Raises:
        yaml.YAMLError: when it is not YAML, if the text is short in the words of PyYAML's own parser.
        RecursionError: when its lists and mappings nest too deep.
    """
    # A level takes a bracket, or a place in the indentation of a line. At 200,000 levels
    # libyaml's composer ends the process; at 20,000 it does not.
    deepest = text.count("[") + text.count("{") + max(map(len, text.splitlines()), default=0)
    if deepest <= DEEPEST_FAST:
        with suppress(*[yaml.YAMLError] if len(text) <= LONGEST_SLOW else []):
            fast: yaml.Node | None = yaml.compose(
                text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)
            )
            return fast
    slow: yaml.Node | None = yaml.compose(text, yaml.SafeLoader)
    return slow


def expanded(node: yaml.Node, known: dict[int, int]) -> int:
    """Return the number of values of a node when its aliases are expanded; ``known`` has those of nodes seen before.

    Raises:
        RecursionError: when an alias contains itself.
    """
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        known[id(node)] = -1
        inner = [each[1] if isinstance(each, tuple) else each for each in node.value]
        known[id(node)] = 1 + sum(expanded(each, known) for each in inner)
    if known[id(node)] < 0:
        raise RecursionError
    return known[id(node)]


def _yaml_reason(name: str, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    origin = f"{name}:{mark.line + 1}" if mark else name
    return f"{origin}: not YAML: {getattr(error, 'problem', None) or error}"


class _Reader:
    """Turns nodes into values, and notes where each was written."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.origins: dict[Keys, str] = {}

    def place(self, node: yaml.Node) -> str:
        """Return file and line of a node."""
        return f"{self.name}:{node.start_mark.line + 1}"

    def refused(self, node: yaml.Node, keys: Keys, reason: str) -> PlanError:
        """Return the error of a node."""
        parts = [self.place(node), ".".join(map(str, keys)), reason]
        return PlanError(": ".join(filter(None, parts)))

    def value(self, node: yaml.Node, keys: Keys) -> Any:
        """Return the value of a node below these keys."""
        if len(keys) > DEEPEST:
            raise RecursionError
        self.origins.setdefault(keys, self.place(node))
        if node.tag not in _TAGS:
            raise self.refused(node, keys, f"the tag {node.tag} is not known")
        if isinstance(node, yaml.SequenceNode):
            return [self.value(each, (*keys, i)) for i, each in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, keys)
        assert isinstance(node, yaml.ScalarNode)
        try:
            return scalar(node.value) if not node.style else node.value
        except ValueError as error:
            raise self.refused(node, keys, str(error)) from None

    def mapping(self, node: yaml.MappingNode, keys: Keys) -> dict[str, Any]:
        """Return the value of a mapping."""
        found: dict[str, Any] = {}
        for key, (key_node, value_node) in self.pairs(node, keys).items():
            self.origins[(*keys, key)] = self.place(key_node)
            found[key] = self.value(value_node, (*keys, key))
        return found

    def pairs(self, node: yaml.MappingNode, keys: Keys) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """Return the nodes of a mapping's keys and values, with those of the mappings that it merges."""
        own: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        merged: list[yaml.MappingNode] = []
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise self.refused(key_node, keys, "a key must be a word, not a list or mapping")
            key = key_node.value
            if key in own:
                raise self.refused(key_node, (*keys, key), f"the key {key!r} appears twice")
            if key_node.tag == _MERGE:
                merged += self.mappings(value_node, (*keys, key))
            else:
                own[key] = (key_node, value_node)
        for each in merged:
            own = self.pairs(each, keys) | own
        return own

    def mappings(self, node: yaml.Node, keys: Keys) -> list[yaml.MappingNode]:
        """Return the mappings that a merge key names; the keys of an earlier one replace those of a later one."""
        listed: list[Any] = node.value if isinstance(node, yaml.SequenceNode) else [node]
        if wrong := [each for each in listed if not isinstance(each, yaml.MappingNode)]:
            raise self.refused(wrong[0], keys, "must be a mapping to merge, or a list of mappings")
        return listed
