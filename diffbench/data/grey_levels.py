"""Grey levels and model scale: the one conversion between them.

A data set has L grey levels k = 0..L-1, stored as uint8 (N, H, W, C).  Models work on x in
[low, high], which is [-1, 1] or [0, 1], as float32 (N, C, H, W):

    x = low + k d                     d = (high - low) / (L - 1), the spacing
    k = clip(floor((L - 1)(x - low) / (high - low) + 1/2), 0, L - 1)

so x is rounded to the nearest level, halves upwards.  At L = 256 in [-1, 1] the second line is the
rounding of Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models",
2022, https://github.com/NVlabs/edm (generate.py: clip(127.5 x + 128), cut to an integer).

Where a process lives in [low, high] alone, grey levels are cells inside it, each x the middle of its own:

    x = low + (k + 1/2) d,            d = (high - low)/L,
    k = clip(floor((x - low)/d), 0, L - 1).

Uniform dequantisation (Uria, Murray, Larochelle, "RNADE: The real-valued neural autoregressive
density-estimator", 2013, https://arxiv.org/abs/1306.0186) spreads a level over its cell,

    k + u - 1/2,  u ~ U[0, 1),        that is  x + (u - 1/2) d  in [low - d/2, high + d/2),

(of cells inside [low, high], in that range), which the rounding rule inverts exactly.  For a density p of x, the
level's probability is the integral of p over its cell, and by Jensen's inequality

    log P(k) >= E_u[log p(x + (u - 1/2) d)] + log d        per dimension, in nats:

log d = log|dx/dk| is the only constant that a likelihood of grey levels needs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffbench.specs.processes import RANGES

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class GreyLevels:
    """The conversion for ``count`` grey levels and the model scale [low, high].

    ``inside``: whether the grey levels' cells lie in [low, high]; else the first and last level lie at its ends.

    Raises:
        ValueError: when count is not in 2..256, or the scale is neither [-1, 1] nor [0, 1].

    Example:
        >>> images = np.array([0, 8, 16], dtype=np.uint8).reshape(1, 1, 3, 1)
        >>> x = GreyLevels(17).to_model(images)
        >>> x.flatten()
        tensor([-1.,  0.,  1.])
        >>> GreyLevels(17).from_model(x + 0.05).flatten()
        array([ 0,  8, 16], dtype=uint8)
    """

    count: int
    low: float = -1.0
    high: float = 1.0
    inside: bool = False

    def __post_init__(self) -> None:
        if not 2 <= self.count <= 256:
            raise ValueError(f"the number of grey levels must be 2 to 256, not {self.count}")
        if (self.low, self.high) not in RANGES:
            raise ValueError(
                f"the model scale must be [-1, 1] or [0, 1], not [{self.low}, {self.high}]"
            )

    @property
    def spacing(self) -> float:
        """The distance d between neighbouring grey levels in model scale."""
        return (self.high - self.low) / (self.count - (not self.inside))

    @property
    def first(self) -> float:
        """The value of level 0 in model scale."""
        return self.low + self.spacing / 2 if self.inside else self.low

    @property
    def log_jacobian(self) -> float:
        """log|dx/dk| = log d in nats per dimension."""
        return math.log(self.spacing)

    def to_model(self, images: Images | Tensor) -> Tensor:
        """Return images in grey levels, uint8 (N, H, W, C), as float32 (N, C, H, W) in [low, high].

        Raises:
            ValueError: when the array is not uint8 of four dimensions, or has a level of `count` or
                more.
        """
        return self.values(self.checked(images))

    def checked(self, images: Images | Tensor) -> Tensor:
        """Return images in grey levels, uint8 (N, H, W, C), as a tensor; raises as `to_model` does."""
        k = torch.as_tensor(images)
        if k.dtype != torch.uint8 or k.ndim != 4:
            raise ValueError(f"images must be uint8 (N, H, W, C), not {k.dtype} {tuple(k.shape)}")
        if k.numel() and int(k.max()) >= self.count:
            raise ValueError(
                f"level {int(k.max())} is too large: the data set has {self.count} levels, counted "
                "from 0"
            )
        return k

    def values(self, k: Tensor) -> Tensor:
        """Return the values (N, C, H, W) of valid images; without `to_model`'s checks, which wait for the device."""
        x = _table(self, k.device).index_select(0, k.flatten().int()).view(k.shape)
        return x.permute(0, 3, 1, 2).contiguous()

    def from_model(self, x: Tensor) -> Images:
        """Return the nearest grey levels, uint8 (N, H, W, C), of x (N, C, H, W), clipped to 0..count-1.

        Raises:
            ValueError: when x has a NaN, or not four dimensions.
        """
        if x.ndim != 4:
            raise ValueError(f"images in model scale must be (N, C, H, W), not {tuple(x.shape)}")
        x = x.detach().cpu().double()
        if bool(x.isnan().any()):
            raise ValueError(
                f"{int(x.isnan().flatten(1).any(1).sum())} of {len(x)} images have NaN"
            )
        cells = self.count - (not self.inside)
        k = torch.floor(cells * (x - self.first) / (self.high - self.low) + 0.5)
        images: Images = k.clamp(0, self.count - 1).byte().permute(0, 2, 3, 1).contiguous().numpy()
        return images

    def dequantise(self, x: Tensor, uniform: Tensor) -> Tensor:
        """Return x spread over its grey levels' cells: x + (u - 1/2) d, with u ~ U[0, 1) of x's shape."""
        return x + (uniform - 0.5) * self.spacing


@cache
def _table(grey: GreyLevels, device: torch.device) -> Tensor:
    """Return the value of each level, computed in float64, so that its float32 value is the same on all devices."""
    k = torch.arange(grey.count, dtype=torch.float64)
    return (grey.first + grey.spacing * k).float().to(device)
