r"""Network denoisers: a network and coefficient functions make a prediction.

    native = c_skip x_t + c_out F(c_in x_t; c_noise, y)

Every parameterisation is a choice of native quantity and of the coefficients.  Coefficients that differ between
coordinates act in the process's basis.

Without a skip c_skip = 0 and c_in = (alpha^2 l^2 + sigma^2)^(-1/2), with l the process's unit; for variance-preserving
processes c_in = 1/l.  c_out is 1 for eps and v, 1/sigma for the score ("scale by sigma" in Song et al. 2021), and l for
x0 and the mean.

With EDM's skip (Karras et al. 2022, https://arxiv.org/abs/2206.00364, table 1, written for any alpha; s_d is the data's
standard deviation, v = alpha^2 s_d^2 + sigma^2)

    x0 = alpha s_d^2/v x_t + sigma s_d/sqrt(v) F(x_t/sqrt(v); ln(sigma/alpha)/4)

and any other native quantity a x_t + b x0 (``predictions``) takes its coefficients from there.

Coefficients act on images minus the middle m of their range: x_t - m, and x0 - m.  The network's inputs and outputs do
not depend on the range.  Its noise input is c_noise = ln(sigma/(l alpha))/4, unless the spec has another.  EDM's rows
for VP and VE (table 1) are ``eps`` with (M - 1) t, M = 1000, and ``score`` with c_in = 1 and ln(sigma/2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from diffbench.diffusion.core.condition import Condition
from diffbench.diffusion.core.known import Known
from diffbench.diffusion.core.path import Path, tabled
from diffbench.diffusion.core.predictions import LENGTHS, Native, Prediction, linear_form
from diffbench.diffusion.core.process import Process, cast, float64
from diffbench.diffusion.core.returned import check_like
from diffbench.diffusion.denoisers.denoiser import Denoiser
from diffbench.specs.denoisers import NetworkDenoiserSpec

#: A network F(x, c_noise, y, raw): x (B, C, H, W) is scaled by c_in, c_noise is (B,), y is (B,) or None, and raw is the
#: unscaled image.  If the denoiser takes masks, x is (B, 2 C + 1, H, W): the mask and the known image follow the image.
#: A network may change neither what it is given, which can be the state itself, nor what it returned before.
Network = Callable[[Tensor, Tensor, Tensor | None, Tensor], Tensor]


class Coefficients(NamedTuple):
    """The coefficients c_skip, c_out, c_in of one parameterisation, float64, of the time's shape."""

    skip: Tensor
    out: Tensor
    inside: Tensor


def plain_coefficients(
    process: Process, native: Native, t: Tensor, data_std: float
) -> Coefficients:
    """The coefficients without a skip: the network gives the native quantity, in units."""
    alpha, sigma, unit = process.alpha(t), process.sigma(t), process.unit
    out = {-1: 1 / sigma, 0: torch.ones_like(sigma), 1: torch.full_like(sigma, unit)}
    inside = ((alpha * unit) ** 2 + sigma**2).rsqrt()
    return Coefficients(torch.zeros_like(sigma), out[LENGTHS[native]], inside)


def skip_coefficients(process: Process, native: Native, t: Tensor, data_std: float) -> Coefficients:
    """The coefficients of EDM's skip, for any native quantity a x_t + b x0."""
    alpha, sigma = process.alpha(t), process.sigma(t)
    v = alpha**2 * data_std**2 + sigma**2
    a, b = linear_form(process, native, t)
    return Coefficients(
        a + b * alpha * data_std**2 / v, b * sigma * data_std * v.rsqrt(), v.rsqrt()
    )


def residual_coefficients(
    process: Process, native: Native, t: Tensor, data_std: float
) -> Coefficients:
    """The coefficients of x_t + sigma F: a step changes x_t by about sigma, so that F is of order 1."""
    sigma = process.sigma(t)
    one = torch.ones_like(sigma)
    return Coefficients(one, sigma, one / process.spec.half_range)


def addition_coefficients(
    process: Process, native: Native, t: Tensor, data_std: float
) -> Coefficients:
    """The coefficients of x_t + F, in units (Rissanen, Heinonen & Solin 2023, official code)."""
    skip, out, inside = residual_coefficients(process, native, t, data_std)
    return Coefficients(skip, torch.full_like(out, process.unit), inside)


COEFFICIENTS = {
    "none": plain_coefficients,
    "edm": skip_coefficients,
    "residual": residual_coefficients,
    "addition": addition_coefficients,
}


def log_ratio(process: Process, t: Tensor, levels: int) -> Tensor:
    """The process's own noise level, by default ln(sigma/(l alpha))/4 (Karras et al. 2022, table 1, last column)."""
    return process.noise_level(t)


def time(process: Process, t: Tensor, levels: int) -> Tensor:
    """The scaled time (N - 1) t; on a chain the level itself (Ho et al. 2020; Song et al. 2021, official code)."""
    return t if process.spec.time == "discrete" else (levels - 1) * t


def rescaled_time(process: Process, t: Tensor, levels: int) -> Tensor:
    """The rescaled level N t/T of a chain of T levels; N is 1000 in the source (Nichol & Dhariwal 2021, code)."""
    return levels * t / (process.t_max + 1)


def descending_time(process: Process, t: Tensor, levels: int) -> Tensor:
    """The descending time round((N - 1)(1 - t)), 0 at the most noise; on a chain T - 1 - t.

    Source: Song et al. 2021, official code, for VE.
    """
    return time(process, process.t_max - t, levels).round()


def log_sigma(process: Process, t: Tensor, levels: int) -> Tensor:
    """The log noise scale, ln(sigma/2) for data in [-1, 1], ln(sigma) in [0, 1] (Song et al. 2021, official code)."""
    return (process.sigma(t) / (2 * process.spec.half_range)).log()


def sigma_share(process: Process, t: Tensor, levels: int) -> Tensor:
    """The place of sigma in its range, (sigma - sigma_min)/(sigma_max - sigma_min).

    Source: Lou & Ermon 2023, official code, for its VDM network.
    """
    smallest, largest = (process.sigma(float64(each)) for each in (process.t_min, process.t_max))
    return (process.sigma(t) - smallest) / (largest - smallest)


#: The kinds of noise input: functions of the process, t and N with a result of t's shape.
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
    """The noise input c_noise of a network, (B,) in x_t's precision."""
    level = NOISE_INPUTS[kind](process, t, levels)
    if level.ndim == 0 and level.is_cpu:
        return x_t.new_full((len(x_t),), level.item())
    level = level.to(x_t, non_blocking=x_t.is_cuda)
    return level.expand(len(x_t), 1, 1, 1).flatten()


class NetworkBased(Denoiser):
    """Base of denoisers that use a network; it is told one of ``classes`` labels (0: none)."""

    noise_input: str = "log-ratio"
    levels: int = 1000

    def __init__(self, process: Process, network: Network, classes: int = 0) -> None:
        super().__init__(process)
        self.network, self.classes = network, classes

    def answer(
        self, seen: Tensor, x_t: Tensor, t: Tensor, condition: Condition, centred: Tensor
    ) -> Tensor:
        """The network's output F, for the scaled input ``seen`` and the raw input ``centred``, in [-1, 1] for data."""
        c_noise = noise_input(self.process, x_t, t, self.noise_input, self.levels)
        told = () if condition.augmentation is None else (condition.augmentation,)
        return self.network(seen, c_noise, condition.label, centred, *told).to(x_t.dtype)


#: What a prediction takes from the second half o of the outputs: the fraction (o + 1)/2, or o as the log variance.
LEARNT: dict[str, Callable[[Tensor], dict[str, Tensor]] | None] = {
    "fixed": None,
    "learned": lambda second: {"fraction": (second + 1) / 2},
    "unbounded": lambda second: {"log_variance": second},
}


class NetworkDenoiser(NetworkBased):
    """A denoiser by a network, with the parameterisation of its spec."""

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
        self.skip = "edm" if spec.predict == "edm" else spec.skip
        self.parameterisation = COEFFICIENTS[self.skip]
        self.half_range = process.spec.half_range
        self.data_std = process.spec.in_range(spec.data_std)
        self.scaled = spec.input_scale == "unit"
        self.noise_input, self.levels = spec.noise_input, spec.levels

    @property
    def path(self) -> Path | None:
        """The path that is walked."""
        return self.process.path

    @tabled
    def coefficients(self, t: Tensor) -> Coefficients:
        """The coefficients c_skip, c_out and c_in at time t, for centred data."""
        found = self.parameterisation(self.process, self.native, t, self.data_std)
        if self.scaled:
            return found
        return found._replace(inside=torch.ones_like(found.inside) / self.half_range)

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Prediction:
        """The prediction, from one call of the network."""
        skip, out, inside = (cast(c, x_t) for c in self.coefficients(t))
        centred = self.process.centred(x_t)
        raw = centred if self.half_range == 1 else centred / self.half_range
        seen = self.seen(self.process.scaled(inside, centred), condition.known)
        answer = self.answer(seen, x_t, t, condition, raw)
        answer, learnt = self.split(answer)
        check_like(answer, x_t, "the network")
        native = self.process.scaled(out, answer)
        if self.skip != "none":
            native = self.process.basis.scale(skip, centred).add_(native)
        if LENGTHS[self.native] == 1:
            native = self.process.placed(native)
        return Prediction(self.process, x_t, t, self.native, native, **learnt)

    def seen(self, scaled: Tensor, known: Known | None) -> Tensor:
        """The network's input: x_t, scaled, then the mask and the known image if the denoiser takes masks."""
        if not self.takes_masks:
            return scaled
        known = Known.nothing(scaled) if known is None else known
        told = known.channels(scaled, self.process.middle, self.half_range)
        return torch.cat([scaled, told], dim=1)

    def split(self, answer: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The output F, and what the second half of the outputs says of the variance (empty if it is fixed)."""
        if self.learnt is None:
            return answer, {}
        answer, second = answer.chunk(2, dim=1)
        return answer, self.learnt(second)
