"""What the tests of the diffusion library share: recorded arrays, toy denoisers, columns of
numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffbench.diffusion.denoisers import Denoiser
from diffbench.diffusion.predictions import Native, Prediction
from diffbench.diffusion.processes.gaussian import GaussianProcess
from diffbench.plan.registry import build
from diffbench.specs.process import ProcessSpec

# Tensors of a few numbers: threads would only wait for one another.
torch.set_num_threads(1)

REFERENCE = Path(__file__).parent / "reference"

#: A closed form of x (B, C, H, W) and t (broadcasts against x).
Formula = Callable[[Tensor, Tensor], Tensor]


def recorded(name: str) -> dict[str, Tensor]:
    """The arrays of reference/NAME.npz that are numbers; integers and floats in float64."""
    with np.load(REFERENCE / f"{name}.npz") as file:
        return {
            key: torch.from_numpy(file[key].astype(np.float64))
            for key in file.files
            if file[key].dtype.kind in "if"
        }


def process_of(name: str, **parameters: object) -> GaussianProcess:
    """The process of that name."""
    return build(ProcessSpec.choose({"name": name, **parameters}))


def column(values: Tensor) -> Tensor:
    """One number an image: (B,) -> (B, 1, 1, 1)."""
    return values.reshape(-1, 1, 1, 1)


def close(got: Tensor, want: Tensor, rtol: float = 1e-9, atol: float = 1e-10) -> None:
    """Assert elementwise agreement; by default at the reference vectors' float64 tolerance."""
    assert got.shape == want.shape
    np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=rtol, atol=atol)


class Toy(Denoiser):
    """A denoiser whose native quantity is a closed form of (x_t, t)."""

    def __init__(self, process: GaussianProcess, native: Native, formula: Formula) -> None:
        super().__init__(process)
        self.native, self.formula = native, formula

    def predict(self, x_t: Tensor, t: Tensor, y: Tensor | None) -> Prediction:
        return Prediction(self.process, x_t, t, self.native, self.formula(x_t, t))


def toy_eps(x: Tensor, t: Tensor) -> Tensor:
    """The network of every ``gd_*`` array."""
    return 0.3 * x * torch.cos(0.01 * t) + 0.1 * torch.sin(x)


def toy_score(x: Tensor, t: Tensor) -> Tensor:
    """The score of ``sde_definitions`` and ``sde_steps``."""
    return -0.5 * x + 0.2 * (1 + t) * torch.cos(3 * x)


def toy_denoised(x: Tensor, sigma: Tensor) -> Tensor:
    """The denoised image of ``edm_sampler`` and ``edm_loss``."""
    return 0.25 * x / (0.25 + sigma**2) + 0.05 * torch.sin(x) / (1 + sigma)
