"""Extension sources: where new specs and their classes come from, how they are known again, how they are imported.

    mine.py      a Python file                                                known by the SHA-256 of the file
    mine         a folder that is a package, whose modules import each other  known by the SHA-256 of all its files
    mine         an entry point ``mine`` of the group ``diffbench.extensions``
                 of an installed distribution                                 by distribution, version and SHA-256

A source is imported when it is named, and entry points are looked up when a name without ``.py`` and without a slash
is.  Its spec classes register themselves.  Which classes, and which lines of a traceback, are of a source is told by
their file.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import os
import re
import sys
import traceback
from abc import ABC, abstractmethod
from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import metadata
from importlib.machinery import ModuleSpec
from pathlib import Path, PurePath
from types import ModuleType
from typing import Any

from pydantic import BaseModel

from diffbench.specs.errors import PlanError, Stopped, shown
from diffbench.specs.moved import moved_imports

#: The group of the entry points of installed packages.
GROUP = "diffbench.extensions"
#: Before the name of an entry point, where a folder may have the same name.
INSTALLED = "installed:"
#: Before the name under which a file or a folder is imported.
PREFIX = "diffbench_extension_"


@dataclass(frozen=True)
class ExtensionSource(ABC):
    """One source of specs; ``name`` is how specs and results know it."""

    name: str

    @property
    @abstractmethod
    def words(self) -> str:
        """What names the source in any process, whatever its working directory."""

    @property
    @abstractmethod
    def told(self) -> str:
        """The source as messages name it."""

    @property
    @abstractmethod
    def module(self) -> str:
        """The name of the module that is imported."""

    @cached_property
    def files(self) -> dict[str, Path]:
        """All files that count, by their names inside the source.

        Raises:
            PlanError: when the source is not there.
        """
        return self._found()

    @property
    def folder(self) -> Path | None:
        """The folder whose every file counts; None of a file."""
        return None

    @property
    def digest(self) -> str:
        """What a spec keeps of the source.

        Raises:
            PlanError: when the source is not there.
        """
        return self.contents

    @cached_property
    def contents(self) -> str:
        """The SHA-256 of the files, as they were when it was first asked for."""
        found = {name: _sha256(path) for name, path in self.files.items()}
        return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()

    def changed(self, wanted: str) -> str:
        """Return what to say where a spec was made with another digest."""
        kind = "file" if self.folder is None else "folder"
        return f"{self.told} has changed since the plan was made: plan again, or give the {kind} of that time"

    def load(self) -> None:
        """Import the source, whose spec classes register themselves.

        Raises:
            PlanError: when it is missing or fails to import, with the reason in one line.
        """
        files = {os.path.realpath(path) for path in self.files.values()}
        _ = self.contents  # of what is imported now
        try:
            self._import()
            # Now, so that a field that cannot be checked is found here.
            for module in _modules_of(files):
                for each in list(vars(module).values()):
                    if isinstance(each, type) and issubclass(each, BaseModel):
                        each.model_rebuild(raise_errors=False)
        except Stopped:
            self._forget()
            raise
        except (Exception, SystemExit) as error:
            self._forget()
            raise PlanError(f"extensions: {self._reason(error, files)}") from error
        _imported.update(dict.fromkeys(files, self))

    @abstractmethod
    def _found(self) -> dict[str, Path]: ...

    @abstractmethod
    def _import(self) -> None: ...

    def _forget(self) -> None:
        """Remove what was imported under the module's name."""
        for name in [each for each in sys.modules if f"{each}.".startswith(f"{self.module}.")]:
            del sys.modules[name]

    def _reason(self, error: BaseException, files: set[str]) -> str:
        """Return why the source cannot be imported, with the line in its files where that is known."""
        file, line = _place(error, files)
        if isinstance(error, ImportError) and file and (moved := moved_imports(file.read_text())):
            now = "; ".join(f"{old} is now {new}" for old, new in moved.items())
            return f"{shown(file)} imports what has moved: {now}"
        place = f"{shown(file)}:{line}" if file else self.told
        return f"{place} cannot be imported: {type(error).__name__}: {error}{self._advice(error)}"

    def _advice(self, error: BaseException) -> str:
        return ""


@dataclass(frozen=True)
class PathSource(ExtensionSource):
    """A source at an absolute ``path``."""

    path: Path

    @property
    def words(self) -> str:
        return str(self.path)

    @property
    def told(self) -> str:
        return shown(self.path)

    @property
    def module(self) -> str:
        return PREFIX + self.name.removesuffix(".py")

    def _import(self) -> None:
        self._forget()
        importlib.invalidate_caches()
        spec = self._spec()
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[self.module] = module
        spec.loader.exec_module(module)

    @abstractmethod
    def _spec(self) -> ModuleSpec | None: ...


class FileSource(PathSource):
    """A Python file."""

    def _found(self) -> dict[str, Path]:
        if not self.path.is_file():
            raise PlanError(f"extensions: there is no file {self.told}")
        if self.path.suffix != ".py":
            raise PlanError(f"extensions: {self.told} is not a Python file")
        return {self.name: self.path}

    @cached_property
    def contents(self) -> str:
        """The SHA-256 of the file itself."""
        return _sha256(*self.files.values())

    def _spec(self) -> ModuleSpec | None:
        return importlib.util.spec_from_file_location(self.module, self.path)


class FolderSource(PathSource):
    """A folder that is a package; its modules import each other by ``from .other import ..``."""

    @property
    def folder(self) -> Path:
        return self.path

    def _found(self) -> dict[str, Path]:
        if not (self.path / "__init__.py").is_file():
            raise PlanError(
                f"extensions: {self.told} is a folder without __init__.py, which makes it a package; it may be empty"
            )
        return dict(_below(self.path))

    def _spec(self) -> ModuleSpec | None:
        return importlib.util.spec_from_file_location(
            self.module,
            self.path / "__init__.py",
            submodule_search_locations=[self.words],
        )

    def _advice(self, error: BaseException) -> str:
        missing = isinstance(error, ModuleNotFoundError) and error.name
        own = missing and missing.partition(".")[0] == self.name
        return "; modules of the folder import each other by `from .other import ..`" if own else ""


class InstalledSource(ExtensionSource):
    """An entry point of an installed distribution.  All files of the distribution count.

    Of one that is installed by a link to its folder (``pip install -e``), those of the entry point's package do.
    """

    @cached_property
    def point(self) -> metadata.EntryPoint:
        """The one entry point of the name.

        Raises:
            PlanError: when there is none, or more than one; when it is not a module.
        """
        points = _points(self.name)
        if not points:
            raise PlanError(f"extensions: {_none_installed(self.name)}")
        if len(points) > 1:
            owners = " and ".join(_owner(each).name for each in points)
            raise PlanError(
                f"extensions: {self.name} is an entry point of {owners}: uninstall all but one of them"
            )
        value = points[0].value
        if not re.fullmatch(r"[\w.]+", value):
            raise PlanError(
                f"extensions: the entry point {self.name} of {_owner(points[0]).name} is {value!r}, and must be a "
                f"module, such as {value.partition(':')[0]}"
            )
        return points[0]

    @property
    def version(self) -> str:
        """Distribution and version."""
        owner = _owner(self.point)
        return f"{owner.name}=={owner.version}"

    @property
    def words(self) -> str:
        return f"{INSTALLED}{self.name}"

    @property
    def told(self) -> str:
        return f"{self.name} of {self.version}"

    @property
    def module(self) -> str:
        return self.point.module

    @cached_property
    def package(self) -> tuple[str, Path]:
        """The outermost package, or the file, that has the module: its name where modules are installed, and its path.

        Nothing is imported to find it.

        Raises:
            PlanError: when the module is not there.
        """
        parts, places = self.module.split("."), None
        for end in range(1, len(parts) + 1):
            name = ".".join(parts[:end])
            specs = (each.find_spec(name, places) for each in sys.meta_path)
            found = next((each for each in specs if each is not None), None)
            if found is None:
                break
            if found.has_location and found.origin:
                file = Path(found.origin)
                if found.submodule_search_locations is not None:
                    return "/".join(parts[:end]), file.parent
                return "/".join([*parts[: end - 1], file.name]), file
            # A folder that several distributions may share.
            places = found.submodule_search_locations
        raise PlanError(
            f"extensions: {self.told} names the module {self.module}, which is not installed"
        )

    @property
    def folder(self) -> Path | None:
        _, path = self.package
        return path if path.is_dir() else None

    def _found(self) -> dict[str, Path]:
        owner = _owner(self.point)
        listed = {
            each.as_posix(): Path(str(owner.locate_file(each)))
            for each in owner.files or []
            if _counts(each) and _is_code(each)
        }
        name, path = self.package
        one = path if self.folder is None else path / "__init__.py"
        if os.path.realpath(one) in map(os.path.realpath, listed.values()):
            return listed
        if self.folder is None:
            return {name: path}
        return {f"{name}/{inside}": file for inside, file in _below(path)}

    @property
    def digest(self) -> str:
        """Distribution, version and the SHA-256 of the contents."""
        return f"{self.version} {self.contents}"

    def changed(self, wanted: str) -> str:
        made = wanted.partition(" ")[0]
        here = "has other files than when" if made == self.version else f"is not {made}, with which"
        return f"{self.told} {here} the plan was made: plan again, or install what it was then"

    def load(self) -> None:
        """Import the source, which a process does once.

        Raises:
            PlanError: as for every source; when it has changed since this process imported it.
        """
        places = map(os.path.realpath, self.files.values())
        known = next((_imported[each] for each in places if each in _imported), None)
        if known and known.digest != self.digest and self.module in sys.modules:
            raise PlanError(
                f"extensions: {self.told} has changed since this process imported it: start Python again"
            )
        super().load()

    def _import(self) -> None:
        importlib.import_module(self.module)


#: The resolved name of each file of a source that was imported -> the source.
_imported: dict[str, ExtensionSource] = {}


def source(named: str | Path, folder: Path = Path()) -> ExtensionSource:
    """Return the source that a text names; what it names by a path is looked for when it is used.

    Args:
        named: a path, or the name of an entry point.
        folder: the folder to which a path is relative.

    Raises:
        PlanError: when a name without ``.py`` and without a slash is neither, or both.
    """
    text, path = str(named), Path(os.path.abspath(folder / named))
    if text.startswith(INSTALLED):
        return InstalledSource(text.removeprefix(INSTALLED))
    if isinstance(named, str) and not text.endswith(".py") and not {"/", os.sep} & set(text):
        points = _points(text)
        if points and path.exists():
            owner = _owner(points[0]).name
            raise PlanError(
                f"extensions: {text!r} is {shown(path)} and an entry point of {owner}: write './{text}' for the path, "
                f"'{INSTALLED}{text}' for the other"
            )
        if points:
            return InstalledSource(text)
        if not path.exists():
            raise PlanError(
                f"extensions: there is no file or folder {shown(path)}, and {_none_installed(text)}"
            )
    return (FolderSource if path.is_dir() else FileSource)(path.name, path)


def named_once(sources: Iterable[ExtensionSource]) -> dict[str, ExtensionSource]:
    """Return the sources by their names.

    Raises:
        PlanError: when two have one name, by which a spec could not say which of them it uses.
    """
    found: dict[str, ExtensionSource] = {}
    for each in sources:
        other = found.setdefault(each.name.removesuffix(".py"), each)
        if other.words != each.words:
            raise PlanError(
                f"extensions: {other.told} and {each.told} have one name, by which results know them: rename one"
            )
    return {each.name: each for each in found.values()}


def source_of(model: type) -> ExtensionSource | None:
    """Return the source that has defined a class; None of a class of the package."""
    file = getattr(sys.modules.get(model.__module__), "__file__", None)
    return _imported.get(_real(file)) if file else None


def used_by(spec: BaseModel, sources: Collection[ExtensionSource]) -> dict[str, str]:
    """Return name -> digest of the sources that define a part of a spec."""
    if not sources:
        return {}
    names = {found.name for each in _models(spec) if (found := source_of(each))}
    return {each.name: each.digest for each in sources if each.name in names}


def load_used(used: Mapping[str, str], given: Iterable[str | Path], give: str) -> None:
    """Import the sources that a spec uses, after comparing what they contain with what the spec says.

    Args:
        used: name -> digest, as a spec has it.
        given: the sources that are given.
        give: how the user gives one, for the message.

    Raises:
        PlanError: when one is not given or not there, has changed since the spec was made, or cannot be imported.
    """
    sources = named_once(map(source, given))
    for name, wanted in used.items():
        if name not in sources:
            version, blank, _ = str(wanted).partition(" ")
            which = f"{name} of {version}: give its name" if blank else f"{name}: give its path"
            raise PlanError(f"the spec uses {which} with {give}")
        if sources[name].digest != wanted:
            raise PlanError(sources[name].changed(wanted))
        sources[name].load()


def extension_line(error: BaseException) -> str | None:
    """Return file and line of the last place in an extension that an error passed; None where it passed none."""
    file, line = _place(error, _imported)
    return f"{shown(file)}:{line}" if file else None


def _place(error: BaseException, files: Container[str]) -> tuple[Path | None, int]:
    """Return the last file of some, and its line, that an error passed or that it is about."""
    if isinstance(error, SyntaxError) and error.filename and _real(error.filename) in files:
        return Path(error.filename), error.lineno or 1
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        if _real(frame.f_code.co_filename) in files:
            return Path(frame.f_code.co_filename), line
    return None, 0


def _models(value: Any) -> Iterator[type[BaseModel]]:
    if isinstance(value, BaseModel):
        yield type(value)
        value = {name: getattr(value, name) for name in type(value).model_fields}
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            yield from _models(each)


def _modules_of(files: Container[str]) -> list[ModuleType]:
    """Return the imported modules whose files are among some."""
    named = [(each, getattr(each, "__file__", None)) for each in list(sys.modules.values())]
    return [module for module, file in named if file and _real(file) in files]


@cache
def _real(file: str) -> str:
    return os.path.realpath(file)


# Files.


def _counts(path: PurePath) -> bool:
    """Whether a file inside a source counts: not what Python compiled, nor what is hidden, nor an editor's copy."""
    return (
        path.suffix not in (".pyc", ".pyo")
        and not path.name.endswith("~")
        and not any(part == "__pycache__" or part.startswith(".") for part in path.parts)
    )


def _is_code(path: PurePath) -> bool:
    """Whether a file of a distribution is no metadata of it and lies where modules do, as scripts do not."""
    return not path.is_absolute() and not path.parts[0].endswith((".dist-info", ".egg-info"))


def _below(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files of a folder that count, with their names inside it.

    Raises:
        PlanError: for a link to a folder, whose files Python would import.
    """
    for at, folders, names in os.walk(folder):
        inside = Path(at).relative_to(folder)
        folders[:] = [each for each in folders if _counts(inside / each)]
        if linked := next((each for each in folders if Path(at, each).is_symlink()), None):
            raise PlanError(
                f"extensions: {shown(Path(at, linked))} is a link to a folder: put the folder itself there"
            )
        for name in names:
            if _counts(inside / name):
                yield (inside / name).as_posix(), Path(at, name)


def _sha256(path: Path) -> str:
    """Return the SHA-256 of a file.

    Raises:
        PlanError: when it cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise PlanError(f"extensions: {shown(path)} cannot be read: {error.strerror}") from None


# Entry points.


def _points(name: str) -> list[metadata.EntryPoint]:
    return list(metadata.entry_points(group=GROUP, name=name))


def _owner(point: metadata.EntryPoint) -> metadata.Distribution:
    """Return the distribution of an entry point that was looked up, which therefore has one."""
    assert point.dist is not None
    return point.dist


def _none_installed(name: str) -> str:
    known = ", ".join(sorted(metadata.entry_points(group=GROUP).names)) or "none"
    return (
        f"no installed package has an entry point {name!r} of the group {GROUP}; installed: {known}"
    )
