r"""Basis: an orthonormal map B from pixels to the coordinates in which a process is diagonal.

    q(x_t | x_0) = N(B^-1 [alpha_t * B x_0], sigma_t^2 I)

White noise is white in every orthonormal basis, so only the factor alpha needs B.  With one scalar
alpha for all coordinates the basis does not matter and is the identity.

The cosine transform (DCT-II) of an H x W image, along each axis of n pixels,

    u_k = c_k sum_j cos(pi k (j + 1/2)/n) x_j,     c_0 = sqrt(1/n),  c_k = sqrt(2/n),

diagonalises the heat equation with no flow through the borders: a time tau, which is a Gaussian blur of width
sqrt(2 tau) pixels, multiplies coordinate (i, j) by exp(-lambda_ij tau), lambda_ij = (pi i/H)^2 + (pi j/W)^2
(Rissanen, Heinonen & Solin 2023, https://arxiv.org/abs/2206.13397, section 3.1).  Both transforms are products with
matrices, which are faster than a fast transform for images of up to a few hundred pixels a side.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor


class Basis(Protocol):
    """An orthonormal basis of images (..., C, H, W)."""

    def coordinates(self, x: Tensor) -> Tensor:
        """The coordinates B x of an image x."""
        ...

    def pixels(self, u: Tensor) -> Tensor:
        """The image B^-1 u of coordinates u."""
        ...

    def scale(self, factor: Tensor | float, x: Tensor) -> Tensor:
        """The scaled image B^-1 [factor * B x], always a new tensor."""
        ...

    def on_constant(self, factor: Tensor) -> Tensor:
        """The factor's effect on an image of one value: its entry for the constant coordinate."""
        ...

    def pixel_variance(self, variance: Tensor) -> Tensor:
        """The mean variance of a pixel, for noise with these variances in the coordinates."""
        ...


class Identity:
    """The identity basis: the coordinates are the pixels, and every method but ``scale`` returns its argument."""

    def coordinates(self, x: Tensor) -> Tensor:
        return x

    def pixels(self, u: Tensor) -> Tensor:
        return u

    def scale(self, factor: Tensor | float, x: Tensor) -> Tensor:
        """The product factor * x."""
        return factor * x

    def on_constant(self, factor: Tensor) -> Tensor:
        return factor

    def pixel_variance(self, variance: Tensor) -> Tensor:
        return variance


class DCT:
    """The orthonormal cosine transform of images of one height and width.

    A factor has shape () or (..., 1, 1), one number for all coordinates, or (..., H, W), one for each.

    Attributes:
        eigenvalues: lambda, float64 (H, W).
    """

    def __init__(self, height: int, width: int) -> None:
        self.matrices = cosine_matrix(height), cosine_matrix(width)
        squares = [
            (math.pi * torch.arange(n, dtype=torch.float64) / n) ** 2 for n in (height, width)
        ]
        self.squares = squares[0], squares[1]
        self.eigenvalues = squares[0][:, None] + squares[1]
        self._cast: dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor]] = {}

    def like(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The two matrices in x's precision, on x's device."""
        key = x.dtype, x.device
        if key not in self._cast:
            rows, columns = (matrix.to(x) for matrix in self.matrices)
            self._cast[key] = rows, columns
        return self._cast[key]

    def coordinates(self, x: Tensor) -> Tensor:
        """The coordinates B x: (..., H, W) -> (..., H, W)."""
        rows, columns = self.like(x)
        return between(rows, x, columns.T)

    def pixels(self, u: Tensor) -> Tensor:
        """The image B^-1 u: (..., H, W) -> (..., H, W)."""
        rows, columns = self.like(u)
        return between(rows.T, u, columns)

    def scale(self, factor: Tensor | float, x: Tensor) -> Tensor:
        """The scaled image B^-1 [factor * B x]; the product factor * x where the factor is one number."""
        if not isinstance(factor, Tensor) or factor.ndim < 2 or factor.shape[-2:] == (1, 1):
            return factor * x
        return self.pixels(factor * self.coordinates(x))

    def on_constant(self, factor: Tensor) -> Tensor:
        """The factor's entry for the first coordinate, (..., 1, 1), or the one number for all."""
        return factor if factor.ndim < 2 else factor[..., :1, :1]

    def pixel_variance(self, variance: Tensor) -> Tensor:
        """The mean of the variances over the coordinates, (..., 1, 1), or the one number for all."""
        return variance if variance.ndim < 2 else variance.mean((-2, -1), keepdim=True)

    def heat(self, x: Tensor, tau: Tensor) -> Tensor:
        """Images x (B, C, H, W) blurred by the heat equation for the times tau, () or (B, 1, 1, 1).

        The factor is a product of one factor for the rows and one for the columns.  So each image is multiplied by one
        matrix from the left and one from the right, computed once for the image; of a square image they are the same.
        """
        with torch.autocast(x.device.type, enabled=False):
            rows = self.blurring(0, x, tau)
            columns = rows if x.shape[-1] == x.shape[-2] else self.blurring(1, x, tau)
            if rows.ndim == 2 or x.shape[1] == 1:
                return rows @ x @ columns
            # `x @ columns` would copy the matrix for each channel.
            found: Tensor = rows @ (x.flatten(1, 2) @ columns[:, 0]).unflatten(1, x.shape[1:3])
            return found

    def blurring(self, axis: int, x: Tensor, tau: Tensor) -> Tensor:
        """The matrix that blurs the rows (0) or the columns (1) of images x: (n, n), or (B, 1, n, n) for B times."""
        factor = (-tau * self.squares[axis].to(tau.device)).exp().to(x)
        matrix = self.like(x)[axis]
        return (matrix.T * factor) @ matrix


def between(left: Tensor, x: Tensor, right: Tensor) -> Tensor:
    """The matrix product left x right, in x's own precision also under autocast, which would make it bfloat16."""
    with torch.autocast(x.device.type, enabled=False):
        return left @ x @ right


def cosine_matrix(n: int) -> Tensor:
    """The matrix of the orthonormal DCT-II of n numbers, float64 (n, n)."""
    k = torch.arange(n, dtype=torch.float64)
    matrix = (math.pi * k[:, None] * (k + 0.5) / n).cos() * math.sqrt(2 / n)
    matrix[0] /= math.sqrt(2)
    return matrix
