"""Pickles read as descriptions: what they say is looked at, nothing that they name is imported or run.

A pickle is a program for a stack machine: it may import any name and call it.  Here `pickletools.genops` of the
standard library splits it into instructions, and those by which protocols 2 to 5 build data are carried out on

    stack    values; a mark puts them aside, until what comes after it has become one value
    memo     values by number, to be met again

A name stays a name.  What is done in its place when it is called, the reader says (`Meaning`); where it says nothing,
for a name that it does not know, the reading ends.
"""

from __future__ import annotations

import pickletools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from diffbench.store.status import one_line

#: From the full name of a class or a function to what is done in place of calling it; None refuses the name.
Meaning = Callable[[str], Callable[..., Any] | None]

#: Instructions that push their argument.
LITERALS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINSTRING", "SHORT_BINSTRING", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
#: How many values a tuple instruction takes; TUPLE gathers up to the last mark.
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
SILENT = {"PROTO", "FRAME", "STOP"}
#: Instructions that note the top of the stack, and that push what was noted.
MEMO = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
RECALL = {"GET", "BINGET", "LONG_BINGET"}
#: How many values may lie in one another: weights need some ten.
DEEPEST = 200
#: How many characters of an error of others are shown.
LONGEST = 200
#: What a key of a dictionary or a member of a set may be.
KEYS = (str, bytes, int, float, bool, type(None))
#: What a pickle that is damaged, or forged, may make of the steps below.
STUMBLES = (
    *(ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError),
    MemoryError,
)


class RefusedError(ValueError):
    """A pickle that is malformed, or wants more than data."""


class Stateful(ABC):
    """What takes the state that a pickle gives an object."""

    @abstractmethod
    def build(self, state: Any) -> None:
        """Take it."""


@dataclass(frozen=True)
class Name:
    """A name on the stack: what is called in its place."""

    call: Callable[..., Any]


def needless(name: str) -> str:
    """Why a name is refused; escaped, since a line may break in it."""
    return (
        f"it names {ascii(name)[1:-1][:LONGEST]}, which data have no need of; nothing of it was run"
    )


def hashable(values: Iterable[Any]) -> list[Any]:
    """The values, each a plain one: to hash tuples in tuples without end would overflow the interpreter's stack.

    Raises:
        RefusedError: for any other.
    """
    values = list(values)
    if strange := [each for each in values if type(each) not in KEYS]:
        raise RefusedError(f"it has a key of type {type(strange[0]).__name__}")
    return values


def encoded(text: str, coding: str) -> bytes:
    """In place of ``_codecs.encode``, by which old protocols write bytes."""
    if coding not in ("latin1", "latin-1"):
        raise RefusedError("it encodes text as something else than latin-1")
    return text.encode("latin-1")


def interpreted(content: bytes, meaning: Meaning) -> Any:
    """The value that a pickle describes.

    Args:
        content: the pickle, of any protocol from 2; text of Python 2 becomes str.
        meaning: what is done in place of what it calls.

    Raises:
        RefusedError: when it is cut or malformed, names what ``meaning`` does not know, or has an instruction that data
            have no need of; one line.  Nothing of it has been run then, nor ever is.
    """
    machine = _Machine(meaning)
    with _refusing():
        for code, argument, _ in pickletools.genops(content):
            machine.step(code.name, argument)
        return machine.stack.pop()


def check_nesting(file: IO[bytes], count: int = 1) -> None:
    """Refuse pickles whose values lie deep in one another: to hash them overflows the stack of any unpickler.

    Args:
        file: at the first of them; moved behind the last.
        count: how many pickles there are, one after the other.

    Raises:
        RefusedError: for more than ``DEEPEST`` values in one another, or when a pickle is cut or malformed; one line.
    """
    with _refusing():
        for _ in range(count):
            _check_nesting(file)


@contextmanager
def _refusing() -> Iterator[None]:
    """Refuse a pickle that is stumbled over in this block."""
    try:
        yield
    except RefusedError:
        raise
    except STUMBLES as error:
        raise RefusedError(f"it is cut or malformed ({one_line(error, LONGEST)})") from None


def _check_nesting(file: IO[bytes]) -> None:
    # Of the stack, how deep each value is; None is a mark.
    stack: list[int | None] = []
    memo: dict[Any, int] = {}
    for code, argument, _ in pickletools.genops(file):
        if code.name in MEMO:
            memo[len(memo) if code.name == "MEMOIZE" else argument] = stack[-1] or 0
        elif code.name in RECALL:
            stack.append(memo[argument])
        elif code.name == "MARK":
            stack.append(None)
        elif code.name == "DUP":
            stack.append(stack[-1])
        else:
            before = code.stack_before
            inside = []
            if pickletools.markobject in before:
                while (depth := stack.pop()) is not None:
                    inside.append(depth)
                before = before[: before.index(pickletools.markobject)]
            inside += [stack.pop() or 0 for _ in before]
            deepest = max(inside, default=-1) + 1
            if deepest > DEEPEST:
                raise RefusedError(f"it has more than {DEEPEST} values in one another")
            stack += [deepest] * len(code.stack_after)


class _Machine:
    """The stack, what the marks have put aside, and the memo."""

    def __init__(self, meaning: Meaning) -> None:
        self.meaning = meaning
        self.stack: list[Any] = []
        self.aside: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def step(self, code: str, argument: Any) -> None:
        """Carry out one instruction."""
        if code in LITERALS:
            self.stack.append(argument)
        elif code in CONSTANTS:
            self.stack.append(CONSTANTS[code])
        elif code in TUPLES:
            self.stack.append(tuple(self._take(TUPLES[code])))
        elif method := getattr(self, f"on_{code.lower()}", None):
            method(argument)
        elif code not in SILENT:
            raise RefusedError(f"it has the instruction {code}, which data have no need of")

    def _take(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise RefusedError("it takes more from its stack than is there")
        taken = self.stack[-count:]
        del self.stack[-count:]
        return taken

    def _to_mark(self) -> list[Any]:
        taken, self.stack = self.stack, self.aside.pop()
        return taken

    def _top(self, kind: type[Any]) -> Any:
        if not isinstance(self.stack[-1], kind):
            found = type(self.stack[-1]).__name__
            raise RefusedError(f"it fills a {found} as if it were a {kind.__name__}")
        return self.stack[-1]

    def on_mark(self, _: Any) -> None:
        self.aside.append(self.stack)
        self.stack = []

    def on_pop(self, _: Any) -> None:
        self._take(1)

    def on_pop_mark(self, _: Any) -> None:
        self._to_mark()

    def on_empty_dict(self, _: Any) -> None:
        self.stack.append({})

    def on_empty_list(self, _: Any) -> None:
        self.stack.append([])

    def on_empty_set(self, _: Any) -> None:
        self.stack.append(self._named("builtins", "set").call())

    def on_tuple(self, _: Any) -> None:
        values = self._to_mark()
        self.stack.append(tuple(values))

    def on_append(self, _: Any) -> None:
        values = self._take(1)
        self._top(list).extend(values)

    def on_appends(self, _: Any) -> None:
        values = self._to_mark()
        self._top(list).extend(values)

    def on_additems(self, _: Any) -> None:
        values = self._to_mark()
        self._top(set).update(hashable(values))

    def on_setitem(self, _: Any) -> None:
        self._set(self._take(2))

    def on_setitems(self, _: Any) -> None:
        self._set(self._to_mark())

    def _set(self, flat: list[Any]) -> None:
        self._top(dict).update(zip(hashable(flat[::2]), flat[1::2], strict=True))

    def on_memoize(self, _: Any) -> None:
        self.on_binput(len(self.memo))

    def on_binput(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def on_binget(self, index: int) -> None:
        self.stack.append(self.memo[index])

    on_long_binput, on_long_binget = on_binput, on_binget

    def on_global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.stack.append(self._named(module, name))

    def on_stack_global(self, _: Any) -> None:
        module, name = self._take(2)
        if not (isinstance(module, str) and isinstance(name, str)):
            raise RefusedError("it names something by what is no text")
        self.stack.append(self._named(module, name))

    def _named(self, module: str, name: str) -> Name:
        call = self.meaning(f"{module}.{name}")
        if call is None:
            raise RefusedError(needless(f"{module}.{name}"))
        return Name(call)

    def on_reduce(self, _: Any) -> None:
        called, arguments = self._take(2)
        if not isinstance(called, Name) or not isinstance(arguments, tuple):
            raise RefusedError("it calls what is no name")
        self.stack.append(called.call(*arguments))

    # A new object of a class: what is done in place of the class makes it.
    on_newobj = on_reduce

    def on_build(self, _: Any) -> None:
        (state,) = self._take(1)
        self._top(Stateful).build(state)
