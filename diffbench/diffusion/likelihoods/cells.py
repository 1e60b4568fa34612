"""What a likelihood of grey levels must know of them; the data layer's ``Levels`` is one."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Cells(Protocol):
    """Grey levels in model scale, each the middle of a cell."""

    @property
    def spacing(self) -> float:
        """The width of a cell."""
        ...

    @property
    def log_jacobian(self) -> float:
        """The logarithm of the width, nats per dimension."""
        ...

    def dequantise(self, x: Tensor, uniform: Tensor) -> Tensor:
        """Each level spread over its cell by u ~ U[0, 1) of x's shape."""
        ...
