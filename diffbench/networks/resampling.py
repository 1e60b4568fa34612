"""Halving and doubling of images by plain convolutions.

With taps f, normalised to sum 1, and the two-dimensional filter k = f f^T,

    down(h) = every second pixel of k * h          up(h) = 4 k * (h with a zero after every pixel)

    box   f = (1, 1)/2          the mean of four pixels; each pixel four times
    fir   f = (1, 3, 3, 1)/8    without the aliases that the box lets through

Beyond the edge the image is zero. Source: "Score-Based Generative Modeling through SDEs" (Song et al. 2021,
https://arxiv.org/abs/2011.13456, appendix H.1), after "Making Convolutional Networks Shift-Invariant Again" (Zhang
2019, https://arxiv.org/abs/1904.11486).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffbench.networks.winograd import Convolution


class Fir(nn.Module):
    """The filter ``fir``: every ``stride``-th pixel of k * h, for h (B, C, H, W) with ``padding`` zeros around it."""

    kernel: Tensor

    def __init__(self, stride: int = 2, padding: int = 1) -> None:
        super().__init__()
        self.stride, self.padding = stride, padding
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("kernel", torch.outer(taps, taps), persistent=False)

    def forward(self, h: Tensor) -> Tensor:
        return F.conv2d(h, self.each(h), None, self.stride, self.padding, groups=h.shape[1])

    def each(self, h: Tensor) -> Tensor:
        """The kernel, repeated for every channel of h: (C, 1, 4, 4)."""
        return self.kernel.to(h.dtype).expand(h.shape[1], 1, -1, -1)


class FirUp(Fir):
    """Doubling with the filter ``fir``: (B, C, H, W) -> (B, C, 2 H, 2 W)."""

    def forward(self, h: Tensor) -> Tensor:
        return F.conv_transpose2d(h, 4 * self.each(h), None, 2, 1, groups=h.shape[1])


#: By the filter's name: what makes the halving (B, C, H, W) -> (B, C, H/2, W/2), and below, the doubling.
DOWN: dict[str, Callable[[], nn.Module]] = {"box": partial(nn.AvgPool2d, 2), "fir": Fir}
UP: dict[str, Callable[[], nn.Module]] = {
    "box": partial(nn.Upsample, scale_factor=2.0, mode="nearest"),
    "fir": FirUp,
}


#: Which of a 3x3 kernel's rows a transposed convolution's four rows add up, in one dimension.
SPREAD = torch.tensor([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]], dtype=torch.float32)


class DoubledConvolution(nn.Conv2d):
    """A 3x3 convolution of the image with each pixel four times: (B, in, H, W) -> (B, out, 2 H, 2 W).

    Each of its pixels sees only 2 x 2 different ones, so it is a transposed convolution by a 4x4 kernel, whose entries
    are sums of the 3x3 kernel's: 4 products for every 9. On a GPU, where this was not measured, and in bfloat16, whose
    transposed convolution is slow, the pixels are repeated.
    """

    spread: Tensor

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)
        self.register_buffer("spread", torch.kron(SPREAD, SPREAD), persistent=False)

    def forward(self, h: Tensor) -> Tensor:
        if not h.is_cpu or torch.is_autocast_enabled("cpu"):
            return super().forward(F.interpolate(h, scale_factor=2.0))
        turned = self.weight.flip(2, 3).flatten(2) @ self.spread.to(self.weight)
        kernel = turned.unflatten(2, (4, 4)).transpose(0, 1)
        return F.conv_transpose2d(h, kernel, self.bias, stride=2, padding=1)


def with_convolution(
    resample: nn.Module, in_channels: int, out_channels: int
) -> tuple[nn.Module, nn.Conv2d]:
    """The layers that are a resampling and then a 3x3 convolution, one after the other."""
    if isinstance(resample, nn.Upsample):
        return nn.Identity(), DoubledConvolution(in_channels, out_channels)
    return resample, Convolution(in_channels, out_channels, 3, padding=1)


class StridedConvolution(nn.Module):
    """A 3x3 convolution of stride 2, with zeros on the right and below: (B, in, H, W) -> (B, out, H/2, W/2)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(in_channels, out_channels, 3, stride=2)

    def forward(self, h: Tensor) -> Tensor:
        found: Tensor = self.convolution(F.pad(h, (0, 1, 0, 1)))
        return found


class FilteredConvolution(nn.Module):
    """The filter ``fir``, then a 3x3 convolution of stride 2: (B, in, H, W) -> (B, out, H/2, W/2).

    The two commute, because the filter is given all the zeros that either of them sees.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.fir = Fir(stride=1, padding=2)
        self.convolution = nn.Conv2d(in_channels, out_channels, 3, stride=2)

    def forward(self, h: Tensor) -> Tensor:
        found: Tensor = self.convolution(self.fir(h))
        return found
