r"""Operators that treat rows and columns one after the other: blur, and super-resolution from bicubic images.

    H x = A_rows x A_columns^T  for each channel,     A = U diag(s) V^T
    H = (U_rows (x) U_columns) diag(s_rows (x) s_columns) (V_rows (x) V_columns)^T

so two small decompositions give the one of the large matrix.  In the outer product of the singular values, those below
a share of the largest are set to 0, and H is the operator without them.

Source: Kawar, Elad, Ermon & Song 2022, "Denoising Diffusion Restoration Models", https://arxiv.org/abs/2201.11793,
appendix D.  Its code differs, so its deblurring results are those of another operator:

  * it lists the singular values channel by channel but the vectors pixel by pixel, so vectors get the values of others;
  * its loop over a blur's taps stops before the last, so a kernel of 9 has 8 taps and the image moves by half a pixel;
  * it sets singular values below 0.03 to 0 in each factor, before the outer product;
  * it does so for bicubic kernels too, and these are half a pixel off where the factor is odd.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from diffbench.diffusion.core.bases import between
from diffbench.diffusion.inverse.operators.dense import decompose, truncated
from diffbench.diffusion.inverse.operators.operator import ROUNDING, Cast, Operator
from diffbench.specs.operators import (
    AnisotropicBlurSpec,
    BicubicSpec,
    GaussianBlurSpec,
    ImageShape,
    OperatorSpec,
    UniformBlurSpec,
)


class Separable(Operator):
    """The operator with one matrix for the rows and one for the columns: y (C, P, Q).

    Args:
        spec: the spec of any operator.
        image_shape: (C, H, W).
        down: A_rows (P, H), which mixes the pixels of a column.
        along: A_columns (Q, W), which mixes the pixels of a row.
        smallest: singular values below this share of the largest are set to 0.
    """

    def __init__(
        self,
        spec: OperatorSpec,
        image_shape: ImageShape,
        down: Tensor,
        along: Tensor,
        smallest: float = ROUNDING,
    ) -> None:
        super().__init__(spec, image_shape)
        rows, columns = decompose(down), decompose(along)
        s = truncated(rows.s[:, None] * columns.s, smallest)
        self.s = s.expand(image_shape).flatten()
        self.measurement_shape = (image_shape[0], len(down), len(along))
        self.factors = Cast(rows.V, columns.V, rows.U, columns.U, s > 0)

    def coordinates(self, x: Tensor) -> Tensor:
        rows, columns, *_ = self.factors.like(x)
        return between(rows.T, x, columns).flatten(1)

    def pixels(self, u: Tensor) -> Tensor:
        rows, columns, *_ = self.factors.like(u)
        return between(rows, u.unflatten(1, self.image_shape), columns.T)

    def spectral(self, y: Tensor) -> Tensor:
        *_, rows, columns, kept = self.factors.like(y)
        u = between(rows.T, y, columns)
        missing = (0, kept.shape[1] - u.shape[3], 0, kept.shape[0] - u.shape[2])
        return (torch.nn.functional.pad(u, missing) * kept).flatten(1)

    def measurement(self, u: Tensor) -> Tensor:
        *_, rows, columns, kept = self.factors.like(u)
        image = (u.unflatten(1, self.image_shape) * kept)[..., : rows.shape[1], : columns.shape[1]]
        return between(rows, image, columns.T)


class Bicubic(Separable):
    """The image is made ``factor`` times smaller by a kernel, Keys's cubic by default: y (C, H/factor, W/factor).

    The kernel is ``factor`` times as wide as for enlarging; pixels outside the image are its reflection.  No singular
    value is set to 0.
    """

    def __init__(self, spec: BicubicSpec, image_shape: ImageShape) -> None:
        sizes = [(n // spec.factor, n) for n in image_shape[1:]]
        down, along = (resizing_matrix(n, small, spec.kernel) for small, n in sizes)
        super().__init__(spec, image_shape, down, along)
        self.enlarging = Cast(*(resizing_matrix(small, n, spec.kernel) for small, n in sizes))

    def enlarge(self, y: Tensor) -> Tensor:
        """The images interpolated from y by the kernel: (B, C, H/factor, W/factor) -> (B, C, H, W).

        ILVR's low-pass filter is ``enlarge(apply(x))`` (Choi, Kim, Jeong, Gwon & Yoon 2021, https://arxiv.org/abs/2108.02938;
        its code's ``resizer.py``); it is not a projection.
        """
        down, along = self.enlarging.like(y)
        return between(down, y, along.T)


def resizing_matrix(size: int, new: int, kernel: str = "cubic") -> Tensor:
    """The matrix that interpolates ``size`` pixels at ``new`` points by a kernel, float64 (new, size); rows sum to 1.

    Pixels and points are the middles of equal cells of one interval.  The kernel is scaled to the wider of the two
    cells.  Outside the interval the pixels are reflected at its ends, so the last pixel comes twice.
    """
    value, radius = KERNELS[kernel]
    scale = max(size / new, 1.0)
    points = (torch.arange(new, dtype=torch.float64) + 0.5) * size / new - 0.5
    reach = math.ceil(radius * scale) + 1
    taps = points.floor().long()[:, None] + torch.arange(-reach, reach + 1)
    weights = value((taps - points[:, None]) / scale)
    folded = taps % (2 * size)
    pixels = torch.where(folded < size, folded, 2 * size - 1 - folded)
    matrix = torch.zeros(new, size, dtype=torch.float64).scatter_add(1, pixels, weights)
    return matrix / matrix.sum(1, keepdim=True)


def keys(x: Tensor) -> Tensor:
    """The cubic convolution kernel with a = -1/2, which is 0 from |x| = 2 on.

    Source: Keys 1981, "Cubic convolution interpolation for digital image processing".
    """
    x = x.abs()
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


def linear(x: Tensor) -> Tensor:
    """The linear kernel 1 - |x|, which is 0 from |x| = 1 on."""
    return (1 - x.abs()).clamp(min=0)


def lanczos(x: Tensor, lobes: int) -> Tensor:
    """The kernel sinc(x) sinc(x/lobes), sinc(x) = sin(pi x)/(pi x), which is 0 from |x| = lobes on.

    Source: Duchon 1979, "Lanczos filtering".
    """
    return torch.where(x.abs() < lobes, torch.sinc(x) * torch.sinc(x / lobes), 0.0)


#: Each kernel's weight as a function of the distance, and its radius, both in cells.
KERNELS: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "cubic": (keys, 2),
    "linear": (linear, 1),
    "lanczos2": (partial(lanczos, lobes=2), 2),
    "lanczos3": (partial(lanczos, lobes=3), 3),
}


class UniformBlur(Separable):
    """Each pixel becomes the mean of ``size`` x ``size`` pixels: y (C, H, W)."""

    def __init__(self, spec: UniformBlurSpec, image_shape: ImageShape) -> None:
        _, height, width = image_shape
        kernel = torch.full((spec.size,), 1 / spec.size, dtype=torch.float64)
        down, along = convolution_matrix(kernel, height), convolution_matrix(kernel, width)
        super().__init__(spec, image_shape, down, along, spec.smallest)


class GaussianBlur(Separable):
    """Blur by a Gaussian of the same width along rows and columns: y (C, H, W)."""

    def __init__(self, spec: GaussianBlurSpec, image_shape: ImageShape) -> None:
        _, height, width = image_shape
        kernel = gaussian(spec.size, spec.std)
        down, along = convolution_matrix(kernel, height), convolution_matrix(kernel, width)
        super().__init__(spec, image_shape, down, along, spec.smallest)


class AnisotropicBlur(Separable):
    """Blur by a Gaussian of one width along rows and another along columns: y (C, H, W)."""

    def __init__(
        self,
        spec: AnisotropicBlurSpec,
        image_shape: ImageShape,
    ) -> None:
        _, height, width = image_shape
        down = convolution_matrix(gaussian(spec.size, spec.std_rows), height)
        along = convolution_matrix(gaussian(spec.size, spec.std_columns), width)
        super().__init__(spec, image_shape, down, along, spec.smallest)


def gaussian(size: int, std: float) -> Tensor:
    """The values of a Gaussian at ``size`` integers about 0, float64; their sum is 1."""
    taps = torch.arange(size, dtype=torch.float64) - size // 2
    kernel = (-0.5 * (taps / std) ** 2).exp()
    return kernel / kernel.sum()


def convolution_matrix(kernel: Tensor, n: int) -> Tensor:
    """The matrix that correlates n pixels with an odd kernel, float64 (n, n): [i, j] is tap j - i + size // 2, or 0."""
    half = len(kernel) // 2
    positions = torch.arange(n)
    tap = positions - positions[:, None] + half
    inside = (tap >= 0) & (tap < len(kernel))
    return torch.where(inside, kernel.double()[tap.clamp(0, len(kernel) - 1)], 0.0)
