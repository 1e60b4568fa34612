r"""Operators that measure some coefficients of an orthonormal transform, all times the same number.

    u = T x,     y = gain * u[measured],     s = gain where measured, 0 elsewhere,     V = T^T,  U = 1

Inpainting and denoising measure pixels (T = 1).  Colourisation measures the mean of the C channels, 1/sqrt(C) times the
first coefficient of a rotation of colours that begins with (1, ..., 1)/sqrt(C); super-resolution by block averages
measures 1/f times the first cosine coefficient of each f x f block; compressed sensing measures Walsh-Hadamard
coefficients of the pixels, shuffled or not.

Source: Kawar, Elad, Ermon & Song 2022, "Denoising Diffusion Restoration Models", https://arxiv.org/abs/2201.11793,
appendix D.  Its code weighs colours by 0.3333, 0.3334 and 0.3333, and does not shuffle pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffbench.diffusion.core.bases import between, cosine_matrix
from diffbench.diffusion.core.streams import stream
from diffbench.diffusion.inverse.operators.operator import Cast, Operator
from diffbench.specs.operators import (
    BoxMaskSpec,
    ColourisationSpec,
    CompressedSensingSpec,
    DrawnMaskSpec,
    FactorSpec,
    ImageShape,
    OperatorSpec,
    RandomMaskSpec,
)


class Selection(Operator):
    """Some coefficients are measured; by default those of the identity, the pixels.

    Args:
        spec: the spec of any operator.
        image_shape: (C, H, W).
        measured: booleans (C, H, W): which coefficients are measured, in the order of ``transform``.
        measurement_shape: the shape of y, which has the measured coefficients in that order; flat by default.
        gain: the factor of each coefficient.

    Raises:
        ValueError: when ``measured`` does not have the image's shape, or measures nothing.
    """

    def __init__(
        self,
        spec: OperatorSpec,
        image_shape: ImageShape,
        measured: Tensor,
        measurement_shape: tuple[int, ...] | None = None,
        gain: float = 1.0,
    ) -> None:
        super().__init__(spec, image_shape)
        if tuple(measured.shape) != tuple(image_shape) or not measured.any():
            raise ValueError(
                f"measured: a mask of {tuple(measured.shape)} with {int(measured.sum())} coefficients does not fit "
                f"images of {tuple(image_shape)}; at least one must be measured"
            )
        index = measured.flatten().nonzero()[:, 0]
        self.s = gain * measured.flatten().double()
        self.measurement_shape = measurement_shape or (len(index),)
        self.index = Cast(index)

    def transform(self, x: Tensor) -> Tensor:
        """The coefficients T x: (B, C, H, W) -> (B, C, H, W); x itself by default."""
        return x

    def inverse_transform(self, u: Tensor) -> Tensor:
        """The images T^-1 u: (B, C, H, W) -> (B, C, H, W); u itself by default."""
        return u

    def coordinates(self, x: Tensor) -> Tensor:
        return self.transform(x).flatten(1)

    def pixels(self, u: Tensor) -> Tensor:
        return self.inverse_transform(u.unflatten(1, self.image_shape))

    def spectral(self, y: Tensor) -> Tensor:
        (index,) = self.index.like(y)
        return y.new_zeros(len(y), len(self.s)).index_copy(1, index, y.flatten(1))

    def measurement(self, u: Tensor) -> Tensor:
        (index,) = self.index.like(u)
        found: Tensor = u[:, index].unflatten(1, self.measurement_shape)
        return found


class Denoising(Selection):
    """Every pixel is measured: y (C, H, W)."""

    def __init__(self, spec: OperatorSpec, image_shape: ImageShape) -> None:
        measured = torch.ones(image_shape, dtype=torch.bool)
        super().__init__(spec, image_shape, measured, tuple(image_shape))


class Mask(Selection):
    """Base: the same pixels are lost in all channels.

    y is (C, n), the n measured pixels row by row.

    Args:
        spec: the spec of any operator.
        image_shape: (C, H, W).
        lost: booleans (H, W), true where a pixel is lost.
    """

    def __init__(self, spec: OperatorSpec, image_shape: ImageShape, lost: Tensor) -> None:
        channels, count = image_shape[0], int((~lost).sum())
        measured = (~lost).expand(channels, *lost.shape)
        super().__init__(spec, image_shape, measured, (channels, count))


class RandomMask(Mask):
    """Random pixels are lost: the first ones in a random order of all pixels."""

    def __init__(self, spec: RandomMaskSpec, image_shape: ImageShape) -> None:
        _, height, width = image_shape
        order = torch.randperm(height * width, generator=stream("random-mask", spec.seed))
        lost = (order.argsort() < spec.lost(image_shape)).reshape(height, width)
        super().__init__(spec, image_shape, lost)


class BoxMask(Mask):
    """The pixels of a box are lost."""

    def __init__(self, spec: BoxMaskSpec, image_shape: ImageShape) -> None:
        _, height, width = image_shape
        top, left = spec.corner(image_shape)
        lost = torch.zeros(height, width, dtype=torch.bool)
        lost[top : top + spec.height, left : left + spec.width] = True
        super().__init__(spec, image_shape, lost)


class DrawnMask(Mask):
    """The pixels drawn as ``#`` are lost."""

    def __init__(self, spec: DrawnMaskSpec, image_shape: ImageShape) -> None:
        lost = torch.tensor([[pixel == "#" for pixel in row] for row in spec.rows])
        super().__init__(spec, image_shape, lost)


class Colourisation(Selection):
    """A weighted sum of the channels is measured: y (1, H, W); by default their mean, with s = 1/sqrt(C).

    Args:
        spec: the operator's parameters.
        image_shape: (C, H, W).
        weights: the weights (C,) of the channels; s is their norm.
    """

    def __init__(
        self,
        spec: ColourisationSpec,
        image_shape: ImageShape,
        weights: Tensor | None = None,
    ) -> None:
        channels, height, width = image_shape
        if weights is None:
            weights = torch.full((channels,), 1 / channels, dtype=torch.float64)
        measured = torch.zeros(image_shape, dtype=torch.bool)
        measured[0] = True
        gain = float(weights.norm())
        super().__init__(spec, image_shape, measured, (1, height, width), gain)
        self.rotation = Cast(rotation_towards(weights))

    def transform(self, x: Tensor) -> Tensor:
        (rotation,) = self.rotation.like(x)
        return mix(rotation, x)

    def inverse_transform(self, u: Tensor) -> Tensor:
        (rotation,) = self.rotation.like(u)
        return mix(rotation.T, u)


def rotation_towards(direction: Tensor) -> Tensor:
    """An orthogonal matrix, float64 (C, C), whose first row is the direction (C,) of norm 1.

    It is the Householder reflection that exchanges the first axis and the direction.
    """
    unit = direction.double() / direction.double().norm()
    normal = unit - torch.eye(len(unit), dtype=torch.float64)[0]
    if normal.norm() == 0:
        return torch.eye(len(unit), dtype=torch.float64)
    normal = normal / normal.norm()
    found: Tensor = torch.eye(len(unit), dtype=torch.float64) - 2 * normal[:, None] * normal
    return found


def mix(matrix: Tensor, x: Tensor) -> Tensor:
    """The matrix (C', C) times the channels of x: (B, C, H, W) -> (B, C', H, W), in x's own precision."""
    with torch.autocast(x.device.type, enabled=False):
        found: Tensor = (matrix @ x.flatten(2)).unflatten(2, x.shape[2:])
        return found


class BlockAverage(Selection):
    """The mean of each f x f block is measured, f the factor: y (C, H/f, W/f), s = 1/f.

    Example:
        >>> H = BlockAverage((1, 2, 2), factor=2)
        >>> x = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]])
        >>> H.apply(x).flatten()
        tensor([1.5000])
        >>> H.pseudo_inverse(H.apply(x)).flatten()
        tensor([1.5000, 1.5000, 1.5000, 1.5000])
    """

    def __init__(self, spec: FactorSpec, image_shape: ImageShape) -> None:
        channels, height, width = image_shape
        f = spec.factor
        measured = torch.zeros(image_shape, dtype=torch.bool)
        measured[:, ::f, ::f] = True
        smaller = (channels, height // f, width // f)
        super().__init__(spec, image_shape, measured, smaller, 1 / f)
        self.matrices = Cast(block_cosines(height, f), block_cosines(width, f))

    def transform(self, x: Tensor) -> Tensor:
        rows, columns = self.matrices.like(x)
        return between(rows, x, columns.T)

    def inverse_transform(self, u: Tensor) -> Tensor:
        rows, columns = self.matrices.like(u)
        return between(rows.T, u, columns)


def block_cosines(n: int, size: int) -> Tensor:
    """The matrix of the orthonormal DCT-II of each ``size`` of n numbers, float64 (n, n); size divides n."""
    return torch.kron(torch.eye(n // size, dtype=torch.float64), cosine_matrix(size))


class CompressedSensing(Selection):
    """Walsh-Hadamard coefficients of the pixels, shuffled or not, are measured, the same in each channel: y (C, n).

    H_1 = 1,  H_2n = [[H_n, H_n], [H_n, -H_n]] / sqrt(2), in that (natural) order.
    """

    def __init__(
        self,
        spec: CompressedSensingSpec,
        image_shape: ImageShape,
    ) -> None:
        channels, height, width = image_shape
        count, draws = spec.coefficients(image_shape), stream("compressed-sensing", spec.seed)
        order = torch.randperm(height * width, generator=draws)
        chosen = torch.randperm(height * width, generator=draws).argsort() < count
        if not spec.shuffle:
            order = torch.arange(height * width)
        measured = chosen.reshape(height, width).expand(channels, height, width)
        super().__init__(spec, image_shape, measured, (channels, count))
        self.order = Cast(order, order.argsort())

    def transform(self, x: Tensor) -> Tensor:
        order, _ = self.order.like(x)
        return hadamard(x.flatten(2)[..., order]).reshape(x.shape)

    def inverse_transform(self, u: Tensor) -> Tensor:
        _, back = self.order.like(u)
        return hadamard(u.flatten(2))[..., back].reshape(u.shape)


def hadamard(x: Tensor) -> Tensor:
    """The orthonormal Walsh-Hadamard transform of the last axis, of 2^k numbers; its own inverse."""
    n, half = x.shape[-1], 1
    while half < n:
        first, second = x.unflatten(-1, (n // (2 * half), 2, half)).unbind(-2)
        x = torch.stack([first + second, first - second], -2).flatten(-3)
        half *= 2
    return x / math.sqrt(n)
