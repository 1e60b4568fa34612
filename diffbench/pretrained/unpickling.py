"""A pickle read as a description: what it says is looked at, nothing that it names is imported or called.

A pickle is a program for a stack machine. `pickletools.genops` of the standard library splits it into instructions,
and this module interprets those that build data. Where Python's own unpickler would import a name it keeps the name;
where it would make an object of a class it keeps an `Inert` one: the class's name, its arguments, its state. Calls are
carried out for the few functions of `rebuilding.CALLS`: those that rebuild tensors (whose bytes are a torch file, read
with ``weights_only``), and those of plain containers. A name that is not known, whatever for, ends the reading.

EDM's networks are such pickles (Karras et al. 2022, https://github.com/NVlabs/edm): each object of a "persistent" class
brings its own source code, which is text here and stays text. A module is recognised by the state of
`torch.nn.Module`, and comes out as its state_dict, with the name of its class.
"""

from __future__ import annotations

import pickletools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffbench.pretrained.rebuilding import CALLS, NEEDLESS, Inert, RefusedError, one_line

#: Modules inside one another, and in all: no network of the papers comes near.
DEEPEST, MOST = 64, 50_000

#: Names that may stand in such a file without being called by us: classes of modules, types of numbers.
HARMLESS = (
    "torch.nn.",
    "torch_utils.",
    "dnnlib.",
    "training.",
    "numpy.core.multiarray.",
    "numpy._core.multiarray.",
)
HARMLESS_NAMES = {
    "numpy.dtype",
    "numpy.ndarray",
    "torch.Size",
    "torch.device",
    "torch.Tensor",
    "builtins.object",
    "copyreg._reconstructor",
    "copy_reg._reconstructor",
    *(str(each) for each in vars(torch).values() if isinstance(each, torch.dtype)),
}


@dataclass(frozen=True)
class Name:
    """What a pickle would import."""

    text: str


class Module(dict[str, Tensor]):
    """The state_dict of a module; ``kind`` is the name of its class."""

    def __init__(self, kind: str, tensors: Iterable[tuple[str, Tensor]]) -> None:
        super().__init__(tensors)
        self.kind = kind


_MARK = object()


class Machine:
    """The stack machine: ``run`` interprets a pickle and returns the value it describes."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, content: bytes) -> Any:
        """Interpret a pickle.

        Raises:
            RefusedError: for an instruction or a name that data have no need of, and for a pickle that is cut or
                malformed.
        """
        try:
            for opcode, argument, _ in pickletools.genops(content):
                if opcode.name == "STOP":
                    return self.stack.pop()
                self.step(opcode.name, argument)
        except RefusedError:
            raise
        except (ValueError, LookupError, TypeError, OverflowError, MemoryError) as error:
            raise RefusedError(f"it is cut or malformed ({one_line(error)})") from None
        raise RefusedError("it is cut")

    def step(self, name: str, argument: Any) -> None:
        """Carry out one instruction."""
        if name in CONSTANTS:
            self.stack.append(CONSTANTS[name](argument))
        elif name in INSTRUCTIONS:
            INSTRUCTIONS[name](self, argument)
        elif name not in ("PROTO", "FRAME"):
            raise RefusedError(f"it has the instruction {name}, which data have no need of")

    def above_mark(self) -> list[Any]:
        """Take everything above the last mark, and the mark, from the stack."""
        at = len(self.stack) - 1
        while at >= 0 and self.stack[at] is not _MARK:
            at -= 1
        if at < 0:
            raise RefusedError("it goes back to a mark that is not there")
        taken = self.stack[at + 1 :]
        del self.stack[at:]
        return taken

    def take(self, count: int) -> list[Any]:
        """Take the last ``count`` from the stack."""
        if len(self.stack) < count:
            raise RefusedError("it takes more from its stack than is there")
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken

    def drop(self, taken: list[Any]) -> None:
        """Do nothing with what was taken."""


def _keep(machine: Machine, key: int) -> None:
    machine.memo[key] = machine.stack[-1]


def _append(machine: Machine, values: list[Any]) -> None:
    target = machine.stack[-1]
    if isinstance(target, Inert):
        target = target.entries
    if not isinstance(target, list):
        raise RefusedError("it appends to what is no list")
    target.extend(values)


def _set(machine: Machine, flat: list[Any]) -> None:
    target = machine.stack[-1]
    if isinstance(target, Inert):
        target = target.items
    if not isinstance(target, dict) or len(flat) % 2:
        raise RefusedError("it sets items of what is no mapping")
    target.update(zip(flat[::2], flat[1::2], strict=True))


def _add(machine: Machine, values: list[Any]) -> None:
    if not isinstance(machine.stack[-1], set):
        raise RefusedError("it adds to what is no set")
    machine.stack[-1].update(values)


def _named(machine: Machine, text: str) -> None:
    if text not in CALLS and text not in HARMLESS_NAMES and not text.startswith(HARMLESS):
        raise RefusedError(f"it names {text}, {NEEDLESS}")
    machine.stack.append(Name(text))


def _global(machine: Machine, argument: str) -> None:
    module, _, name = argument.partition(" ")
    _named(machine, f"{module}.{name}")


def _stack_global(machine: Machine, _: Any) -> None:
    module, name = machine.take(2)
    if not (isinstance(module, str) and isinstance(name, str)):
        raise RefusedError("it names something by what is no text")
    _named(machine, f"{module}.{name}")


def _reduce(machine: Machine, _: Any) -> None:
    function, args = machine.take(2)
    if not isinstance(function, Name) or not isinstance(args, tuple):
        raise RefusedError("it calls what is no name")
    make = CALLS.get(function.text)
    try:
        made = make(*args) if make else Inert(function.text, args)
    except (TypeError, AttributeError, RuntimeError) as error:
        raise RefusedError(f"it calls {function.text} wrongly ({one_line(error)})") from None
    machine.stack.append(made)


def _new(machine: Machine, count: int) -> None:
    kind, *args = machine.take(count)
    if not isinstance(kind, Name):
        raise RefusedError("it makes an object of what is no class")
    plain = CALLS[kind.text]() if kind.text == "collections.OrderedDict" else None
    machine.stack.append(Inert(kind.text, tuple(args)) if plain is None else plain)


def _build(machine: Machine, _: Any) -> None:
    (state,) = machine.take(1)
    target = machine.stack[-1]
    if isinstance(target, Inert):
        target.state = state
    elif not isinstance(target, OrderedDict):
        # An OrderedDict's own attributes (a state_dict has `_metadata`) are no weights.
        raise RefusedError("it sets the state of what has none")


def _tuple(count: int) -> Callable[[Machine, Any], None]:
    return lambda machine, _: machine.stack.append(tuple(machine.take(count)))


def _pairs(flat: list[Any]) -> dict[Any, Any]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


#: Instructions that push what they say.
CONSTANTS: dict[str, Callable[[Any], Any]] = {
    **{
        name: lambda argument: argument
        for name in (
            *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
            *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE"),
            *("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
            *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
        )
    },
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "EMPTY_TUPLE": lambda _: (),
    "EMPTY_LIST": lambda _: [],
    "EMPTY_DICT": lambda _: {},
    "EMPTY_SET": lambda _: set(),
    "MARK": lambda _: _MARK,
}
INSTRUCTIONS: dict[str, Callable[[Machine, Any], None]] = {
    "POP": lambda machine, _: machine.drop(machine.take(1)),
    "POP_MARK": lambda machine, _: machine.drop(machine.above_mark()),
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.above_mark())),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "LIST": lambda machine, _: machine.stack.append(machine.above_mark()),
    "DICT": lambda machine, _: machine.stack.append(_pairs(machine.above_mark())),
    "FROZENSET": lambda machine, _: machine.stack.append(frozenset(machine.above_mark())),
    "APPEND": lambda machine, _: _append(machine, machine.take(1)),
    "APPENDS": lambda machine, _: _append(machine, machine.above_mark()),
    "SETITEM": lambda machine, _: _set(machine, machine.take(2)),
    "SETITEMS": lambda machine, _: _set(machine, machine.above_mark()),
    "ADDITEMS": lambda machine, _: _add(machine, machine.above_mark()),
    "PUT": _keep,
    "BINPUT": _keep,
    "LONG_BINPUT": _keep,
    "MEMOIZE": lambda machine, _: _keep(machine, len(machine.memo)),
    "GET": lambda machine, key: machine.stack.append(machine.memo[key]),
    "BINGET": lambda machine, key: machine.stack.append(machine.memo[key]),
    "LONG_BINGET": lambda machine, key: machine.stack.append(machine.memo[key]),
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _reduce,
    "BUILD": _build,
    "NEWOBJ": lambda machine, _: _new(machine, 2),
    "NEWOBJ_EX": lambda machine, _: _new(machine, 3),
}


def described(content: bytes) -> Any:
    """The value that a pickle describes; a module as its state_dict, other objects inert.

    Raises:
        RefusedError: when it is malformed, or names or wants what data have no need of.
    """
    value = Machine().run(content)
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return _plain(value)


def _plain(value: Any) -> Any:
    return Module(value.name, _tensors_of(value)) if _is_module(value) else value


def _is_module(value: Any) -> bool:
    parts = value.state if isinstance(value, Inert) else None
    return isinstance(parts, dict) and isinstance(parts.get("_modules"), dict)


def _tensors_of(module: Inert) -> Iterator[tuple[str, Tensor]]:
    """Parameters and persistent buffers by their dotted names, in the order of a state_dict."""
    waiting, seen = [("", module, 0)], 0
    while waiting:
        prefix, inner, depth = waiting.pop()
        seen += 1
        if depth > DEEPEST or seen > MOST:
            raise RefusedError("its modules go on without end")
        left_out = inner.state.get("_non_persistent_buffers_set") or ()
        for kind in ("_parameters", "_buffers"):
            for name, each in dict(inner.state.get(kind) or {}).items():
                if isinstance(each, Tensor) and name not in left_out:
                    yield f"{prefix}{name}", each
        children = [
            (f"{prefix}{name}.", each, depth + 1)
            for name, each in inner.state["_modules"].items()
            if _is_module(each)
        ]
        waiting.extend(reversed(children))
