r"""How near an image is to another: PSNR and SSIM, of images (N, C, H, W) on [0, 1], one number an image.

    PSNR = 10 log10(1 / MSE) dB          MSE no less than 1e-10: two equal images have 100 dB

    SSIM = mean of (2 m_x m_y + c_1)(2 v_xy + c_2) / ((m_x^2 + m_y^2 + c_1)(v_x + v_y + c_2))

with local means m, variances v and covariance v_xy under a Gaussian window of standard deviation 1.5 pixels, 11 x 11,
at every place where it lies within the image; c_1 = 0.01^2, c_2 = 0.03^2; channels are averaged.  Wang, Bovik, Sheikh &
Simoncelli, "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004,
https://www.cns.nyu.edu/~lcv/ssim/.  Images smaller than the window get the largest odd one that fits (7 x 7 for 8 x 8).

Images are not rounded to grey levels or clipped (the caller clips them), and computed in float64.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

#: The least mean squared error in PSNR.
SMALLEST_MSE = 1e-10
WINDOW, WINDOW_STD = 11, 1.5
C_1, C_2 = 0.01**2, 0.03**2


def psnr(image: Tensor, other: Tensor) -> Tensor:
    """PSNR in dB (N,), float64, of two sets of images.

    Example:
        >>> import torch
        >>> psnr(torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 0.1)).round(decimals=3)
        tensor([20.], dtype=torch.float64)
    """
    mse = (image.double() - other.double()).square().flatten(1).mean(1)
    return -10 * mse.clamp(min=SMALLEST_MSE).log10()


def ssim(image: Tensor, other: Tensor) -> Tensor:
    """SSIM (N,), float64, of two sets of images."""
    x, y = image.double(), other.double()
    window = gaussian_window(*x.shape[2:]).to(x)
    m_x, m_y = _local(x, window), _local(y, window)
    v_x, v_y = _local(x * x, window) - m_x**2, _local(y * y, window) - m_y**2
    v_xy = _local(x * y, window) - m_x * m_y
    means = (2 * m_x * m_y + C_1) / (m_x**2 + m_y**2 + C_1)
    return (means * (2 * v_xy + C_2) / (v_x + v_y + C_2)).flatten(1).mean(1)


def gaussian_window(height: int, width: int) -> Tensor:
    """Gaussian window (K, K) for images of that size, with sum 1."""
    side = min(WINDOW, height, width)
    side -= 1 - side % 2
    steps = torch.arange(side, dtype=torch.float64) - side // 2
    line = (-(steps**2) / (2 * WINDOW_STD**2)).exp()
    return torch.outer(line, line) / line.sum() ** 2


def _local(x: Tensor, window: Tensor) -> Tensor:
    """Means under the window at each of its places: (N, C, H, W) -> (N, C, H - K + 1, W - K + 1)."""
    channels = x.shape[1]
    return F.conv2d(x, window.expand(channels, 1, *window.shape), groups=channels)
