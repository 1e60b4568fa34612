"""Pickled dictionaries of plain data and of arrays of numbers, read without executing anything.

`diffbench.store.pickles` reads them.  The only calls that it accepts are the names by which NumPy pickles an array
(its versions before 2 and since).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffbench.store.pickles import Call, RefusedError, encoded, interpreted

#: The types of arrays that are accepted: booleans, integers and floating-point numbers of fixed size.
NUMBERS = [f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)] + ["b1", "f4", "f8"]


def _type(call: Call) -> np.dtype[Any]:
    """Return NumPy's type for a pickled one; its state is (version, byte order, ...)."""
    code = call.args[0]
    if not isinstance(code, str) or code not in NUMBERS:
        raise RefusedError("it has an array of something other than numbers")
    swapped = call.state and call.state[1] in ("<", ">")
    return np.dtype(call.state[1] + code if swapped else code)


def _array(content: Any, kind: Any, shape: tuple[int, ...], order: Any) -> NDArray[Any]:
    raw = content.encode("latin-1") if isinstance(content, str) else content
    # Given a number, `bytes` would make that many zeros.
    if not isinstance(raw, bytes | bytearray):
        raise RefusedError("it has an array without content")
    if not isinstance(kind, np.dtype):
        raise RefusedError("it has an array of something other than numbers")
    if min(shape, default=0) < 0 or math.prod(shape) * kind.itemsize != len(raw):
        raise RefusedError(f"it has {len(raw)} bytes for an array of shape {tuple(shape)}")
    return np.frombuffer(raw, kind).reshape(shape, order=order)


def _reconstructed(call: Call) -> NDArray[Any]:
    """Return an array from its state (version, shape, type, whether by columns, content)."""
    _, shape, kind, fortran, content = call.state
    return _array(content, kind, shape, "F" if fortran else "C")


def _from_buffer(call: Call) -> NDArray[Any]:
    return _array(*call.args)


def _array_class(call: Call) -> None:
    """Refuse a call of NumPy's array class, which is an argument of the functions that make arrays."""
    raise RefusedError("it calls numpy.ndarray")


#: The function that rebuilds each name that a pickle may call.
MEANINGS: dict[str, Callable[[Call], Any]] = {
    "numpy.core.multiarray._reconstruct": _reconstructed,
    "numpy._core.multiarray._reconstruct": _reconstructed,
    "numpy._core.numeric._frombuffer": _from_buffer,
    "numpy.dtype": _type,
    "numpy.ndarray": _array_class,
    "_codecs.encode": encoded,
}


def read_dictionary(content: bytes, name: str) -> dict[str, Any]:
    """Return a pickled dictionary of plain data, and of arrays of numbers as its values.

    Args:
        content: the pickle, of any protocol from 2; text of Python 2 becomes str.
        name: its name in messages.

    Raises:
        ValueError: when it is damaged, not a dictionary with names as keys, or holds more than plain data.  Nothing in
            it is ever executed.
    """
    try:
        found = interpreted(content, MEANINGS.get)
    except RefusedError as error:
        raise ValueError(f"{name} is refused: {error}") from None
    if not isinstance(found, dict) or not all(isinstance(key, str | bytes) for key in found):
        raise ValueError(f"{name} is not a complete pickle of a dictionary whose keys are names")
    return {
        key.decode("latin-1") if isinstance(key, bytes) else key: value
        for key, value in found.items()
    }
