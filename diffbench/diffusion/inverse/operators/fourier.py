r"""Magnetic resonance imaging: some rows of an image's Fourier transform.

    X_k = (HW)^(-1/2) sum_j x_j exp(-2 pi i <k, j>),  k = (row, column),     y = (Re X_k, Im X_k), k measured

An image is real, so X_-k = conj X_k: half of the numbers determine the image, and to measure both k and -k is to
measure the same number twice.  The Hartley transform

    h_k = Re X_k - Im X_k,     Re X_k = (h_k + h_-k)/2,     Im X_k = (h_-k - h_k)/2

is real, orthonormal and its own inverse.  With m_k = 1 where k is measured and 0 elsewhere,

    |y|^2 = sum_k m_k (h_k^2 + h_-k^2)/2 = sum_k s_k^2 h_k^2,     s_k = sqrt((m_k + m_-k)/2),

so V is the Hartley transform, and s is 1 where k and -k are both measured or are equal and measured, 1/sqrt(2) where
one of them is measured, and 0 where neither is.  U = (h -> y)/s.  Where k = -k, Im X_k is 0 for every image: that entry
of y is only noise, and U^T leaves it out.

Source: Song, Shen, Xing & Ermon 2022, "Solving Inverse Problems in Medical Imaging with Score-Based Generative Models",
https://arxiv.org/abs/2111.08005, section 2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffbench.diffusion.core.streams import stream
from diffbench.diffusion.inverse.operators.operator import Cast, Operator
from diffbench.specs.operators import ImageShape, MRISpec


class MRI(Operator):
    """Some rows of k-space are measured, the same in each channel: y (C, 2, rows, W), real and imaginary parts.

    Rows and columns are in the transform's order: frequency 0 first.

    Attributes:
        rows: the row frequencies measured, increasing from 0 to H - 1; H - k is -k.
    """

    def __init__(self, spec: MRISpec, image_shape: ImageShape) -> None:
        super().__init__(spec, image_shape)
        channels, height, width = image_shape
        self.rows = measured_rows(spec, height)
        measured = torch.zeros(height, dtype=torch.float64)
        measured[self.rows] = 1
        gains = ((measured + measured[-torch.arange(height)]) / 2).sqrt()
        self.s = gains[:, None].expand(image_shape).flatten()
        self.measurement_shape = (channels, 2, len(self.rows), width)
        self._index = Cast(self.rows)

    def coordinates(self, x: Tensor) -> Tensor:
        return hartley(x).flatten(1)

    def pixels(self, u: Tensor) -> Tensor:
        return hartley(u.unflatten(1, self.image_shape))

    def measurement(self, u: Tensor) -> Tensor:
        (rows,) = self._index.like(u)
        h = (self.inverse_gains(u) * u).unflatten(1, self.image_shape)
        turned = negated(h)
        parts = torch.stack([h + turned, turned - h], 2) / 2
        return parts[..., rows, :]

    def spectral(self, y: Tensor) -> Tensor:
        (rows,) = self._index.like(y)
        _, height, width = self.image_shape
        whole = y.new_zeros(*y.shape[:3], height, width).index_copy(3, rows, y)
        real, imaginary = whole.unbind(2)
        h = (real - imaginary + negated(real + imaginary)) / 2
        return self.inverse_gains(y) * h.flatten(1)

    def zero_filled(self, y: Tensor) -> Tensor:
        """The real part of the inverse Fourier transform of y and zeros; the transform is unitary, so this is H^T y."""
        return self.adjoint(y)


def hartley(x: Tensor) -> Tensor:
    """The orthonormal Hartley transform of the last two axes, its own inverse."""
    transformed = torch.fft.fft2(x, norm="ortho")
    found: Tensor = transformed.real - transformed.imag
    return found


def negated(x: Tensor) -> Tensor:
    """The numbers x_-k at each k, in the last two axes, modulo their lengths."""
    return x.flip(-2, -1).roll((1, 1), (-2, -1))


def measured_rows(spec: MRISpec, height: int) -> Tensor:
    """The measured row frequencies, increasing, int64: H/acceleration of them, at least 1.

    The lowest H * centre of the order 0, 1, -1, 2, ... are measured, at least 1; the others are drawn at random.
    """
    frequencies = torch.arange(height)
    distance = torch.minimum(frequencies, height - frequencies)
    lowest_first = (2 * distance - (2 * frequencies < height).long()).argsort(stable=True)
    centre = max(round(height * spec.centre), 1)
    others = max(round(height / spec.acceleration) - centre, 0)
    order = torch.randperm(height - centre, generator=stream("mri", spec.seed))
    chosen = lowest_first[centre:][order[:others]]
    return torch.cat([lowest_first[:centre], chosen]).sort().values
