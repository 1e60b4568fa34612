"""YAML by libyaml where PyYAML has it, several times as fast as PyYAML's own parser."""

from typing import Any

import yaml

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def load(text: str) -> Any:
    """Return the value of a YAML text, with PyYAML's scalars."""
    return yaml.load(text, LOADER)


def dump(value: Any, sort_keys: bool = True) -> str:
    """Return a value as YAML."""
    return yaml.dump(value, Dumper=DUMPER, sort_keys=sort_keys)
