"""Pickles read as descriptions: nothing that a pickle names is imported or called.

A pickle is a program: it may import any name and call it.  Here it is read in three steps:

    scan       `pickletools.genops` lists its instructions; those that data do not need are refused
    unpickle   `pickle.Unpickler` runs, but every name that it looks up becomes a kind of `Call`, which keeps
               its arguments, items and state and does nothing
    carry out  a function of the reader (`Meanings`) makes of each call the value that it stands for

A name that the reader has no meaning for ends the reading.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any, NamedTuple

from diffbench.store.status import one_line

#: The instructions by which protocols 2 to 5 write data.
DATA = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "NONE", "NEWTRUE", "NEWFALSE"),
    *("BINSTRING", "SHORT_BINSTRING", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_SET", "ADDITEMS"),
    *("EMPTY_DICT", "SETITEM", "SETITEMS", "GLOBAL", "STACK_GLOBAL", "REDUCE", "NEWOBJ", "BUILD"),
    *("MARK", "POP", "POP_MARK", "BINPUT", "LONG_BINPUT", "MEMOIZE", "BINGET", "LONG_BINGET"),
    *("PROTO", "FRAME", "STOP"),
}
#: Instructions that save the top of the stack in the memo, and that push a value from the memo.
NOTES = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
RECALLS = {"GET", "BINGET", "LONG_BINGET"}
#: Instructions that put values into the one below them.
FILLS = {"APPEND", "APPENDS", "ADDITEMS", "SETITEM", "SETITEMS", "BUILD"}
#: Instruction -> which of the values that it puts into another it hashes, counted from the top of the stack.
HASHED = {"SETITEM": slice(1, None, 2), "SETITEMS": slice(1, None, 2), "ADDITEMS": slice(None)}
#: How deep values may be nested: weights need about ten levels.
DEEPEST = 200
#: How many characters of another library's error are shown.
LONGEST = 200
#: The types of a key of a dictionary or a member of a set.
KEYS = (str, bytes, int, float, bool, type(None))


class RefusedError(ValueError):
    """A pickle that is malformed, or wants more than data."""


class Call(dict[Any, Any]):
    """A call that a pickle asks for: the name of a class or a function, its arguments and its state, and its items."""

    name: str
    args: tuple[Any, ...]
    state: Any = None

    # Python calls either one or both of these; the second would take the arguments for items.
    def __new__(cls, *args: Any) -> Call:
        made = super().__new__(cls)
        made.args = args
        return made

    def __init__(self, *args: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        self.state = state

    # Old protocols write a key of bytes as a call.
    __hash__ = object.__hash__  # type: ignore[assignment]


#: From the full name of a class or a function to a function that carries out a call of it; None refuses the name.
Meanings = Callable[[str], Callable[[Call], Any] | None]


def needless(name: str) -> str:
    """Return why a name is refused; the name is escaped, since it may contain line breaks."""
    return f"it names {ascii(name)[1:-1][:LONGEST]}, which data do not need; nothing of it was run"


def hashable(values: Iterable[Any]) -> list[Any]:
    """Return the values, each of a plain type that may be a key.

    Raises:
        RefusedError: for any other.
    """
    values = list(values)
    if strange := [each for each in values if type(each) not in KEYS]:
        raise RefusedError(f"it has a key of type {type(strange[0]).__name__}")
    return values


def encoded(call: Call) -> bytes:
    """Return the bytes of a call of ``_codecs.encode``, by which old protocols write bytes."""
    text, coding = call.args
    if coding not in ("latin1", "latin-1"):
        raise RefusedError("it encodes text as something else than latin-1")
    return bytes(text.encode("latin-1"))


def interpreted(content: bytes, meanings: Meanings) -> Any:
    """Return the value that a pickle describes.

    Args:
        content: the pickle, of any protocol from 2; text of Python 2 becomes str.
        meanings: returns, for a name, the function that carries out its calls.

    Raises:
        RefusedError: when it is cut or malformed, names what ``meanings`` does not know, or has an instruction that
            data do not need; one line.  Nothing that a pickle names is ever run.
    """
    with _refusing():
        _scan(io.BytesIO(content), DATA)
        return _Reader(content, meanings).read()


def check_nesting(file: IO[bytes], count: int = 1) -> None:
    """Refuse pickles whose values are nested too deep: hashing them overflows the stack of any unpickler.

    Args:
        file: stands at the first pickle, and is moved behind the last.
        count: how many pickles there are, one after the other.

    Raises:
        RefusedError: for values nested deeper than ``DEEPEST``, or when a pickle is cut or malformed; one line.
    """
    with _refusing():
        for _ in range(count):
            _scan(file)


@contextmanager
def _refusing() -> Iterator[None]:
    """Turn any error in this block into the refusal of a pickle."""
    try:
        yield
    except RefusedError:
        raise
    except Exception as error:
        raise RefusedError(f"it is cut or malformed ({one_line(error, LONGEST)})") from None


class _Seen(NamedTuple):
    """A value on the stack: how deep the values in it are nested, and the instruction that made it."""

    depth: int
    code: str


def _scan(file: IO[bytes], allowed: Collection[str] | None = None) -> None:
    """Check the instructions of a pickle without carrying them out.

    Values that are nested too deep are refused.  Where ``allowed`` is given, three more things are: any other
    instruction; a key that is a tuple, because hashing shared tuples may take for ever; and a number in the memo that
    makes the memo grow without use.
    """
    stack: list[_Seen | None] = []  # None is a mark
    memo: dict[Any, _Seen] = {}
    for count, (code, argument, _) in enumerate(pickletools.genops(file)):
        if allowed is not None and code.name not in allowed:
            raise RefusedError(f"it has the instruction {code.name}, which data do not need")
        if code.name in NOTES:
            index: Any = len(memo) if code.name == "MEMOIZE" else argument
            if allowed is not None and index > count:
                raise RefusedError(f"it stores its value {count} under the number {index}")
            memo[index] = stack[-1] or _Seen(0, "MARK")
        elif code.name in RECALLS:
            stack.append(memo[argument])
        elif code.name == "MARK":
            stack.append(None)
        elif code.name == "DUP":
            stack.append(stack[-1])
        else:
            inside = _taken(stack, code.stack_before)
            made = inside.pop() if code.name in FILLS else _Seen(0, code.name)
            if allowed is not None and any("TUPLE" in key.code for key in _keys(code.name, inside)):
                raise RefusedError("it has a key of type tuple")
            depth = max([made.depth, *(each.depth + 1 for each in inside)])
            if depth > DEEPEST:
                raise RefusedError(f"it has values nested more than {DEEPEST} deep")
            stack += [_Seen(depth, made.code)] * len(code.stack_after)


def _taken(stack: list[_Seen | None], before: list[pickletools.StackObject]) -> list[_Seen]:
    """Take the values of an instruction from the stack, the top first; with a mark, also all values above it."""
    inside = []
    if pickletools.markobject in before:
        while (seen := stack.pop()) is not None:
            inside.append(seen)
        before = before[: before.index(pickletools.markobject)]
    return inside + [stack.pop() or _Seen(0, "MARK") for _ in before]


def _keys(code: str, inside: list[_Seen]) -> list[_Seen]:
    """Return the values that an instruction hashes, of those that it takes."""
    return inside[HASHED[code]] if code in HASHED else []


class _Reader(pickle.Unpickler):
    """An unpickler that makes a `Call` of each call, then carries out each of them once."""

    def __init__(self, content: bytes, meanings: Meanings) -> None:
        super().__init__(io.BytesIO(content), encoding="latin-1")
        self.meanings = meanings
        #: Identity of a value -> the value, and what was made of it.
        self.done: dict[int, tuple[Any, Any]] = {}

    def read(self) -> Any:
        return self._made_of(self.load())

    def find_class(self, module: str, name: str) -> type[Call]:
        self._meaning(f"{module}.{name}")
        # A class of its own each time: what a pickle does to it cannot reach another.
        return type("Named", (Call,), {"name": f"{module}.{name}"})

    def _meaning(self, name: str) -> Callable[[Call], Any]:
        meaning = self.meanings(name)
        if meaning is None:
            raise RefusedError(needless(name))
        return meaning

    def _made_of(self, value: Any) -> Any:
        if not isinstance(value, dict | list | tuple | set):
            return value
        if id(value) not in self.done:
            # A value may contain itself.
            self.done[id(value)] = value, value
            self.done[id(value)] = value, self._make(value)
        return self.done[id(value)][1]

    def _make(self, value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(self._each(value))
        if isinstance(value, set):
            return self._meaning("builtins.set")(Call(self._each(value)))
        if isinstance(value, list):
            value[:] = self._each(value)
            return value
        keys, values = self._each(value), self._each(value.values())
        value.clear()
        value.update(zip(hashable(keys), values, strict=True))
        if not isinstance(value, Call):
            return value
        value.args, value.state = self._made_of(value.args), self._made_of(value.state)
        return self._meaning(value.name)(value)

    def _each(self, values: Iterable[Any]) -> list[Any]:
        return [self._made_of(each) for each in values]
