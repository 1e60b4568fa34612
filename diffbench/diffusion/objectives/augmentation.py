r"""EDM's augmentation of training images, of which the network is told.

Of a pixel at v from the image's centre, the changed image has the value that x0 has at

    G^-1 v,    G = T  (R_r diag(q, 1/q) R_-r)  R_w  2^(scale s)  mirrorings,     q = 2^(stretch a)

with T the shift by (shift W t_x, shift H t_y) and R_w the rotation by w, and the image continued beyond its edge by
reflection.  A coin mirrors left and right.  Each of the others happens with the probability p, else its parameters
are 0: a coin mirrors up and down; s, a, t_x, t_y ~ N(0, 1); w, r ~ U(-pi, pi), with r = 0 half the time.  The network
is told

    mirrored, upside down, s, cos w - 1, sin w, a cos r, a sin r, t_x, t_y

Between pixels the image is what a wavelet makes of it, of twice the resolution:

    fine_j = sum_n x_n h_(j-2n)        bilinear there        x_n = sum_k h_k fine_(2n+k)

with h orthonormal to its even shifts, so that where nothing moves nothing changes, and about its centre
sum k h_k / sum h_k, so that a ramp stays one.

Sources: "Elucidating the Design Space" (Karras et al. 2022, https://arxiv.org/abs/2206.00364, appendix F.2), whose
networks need no mirrored data set besides; "Training GANs with Limited Data" (Karras et al. 2020,
https://arxiv.org/abs/2006.06676, appendix B), with the wavelet sym6.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from diffbench.diffusion.core.described import Described
from diffbench.specs.augmentations import EDMAugmentationSpec

#: The low-pass filter of Daubechies' least asymmetric wavelet with six vanishing moments.
SYM6 = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)
CENTRE = sum(k * h for k, h in enumerate(SYM6)) / sum(SYM6)
#: Pixels beyond the edge that the filter reaches.
REACH = len(SYM6) // 2

#: Columns of the parameters.
MIRRORED, TURNED, SCALE, ANGLE, STRETCH, DIRECTION, RIGHT, DOWN = range(8)


class Augmentation(Protocol):
    """Draws parameters, changes images by them, and says what a network is told."""

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Parameters of ``count`` images, float64 (count, P) on the CPU."""
        ...

    def apply(self, x0: Tensor, parameters: Tensor) -> Tensor:
        """Images x0 (B, C, H, W) changed by parameters (B, P), which stay on the CPU."""
        ...

    def labels(self, parameters: Tensor) -> Tensor:
        """What the network is told of them, (B, labels)."""
        ...


class EDMAugmentation(Described):
    """EDM's geometric augmentation."""

    def __init__(self, spec: EDMAugmentationSpec) -> None:
        self.spec = spec

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Parameters (count, 8): whether mirrored, whether upside down, s, w, a, r, t_x, t_y."""

        def uniform(rows: int) -> Tensor:
            return torch.rand(rows, count, generator=generator, dtype=torch.float64)

        happens = (uniform(5) < self.spec.probability).double()
        mirrored, turned, askew = (uniform(3) < 0.5).double()
        angle, direction = math.pi * (2 * uniform(2) - 1)
        scale, stretch, right, down = torch.randn(
            4, count, generator=generator, dtype=torch.float64
        )
        upside, scaled, rotated, stretched, shifted = happens
        parts = [
            mirrored,
            turned * upside,
            scale * scaled,
            angle * rotated,
            stretch * stretched,
            direction * askew * stretched,
            right * shifted,
            down * shifted,
        ]
        return torch.stack(parts, dim=1)

    def labels(self, parameters: Tensor) -> Tensor:
        """The nine numbers (B, 9)."""
        mirrored, turned, scale, angle, stretch, direction, right, down = parameters.unbind(1)
        told = [
            mirrored,
            turned,
            scale,
            angle.cos() - 1,
            angle.sin(),
            stretch * direction.cos(),
            stretch * direction.sin(),
            right,
            down,
        ]
        return torch.stack(told, dim=1)

    def apply(self, x0: Tensor, parameters: Tensor) -> Tensor:
        """Mirrored, then warped where anything else changes."""
        x = x0
        for column, axis in ((MIRRORED, -1), (TURNED, -2)):
            flipped = parameters[:, column].bool().to(x.device, non_blocking=x.is_cuda)
            x = torch.where(flipped[:, None, None, None], x.flip(axis), x)
        moved = (parameters[:, SCALE:] != 0).any(1).nonzero()[:, 0]
        if not len(moved):
            return x
        places = moved.to(x.device, non_blocking=x.is_cuda)
        warped = warp(x[places], *self.inverse(parameters[moved], x0.shape[-1], x0.shape[-2]))
        return x.index_copy(0, places, warped)

    def inverse(self, parameters: Tensor, width: int, height: int) -> tuple[Tensor, Tensor]:
        """What takes a place v of the changed image to its origin A (v - t): A (B, 2, 2), t (B, 2), in (x, y)."""
        spec, p = self.spec, parameters
        q = torch.exp2(spec.stretch * p[:, STRETCH])
        stretch = torch.diag_embed(torch.stack([1 / q, q], dim=1))
        direction = rotation(p[:, DIRECTION])
        inverse = rotation(-p[:, ANGLE]) @ direction @ stretch @ direction.mT
        inverse = torch.exp2(-spec.scale * p[:, SCALE])[:, None, None] * inverse
        shift = spec.shift * p[:, [RIGHT, DOWN]] * torch.tensor([width, height])
        return inverse, shift


def rotation(angle: Tensor) -> Tensor:
    """Angles (B,) -> matrices (B, 2, 2)."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([torch.stack([cos, -sin], dim=1), torch.stack([sin, cos], dim=1)], dim=1)


def warp(x: Tensor, matrix: Tensor, shift: Tensor) -> Tensor:
    """Images x (B, C, H, W) of which the new one has at v the value at matrix (v - shift), v from the centre.

    Raises:
        ValueError: when the image has a single row or column, which cannot be reflected.
    """
    height, width = x.shape[-2:]
    if min(height, width) < 2:
        raise ValueError(f"augmentation needs two rows and columns or more, not {height}x{width}")
    taps = torch.tensor(SYM6, dtype=torch.float64)
    kernel = torch.outer(taps, taps).to(x, non_blocking=x.is_cuda)[None, None]
    rows, columns = continued(height, x.device), continued(width, x.device)
    planes = x[:, :, rows][..., columns].flatten(0, 1)[:, None]
    fine = F.conv_transpose2d(planes, kernel, stride=2).unflatten(0, x.shape[:2])[:, :, 0]
    origins = [origin(matrix, shift, axis, height, width) for axis in (0, 1)]
    last = (fine.shape[-1] - 1, fine.shape[-2] - 1)
    grid = torch.stack([2 * o / end - 1 for o, end in zip(origins, last, strict=True)], dim=-1)
    moved = F.grid_sample(fine, grid.to(x, non_blocking=x.is_cuda), align_corners=True)
    coarse = F.conv2d(moved.flatten(0, 1)[:, None], kernel, stride=2)
    return coarse[:, 0].unflatten(0, x.shape[:2])


def continued(size: int, device: torch.device) -> Tensor:
    """Which pixels continue a line of them by reflection, by half its length and the filter's reach at both ends."""
    beyond = size // 2 + REACH
    place = torch.arange(-beyond, size + beyond, device=device).remainder(2 * (size - 1))
    return torch.minimum(place, 2 * (size - 1) - place)


def origin(matrix: Tensor, shift: Tensor, axis: int, height: int, width: int) -> Tensor:
    """Where in the fine image each of its new values comes from, along x (0) or y (1): (B, rows, columns).

    A continued line repeats itself after 2 (size - 1), so that a place beyond its half before or after has a twin.
    """
    sizes = (width, height)
    x, y = (
        (torch.arange(2 * size + len(SYM6) - 2, dtype=torch.float64) - CENTRE) / 2 - (size - 1) / 2
        for size in sizes
    )
    from_x = matrix[:, axis, 0, None, None] * (x[None, None, :] - shift[:, 0, None, None])
    from_y = matrix[:, axis, 1, None, None] * (y[None, :, None] - shift[:, 1, None, None])
    size = sizes[axis]
    before = size // 2
    place = (from_x + from_y + (size - 1) / 2 + before).remainder(2 * (size - 1))
    return 2 * (place + REACH) + CENTRE
