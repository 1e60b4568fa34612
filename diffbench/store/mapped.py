"""Arrays of an npz file mapped into memory.

`numpy.savez` stores each array uncompressed, so that it lies in the file as it would in memory:

    local header of 30 bytes, name, extra field | header of the npy format | content

Pages are read when they are used, and are shared by all processes that read the file: ten jobs on a data set of 15 GB
take 15 GB, not 150.  A process that writes to an array changes its own copy, never the file.
"""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

LOCAL_HEADER = struct.Struct("<26xHH")
HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def load(path: Path) -> dict[str, Any]:
    """Return the arrays of an npz file by name: mapped where they are stored as bytes, else read.

    Raises:
        ValueError: when an array is compressed, or holds objects.
    """
    with zipfile.ZipFile(path) as archive:
        return {
            member.filename.removesuffix(".npy"): _array(path, archive, member)
            for member in archive.infolist()
        }


def header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the header of the npy format: the array's shape, whether its order is by columns, and its type.

    Raises:
        ValueError: when the header is damaged, or its version is not known.
    """
    version = np.lib.format.read_magic(stream)
    if version not in HEADERS:
        raise ValueError(f"version {version} of the npy format is not known")
    try:
        return HEADERS[version](stream)
    except (SyntaxError, TokenError, TypeError) as error:
        raise ValueError(f"the header of an array is damaged: {type(error).__name__}") from None


def _array(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(member) as stream:
        shape, fortran, dtype = header(stream)
        length = stream.tell()
    if member.compress_type != zipfile.ZIP_STORED or dtype.hasobject:
        raise ValueError(
            f"{path}: {member.filename} must be stored uncompressed, and must hold no objects"
        )
    # Other types need addresses that are multiples of their size, which offsets in a zip may not be.
    if dtype.itemsize > 1 or not np.prod(shape):
        with archive.open(member) as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)
    with path.open("rb") as file:
        file.seek(member.header_offset)
        name, extra = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
    start = member.header_offset + LOCAL_HEADER.size + name + extra + length
    return np.memmap(path, dtype, "c", start, shape, "F" if fortran else "C")
