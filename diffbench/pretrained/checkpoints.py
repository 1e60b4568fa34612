"""Read an official checkpoint without running any code in it.

The kind of a file is known by its first bytes, whatever its name:

    safetensors    a table of tensors, no code
    torch file     a zip archive, or the older format: `torch.load` with ``weights_only``
    pickle         EDM's networks: read as a description (`pickled_networks`)

A pickle is a program. Neither reader runs it: the first knows only tensors and containers, the second imports
nothing. What they refuse is reported in one line.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from diffbench.pretrained.conversion import CheckpointError
from diffbench.pretrained.pickled_networks import description
from diffbench.pretrained.rebuilding import OLD_TORCH, torch_contents
from diffbench.store.pickles import LONGEST, RefusedError
from diffbench.store.status import one_line

#: The largest file that is read, in bytes: several times the papers' largest with its optimiser state.
LARGEST = 16 * 2**30
#: The longest table of contents of a safetensors file that its library accepts.
LONGEST_HEADER = 100_000_000
#: The depth to which mappings and lists are searched for tensors.
DEEPEST = 16

Contents = dict[str, Any]


def read(path: Path) -> Contents:
    """The content of a checkpoint: a mapping of tensors, mappings, and other values of its family.

    Args:
        path: a safetensors file, a torch file (``.pt``, ``.pth``, ``.bin``, ``.ckpt``) or a pickle (``.pkl``).

    Raises:
        CheckpointError: when it is no such file, is cut or damaged, or would run code; one line.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        reason = (error.strerror or "it cannot be read").lower()
        raise CheckpointError(f"{path}: {reason}") from None
    if not start:
        raise CheckpointError(f"{path}: the file is empty")
    if size > LARGEST:
        raise CheckpointError(f"{path}: {size / 2**30:.0f} GiB is more than any checkpoint has")
    try:
        contents = reader_of(start)(path)
        if not isinstance(contents, dict):
            kind = type(contents).__name__
            raise RefusedError(f"it holds a {kind}, and must hold a mapping of weights")
        _check_tensors(contents, size)
    except RefusedError as error:
        raise CheckpointError(f"{path}: {error}") from None
    return contents


def reader_of(start: bytes) -> Callable[[Path], Any]:
    """The reader for a file that begins with these bytes.

    Raises:
        RefusedError: when it is of no known kind.
    """
    if start.startswith(b"PK\x03\x04"):
        return read_archive
    if start.startswith(OLD_TORCH):
        return read_torch
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return read_pickle
    if int.from_bytes(start[:8], "little") <= LONGEST_HEADER and start[8:9] == b"{":
        return read_safetensors
    raise RefusedError("it is not a safetensors file, a torch file or a pickle, or it is cut")


def read_safetensors(path: Path) -> Any:
    """The tensors of a safetensors file."""
    try:
        return load_file(path)
    except (SafetensorError, ValueError) as error:
        raise RefusedError(
            f"it is not a complete safetensors file ({one_line(error, LONGEST)})"
        ) from None


def read_archive(path: Path) -> Any:
    """The contents of a torch file that is a zip archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(each.file_size for each in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise RefusedError(
            f"it is not a complete torch file ({one_line(error, LONGEST)})"
        ) from None
    # torch writes its archives without compression.
    if unpacked > path.stat().st_size:
        raise RefusedError(f"it would unpack to {unpacked} bytes, more than the file has")
    return read_torch(path)


def read_torch(path: Path) -> Any:
    """The contents of a torch file: tensors, numbers, text and containers."""
    # An open file is passed: given a name, torch would go by its suffix.
    with path.open("rb") as file:
        return torch_contents(file)


def read_pickle(path: Path) -> Any:
    """The value that a pickle describes."""
    return description(path.read_bytes())


def _check_tensors(contents: Mapping[Any, Any], size: int) -> None:
    """Refuse tensors that are not plain, or hold more numbers than the file can: a stride of 0 allows any shape."""
    for tensor in _tensors(contents):
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise RefusedError("it holds a tensor that is sparse, quantised or without numbers")
        if tensor.numel() * tensor.element_size() > size:
            raise RefusedError(
                f"it holds a tensor of shape {list(tensor.shape)}, larger than the file"
            )


def _tensors(value: Any, depth: int = 0, seen: set[int] | None = None) -> Iterator[Tensor]:
    """Every tensor in mappings and sequences; each container is visited once."""
    seen = set() if seen is None else seen
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple) and id(value) not in seen and depth < DEEPEST:
        seen.add(id(value))
        for each in value.values() if isinstance(value, dict) else value:
            yield from _tensors(each, depth + 1, seen)
