r"""Masks: pixels of an image that a denoiser is told, and those that it is told in training.

    mask M (B, 1, H, W), 1 where a pixel is known in all channels and 0 elsewhere,     known image M x_0

A model that learned E[x_0 | x_t, M, M x_0] for random M needs no steering to restore an image of which some pixels are
measured, and at M = 0 it is an unconditional one:

    "Palette: Image-to-Image Diffusion Models", Saharia et al. 2022, https://arxiv.org/abs/2111.05826
    "GLIDE: Towards Photorealistic Image Generation and Editing", Nichol et al. 2022, https://arxiv.org/abs/2112.10741,
    its image inpainting: mask and known image are further channels of the network's input

In training each image has a mask of its own: none with probability ``NOTHING``; else, with probability ``SCATTERED``,
single pixels, each known with one probability p ~ U[0, 1]; else all but a box of uniform size and place.  Boxes and
single pixels know nothing now and then, too (a box as large as the image; no pixel, with probability 1/(HW + 1)):

    P(M = 0) = NOTHING + (1 - NOTHING) (SCATTERED/(HW + 1) + (1 - SCATTERED)/(HW))

Both papers erase regions of photographs; single pixels are ours, for the benchmark's tasks have them.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import torch
from torch import Tensor

#: The share of training images of which nothing is told.
NOTHING = 1 / 4
#: Of the others, the share with single pixels; the rest lacks a box.
SCATTERED = 1 / 2


class Known(NamedTuple):
    """Pixels that are known of images (B, C, H, W), in the range of the process.

    mask: (B, 1, H, W), 1 where a pixel is known, 0 elsewhere.
    image: (B, C, H, W), 0 where a pixel is not known.

    Of either B may be 1, for all images alike.
    """

    mask: Tensor
    image: Tensor

    @classmethod
    def of(cls, x0: Tensor, mask: Tensor) -> Self:
        """The pixels of images x0 (B, C, H, W) under a mask (B or 1, 1, H, W) of 0 and 1."""
        return cls(mask, mask * x0)

    @classmethod
    def nothing(cls, x: Tensor) -> Self:
        """No pixel of images of x's shape."""
        return cls.of(torch.zeros_like(x), torch.zeros_like(x[:, :1]))

    def channels(self, like: Tensor, middle: float, half_range: float) -> Tensor:
        """Beside images ``like`` (B, C, H, W): the mask, and M (x_0 - middle)/half_range; (B, 1 + C, H, W)."""
        mask, image = self.mask.to(like), self.image.to(like)
        centred = (image - middle * mask) / half_range
        return torch.cat([each.expand(len(like), -1, -1, -1) for each in (mask, centred)], dim=1)


def training_masks(count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Random masks (count, 1, height, width), float32 of 0 and 1; the same numbers are drawn whatever they become."""
    kind, share = torch.rand(2, count, generator=generator, dtype=torch.float64)
    pixels = torch.rand(count, height, width, generator=generator, dtype=torch.float64)
    rows, columns = (stretches(count, length, generator) for length in (height, width))
    scattered = pixels < share[:, None, None]
    outside = ~(rows[:, :, None] & columns[:, None, :])
    is_scattered = (kind < NOTHING + (1 - NOTHING) * SCATTERED)[:, None, None]
    mask = torch.where(is_scattered, scattered, outside) & (kind >= NOTHING)[:, None, None]
    return mask[:, None].float()


def stretches(count: int, length: int, generator: torch.Generator) -> Tensor:
    """A stretch of a uniform size from 1 to ``length`` at a uniform place in each line: bool (count, length)."""
    u, v = torch.rand(2, count, generator=generator, dtype=torch.float64)
    size = 1 + (u * length).floor()
    start = (v * (length - size + 1)).floor()
    place = torch.arange(length)
    return (place >= start[:, None]) & (place < (start + size)[:, None])
