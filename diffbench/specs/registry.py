"""From a spec to the class it describes.

A spec's ``implementation`` is ``"module:Class"``, imported when it is built, so that planning stays
light; an extension, imported by the plan, may give the class itself.
"""

from __future__ import annotations

import importlib
from typing import Any

from diffbench.specs.base import Registered


def implementation(spec: Registered) -> type[Any]:
    """Import the class that a spec describes."""
    named = spec.implementation
    if isinstance(named, type):
        return named
    module, _, name = named.partition(":")
    found: type[Any] = getattr(importlib.import_module(module), name)
    return found


def build(spec: Registered, *args: Any, **kwargs: Any) -> Any:
    """Build what a spec describes: its class is called with the spec, then with these arguments."""
    return implementation(spec)(spec, *args, **kwargs)
