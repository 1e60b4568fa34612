r"""A group norm with a scale and a shift of each image, for images whose channels are last in memory.

    y = scale (x - mean)/sqrt(variance + eps) + shift       mean and variance over the pixels and channels of a group

(Wu & He 2018, https://arxiv.org/abs/1803.08494; adaptive: Dhariwal & Nichol 2021, https://arxiv.org/abs/2105.05233.)
PyTorch's own kernel is made for channels that are first, and needs a second pass for the scale and the shift.
The gradient is written out: derived from the operations one by one, it takes twice as many passes over the image.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def standardising(x: Tensor, averaging: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x - mean, a new tensor (B, P, C), and 1/sqrt(variance + eps) (B, C)."""
    offset = x - (x.sum(1) @ averaging)[:, None]
    return offset, torch.rsqrt((offset * offset).sum(1) @ averaging + eps)


class Normalisation(torch.autograd.Function):
    r"""y = scale (x - mean)/sqrt(variance + eps) + shift of x (B, P, C), scale and shift (B or 1, C) -> (B, P, C).

    ``averaging`` (C, C) turns sums over the pixels of each channel into means over the pixels and channels of each
    group. With r = 1/sqrt(variance + eps), n = (x - mean) r and <.> for such a mean, the gradient for x is

        r (scale dy - <scale dy> - n <scale dy n>),

    and those for scale and shift are the sums of dy n and dy over the pixels.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, averaging: Tensor, eps: float
    ) -> Tensor:
        offset, rstd = standardising(x, averaging, eps)
        ctx.save_for_backward(offset, rstd, scale, averaging)
        return torch.addcmul(shift[:, None], offset, (scale * rstd)[:, None])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        offset, rstd, scale, averaging = ctx.saved_tensors
        d_shift = dy.sum(1)
        d_scale = (dy * offset).sum(1) * rstd
        mean = (scale * d_shift) @ averaging * rstd
        slope = (scale * d_scale) @ averaging * rstd.square()
        centred = torch.addcmul(-mean[:, None], dy, (scale * rstd)[:, None])
        dx = torch.addcmul(centred, offset, -slope[:, None], out=centred)
        if len(scale) < len(dy):
            d_scale, d_shift = d_scale.sum(0, keepdim=True), d_shift.sum(0, keepdim=True)
        return dx, d_scale, d_shift, None, None


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
        normed: Tensor
        if torch.is_grad_enabled():
            normed = Normalisation.apply(  # type: ignore[no-untyped-call]
                pixels, scale, shift, averaging, self.eps
            )
        else:
            # The same numbers, written over x - mean, which only a gradient would need.
            normed, rstd = standardising(pixels, averaging, self.eps)
            torch.addcmul(shift[:, None], normed, (scale * rstd)[:, None], out=normed)
        return normed.view(batch, height, width, channels).permute(0, 3, 1, 2)


class GroupNorm(AdaptiveNorm):
    """The group norm with a learnt scale and shift of each channel: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__(channels, eps)
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x, self.weight[None], self.bias[None])
