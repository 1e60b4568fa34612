"""Parameters filled by a rule, as those of the recorded networks were; section 7 of the arrays' README."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from toys import REFERENCE

_MASK = np.uint64(2**32 - 1)
_MIX = np.uint64(0x45D9F3B)


def layout(name: str) -> dict:
    """What reference/NAME_layout.json says of an official state_dict."""
    return json.loads((REFERENCE / f"{name}_layout.json").read_text())


def hash_values(i: int, count: int) -> np.ndarray:
    """``count`` numbers of [-1, 1) of the i-th parameter: a hash of i and of the position."""
    h = np.arange(count, dtype=np.uint64) * np.uint64(2654435761) + np.uint64(i * 40503 + 1)
    h &= _MASK
    for _ in range(2):
        h ^= h >> np.uint64(16)
        h = (h * _MIX) & _MASK
    h ^= h >> np.uint64(16)
    return h.astype(np.float64) / 2**32 * 2 - 1


def hash_fill(key: str, shape: Sequence[int], i: int) -> Tensor:
    """The i-th parameter, in float64: about unit gain, scales near 1, small biases."""
    u = hash_values(i, math.prod(shape))
    if len(shape) >= 2:
        values = u * math.sqrt(3 / math.prod(shape[1:]))
    elif key.endswith("weight"):
        values = 1 + 0.2 * u
    elif key.endswith(".W"):
        values = u
    else:
        values = 0.1 * u
    return torch.from_numpy(values).reshape(tuple(shape))


def filled(shapes: Mapping[str, Sequence[int]], dtype: torch.dtype = torch.float64) -> dict:
    """A state_dict of that key -> shape, every parameter hash-filled in the keys' sorted order."""
    order = {key: i for i, key in enumerate(sorted(shapes))}
    return {key: hash_fill(key, shape, order[key]).to(dtype) for key, shape in shapes.items()}


def filled_layout(name: str, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """The official state_dict of a recorded network, hash-filled; without its buffers."""
    found = layout(name)
    shapes = {key: shape for key, shape, _ in found["state_dict"] if key not in found["buffers"]}
    return filled(shapes, dtype)
