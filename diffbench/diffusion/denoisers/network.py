r"""Denoisers: a network and coefficient functions make a prediction.

    native = c_skip x_t + c_out F(c_in x_t; c_noise, y)

Every parameterisation is a choice of native quantity and of the coefficients.  Without a skip c_skip = 0 and c_out = 1
(1/sigma for the score, as "scale by sigma" in Song et al. 2021; l for x0 and the mean, with l the process's unit), c_in
= (alpha^2 l^2 + sigma^2)^(-1/2): 1/l for variance-preserving processes; coefficients that differ between coordinates
act in the process's basis.  With EDM's skip (Karras et al. 2022, https://arxiv.org/abs/2206.00364, table 1, written for
any alpha; s_d is the data's standard deviation, v = alpha^2 s_d^2 + sigma^2)

    x0 = alpha s_d^2/v x_t + sigma s_d/sqrt(v) F(x_t/sqrt(v); ln(sigma/alpha)/4)

and any other native quantity a x_t + b x0 (``predictions``) takes its coefficients from there.

Coefficients act on images less the middle m of their range: x_t - m, and x0 - m.  What the network sees, gives and is
told does not depend on the range.  Its noise input is c_noise = ln(sigma/(l alpha))/4 for every process, unless the
spec says otherwise: EDM's rows for VP and VE (table 1) are ``eps`` with (M - 1) t, M = 1000, and ``score`` with c_in =
1 and ln(sigma/2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from diffbench.diffusion.core.condition import Condition
from diffbench.diffusion.core.known import Known
from diffbench.diffusion.core.predictions import LENGTHS, Native, Prediction, linear_form
from diffbench.diffusion.core.process import Process, at, cast
from diffbench.diffusion.denoisers.denoiser import Denoiser
from diffbench.specs.denoisers import NetworkDenoiserSpec

#: F(x, c_noise, y, raw): x (B, C, H, W) scaled by c_in, c_noise (B,), y (B,) or None, raw the unscaled image.  Of a
#: denoiser that takes masks x is (B, 2 C + 1, H, W): the mask and the known image come after.
Network = Callable[[Tensor, Tensor, Tensor | None, Tensor], Tensor]


class Coefficients(NamedTuple):
    """c_skip, c_out, c_in (float64, of the time's shape) of one parameterisation."""

    skip: Tensor
    out: Tensor
    inside: Tensor


def plain_coefficients(
    process: Process, native: Native, t: Tensor, data_std: float
) -> Coefficients:
    """No skip: the network gives the native quantity, in units."""
    alpha, sigma, unit = process.alpha(t), process.sigma(t), process.unit
    out = {-1: 1 / sigma, 0: torch.ones_like(sigma), 1: torch.full_like(sigma, unit)}
    inside = ((alpha * unit) ** 2 + sigma**2).rsqrt()
    return Coefficients(torch.zeros_like(sigma), out[LENGTHS[native]], inside)


def skip_coefficients(process: Process, native: Native, t: Tensor, data_std: float) -> Coefficients:
    """EDM's skip inside any native quantity a x_t + b x0."""
    alpha, sigma = process.alpha(t), process.sigma(t)
    v = alpha**2 * data_std**2 + sigma**2
    a, b = linear_form(process, native, t)
    return Coefficients(
        a + b * alpha * data_std**2 / v, b * sigma * data_std * v.rsqrt(), v.rsqrt()
    )


def residual_coefficients(
    process: Process, native: Native, t: Tensor, data_std: float
) -> Coefficients:
    """x_t + sigma F: what a step changes is about as large as the noise, and so is F of order 1."""
    sigma = process.sigma(t)
    one = torch.ones_like(sigma)
    return Coefficients(one, sigma, one / process.spec.half_range)


def addition_coefficients(
    process: Process, native: Native, t: Tensor, data_std: float
) -> Coefficients:
    """x_t + F, in units (Rissanen, Heinonen & Solin 2023, official code)."""
    skip, out, inside = residual_coefficients(process, native, t, data_std)
    return Coefficients(skip, torch.full_like(out, process.unit), inside)


COEFFICIENTS = {
    "none": plain_coefficients,
    "edm": skip_coefficients,
    "residual": residual_coefficients,
    "addition": addition_coefficients,
}


def log_ratio(process: Process, t: Tensor, levels: int) -> Tensor:
    """ln(sigma/alpha)/4 in units (Karras et al. 2022, table 1, last column), or what the process has in its place."""
    return process.noise_level(t)


def time(process: Process, t: Tensor, levels: int) -> Tensor:
    """(N - 1) t; of a chain the level itself (Ho et al. 2020; Song et al. 2021, official code)."""
    return t if process.spec.time == "discrete" else (levels - 1) * t


def rescaled_time(process: Process, t: Tensor, levels: int) -> Tensor:
    """N t/T of a chain of T levels, N = 1000 there (Nichol & Dhariwal 2021, official code)."""
    return levels * t / (process.t_max + 1)


def descending_time(process: Process, t: Tensor, levels: int) -> Tensor:
    """round((N - 1)(1 - t)), 0 at the most noise; T - 1 - t of a chain (Song et al. 2021, official code, of VE)."""
    return time(process, process.t_max - t, levels).round()


def log_sigma(process: Process, t: Tensor, levels: int) -> Tensor:
    """ln(sigma/2) for data in [-1, 1], ln(sigma) in [0, 1] (Song et al. 2021, official code)."""
    return (process.sigma(t) / (2 * process.spec.half_range)).log()


def sigma_share(process: Process, t: Tensor, levels: int) -> Tensor:
    """(sigma - sigma_min)/(sigma_max - sigma_min) (Lou & Ermon 2023, official code, of its VDM network)."""
    smallest, largest = (process.sigma(at(each)) for each in (process.t_min, process.t_max))
    return (process.sigma(t) - smallest) / (largest - smallest)


#: Of (the process, t, N): what a network is told, of t's shape.
NOISE_INPUTS: dict[str, Callable[[Process, Tensor, int], Tensor]] = {
    "log-ratio": log_ratio,
    "time": time,
    "rescaled-time": rescaled_time,
    "descending-time": descending_time,
    "log-sigma": log_sigma,
    "sigma-share": sigma_share,
}


def noise_input(
    process: Process, x_t: Tensor, t: Tensor, kind: str = "log-ratio", levels: int = 1000
) -> Tensor:
    """What a network is told of the noise: c_noise, (B,) in x_t's precision."""
    level = NOISE_INPUTS[kind](process, t, levels).to(x_t, non_blocking=x_t.is_cuda)
    return level.expand(len(x_t), 1, 1, 1).flatten()


class NetworkBased(Denoiser):
    """Base of what a network makes, told one of ``classes`` labels (0: none)."""

    noise_input: str = "log-ratio"
    levels: int = 1000

    def __init__(self, process: Process, network: Network, classes: int = 0) -> None:
        super().__init__(process)
        self.network, self.classes = network, classes

    def answer(
        self, seen: Tensor, x_t: Tensor, t: Tensor, condition: Condition, centred: Tensor
    ) -> Tensor:
        """F of what it sees of x_t, scaled, and of x_t as it is, in [-1, 1] where data are."""
        c_noise = noise_input(self.process, x_t, t, self.noise_input, self.levels)
        told = () if condition.augmentation is None else (condition.augmentation,)
        return self.network(seen, c_noise, condition.label, centred, *told).to(x_t.dtype)


#: The second half o of the outputs -> what a prediction has of it: v = (o + 1)/2, or the logarithm of the variance.
LEARNT: dict[str, Callable[[Tensor], dict[str, Tensor]] | None] = {
    "fixed": None,
    "learned": lambda second: {"fraction": (second + 1) / 2},
    "unbounded": lambda second: {"log_variance": second},
}


class NetworkDenoiser(NetworkBased):
    """A network with the parameterisation of its spec."""

    def __init__(
        self,
        spec: NetworkDenoiserSpec,
        process: Process,
        network: Network,
        classes: int = 0,
    ) -> None:
        super().__init__(process, network, classes)
        self.learnt, self.takes_masks = LEARNT[spec.variance], spec.takes_masks
        self.native: Native = spec.native
        self.parameterisation = COEFFICIENTS["edm" if spec.predict == "edm" else spec.skip]
        self.half_range = process.spec.half_range
        self.data_std = process.spec.in_range(spec.data_std)
        self.scaled = spec.input_scale == "unit"
        self.noise_input, self.levels = spec.noise_input, spec.levels

    def coefficients(self, t: Tensor) -> Coefficients:
        """c_skip, c_out and c_in at time t, for centred data."""
        found = self.parameterisation(self.process, self.native, t, self.data_std)
        if self.scaled:
            return found
        return found._replace(inside=torch.ones_like(found.inside) / self.half_range)

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Prediction:
        """One network call."""
        scale = self.process.basis.scale
        skip, out, inside = (cast(c, x_t) for c in self.coefficients(t))
        centred = self.process.centred(x_t)
        seen = self.seen(scale(inside, centred), condition.known)
        answer = self.answer(seen, x_t, t, condition, centred / self.half_range)
        answer, learnt = self.split(answer)
        native = scale(skip, centred) + scale(out, answer)
        if LENGTHS[self.native] == 1:
            native = self.process.placed(native)
        return Prediction(self.process, x_t, t, self.native, native, **learnt)

    def seen(self, scaled: Tensor, known: Known | None) -> Tensor:
        """What the network sees: x_t, scaled, and what it is told of the image, where it takes masks."""
        if not self.takes_masks:
            return scaled
        known = Known.nothing(scaled) if known is None else known
        told = known.channels(scaled, self.process.middle, self.half_range)
        return torch.cat([scaled, told], dim=1)

    def split(self, answer: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """F, and what the second half of the outputs says of the variance, if there is one."""
        if self.learnt is None:
            return answer, {}
        answer, second = answer.chunk(2, dim=1)
        return answer, self.learnt(second)
