r"""JPEG: the cosine transform of 8 x 8 blocks, rounded to multiples of a table.

    y = round(DCT(v)/Q),     v = 255 (x - low)/(high - low) - 128,     decoded v = DCT^-1(Q y)

Colours are first converted to Y, Cb and Cr, and Cb and Cr to means of 2 x 2 pixels (4:2:0); decoding repeats each mean.
Encoding is not linear, but decoding is the pseudo-inverse that restorers need: a decoded image encodes to the same y.
So decoded values are not clipped to the range, as a viewer would do: clipping may change y.

Sources: ITU-T T.81 (1992), tables K.1 and K.2; ITU-T T.871 (2011), "JFIF", for the colours; the Independent JPEG
Group's library for the effect of ``quality`` on the tables.  In DDRM: Kawar, Song, Ermon & Elad 2022, "JPEG Artifact
Correction using Denoising Diffusion Restoration Models", https://arxiv.org/abs/2209.11888.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffbench.diffusion.core.bases import between
from diffbench.diffusion.inverse.operators.operator import Cast, Degradation
from diffbench.diffusion.inverse.operators.selections import block_cosines, mix
from diffbench.specs.operators import ImageShape, JPEGSpec

#: T.81 table K.1: steps for luminance, by vertical and horizontal frequency.
LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
#: T.81 table K.2: steps for chrominance.
CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
)
#: The weights of red, green and blue in Y.
WEIGHTS = (0.299, 0.587, 0.114)


class Plane:
    """The quantisation of planes (B, C, H, W): from values about 0 to integers, and back.

    Args:
        height: the plane's height, a multiple of 8.
        width: the plane's width, a multiple of 8.
        table: the quantisation steps, int64 (8, 8).
    """

    def __init__(self, height: int, width: int, table: Tensor) -> None:
        steps = table.double().repeat(height // 8, width // 8)
        self._cast = Cast(block_cosines(height, 8), block_cosines(width, 8), steps)

    def encode(self, v: Tensor) -> Tensor:
        """The integers of the values v, both (B, C, H, W)."""
        rows, columns, steps = self._cast.like(v)
        return (between(rows, v, columns.T) / steps).round()

    def decode(self, y: Tensor) -> Tensor:
        """The values of the integers y, both (B, C, H, W)."""
        rows, columns, steps = self._cast.like(y)
        return between(rows.T, y * steps, columns)


class JPEG(Degradation):
    """Quantised coefficients are measured: y (HW,) for grey images, (HW + 2 HW/4,) for colours: Y, Cb, Cr.

    The coefficients are integers, and those of a block lie at the places of its pixels.

    Args:
        spec: the spec, with the quality.
        image_shape: (C, H, W) with one channel or three.
        low: the value of black in x.
        high: that of white.
    """

    def __init__(
        self, spec: JPEGSpec, image_shape: ImageShape, low: float = -1.0, high: float = 1.0
    ) -> None:
        super().__init__(spec, image_shape)
        self.low, self.high = low, high
        channels, height, width = image_shape
        self.luminance = Plane(height, width, table(LUMINANCE, spec.quality))
        self.planes = [(height, width)]
        if channels == 3:
            self.chrominance = Plane(height // 2, width // 2, table(CHROMINANCE, spec.quality))
            self.planes += [(height // 2, width // 2)] * 2
            to = luma_and_chroma()
            self.colours = Cast(to, torch.linalg.inv(to))
        self.measurement_shape = (sum(rows * columns for rows, columns in self.planes),)

    def apply(self, x: Tensor) -> Tensor:
        v = 255 * (x - self.low) / (self.high - self.low) - 128
        if len(self.planes) == 1:
            return self.luminance.encode(v).flatten(1)
        to, _ = self.colours.like(v)
        v = mix(to, v)
        small = torch.nn.functional.avg_pool2d(v[:, 1:], 2)
        luma, chroma = self.luminance.encode(v[:, :1]), self.chrominance.encode(small)
        return torch.cat([luma.flatten(1), chroma.flatten(1)], 1)

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        v = self.values(y)
        return (v + 128) / 255 * (self.high - self.low) + self.low

    def values(self, y: Tensor) -> Tensor:
        """The decoded values about 0: (B, M) -> (B, C, H, W)."""
        (height, width), *small = self.planes
        luma, chroma = y[:, : height * width], y[:, height * width :]
        grey = self.luminance.decode(luma.unflatten(1, (1, height, width)))
        if not small:
            return grey
        _, back = self.colours.like(y)
        means = self.chrominance.decode(chroma.unflatten(1, (2, *small[0])))
        repeated = means.repeat_interleave(2, 2).repeat_interleave(2, 3)
        return mix(back, torch.cat([grey, repeated], 1))


def table(base: tuple[tuple[int, ...], ...], quality: int) -> Tensor:
    """The quantisation steps at a quality of 1 to 100, int64 (8, 8): those of ``base`` at 50, all 1 at 100."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return ((torch.tensor(base) * percent + 50) // 100).clamp(1, 255)


def luma_and_chroma() -> Tensor:
    """The matrix from red, green and blue to Y, Cb and Cr about 0, float64 (3, 3)."""
    weights = torch.tensor(WEIGHTS, dtype=torch.float64)
    colours = torch.eye(3, dtype=torch.float64)
    blue = (colours[2] - weights) / (2 * (1 - weights[2]))
    red = (colours[0] - weights) / (2 * (1 - weights[0]))
    return torch.stack([weights, blue, red])
