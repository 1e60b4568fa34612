"""A blur with one width an image, beside a fast Fourier transform of the image's even extension.

128 x 3 images of 32 x 32 and 64 x 64 pixels, float32.
"""

import math

import torch
from in_process import compare
from torch import Tensor

from diffbench.diffusion.core.bases import DCT


def by_fft(x: Tensor, tau: Tensor) -> Tensor:
    """Mirrored at its borders the image is periodic, and its cosines are the Fourier transform's."""
    height, width = x.shape[-2:]
    even = torch.cat([x, x.flip(-1)], -1)
    even = torch.cat([even, even.flip(-2)], -2)
    rows, columns = torch.fft.fftfreq(2 * height), torch.fft.rfftfreq(2 * width)
    squares = (2 * math.pi * rows[:, None]) ** 2 + (2 * math.pi * columns) ** 2
    blurred = torch.fft.irfft2(torch.fft.rfft2(even) * (-squares * tau).exp(), s=even.shape[-2:])
    return blurred[..., :height, :width]


if __name__ == "__main__":
    generator = torch.Generator().manual_seed(0)
    torch.set_grad_enabled(False)
    for size in (32, 64):
        x = torch.rand(128, 3, size, size, generator=generator)
        tau = (20 * torch.rand(128, 1, 1, 1, generator=generator, dtype=torch.float64)) ** 2 / 2
        basis = DCT(size, size)
        # Sums of 2 x 64 products of numbers below 1 round by some 1e-6.
        assert (basis.heat(x, tau) - by_fft(x, tau.float())).abs().max() < 1e-5
        print(f"{size} x {size}")
        single = tau.float()
        compare(
            {
                "FFT of the even extension": lambda x=x, tau=single: by_fft(x, tau),
                "ours": lambda x=x, tau=tau, basis=basis: basis.heat(x, tau),
            },
            item=f"blur of a width an image, {size} x {size}",
        )
