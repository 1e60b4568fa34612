"""What the tests of the diffusion library share: recorded arrays, toy denoisers, columns of
numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffbench.diffusion.core.condition import Condition
from diffbench.diffusion.core.predictions import Native, Prediction
from diffbench.diffusion.core.process import Process, float64
from diffbench.diffusion.core.transitions import model_variance
from diffbench.diffusion.denoisers.denoiser import Denoiser, Wrapper
from diffbench.diffusion.denoisers.exact import MixtureDenoiser, ReflectedMixtureDenoiser
from diffbench.specs.denoisers import MixtureSpec, ReflectedEmpiricalSpec
from diffbench.specs.processes import ProcessSpec, Variance
from diffbench.specs.registry import build

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


def made(spec: ProcessSpec, image_shape: tuple[int, int, int] = (1, 2, 2)) -> Process:
    """The process of a spec, for images of one shape; a few random ones are the training images, where any matter."""
    images = torch.rand(5, *image_shape, generator=torch.Generator().manual_seed(3)).double()
    facts = {"image_shape": image_shape, "images": images}
    return build(spec, **{name: facts[name] for name in spec.facts})


def process_of(name: str, **parameters: object) -> Process:
    """The process of that name."""
    return made(ProcessSpec.choose({"name": name, **parameters}))


def chosen_process(name: str) -> ProcessSpec:
    """The process of that name with its defaults; a chain has 50 steps of the cosine schedule."""
    parameters = {"discrete": {"schedule": "cosine", "steps": 50}, "blurring": {"sigma_max": 0.5}}
    return ProcessSpec.choose({"name": name, **parameters.get(name, {})})


def exact_denoiser(process: Process) -> Denoiser:
    """An exact denoiser of a few pixels, of 2 x 2 images where the process has a basis of its own."""
    spec = process.spec
    if spec.family == "reflected":
        return ReflectedMixtureDenoiser(ReflectedEmpiricalSpec(), process, REFLECTED)
    if spec.noise == "constant":
        return Toy(process, "mean", lambda x, t: 0.9 * x + 0.05)
    if spec.alpha == "vector":
        return diagonal_denoiser(
            process, float64([0.3, -0.2, 0.1, 0.2]), float64([0.25, 0.1, 0.05, 0.02])
        )
    return mixture_denoiser(process)


#: A mixture of two reflected Gaussians of four pixels.
REFLECTED = {
    "weights": torch.tensor([0.6, 0.4]).double(),
    "centres": torch.tensor([[0.02, 0.9, 0.4, 0.6], [0.7, 0.2, 1.0, 0.5]]).double(),
    "widths": torch.tensor([0.1, 0.2]).double(),
}


def diagonal_denoiser(process: Process, mean: Tensor, variances: Tensor) -> Toy:
    """The exact denoiser of a Gaussian that is diagonal in the process's basis; mean and variances of its H x W
    coordinates, in any shape with so many."""
    basis = process.basis

    def eps(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = process.alpha(t), process.sigma(t)
        m, v = (each.reshape(x.shape[-2:]) for each in (mean, variances))
        shares = sigma / (alpha**2 * v + sigma**2)
        return basis.pixels(shares.to(x) * (basis.coordinates(x) - (alpha * m).to(x)))

    return Toy(process, "eps", eps)


def mixture_denoiser(process: Process, pixels: int = 4) -> MixtureDenoiser:
    """The exact denoiser of three Gaussians of a few correlated pixels, with means in [-1, 1]."""
    steps = torch.arange(pixels, dtype=torch.float64)
    distance = (steps[:, None] - steps).abs()
    tensors = {
        "weights": torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64),
        "means": torch.stack([0.6 * (-1) ** steps, 0.4 + 0 * steps, -0.5 + 0.1 * steps]),
        "covariances": torch.stack([scale * 0.5**distance for scale in (0.02, 0.05, 0.1)]),
    }
    return MixtureDenoiser(MixtureSpec(), process, tensors)


def no_noise(x: Tensor) -> Tensor:
    """The noise of what draws none."""
    raise AssertionError("noise was drawn")


def chain_times(process: Process, t: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """score_sde's level floor(t (N - 1)) of N, as a time, and the time before it.

    VP's chain has beta = beta(t)/N, a step of 1/N; VE's goes to the level before, and the first to the data.
    """
    level = (t * (steps - 1)).floor()
    at = level / (steps - 1)
    if process.spec.name == "vp":
        return at, at - 1 / steps
    before = (level - 1) / (steps - 1)
    return at, torch.where(level == 0, torch.full_like(t, process.data_time), before)


def column(values: Tensor) -> Tensor:
    """One number an image: (B,) -> (B, 1, 1, 1)."""
    return values.reshape(-1, 1, 1, 1)


def close(got: Tensor, want: Tensor, rtol: float = 1e-9, atol: float = 1e-10) -> None:
    """Assert elementwise agreement; by default at the reference vectors' float64 tolerance."""
    assert got.shape == want.shape
    # torch asks the same in a sixth of the time; numpy says where they differ.
    if got.dtype != want.dtype or not torch.allclose(got, want, rtol, atol):
        np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=rtol, atol=atol)


def fixed_variance(process: Process, t: Tensor, s: Tensor, kind: Variance) -> Tensor:
    """The model's variance of the steps from t to s, of t's shape, whatever a denoiser says."""
    nothing = torch.zeros_like(t)
    return model_variance(Prediction(process, nothing, t, "eps", nothing), s, kind)


class Toy(Denoiser):
    """A denoiser whose native quantity, and variance fraction if any, are closed forms of (x_t, t)."""

    def __init__(
        self,
        process: Process,
        native: Native,
        formula: Formula,
        fraction: Formula | None = None,
    ) -> None:
        super().__init__(process)
        self.native, self.formula, self.fraction = native, formula, fraction

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Prediction:
        fraction = None if self.fraction is None else self.fraction(x_t, t)
        return Prediction(self.process, x_t, t, self.native, self.formula(x_t, t), fraction)


class Fractional(Wrapper):
    """Another denoiser whose variance's fraction is the same at every x_t; it broadcasts against images."""

    def __init__(self, denoiser: Denoiser, fraction: Callable[[Tensor], Tensor]) -> None:
        super().__init__(denoiser)
        self.fraction = fraction

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Prediction:
        prediction = self.denoiser(x_t, t, condition)
        prediction.fraction = self.fraction(t).expand_as(x_t)
        return prediction


def toy_eps(x: Tensor, t: Tensor) -> Tensor:
    """The network of every ``gd_*`` array."""
    return 0.3 * x * torch.cos(0.01 * t) + 0.1 * torch.sin(x)


def toy_v(x: Tensor, t: Tensor) -> Tensor:
    """The second half of that network's outputs, in [-1, 1]."""
    return 0.8 * torch.sin(2 * x + 0.01 * t)


def toy_fraction(x: Tensor, t: Tensor) -> Tensor:
    """The variance's fraction that it stands for."""
    return (toy_v(x, t) + 1) / 2


def official_log_prob(
    x: Tensor, mean: Tensor, std: Tensor, spacing: float, low: float, high: float
) -> Tensor:
    """improved-diffusion's decoder, in ``bound.discretised_log_prob``'s place: a tanh for the normal
    distribution function, floors of 1e-12, edge bins by |x| > 0.999, 256 levels in [-1, 1]."""
    assert (spacing, low, high) == (2 / 255, -1, 1)

    def cdf(z: Tensor) -> Tensor:
        return 0.5 * (1 + torch.tanh((2 / math.pi) ** 0.5 * (z + 0.044715 * z**3)))

    upper, lower = cdf((x - mean + 1 / 255) / std), cdf((x - mean - 1 / 255) / std)
    middle = (upper - lower).clamp(min=1e-12).log()
    below, above = upper.clamp(min=1e-12).log(), (1 - lower).clamp(min=1e-12).log()
    return torch.where(x < -0.999, below, torch.where(x > 0.999, above, middle))


def toy_score(x: Tensor, t: Tensor) -> Tensor:
    """The score of ``sde_definitions`` and ``sde_steps``."""
    return -0.5 * x + 0.2 * (1 + t) * torch.cos(3 * x)


def toy_denoised(x: Tensor, sigma: Tensor) -> Tensor:
    """The denoised image of ``edm_sampler`` and ``edm_loss``."""
    return 0.25 * x / (0.25 + sigma**2) + 0.05 * torch.sin(x) / (1 + sigma)
