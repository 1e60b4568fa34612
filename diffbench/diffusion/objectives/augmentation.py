r"""EDM's augmentation of training images; the network is told how each image was changed.

At the place v, measured from the image's centre, the changed image has the value of x0 at

    G^-1 v,    G = T  (R_r diag(q, 1/q) R_-r)  R_w  2^(scale s)  mirrorings,     q = 2^(stretch a)

with T the shift by (shift W t_x, shift H t_y) and R_w the rotation by w.  Beyond its edge the image is continued by
reflection.  It is mirrored left to right with probability 1/2.  Each of the other changes happens with probability p,
else its parameters are 0: mirrored upside down, with probability 1/2; s, a, t_x, t_y ~ N(0, 1); w, r ~ U(-pi, pi), with
r = 0 half the time.  The network is told

    mirrored, upside down, s, cos w - 1, sin w, a cos r, a sin r, t_x, t_y

Between pixels the image is interpolated by a wavelet's filter h, at twice the resolution:

    fine_j = sum_n x_n h_(j-2n)        bilinear in fine      x_n = sum_k h_k fine_(2n+k)

h is orthonormal to its even shifts, so that an image that does not move does not change.  Places are measured from the
filter's centre sum k h_k / sum h_k, so that a linear ramp stays linear.

Sources: "Elucidating the Design Space" (Karras et al. 2022, https://arxiv.org/abs/2206.00364, appendix F.2), whose
networks need no mirrored copies in the data set; "Training GANs with Limited Data" (Karras et al. 2020,
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
#: The number of pixels beyond the edge that the filter reaches.
REACH = len(SYM6) // 2

#: The columns of the parameters.
MIRRORED, TURNED, SCALE, ANGLE, STRETCH, DIRECTION, RIGHT, DOWN = range(8)


class Augmentation(Protocol):
    """An augmentation of images: random parameters, the changed images, and what a network is told of them."""

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Random parameters of ``count`` images, float64 (count, P) on the CPU."""
        ...

    def apply(self, x0: Tensor, parameters: Tensor) -> Tensor:
        """The images x0 (B, C, H, W), changed by parameters (B, P), which stay on the CPU."""
        ...

    def labels(self, parameters: Tensor) -> Tensor:
        """The numbers (B, labels) by which a network is told the parameters."""
        ...


class EDMAugmentation(Described):
    """EDM's geometric augmentation."""

    def __init__(self, spec: EDMAugmentationSpec) -> None:
        self.spec = spec

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Random parameters (count, 8): mirrored (0 or 1), upside down (0 or 1), s, w, a, r, t_x, t_y."""

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
        """The nine numbers (B, 9) that the network is told."""
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
        """The images x0, mirrored, then warped where any other parameter is not 0."""
        x = x0
        for column, axis in ((MIRRORED, -1), (TURNED, -2)):
            flipped = parameters[:, column].bool().to(x.device, non_blocking=x.is_cuda)
            x = torch.where(flipped[:, None, None, None], x.flip(axis), x)
        moved = (parameters[:, SCALE:] != 0).any(1).nonzero()[:, 0]
        if not len(moved):
            return x
        rows = moved.to(x.device, non_blocking=x.is_cuda)
        warped = warp(x[rows], *self.inverse(parameters[moved], x0.shape[-1], x0.shape[-2]))
        return x.index_copy(0, rows, warped)

    def inverse(self, parameters: Tensor, width: int, height: int) -> tuple[Tensor, Tensor]:
        """The matrix A (B, 2, 2) and the shift t (B, 2), in (x, y).

        The place v of the changed image comes from A (v - t) of the original.
        """
        spec, p = self.spec, parameters
        q = torch.exp2(spec.stretch * p[:, STRETCH])
        stretch = torch.diag_embed(torch.stack([1 / q, q], dim=1))
        direction = rotation(p[:, DIRECTION])
        inverse = rotation(-p[:, ANGLE]) @ direction @ stretch @ direction.mT
        inverse = torch.exp2(-spec.scale * p[:, SCALE])[:, None, None] * inverse
        shift = spec.shift * p[:, [RIGHT, DOWN]] * torch.tensor([width, height])
        return inverse, shift


def rotation(angle: Tensor) -> Tensor:
    """The rotation matrices (B, 2, 2) of angles (B,)."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([torch.stack([cos, -sin], dim=1), torch.stack([sin, cos], dim=1)], dim=1)


def warp(x: Tensor, matrix: Tensor, shift: Tensor) -> Tensor:
    """The images x (B, C, H, W), warped: the new value at v is the old one at matrix (v - shift), v from the centre.

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
    last_pixels = (fine.shape[-1] - 1, fine.shape[-2] - 1)
    grid = torch.stack(
        [2 * o / end - 1 for o, end in zip(origins, last_pixels, strict=True)], dim=-1
    )
    moved = F.grid_sample(fine, grid.to(x, non_blocking=x.is_cuda), align_corners=True)
    coarse = F.conv2d(moved.flatten(0, 1)[:, None], kernel, stride=2)
    found: Tensor = coarse[:, 0].unflatten(0, x.shape[:2])
    return found


def continued(size: int, device: torch.device) -> Tensor:
    """The indices of the pixels that continue a line by reflection.

    At each end it is continued by half its length plus the filter's reach.
    """
    beyond = size // 2 + REACH
    position = torch.arange(-beyond, size + beyond, device=device).remainder(2 * (size - 1))
    return torch.minimum(position, 2 * (size - 1) - position)


def origin(matrix: Tensor, shift: Tensor, axis: int, height: int, width: int) -> Tensor:
    """The places in the fine image from which its new values come, along x (0) or y (1): (B, rows, columns).

    A continued line has the period 2 (size - 1), so that a place beyond the continuation equals one inside it.
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
    position = (from_x + from_y + (size - 1) / 2 + before).remainder(2 * (size - 1))
    return 2 * (position + REACH) + CENTRE
