r"""Computed tomography: the sum of an image over each strip of width 1, in some directions.

    y[k, b] = area-weighted sum of the pixels in the strip  b - n/2 < <p, (cos theta, sin theta)> < b + 1 - n/2,
    theta = pi k/full,   p = (column, row) from the image's middle,   n strips, which cover the diagonal

A pixel is a unit square.  Its shadow in direction theta is the convolution of two intervals of lengths |cos theta| and
|sin theta|, a trapezoid.  The part of it in each strip has a closed form, so the integral is exact, and the strips of
each direction add up to the image's sum.  At theta = 0 a strip is a column.

Images have at most 64 x 64 pixels: the matrix of a channel is decomposed as a whole, and V has 64^4 numbers.

Source: Song, Shen, Xing & Ermon 2022, "Solving Inverse Problems in Medical Imaging with Score-Based Generative Models",
https://arxiv.org/abs/2111.08005, section 2.
"""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor

from diffbench.diffusion.inverse.operators.dense import Dense, product
from diffbench.diffusion.inverse.operators.operator import Cast, check_shape
from diffbench.specs.operators import CTSpec, ImageShape

#: The inverse T^+ of the complete scan leaves out singular values below this share of the largest.  They fall to 1e-8
#: (24 directions of 28 x 28 pixels).  With the measured directions P alone, T^+ P T moves the content of strong
#: coordinates into weak ones, enlarged by their ratio, at every step of the medical restorer.  For 4 of 24 directions
#: of 8 x 8 pixels the norm of T^+ P T is 34, 3.8, 1.1 and 0.7 at the shares 0.001, 0.01, 0.05 and 0.1.  Filtered
#: backprojection cuts the same frequencies.
SMALLEST = 0.1


class CT(Dense):
    """Every n-th of ``full`` directions is measured, in each channel: y (C, angles, strips), on the scale of x."""

    def __init__(self, spec: CTSpec, image_shape: ImageShape) -> None:
        # Too many pixels are refused before their matrix is made.
        check_shape(spec, image_shape)
        channels, height, width = image_shape
        self.every = spec.full // spec.angles
        self.scan = projections(spec.full, height, width)
        matrix = self.scan[:: self.every]
        shape = (channels, *matrix.shape[:2])
        super().__init__(spec, image_shape, matrix.flatten(0, 1), shape)

    @cached_property
    def _inverse(self) -> Cast:
        """The complete scan's pseudo-inverse, for the measured directions only: (HW, angles * strips)."""
        inverse = torch.linalg.pinv(self.scan.flatten(0, 1), rtol=SMALLEST)
        return Cast(inverse.unflatten(1, self.scan.shape[:2])[:, :: self.every].flatten(1))

    def zero_filled(self, y: Tensor) -> Tensor:
        """The images by T^+ of the complete scan T, from y and zeros in the other directions; see ``SMALLEST``."""
        (inverse,) = self._inverse.like(y)
        found: Tensor = product(y.flatten(2), inverse.T).unflatten(2, self.image_shape[1:])
        return found


def projections(full: int, height: int, width: int) -> Tensor:
    """The matrices of ``full`` directions, float64 (full, strips, H * W)."""
    strips = math.ceil(math.hypot(height, width))
    strips += (strips - width) % 2
    edges = torch.arange(strips + 1, dtype=torch.float64) - strips / 2
    rows = torch.arange(height, dtype=torch.float64) - (height - 1) / 2
    columns = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
    matrices = []
    for k in range(full):
        cosine, sine = math.cos(math.pi * k / full), math.sin(math.pi * k / full)
        middles = (columns * cosine + rows[:, None] * sine).flatten()
        matrices.append(shadow(edges[:, None] - middles, abs(cosine), abs(sine)).diff(dim=0))
    return torch.stack(matrices)


def shadow(t: Tensor, a: float, b: float) -> Tensor:
    """The share, 0 to 1, below t of the convolution of two intervals about 0, of lengths a and b."""
    if min(a, b) < 1e-9:
        return (t / max(a, b) + 0.5).clamp(0, 1)

    def ramp(t: Tensor) -> Tensor:
        return t.clamp(min=0) ** 2 / 2

    middle, end = abs(a - b) / 2, (a + b) / 2
    return (ramp(t + end) - ramp(t + middle) - ramp(t - middle) + ramp(t - end)) / (a * b)
