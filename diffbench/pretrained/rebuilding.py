"""The functions that a pickle of tensors may call, rewritten here: tensors, their storages, plain containers."""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from collections.abc import Callable
from typing import IO, Any

import torch
from torch import Tensor

from diffbench.specs.errors import told
from diffbench.store.pickles import (
    LONGEST,
    Call,
    RefusedError,
    check_nesting,
    encoded,
    hashable,
    needless,
)
from diffbench.store.status import one_line

#: The first bytes of a torch file of the older format: the magic number 0x1950a86a20f9469cfc6c, pickled.
OLD_TORCH = bytes.fromhex("80028a0a6cfc9c46f9206aa85019")


def torch_contents(file: IO[bytes]) -> Any:
    """The content of a torch file: tensors, numbers, text and containers.

    Raises:
        RefusedError: when it is damaged or holds anything else.
    """
    try:
        _check_nesting(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except RefusedError:
        raise
    except pickle.UnpicklingError as error:
        if named := re.search(r"GLOBAL (\S+\.\S+)", str(error)):
            raise RefusedError(needless(named[1])) from None
        raise RefusedError(
            f"it is damaged, or holds more than weights ({one_line(told(error), LONGEST)})"
        ) from None
    except Exception as error:
        # torch checks little of a damaged file: it may raise errors of any kind.
        raise RefusedError(
            f"it is not a complete torch file ({one_line(error, LONGEST)})"
        ) from None


def _check_nesting(file: IO[bytes]) -> None:
    """Check the pickles of a torch file before torch reads them, since endless nesting would crash it."""
    if file.read(4) == b"PK\x03\x04":
        with zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                if name.endswith("data.pkl"):
                    check_nesting(io.BytesIO(archive.read(name)))
    else:
        # The older format: a magic number, a version, facts of the system, the value, the storages' names.
        file.seek(0)
        check_nesting(file, count=5)
    file.seek(0)


def _storage(call: Call) -> Any:
    """A tensor's storage: its bytes are themselves a torch file."""
    (content,) = call.args
    if not isinstance(content, bytes) or not content.startswith(OLD_TORCH):
        raise RefusedError("the numbers of a tensor are not a torch file of the older format")
    try:
        return torch_contents(io.BytesIO(content))
    except RefusedError as error:
        raise RefusedError(f"the numbers of a tensor are refused: {error}") from None


def _tensor(call: Call) -> Tensor:
    """A tensor on a part of a storage, within its bounds."""
    storage, offset, size, stride, *_ = call.args
    if not isinstance(storage, torch.storage.TypedStorage):
        raise RefusedError("a tensor has no storage")
    # The public accessor warns that typed storages will be removed.
    held = storage._untyped_storage
    size = size.args[0] if isinstance(size, Call) and size.args else size
    numbers = [offset, *size, *stride]
    if len(size) != len(stride) or not all(type(n) is int and n >= 0 for n in numbers):
        raise RefusedError("a tensor has an invalid shape")
    last_number = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 not in size and last_number >= held.nbytes() // storage.dtype.itemsize:
        raise RefusedError(f"a tensor of shape {list(size)} has more numbers than its storage")
    empty = torch.empty(0, dtype=storage.dtype)
    return empty.set_(held, offset, tuple(size), tuple(stride))


def _parameter(call: Call) -> Tensor:
    data = call.args[0]
    if not isinstance(data, Tensor):
        raise RefusedError("a parameter is not a tensor")
    return data


def _persistent(call: Call) -> Call:
    """An object of EDM's, under the name of its own class; the source code in it is not kept."""
    (meta,) = call.args
    name = meta.get("class_name") if isinstance(meta, dict) else None
    if not isinstance(name, str) or not name.isidentifier():
        raise RefusedError("an object of a persistent class does not name that class")
    call.name, call.args, call.state = name, (), meta.get("state")
    return call


def _ordered(call: Call) -> dict[Any, Any]:
    """An ordered dictionary; its own state, such as a state_dict's ``_metadata``, holds no weight and is dropped."""
    return dict(call)


def _set(call: Call) -> set[Any]:
    return set(hashable(call.args[0] if call.args else ()))


#: The name in a pickle -> the function that rebuilds its call.
MEANINGS: dict[str, Callable[[Call], Any]] = {
    "collections.OrderedDict": _ordered,
    "builtins.set": _set,
    "__builtin__.set": _set,
    "_codecs.encode": encoded,
    "torch.storage._load_from_bytes": _storage,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch_utils.persistence._reconstruct_persistent_obj": _persistent,
}
