"""Pickled dictionaries of plain data and of arrays of numbers, read without executing anything.

`diffbench.store.pickles` reads them; what they may call are the names by which NumPy pickles an array (its versions
before 2 and since), in whose place functions of this module make one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffbench.store.pickles import RefusedError, Stateful, encoded, interpreted

#: What arrays may be made of: booleans, integers and floating-point numbers of fixed size.
NUMBERS = [f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)] + ["b1", "f4", "f8"]


class _Type(Stateful):
    """A NumPy type of numbers; its byte order comes with its state."""

    def __init__(self, code: str, *_: Any) -> None:
        if not isinstance(code, str) or code not in NUMBERS:
            raise RefusedError("it has an array of something else than numbers")
        self.dtype = np.dtype(code)

    def build(self, state: tuple[Any, ...]) -> None:
        """Take (version, byte order, ...)."""
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array(Stateful):
    """An array; its shape, type and content come with its state."""

    def __init__(self, *_: Any) -> None:
        self.value: NDArray[Any] = np.empty(0)

    def build(self, state: tuple[Any, ...]) -> None:
        """Take (version, shape, type, whether by columns, content)."""
        _, shape, kind, fortran, content = state
        self.value = _array(content, kind, shape, "F" if fortran else "C")


def _array(content: Any, kind: _Type, shape: tuple[int, ...], order: Any) -> NDArray[Any]:
    raw = content.encode("latin-1") if isinstance(content, str) else content
    # Of a number, `bytes` would make that many.
    if not isinstance(raw, bytes | bytearray):
        raise RefusedError("it has an array without content")
    if min(shape, default=0) < 0 or math.prod(shape) * kind.dtype.itemsize != len(raw):
        raise RefusedError(f"it has {len(raw)} bytes for an array of shape {tuple(shape)}")
    return np.frombuffer(raw, kind.dtype).reshape(shape, order=order)


def _from_buffer(content: Any, kind: _Type, shape: tuple[int, ...], order: str) -> _Array:
    made = _Array()
    made.value = _array(content, kind, shape, order)
    return made


def _array_class(*_: Any) -> None:
    """In place of NumPy's class, which is an argument of the functions that make arrays."""
    raise RefusedError("it calls numpy.ndarray")


#: The names that may stand in a pickle, and what is done in their place.
CALLS: dict[str, Callable[..., Any]] = {
    "numpy.core.multiarray._reconstruct": _Array,
    "numpy._core.multiarray._reconstruct": _Array,
    "numpy._core.numeric._frombuffer": _from_buffer,
    "numpy.dtype": _Type,
    "numpy.ndarray": _array_class,
    "_codecs.encode": encoded,
}


def read_dictionary(content: bytes, name: str) -> dict[str, Any]:
    """Read a pickled dictionary of plain data, and of arrays of numbers as its values.

    Args:
        content: the pickle, of any protocol from 2; text of Python 2 becomes str.
        name: what messages call it.

    Raises:
        ValueError: when it is torn, no dictionary with names as keys, or holds more than plain data.  Nothing of it has
            been executed then, nor ever is.
    """
    try:
        found = interpreted(content, CALLS.get)
    except RefusedError as error:
        raise ValueError(f"{name} is refused: {error}") from None
    if not isinstance(found, dict) or not all(isinstance(key, str | bytes) for key in found):
        raise ValueError(f"{name} is no whole pickle of a dictionary of names")
    return {
        key.decode("latin-1") if isinstance(key, bytes) else key: (
            value.value if isinstance(value, _Array) else value
        )
        for key, value in found.items()
    }
