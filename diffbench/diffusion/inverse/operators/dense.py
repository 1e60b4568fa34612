r"""Operators given as a matrix H, which is decomposed as a whole.

    H = U diag(s) V^T,     (M, D) = (M, M)(M, D)(D, D)

One matrix for whole images, D = CHW, or the same one for each channel, D = HW.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from diffbench.diffusion.inverse.operators.operator import ROUNDING, Cast, Operator
from diffbench.specs.operators import ImageShape, OperatorSpec


class Decomposition(NamedTuple):
    """A matrix (M, D) as U diag(s) V^T, float64, with r = min(M, D)."""

    #: (M, r)
    U: Tensor
    #: (D,), decreasing, 0 from the r-th on
    s: Tensor
    #: (D, D), orthogonal
    V: Tensor


def decompose(matrix: Tensor) -> Decomposition:
    """The singular value decomposition of a matrix (M, D), with all D columns of V."""
    rank = min(matrix.shape)
    U, s, Vh = torch.linalg.svd(matrix.double(), full_matrices=True)
    return Decomposition(
        U[:, :rank].contiguous(), torch.cat([s, s.new_zeros(matrix.shape[1] - rank)]), Vh.T
    )


def truncated(s: Tensor, smallest: float) -> Tensor:
    """The singular values s, where those below the share ``smallest`` of the largest are set to 0."""
    return torch.where(s < smallest * s.max(), 0.0, s)


class Dense(Operator):
    """The operator of a matrix H.

    Args:
        spec: the spec of any operator.
        image_shape: (C, H, W).
        matrix: (M, CHW), or (M, HW) for each channel.
        measurement_shape: the shape of y; by default (M,), or (C, M).
        smallest: singular values below this share of the largest are set to 0, and H is without them.

    Raises:
        ValueError: when the matrix has another number of columns.
    """

    def __init__(
        self,
        spec: OperatorSpec,
        image_shape: ImageShape,
        matrix: Tensor,
        measurement_shape: tuple[int, ...] | None = None,
        smallest: float = ROUNDING,
    ) -> None:
        super().__init__(spec, image_shape)
        count, entries = matrix.shape
        groups = math.prod(image_shape) // entries
        if groups * entries != math.prod(image_shape) or groups not in (1, image_shape[0]):
            raise ValueError(
                f"matrix: {entries} columns are neither the number of values of an image of {tuple(image_shape)} "
                "nor that of one channel"
            )
        U, s, V = decompose(matrix)
        s = truncated(s, smallest)
        self.rank = int((s > 0).sum())
        self.s = s.repeat(groups)
        self.measurement_shape = measurement_shape or ((groups, count) if groups > 1 else (count,))
        self.groups, self.factors = groups, Cast(U[:, : self.rank], V)

    def coordinates(self, x: Tensor) -> Tensor:
        _, V = self.factors.like(x)
        return product(x.reshape(len(x), self.groups, -1), V).flatten(1)

    def pixels(self, u: Tensor) -> Tensor:
        _, V = self.factors.like(u)
        return product(u.unflatten(1, (self.groups, -1)), V.T).reshape(len(u), *self.image_shape)

    def spectral(self, y: Tensor) -> Tensor:
        U, V = self.factors.like(y)
        u = product(y.reshape(len(y), self.groups, -1), U)
        return torch.nn.functional.pad(u, (0, len(V) - self.rank)).flatten(1)

    def measurement(self, u: Tensor) -> Tensor:
        U, _ = self.factors.like(u)
        y = product(u.unflatten(1, (self.groups, -1))[..., : self.rank], U.T)
        return y.reshape(len(u), *self.measurement_shape)


def product(x: Tensor, matrix: Tensor) -> Tensor:
    """The product x @ matrix, in x's own precision: autocast would make it bfloat16."""
    with torch.autocast(x.device.type, enabled=False):
        return x @ matrix
