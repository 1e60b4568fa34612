"""From a spec to the class it describes, and from a user's file to new specs.

A spec's ``implementation`` is ``"module:Class"``, imported when it is built, so that planning stays
light; an extension file, imported by the plan, may give the class itself.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel

from diffbench.specs.base import Registered
from diffbench.specs.errors import PlanError, shown
from diffbench.specs.moved import moved_imports

PREFIX = "diffbench_extension_"


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


def load_extension(path: Path) -> ModuleType:
    """Import a user's Python file, whose spec classes register themselves.

    Raises:
        PlanError: when the file is missing or fails to import, with the reason in one line.
    """
    if not path.is_file():
        raise PlanError(f"extensions: there is no file {shown(path)}")
    name = module_name(path)
    module_spec = importlib.util.spec_from_file_location(name, path)
    if module_spec is None or module_spec.loader is None:
        raise PlanError(f"extensions: {shown(path)} is not a Python file")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        if isinstance(error, ImportError) and (moved := moved_imports(path.read_text())):
            now = "; ".join(f"{old} is now {new}" for old, new in moved.items())
            raise PlanError(f"extensions: {shown(path)} imports what has moved: {now}") from error
        kind = type(error).__name__
        raise PlanError(f"extensions: {shown(path)} cannot be imported: {kind}: {error}") from error
    return module


def module_name(path: Path) -> str:
    """Return the name under which an extension file is imported."""
    return PREFIX + path.stem


def content_hash(path: Path) -> str:
    """Return the SHA-256 of an extension file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def extensions_of(spec: BaseModel, extensions: Iterable[Path]) -> dict[str, str]:
    """Return file name -> SHA-256 of the extensions that define a part of a spec."""
    modules = set(_modules(spec))
    return {path.name: content_hash(path) for path in extensions if module_name(path) in modules}


def _modules(value: Any) -> Iterable[str]:
    if isinstance(value, BaseModel):
        yield type(value).__module__
        value = {name: getattr(value, name) for name in type(value).model_fields}
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            yield from _modules(each)
