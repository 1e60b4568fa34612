"""A pickle of a network read as a description: tensors, plain containers, and the recorded state of its objects.

`diffbench.store.pickles` reads it. Where Python's own unpickler would make an object of a class, a `Call` is kept: the
class's name, its arguments, its state. `rebuilding.MEANINGS` turns calls that stand for tensors (whose bytes are a
torch file, read with ``weights_only``) and plain containers into these.

EDM's networks are such pickles (Karras et al. 2022, https://github.com/NVlabs/edm): each object of a "persistent" class
contains its own source code, which is never run. A module is recognised by the state of
`torch.nn.Module`, and becomes its state_dict, with the name of its class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from diffbench.pretrained.rebuilding import MEANINGS
from diffbench.store.pickles import Call, RefusedError, interpreted

#: Limits of the depth and the number of modules, far above those of the papers' networks.
DEEPEST, MOST = 64, 50_000

#: Names that are accepted in such a file and do nothing: classes of modules, types of numbers.
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
    *(str(each) for each in vars(torch).values() if isinstance(each, torch.dtype)),
}


class Module(dict[str, Tensor]):
    """The state_dict of a module; ``kind`` is the name of its class."""

    def __init__(self, kind: str, tensors: Iterable[tuple[str, Tensor]]) -> None:
        super().__init__(tensors)
        self.kind = kind


def meaning(name: str) -> Callable[[Call], Any] | None:
    """The function that rebuilds a call of that name; None for a name that weights do not need."""
    if name in HARMLESS_NAMES or name.startswith(HARMLESS):
        return MEANINGS.get(name, _kept)
    return MEANINGS.get(name)


def _kept(call: Call) -> Call:
    return call


def description(content: bytes) -> Any:
    """The value that a pickle describes; a module as its state_dict, other objects as calls.

    Raises:
        RefusedError: when it is malformed, or has a name or a call that data do not need.
    """
    value = interpreted(content, meaning)
    if isinstance(value, dict) and not _is_module(value):
        return {key: _plain(each) for key, each in value.items()}
    return _plain(value)


def _plain(value: Any) -> Any:
    return Module(value.name, _tensors_of(value)) if _is_module(value) else value


def _is_module(value: Any) -> bool:
    parts = value.state if isinstance(value, Call) else None
    return isinstance(parts, dict) and isinstance(parts.get("_modules"), dict)


def _tensors_of(module: Call) -> Iterator[tuple[str, Tensor]]:
    """Parameters and persistent buffers with their dotted names, in the order of a state_dict."""
    waiting, seen = [("", module, 0)], 0
    while waiting:
        prefix, inner, depth = waiting.pop()
        seen += 1
        if depth > DEEPEST or seen > MOST:
            raise RefusedError("its modules are nested without end")
        left_out = _part(inner, "_non_persistent_buffers_set", set)
        for kind in ("_parameters", "_buffers"):
            for name, each in _part(inner, kind, dict).items():
                if isinstance(each, Tensor) and name not in left_out:
                    yield f"{prefix}{name}", each
        children = [
            (f"{prefix}{name}.", each, depth + 1)
            for name, each in inner.state["_modules"].items()
            if _is_module(each)
        ]
        waiting.extend(reversed(children))


def _part(module: Call, name: str, kind: type[Any]) -> Any:
    """A part of a module's state; empty where the state has none of that kind."""
    found = module.state.get(name)
    return found if isinstance(found, kind) else kind()
