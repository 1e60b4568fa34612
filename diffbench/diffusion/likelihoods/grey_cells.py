"""What a likelihood needs to know of grey levels: a protocol, which ``GreyLevels`` of the data room fulfils."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class GreyCells(Protocol):
    """Grey levels in model scale; each level is the middle of a cell."""

    @property
    def spacing(self) -> float:
        """The width of a cell, in model scale."""
        ...

    @property
    def log_jacobian(self) -> float:
        """The logarithm of a cell's width, in nats per dimension."""
        ...

    def dequantise(self, x: Tensor, uniform: Tensor) -> Tensor:
        """The grey levels x, each moved to a random place in its cell by ``uniform`` ~ U[0, 1), of x's shape."""
        ...
