"""Pickles of plain data, read without executing anything.

A pickle is a program for a stack machine: it may import any name and call it.  Here the program is decoded
(`pickletools.genops`) and those of its instructions carried out that build dictionaries, lists, tuples,
text, bytes and numbers.  A name stays a name: nothing is imported.  A call is understood if its name is one of those by
which NumPy pickles an array (its versions before 2 and since), and is then carried out by a function of this
module; every other name or instruction is refused.

    instruction stream -> stack, memo -> dictionary whose values are data or arrays of numbers
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

#: What arrays may be made of: booleans, integers and floating-point numbers of fixed size.
NUMBERS = {f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)} | {"b1", "f4", "f8"}

#: Instructions that push their argument.
LITERALS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINSTRING", "SHORT_BINSTRING", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
#: How many values a tuple instruction takes; the others gather up to the last mark.
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
SILENT = {"PROTO", "FRAME", "STOP"}


class RefusedError(ValueError):
    """A pickle holds more than plain data."""


class _Name(NamedTuple):
    module: str
    name: str


class _Type:
    """A NumPy type of numbers; its byte order comes with BUILD."""

    def __init__(self, code: str, *_: Any) -> None:
        if code not in NUMBERS:
            raise RefusedError(f"has an array of type {code!r}")
        self.dtype = np.dtype(code)

    def build(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """An array; its shape, type and content come with BUILD."""

    def __init__(self, *_: Any) -> None:
        self.value: NDArray[Any] = np.empty(0)

    def build(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, content = state
        self.value = _array(content, kind, shape, "F" if fortran else "C")


def _array(content: Any, kind: _Type, shape: tuple[int, ...], order: Any) -> NDArray[Any]:
    raw = content.encode("latin-1") if isinstance(content, str) else bytes(content)
    if min(shape, default=0) < 0 or math.prod(shape) * kind.dtype.itemsize != len(raw):
        raise RefusedError(f"has {len(raw)} bytes for an array of shape {tuple(shape)}")
    return np.frombuffer(raw, kind.dtype).reshape(shape, order=order)


def _from_buffer(content: Any, kind: _Type, shape: tuple[int, ...], order: str) -> _Array:
    made = _Array()
    made.value = _array(content, kind, shape, order)
    return made


def _encode(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise RefusedError(f"encodes text as {encoding!r}")
    return text.encode("latin-1")


#: The names that may be called, and what is done in their place.
CALLS: dict[_Name, Callable[..., Any]] = {
    _Name("numpy.core.multiarray", "_reconstruct"): _Array,
    _Name("numpy._core.multiarray", "_reconstruct"): _Array,
    _Name("numpy._core.numeric", "_frombuffer"): _from_buffer,
    _Name("numpy", "dtype"): _Type,
    _Name("_codecs", "encode"): _encode,
}
KNOWN = {*CALLS, _Name("numpy", "ndarray")}


class _Machine:
    """The stack, the stacks below the marks, and the memo."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def step(self, code: str, argument: Any) -> None:
        """Carry out one instruction."""
        if code in LITERALS:
            self.stack.append(argument)
        elif code in CONSTANTS:
            self.stack.append(CONSTANTS[code])
        elif code in TUPLES:
            count = TUPLES[code]
            self.stack[-count:] = [tuple(self.stack[-count:])]
        elif method := getattr(self, f"_{code.lower()}", None):
            method(argument)
        elif code not in SILENT:
            raise RefusedError(f"has the instruction {code}")

    def _to_mark(self) -> list[Any]:
        values, self.stack = self.stack, self.below.pop()
        return values

    def _mark(self, _: Any) -> None:
        self.below.append(self.stack)
        self.stack = []

    def _empty_dict(self, _: Any) -> None:
        self.stack.append({})

    def _empty_list(self, _: Any) -> None:
        self.stack.append([])

    def _tuple(self, _: Any) -> None:
        values = self._to_mark()
        self.stack.append(tuple(values))

    def _append(self, _: Any) -> None:
        value = self.stack.pop()
        self._top(list).append(value)

    def _appends(self, _: Any) -> None:
        values = self._to_mark()
        self._top(list).extend(values)

    def _setitem(self, _: Any) -> None:
        key, value = self.stack[-2:]
        del self.stack[-2:]
        self._fill([key, value])

    def _setitems(self, _: Any) -> None:
        self._fill(self._to_mark())

    def _fill(self, values: list[Any]) -> None:
        # Keys are hashed: of tuples in tuples without end that would overflow the interpreter's stack.
        if strange := [key for key in values[::2] if type(key) not in (str, bytes, int)]:
            raise RefusedError(f"has a key of type {type(strange[0]).__name__}")
        self._top(dict).update(zip(values[::2], values[1::2], strict=True))

    def _top(self, kind: type[Any]) -> Any:
        if type(self.stack[-1]) is not kind:
            raise RefusedError(
                f"fills a {type(self.stack[-1]).__name__} as if it were a {kind.__name__}"
            )
        return self.stack[-1]

    def _memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _binput(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def _binget(self, index: int) -> None:
        self.stack.append(self.memo[index])

    _long_binput, _long_binget = _binput, _binget

    def _global(self, argument: str) -> None:
        self._name(*argument.split(" ", 1))

    def _stack_global(self, _: Any) -> None:
        module, name = self.stack[-2:]
        del self.stack[-2:]
        self._name(module, name)

    def _name(self, module: str, name: str) -> None:
        found = _Name(module, name)
        if found not in KNOWN:
            raise RefusedError(f"names {module}.{name}")
        self.stack.append(found)

    def _reduce(self, _: Any) -> None:
        arguments, called = self.stack.pop(), self.stack.pop()
        if not isinstance(called, _Name) or called not in CALLS:
            raise RefusedError(f"calls a {type(called).__name__} that cannot be called")
        self.stack.append(CALLS[called](*arguments))

    def _build(self, _: Any) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if not isinstance(target, _Type | _Array):
            raise RefusedError(f"gives a state to a {type(target).__name__}")
        target.build(state)


def read_dictionary(content: bytes, name: str) -> dict[str, Any]:
    """Read a pickled dictionary of plain data and arrays of numbers.

    Args:
        content: the pickle, of any protocol from 2; text of Python 2 becomes str.
        name: what messages call it.

    Raises:
        ValueError: when it is torn, no dictionary with names as keys, or holds more than plain data.  Nothing of it has
            been executed then, nor ever is.
    """
    machine = _Machine()
    try:
        for code, argument, _ in pickletools.genops(content):
            machine.step(code.name, argument)
        value = machine.stack.pop()
        named = {_text(key): each for key, each in value.items()}
    except RefusedError as error:
        raise ValueError(
            f"{name} is refused: its pickle {error}; only plain data and arrays of numbers are read"
        ) from None
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError) as error:
        raise ValueError(f"{name} is no whole pickle of a dictionary ({error})") from None
    return {key: each.value if isinstance(each, _Array) else each for key, each in named.items()}


def _text(key: Any) -> str:
    return key.decode("latin-1") if isinstance(key, bytes) else key + ""
