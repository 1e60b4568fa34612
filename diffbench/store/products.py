"""Products, and the sidecars that hold their specs and checksums.

A product is a file that a job makes: weights, samples, scores.  It holds no time, host or path, so
the same spec gives the same bytes.  Its sidecar holds the job's spec and the product's SHA-256.  A
product is always checked against its sidecar when it is read, because every format in use loads
a flipped bit without an error.

    ok        the sidecar has the wanted spec and the product has the sidecar's checksum
    missing   there is no product
    stale     the product is whole, but of another spec
    corrupt   the sidecar is missing or unreadable, or the checksum differs

Pictures and other files that a job makes beside a product have their checksums in its sidecar too.  A sidecar is itself
checked: its text is the one that `files.json_bytes` makes of its value.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from diffbench.specs.base import Spec
from diffbench.specs.errors import UserError, told
from diffbench.store import files, paths

Status = Literal["ok", "missing", "stale", "corrupt"]
#: Sidecars that are kept in memory once read, of some 10 KB each.
SIDECARS = 1024
REMEDY = "remove it and run again (diffbench doctor --fix does both checks and removal)"


class StoreError(UserError, RuntimeError):
    """Something on disk is not what it should be; the message says what to do."""


def write_product(
    path: Path,
    content: bytes | Callable[[Path], object],
    spec: Spec,
    beside: Mapping[Path, bytes] = MappingProxyType({}),
) -> str:
    """Write a product (bytes, or what a callable writes to the path it is given), files beside it, and its sidecar.

    Returns:
        The product's SHA-256.
    """
    digests = {path.name: files.write(path, content)}
    digests |= {each.name: files.write(each, made) for each, made in beside.items()}
    files.write_json(paths.sidecar(path), {"spec": spec.model_dump(mode="json"), "sha256": digests})
    return digests[path.name]


def write_json_product(
    path: Path, value: Any, spec: Spec, beside: Mapping[Path, bytes] = MappingProxyType({})
) -> str:
    """Write a JSON product, files beside it, and its sidecar; return the product's SHA-256."""
    return write_product(path, files.json_bytes(value), spec, beside)


def read_sidecar(path: Path) -> dict[str, Any]:
    """Return the sidecar of a product: its keys are ``spec`` and ``sha256``, whose values no caller may change.

    Raises:
        StoreError: when there is none or it is not whole.
    """
    sidecar = paths.sidecar(path)
    try:
        content = _parsed(files.awaited(sidecar).read_bytes())
        digests = content["sha256"]
        whole = path.name in digests and all(Path(each).name == each for each in digests)
    except FileNotFoundError:
        raise StoreError(f"{path} has no sidecar {sidecar.name}: {REMEDY}") from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        whole = False
    if not whole:
        raise StoreError(f"{sidecar} is not a whole sidecar of {path.name}: {REMEDY}")
    return dict(content)


@lru_cache(maxsize=SIDECARS)
def _parsed(text: bytes) -> dict[str, Any]:
    """Return the content of a sidecar.  It is kept: tables read each sidecar many times, and to write it takes longest.

    Raises:
        ValueError: when the text is not what ``write_product`` writes; other errors when it has no such keys.
    """
    content = json.loads(text)
    digests = content["sha256"]
    whole = files.is_json_bytes(text, content) and isinstance(content["spec"], dict)
    if not whole or not all(isinstance(digest, str) for digest in digests.values()):
        raise ValueError("not a whole sidecar")
    return dict(content)


def beside(path: Path) -> dict[Path, str]:
    """Return the files beside a product of which its sidecar has the SHA-256, with it.

    Raises:
        StoreError: when there is no whole sidecar.
    """
    digests = read_sidecar(path)["sha256"]
    return {path.with_name(name): digest for name, digest in digests.items() if name != path.name}


def _check(path: Path, found: str, spec: Spec | None) -> None:
    sidecar = read_sidecar(path)
    expected = sidecar["sha256"][path.name]
    if found != expected:
        raise StoreError(f"{path} has sha256 {found}, and its sidecar says {expected}: {REMEDY}")
    if spec and (reason := difference(sidecar["spec"], spec.model_dump(mode="json"))):
        raise StoreError(f"{path} is stale, {reason}: {REMEDY}")


def read_product(path: Path, spec: Spec | None = None) -> Path:
    """Return the path of a product after verifying its checksum, and its spec when one is given.

    Raises:
        StoreError: when the product or its sidecar is missing, torn, altered or of another spec.
    """
    if not files.awaited(path).is_file():
        raise StoreError(f"{path} does not exist: run the job that makes it")
    _check(path, files.sha256(path), spec)
    return path


def read_bytes(path: Path, spec: Spec | None = None) -> bytes:
    """Return the content of a product, verified as in ``read_product``."""
    if not files.awaited(path).is_file():
        raise StoreError(f"{path} does not exist: run the job that makes it")
    content = path.read_bytes()
    _check(path, hashlib.sha256(content).hexdigest(), spec)
    return content


def read_json(path: Path, spec: Spec | None = None) -> Any:
    """Return the value of a JSON product, verified as in ``read_product``."""
    content = read_bytes(path, spec)
    with reading(path):
        return json.loads(content)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """A block that reads a verified product: any error in it becomes one that names the file.

    Raises:
        StoreError: when the product, although whole, does not hold what its job writes.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise StoreError(
            f"{path} does not hold what its job writes ({told(error)}, {type(error).__name__}): {REMEDY}"
        ) from error


def read_beside(file: Path, path: Path) -> bytes:
    """Return the content of a file beside a product, verified where the product's sidecar has its checksum.

    Raises:
        StoreError: when it is altered, or there is no whole sidecar.
    """
    content = file.read_bytes()
    expected = beside(path).get(file)
    if expected not in (None, hashlib.sha256(content).hexdigest()):
        raise StoreError(f"{file} was altered since it was made: {REMEDY}")
    return content


def status_of(path: Path, spec: Spec) -> Status:
    """Return the status of a product for a plan that needs it made from ``spec``."""
    if not path.is_file():
        return "corrupt" if os.path.lexists(path) else "missing"
    try:
        sidecar = read_sidecar(path)
        if sidecar["spec"] != spec.model_dump(mode="json"):
            return "stale"
        return "ok" if files.sha256(path) == sidecar["sha256"][path.name] else "corrupt"
    except (StoreError, OSError):
        return "corrupt"


def remove_product(path: Path) -> None:
    """Remove a product, its sidecar and its run record, so that the next run makes it again."""
    for file in (path, paths.sidecar(path), paths.run_record(path)):
        files.remove(file)


def difference(found: Any, wanted: Any) -> str | None:
    """Return one line about the first key in which two specs differ; None when they do not differ."""
    if found == wanted:  # as most do, and the search for a difference takes long
        return None
    for keys, one, other in differences(found, wanted):
        return f"made with {keys} = {one}, and {other} is expected"
    return None


def differences(one: Any, other: Any, keys: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield each key in which two specs differ, in order (``training.steps``), with both values."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other}):
            inner = f"{keys}.{key}".lstrip(".")
            yield from differences(one.get(key), other.get(key), inner)
    elif one != other:
        yield keys, one, other
