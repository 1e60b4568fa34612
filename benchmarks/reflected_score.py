"""The reflected kernel's score of a batch, beside 20 eigenfunctions and 42 images for every pixel.

128 x 3 x 32 x 32 pixels, one sigma an image, log-uniform in [0.01, 5], float32.
"""

import math
import sys

import torch
from in_process import compare
from torch import Tensor

from diffbench.diffusion.processes.reflection import fold, scaled_score


def naive(x: Tensor, x0: Tensor, sigma: Tensor) -> Tensor:
    """Both series, and of each pixel the one that is good there."""
    tau = sigma**2 / 2
    angle = math.pi * torch.arange(1, 21).to(x)
    q = 2 * (-(angle**2) * tau[..., None]).exp() * (angle * x0[..., None]).cos()
    density = 1 + (q * (angle * x[..., None]).cos()).sum(-1)
    long = -(q * angle * (angle * x[..., None]).sin()).sum(-1) / density
    shifts = torch.arange(-20, 21, 2).to(x)
    images = torch.cat([x0[..., None] + shifts, shifts - x0[..., None]], -1)
    weight = (-((x[..., None] - images) ** 2) / (4 * tau[..., None])).exp()
    moment = (weight * (images - x[..., None])).sum(-1)
    short = moment / (weight.sum(-1) + 1e-12) / sigma**2
    return sigma * torch.where(tau <= 0.01, short, long)


if __name__ == "__main__":
    generator = torch.Generator().manual_seed(0)
    x0 = torch.rand(128, 3, 32, 32, generator=generator)
    sigma = 0.01 * 500 ** torch.rand(128, 1, 1, 1, generator=generator)
    # Draws of the kernel: in its far tails the naive sums are wrong.
    x = fold(x0 + sigma * torch.randn(x0.shape, generator=generator).clamp(-4, 4))
    want = naive(x.double(), x0.double(), sigma.double())
    error = (scaled_score(x, x0, sigma).double() - want).abs() / want.abs().clamp(min=1)
    # x - x0 is rounded to 6e-8, divided by sigma.
    assert error.max() < 2e-5, error.max()
    ours = {"ours": lambda: scaled_score(x, x0, sigma)}
    if "--compile" in sys.argv:
        compiled = torch.compile(scaled_score)
        ours = {"ours, compiled": lambda: compiled(x, x0, sigma)}
    torch.set_grad_enabled(False)
    for each in ours.values():
        each()
    item = f"reflected score{', compiled' * ('--compile' in sys.argv)}"
    functions = {"20 eigenfunctions and 42 images": lambda: naive(x, x0, sigma), **ours}
    compare(functions, item=item, with_memory=True)
