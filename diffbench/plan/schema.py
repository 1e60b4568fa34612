"""The JSON schema of benchmark files, made from the specs, by which editors complete keys and mark misspelt ones.

It says which keys there are and what they may hold.  It does not say which must be there: a file may lie over another
(``base``), and keys that a variant has already need not be repeated.  ``diffbench check-config`` checks the rest.
The specs of extensions are in it when these have been imported.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, PlainValidator

from diffbench.specs.base import Registered, nothing, number, real, whole
from diffbench.specs.benchmark import BenchmarkSpec, VariantSpec
from diffbench.specs.choices import AnyNetwork
from diffbench.specs.sampling import SamplingSpec
from diffbench.specs.training import TrainingSpec

#: The word for nothing.
NONE = {"const": "none"}
#: What a key may also hold where a short form is turned into its own.
SHORT = {"type": ["string", "number", "boolean", "array", "null"]}
NUMBER = {
    "anyOf": [
        {"type": "number"},
        # What YAML 1.1 takes for a text: 1e-3; and a parameter of a sweep: {sigma_max}.
        {
            "type": "string",
            "pattern": r"^([-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|\{\w+\})$",
        },
    ]
}
Schema = dict[str, Any]


def schema() -> Schema:
    """Return the JSON schema of a benchmark file."""
    writer = _Writer()
    top = writer.object_of(BenchmarkSpec)
    variant, written = writer.model(VariantSpec), writer.definitions["VariantSpec"]
    written["properties"]["sweep"] = {
        "description": "A parameter of the variant's id -> its values: one variant for each.",
        "type": "object",
        "additionalProperties": {"type": "array"},
    }
    # Parts of variants, which are merged with others before they are read.
    parts = {
        "network": writer.value(AnyNetwork),
        "training": writer.model(TrainingSpec),
        "sampling": writer.model(SamplingSpec),
        "defaults": variant,
        "overrides": _mapping(variant),
        "methods": _mapping(variant),
    }
    for key, part in parts.items():
        top["properties"][key] = _with_words(part, top["properties"][key].get("description", ""))
    top["properties"]["base"] = {
        "description": "The file that this one lies over, key by key, relative to this file.",
        "type": "string",
    }
    writer.definitions["ClassifierSettings"]["properties"]["training"] = writer.model(TrainingSpec)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A benchmark file of diffbench",
        **top,
        "$defs": dict(sorted(writer.definitions.items())),
    }


def _mapping(value: Schema) -> Schema:
    return {"type": "object", "additionalProperties": {"anyOf": [value, NONE]}}


def _with_words(value: Schema, words: str) -> Schema:
    return {"description": words, **value} if words else value


class _Writer:
    """Writes the schemas of specs, each once, as definitions."""

    def __init__(self) -> None:
        self.definitions: dict[str, Schema] = {}

    def model(self, spec: type[BaseModel]) -> Schema:
        """Return a reference to the schema of a spec."""
        name = spec.__name__
        if name not in self.definitions:
            self.definitions[name] = {}
            self.definitions[name].update(self.object_of(spec))
        return {"$ref": f"#/$defs/{name}"}

    def object_of(self, spec: type[BaseModel]) -> Schema:
        """Return the schema of a spec's mapping."""
        words = documented(spec)
        properties = {}
        for key, field in spec.model_fields.items():
            found = self.value(field.annotation, tuple(field.metadata))
            properties[key] = _with_words({"anyOf": [found, NONE]}, words.get(key, ""))
        first = (inspect.getdoc(spec) or "").partition("\n")[0]
        described = {"type": "object", "properties": properties, "additionalProperties": False}
        return _with_words(described, first)

    def value(self, annotation: Any, metadata: tuple[Any, ...] = ()) -> Schema:
        """Return the schema of a value with this annotation."""
        if get_origin(annotation) is Annotated:
            inner, *more = get_args(annotation)
            return self.value(inner, (*more, *metadata))
        found = self._plain(annotation)
        return {"anyOf": [found, SHORT]} if any(map(_shortens, metadata)) else found

    def _plain(self, annotation: Any) -> Schema:
        origin, arguments = get_origin(annotation), get_args(annotation)
        if origin in (Union, UnionType):
            return {"anyOf": [self.value(each) for each in arguments]}
        if origin is Literal:
            return {"enum": list(arguments)}
        if origin in (list, tuple):
            kinds = [each for each in arguments if each is not Ellipsis]
            return {"type": "array", "items": {"anyOf": [self.value(each) for each in kinds]}}
        if origin in (dict, Mapping):
            return _mapping(self.value(arguments[1]))
        if annotation in (int, float):
            return NUMBER
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return self._of_spec(annotation)
        return {bool: {"type": "boolean"}, str: {"type": "string"}, NoneType: {"type": "null"}}.get(
            annotation, {}
        )

    def _of_spec(self, spec: type[BaseModel]) -> Schema:
        """Return the schema of a spec; of one that is a kind, of the names and the specs that can be chosen."""
        if not issubclass(spec, Registered) or spec in spec.known.values():
            return self.model(spec)
        known = {name: each for name, each in sorted(spec.known.items()) if issubclass(each, spec)}
        name = f"any {spec.kind}" if Registered in spec.__bases__ else spec.__name__
        if name not in self.definitions:
            self.definitions[name] = {}
            chosen = [self.model(each) for each in known.values()]
            self.definitions[name].update({"anyOf": [{"enum": list(known)}, *chosen]})
        return {"$ref": f"#/$defs/{name.replace(' ', '%20')}"}


def _shortens(validator: Any) -> bool:
    """Return whether a validator turns a short form into the annotated one."""
    if not isinstance(validator, BeforeValidator | PlainValidator):
        return False
    function = validator.func
    chooses = getattr(function, "__name__", "") == "choose"
    return function not in (number, whole, real, nothing) and not chooses


def documented(spec: type[BaseModel]) -> dict[str, str]:
    """Return what the docstring says of each key: paragraphs ``key: words`` or ``key, other: words``."""
    found: dict[str, str] = {}
    keys: list[str] = []
    for line in (inspect.getdoc(spec) or "").splitlines():
        begins = re.match(r"((?:\w+, )*\w+): (.*)", line)
        if begins and all(name in spec.model_fields for name in begins[1].split(", ")):
            keys = begins[1].split(", ")
            found |= dict.fromkeys(keys, begins[2])
        elif line.startswith("    ") and keys:
            found |= {key: f"{found[key]} {line.strip()}" for key in keys}
        else:
            keys = []
    return found
