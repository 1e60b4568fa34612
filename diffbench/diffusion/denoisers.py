r"""Denoisers: a network and coefficient functions make a prediction.

    native = c_skip x_t + c_out F(c_in x_t; c_noise, y)

Every parameterisation is a choice of native quantity and of the coefficients.  Without a skip c_skip = 0
and c_out = 1 (1/sigma for the score, as "scale by sigma" in Song et al. 2021), c_in = (alpha^2 + sigma^2)^(-1/2):
1 for variance-preserving processes.  With EDM's skip (Karras et al. 2022, https://arxiv.org/abs/2206.00364, table 1,
written for any alpha; s_d is the data's standard deviation, v = alpha^2 s_d^2 + sigma^2)

    x0 = alpha s_d^2/v x_t + sigma s_d/sqrt(v) F(x_t/sqrt(v); ln(sigma/alpha)/4)

and any other native quantity a x_t + b x0 takes its coefficients from there: eps has a = 1/sigma, b = -alpha/sigma;
v has a = alpha/sigma, b = -(alpha^2 + sigma^2)/sigma; the score a = -1/sigma^2, b = alpha/sigma^2.

Coefficients act on data centred on the middle m of their range: x_t - alpha m, with eps and score unchanged.
The network's noise input is c_noise = ln(sigma/alpha)/4 for every process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from diffbench.diffusion.predictions import Native, Prediction
from diffbench.diffusion.processes.gaussian import GaussianProcess, cast
from diffbench.specs.denoiser import NetworkDenoiserSpec

#: F(x, c_noise, y, raw): x (B, C, H, W) scaled by c_in, c_noise (B,), y (B,) or None, raw the unscaled image.
Network = Callable[[Tensor, Tensor, Tensor | None, Tensor], Tensor]


class Denoiser:
    """Base of all denoisers: counts its calls, the number of function evaluations (NFE)."""

    process: GaussianProcess

    def __init__(self, process: GaussianProcess) -> None:
        self.process = process
        self.calls = 0

    def __call__(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Prediction:
        """Predict at images x_t (B, C, H, W) and times t (shape () or (B, 1, 1, 1)), given labels y (B,)."""
        self.calls += 1
        return self.predict(x_t, t, y)

    def predict(self, x_t: Tensor, t: Tensor, y: Tensor | None) -> Prediction:
        """The prediction itself."""
        raise TypeError(f"{type(self).__name__} does not predict")


class Coefficients(NamedTuple):
    """c_skip, c_out, c_in (float64, of the time's shape) of one parameterisation."""

    skip: Tensor
    out: Tensor
    inside: Tensor


def plain_coefficients(
    native: Native, alpha: Tensor, sigma: Tensor, data_std: float
) -> Coefficients:
    """No skip: the network gives the native quantity."""
    one = torch.ones_like(sigma)
    return Coefficients(
        0 * one, 1 / sigma if native == "score" else one, (alpha**2 + sigma**2).rsqrt()
    )


def skip_coefficients(
    native: Native, alpha: Tensor, sigma: Tensor, data_std: float
) -> Coefficients:
    """EDM's skip inside any native quantity a x_t + b x0."""
    v = alpha**2 * data_std**2 + sigma**2
    a, b = {
        "x0": (0 * sigma, 0 * sigma + 1),
        "eps": (1 / sigma, -alpha / sigma),
        "v": (alpha / sigma, -(alpha**2 + sigma**2) / sigma),
        "score": (-1 / sigma**2, alpha / sigma**2),
    }[native]
    return Coefficients(
        a + b * alpha * data_std**2 / v, b * sigma * data_std * v.rsqrt(), v.rsqrt()
    )


COEFFICIENTS = {"none": plain_coefficients, "edm": skip_coefficients}


class NetworkDenoiser(Denoiser):
    """A network with the parameterisation of its spec."""

    def __init__(
        self, spec: NetworkDenoiserSpec, process: GaussianProcess, network: Network
    ) -> None:
        super().__init__(process)
        self.native: Native = "x0" if spec.predict == "edm" else spec.predict
        self.parameterisation = COEFFICIENTS["edm" if spec.predict == "edm" else spec.skip]
        self.half_range, self.middle = process.spec.half_range, process.spec.middle
        self.data_std = spec.data_std * self.half_range
        self.network = network

    def coefficients(self, t: Tensor) -> Coefficients:
        """c_skip, c_out and c_in at time t, for centred data."""
        return self.parameterisation(
            self.native, self.process.alpha(t), self.process.sigma(t), self.data_std
        )

    def c_noise(self, t: Tensor) -> Tensor:
        """What the network is told of the time: ln(sigma/alpha)/4."""
        return self.process.ratio(t).log() / 4

    def predict(self, x_t: Tensor, t: Tensor, y: Tensor | None) -> Prediction:
        """One network call."""
        skip, out, inside = (cast(c, x_t) for c in self.coefficients(t))
        alpha = cast(self.process.alpha(t), x_t)
        centred = x_t - alpha * self.middle
        c_noise = self.c_noise(t).to(x_t).expand(len(x_t), 1, 1, 1).flatten()
        answer = self.network(inside * centred, c_noise, y, centred / self.half_range)
        native = skip * centred + out * answer.to(x_t.dtype)
        return Prediction(self.process, x_t, t, self.native, native + self._offset(alpha, t, x_t))

    def _offset(self, alpha: Tensor, t: Tensor, x_t: Tensor) -> Tensor | float:
        """What centring took from the native quantity: x0 loses m, v loses -sigma m."""
        match self.native:
            case "x0":
                return self.middle
            case "v":
                return -cast(self.process.sigma(t), x_t) * self.middle
        return 0.0


class StaticThreshold(Denoiser):
    """Clips predicted x0 to the data range [low, high] (Ho et al. 2020, official code)."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__(denoiser.process)
        self.denoiser = denoiser

    def predict(self, x_t: Tensor, t: Tensor, y: Tensor | None) -> Prediction:
        """The inner prediction with its x0 clipped; eps and the others follow from it."""
        prediction = self.denoiser(x_t, t, y)
        return prediction.with_x0(
            prediction.x0.clamp(self.process.spec.low, self.process.spec.high)
        )


THRESHOLDS: dict[str, Callable[[Denoiser], Denoiser]] = {
    "none": lambda denoiser: denoiser,
    "static": StaticThreshold,
}
