r"""A group norm with a scale and a shift of each image, for images whose channels are last in memory.

    y = scale (x - mean)/sqrt(variance + eps) + shift       mean and variance over the pixels and channels of a group

(Wu & He 2018, https://arxiv.org/abs/1803.08494; adaptive: Dhariwal & Nichol 2021, https://arxiv.org/abs/2105.05233.)
PyTorch's own kernel is made for channels that are first, and needs a second pass for the scale and the shift.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class AdaptiveNorm(nn.Module):
    """A group norm of gcd(8, channels) groups: x (B, C, H, W), scale and shift (B or 1, C) -> (B, C, H, W).

    The result is float32 where x has a lower precision.
    """

    together: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        groups = math.gcd(8, channels)
        self.eps, self.members = eps, channels // groups
        #: Which channels are of one group: 1 or 0, (C, C).
        block = torch.ones(self.members, self.members)
        self.register_buffer("together", torch.block_diag(*[block] * groups), persistent=False)

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        pixels = x.permute(0, 2, 3, 1).reshape(batch, height * width, channels)
        if pixels.dtype in (torch.bfloat16, torch.float16):
            pixels = pixels.float()
        averaging = self.together / (self.members * height * width)
        offset = pixels - (pixels.sum(1) @ averaging)[:, None]
        rstd = torch.rsqrt((offset * offset).sum(1) @ averaging + self.eps)
        normed = torch.addcmul(shift[:, None], offset, (scale * rstd)[:, None])
        return normed.view(batch, height, width, channels).permute(0, 3, 1, 2)


class GroupNorm(AdaptiveNorm):
    """The group norm with a learnt scale and shift of each channel: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__(channels, eps)
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x, self.weight[None], self.bias[None])
