r"""Masks: the known pixels of an image that a denoiser is told, and how they are drawn in training.

    mask M (B, 1, H, W), 1 where a pixel is known in all channels and 0 elsewhere,     known image M x_0

A model that has learned E[x_0 | x_t, M, M x_0] for random M can restore an image from measured pixels without steering,
and at M = 0 it is an unconditional model:

    "Palette: Image-to-Image Diffusion Models", Saharia et al. 2022, https://arxiv.org/abs/2111.05826
    "GLIDE: Towards Photorealistic Image Generation and Editing", Nichol et al. 2022, https://arxiv.org/abs/2112.10741,
    on inpainting: the mask and the known image are extra channels of the network's input

In training each image has its own mask.  With probability ``NOTHING`` no pixel is known.  Otherwise, with probability
``SCATTERED``, single pixels are known, each with the same probability p ~ U[0, 1]; else all pixels are known except a
box of uniform size and place.  Sometimes these two kinds have no known pixel either (no single pixel, with probability
1/(HW + 1); a box as large as the image, with probability 1/(HW)):

    P(M = 0) = NOTHING + (1 - NOTHING) (SCATTERED/(HW + 1) + (1 - SCATTERED)/(HW))

Both papers erase regions of photographs.  Single pixels are added here because tasks of the benchmark have them.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import torch
from torch import Tensor

#: The share of training images without a known pixel.
NOTHING = 1 / 4
#: The share of the other images in which single pixels are known; the rest lack a box.
SCATTERED = 1 / 2


class Known(NamedTuple):
    """The known pixels of images (B, C, H, W), in the range of the process.

    mask: (B, 1, H, W), 1 where a pixel is known, 0 elsewhere.
    image: (B, C, H, W), 0 where a pixel is not known.

    In both B may be 1: the same for all images.
    """

    mask: Tensor
    image: Tensor

    @classmethod
    def of(cls, x0: Tensor, mask: Tensor) -> Self:
        """The known pixels of images x0 (B, C, H, W), given by a mask (B or 1, 1, H, W) of 0 and 1."""
        return cls(mask, mask * x0)

    @classmethod
    def nothing(cls, x: Tensor) -> Self:
        """No known pixel, for images of x's shape."""
        return cls.of(torch.zeros_like(x), torch.zeros_like(x[:, :1]))

    def channels(self, like: Tensor, middle: float, half_range: float) -> Tensor:
        """Extra input channels (B, 1 + C, H, W) for images ``like``: the mask, then M (x_0 - middle)/half_range."""
        mask, image = self.mask.to(like), self.image.to(like)
        centred = (image - middle * mask) / half_range
        return torch.cat([each.expand(len(like), -1, -1, -1) for each in (mask, centred)], dim=1)


def training_masks(count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Random masks (count, 1, height, width), float32 of 0 and 1.

    The same random numbers are drawn for every kind of mask.
    """
    kind, share = torch.rand(2, count, generator=generator, dtype=torch.float64)
    pixels = torch.rand(count, height, width, generator=generator, dtype=torch.float64)
    rows, columns = (stretches(count, length, generator) for length in (height, width))
    scattered = pixels < share[:, None, None]
    outside = ~(rows[:, :, None] & columns[:, None, :])
    is_scattered = (kind < NOTHING + (1 - NOTHING) * SCATTERED)[:, None, None]
    mask = torch.where(is_scattered, scattered, outside) & (kind >= NOTHING)[:, None, None]
    found: Tensor = mask[:, None].float()
    return found


def stretches(count: int, length: int, generator: torch.Generator) -> Tensor:
    """A stretch of uniform size 1 to ``length`` at a uniform place in each of ``count`` lines: bool (count, length)."""
    u, v = torch.rand(2, count, generator=generator, dtype=torch.float64)
    size = 1 + (u * length).floor()
    start = (v * (length - size + 1)).floor()
    position = torch.arange(length)
    found: Tensor = (position >= start[:, None]) & (position < (start + size)[:, None])
    return found
