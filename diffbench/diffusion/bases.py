"""Basis: an orthonormal map B from pixels to the coordinates in which a process is diagonal.

    q(x_t | x_0) = N(B^-1 [alpha_t * B x_0], sigma_t^2 I)

White noise is white in every orthonormal basis, so only the factor alpha needs B.  With one scalar
alpha for all coordinates the basis does not matter and is the identity.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Basis(Protocol):
    """An orthonormal basis of images (..., C, H, W)."""

    def scale(self, factor: Tensor | float, x: Tensor) -> Tensor:
        """B^-1 [factor * B x]."""
        ...


class Identity:
    """Pixels are the coordinates."""

    def scale(self, factor: Tensor | float, x: Tensor) -> Tensor:
        """Factor * x."""
        return factor * x
