"""From a spec to the class it describes, and from a user's file to new specs.

A spec's ``implementation`` is ``"module:Class"``, imported when it is built, so that planning stays
light; an extension file, imported by the plan, may give the class itself.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel

from diffbench.specs.base import Registered
from diffbench.specs.errors import PlanError, Stopped, shown
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
        # Now, so that a field that cannot be checked is found here.
        for each in vars(module).values():
            if isinstance(each, type) and issubclass(each, BaseModel):
                each.model_rebuild(raise_errors=False)
    except Stopped:
        del sys.modules[name]
        raise
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        if isinstance(error, ImportError) and (moved := moved_imports(path.read_text())):
            now = "; ".join(f"{old} is now {new}" for old, new in moved.items())
            raise PlanError(f"extensions: {shown(path)} imports what has moved: {now}") from error
        place = f"{shown(path)}{line_of(error, path)}"
        kind = type(error).__name__
        raise PlanError(f"extensions: {place} cannot be imported: {kind}: {error}") from error
    return module


def line_of(error: BaseException, path: Path) -> str:
    """Return ``:12`` for the last line of a file that an error passed, or that it is about; else an empty text."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f":{error.lineno}"
    lines = [
        line
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename == str(path)
    ]
    return f":{lines[-1]}" if lines else ""


def extension_line(error: BaseException) -> str | None:
    """Return file and line of the last place in an extension that an error passed; None where it passed none."""
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        if str(frame.f_globals.get("__name__", "")).startswith(PREFIX):
            return f"{shown(Path(frame.f_code.co_filename))}:{line}"
    return None


def named_once(paths: Iterable[Path]) -> dict[str, Path]:
    """Return the name of each extension file -> its path.

    Raises:
        PlanError: when two have one name, by which a spec could not say which of them it uses.
    """
    found: dict[str, Path] = {}
    for path in paths:
        other = found.setdefault(path.name, path)
        if other.resolve() != path.resolve():
            raise PlanError(
                f"extensions: {shown(other)} and {shown(path)} have one name, by which results know a file: rename one"
            )
    return found


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


def load_used(used: Mapping[str, str], extensions: Iterable[Path], give: str) -> None:
    """Import the extensions that a spec uses, after comparing what they contain with what the spec says.

    Args:
        used: file name -> SHA-256, as a spec has it.
        extensions: the files that are given.
        give: how the user gives a file, for the message.

    Raises:
        PlanError: when a file is not given or not there, has changed since the spec was made, or cannot be imported.
    """
    files = named_once(extensions)
    for name, wanted in used.items():
        if name not in files:
            raise PlanError(f"the spec uses {name}: give its path with {give}")
        if not files[name].is_file():
            raise PlanError(f"extensions: there is no file {shown(files[name])}")
        if content_hash(files[name]) != wanted:
            raise PlanError(
                f"{shown(files[name])} has changed since the plan was made: plan again, or give the file of that time"
            )
        load_extension(files[name])


def _modules(value: Any) -> Iterable[str]:
    if isinstance(value, BaseModel):
        yield type(value).__module__
        value = {name: getattr(value, name) for name in type(value).model_fields}
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            yield from _modules(each)
