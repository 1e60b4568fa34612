r"""DDRM (Kawar, Elad, Ermon & Song 2022, https://arxiv.org/abs/2201.11793, equations 7 and 8).

All images are minus the middle of the data range.  The coordinates u = V^T x_t/alpha_t have noise r_t =
sigma_t/alpha_t, those of the predicted image are v = V^T x0, and the measured ones are y/s = S^+ U^T y with noise
w = std/s.  A step from t to s draws each coordinate from

    not measured        N(v + sqrt(1 - eta^2) r_s (u - v)/r_t,     (eta r_s)^2)
    r_s < w             N(v + sqrt(1 - eta_a^2) r_s (y/s - v)/w,   (eta_a r_s)^2)
    r_s >= w            N((1 - eta_b) v + eta_b y/s,               r_s^2 - (eta_b w)^2)

The start is drawn from N(y/s, r^2 - w^2) where r > w, and elsewhere from the prior's mean with noise r.  The official
code uses r_s > w in the last case, so that without noise its last result does not agree with the measurement; and it
starts with x/r in place of alpha x.

For an operator that is not linear (Kawar, Song, Ermon & Elad 2022, https://arxiv.org/abs/2209.11888, JPEG) x0 is
corrected to x0 - H^+ H x0 + H^+ y, and no coordinate counts as measured.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from diffbench.diffusion.core import grids
from diffbench.diffusion.core.process import cast
from diffbench.diffusion.core.streams import normal_like
from diffbench.diffusion.denoisers.denoiser import Denoiser
from diffbench.diffusion.inverse.operators.operator import Degradation, Operator
from diffbench.diffusion.inverse.restorers.restorer import Measurement, Restorer
from diffbench.diffusion.solvers.corrector import Noise
from diffbench.specs.restorers import DDRMSpec


class DDRM(Restorer):
    """The restorer DDRM, for linear operators, and for others by a correction of x0."""

    def __init__(self, spec: DDRMSpec, denoiser: Denoiser) -> None:
        self.spec, self.denoiser, self.process = spec, denoiser, denoiser.process

    def times(self) -> Tensor:
        """The grid: decreasing times, then the data's."""
        spec = self.spec
        return grids.to_data(self.process, grids.descending(self.process, spec.grid, spec.steps))

    def restore(self, measurement: Measurement, generator: torch.Generator) -> Tensor:
        """Images (B, C, H, W) given y.

        Raises:
            ValueError: when y is of the wrong size.
        """
        operator, y = measurement.operator, measurement.y
        operator.check(y)
        noise = partial(normal_like, generator=generator)
        times, measurement = self.times(), measurement.centred(self.process.middle)
        x = self.start(measurement, times[0], noise)
        for t, s in zip(times[:-1], times[1:], strict=True):
            x = self.step(x, t, s, measurement, noise)
        return x

    def start(self, measurement: Measurement, t: Tensor, noise: Noise) -> Tensor:
        """The state x at the first time t, given a centred measurement."""
        operator, y = measurement.operator, measurement.y
        process, z = self.process, noise(y.new_empty(len(y), *operator.image_shape))
        x = process.start(t, z)
        if not isinstance(operator, Operator):
            return x
        alpha, r = cast(process.alpha(t), y), float(process.ratio(t))
        w, given = self.measured(operator, measurement)
        known = given + (r**2 - w**2).clamp(min=0).sqrt() * operator.coordinates(z)
        u = operator.coordinates(process.centred(x) / alpha)
        return process.placed(alpha * operator.pixels(torch.where(w < r, known, u)))

    def measured(self, operator: Operator, measurement: Measurement) -> tuple[Tensor, Tensor]:
        """The noise w (D,) in y/s, infinite where nothing is measured, and y/s (B, D)."""
        given = operator.spectral(measurement.y)
        inverse = operator.inverse_gains(given)
        w = torch.where(inverse > 0, measurement.std * inverse, math.inf)
        return w, inverse * given

    def step(
        self, x_t: Tensor, t: Tensor, s: Tensor, measurement: Measurement, noise: Noise
    ) -> Tensor:
        """The state x at s from x_t (B, C, H, W), given a centred measurement."""
        process, x0 = self.process, self.denoiser(x_t, t).x0
        alpha_t, alpha_s = (cast(process.alpha(each), x_t) for each in (t, s))
        ratios = float(process.ratio(t)), float(process.ratio(s))
        linear = isinstance(measurement.operator, Operator)
        step = self._coordinates if linear else self._corrected
        x = step(process.centred(x_t) / alpha_t, x0, *ratios, measurement, noise(x_t))
        return process.placed(alpha_s * x)

    def _coordinates(
        self, x: Tensor, x0: Tensor, r_t: float, r_s: float, measurement: Measurement, z: Tensor
    ) -> Tensor:
        operator, eta_b = measurement.operator, self.spec.eta_b
        assert isinstance(operator, Operator)
        x0 = self.process.centred(x0)
        u, v, z = (operator.coordinates(each) for each in (x, x0, z))
        w, given = self.measured(operator, measurement)
        eta = torch.full_like(w, self.spec.eta).where(w.isinf(), self.spec.worse)
        kept = (1 - eta**2).sqrt() * r_s
        # Where w is 0 or infinite, (given - v)/w is not used, but it must not be nan.
        finite = torch.where((w > 0) & w.isfinite(), w, 1.0)
        towards = torch.where(w.isfinite(), (given - v) / finite, (u - v) / r_t)
        well = w <= r_s
        mean = torch.where(well, (1 - eta_b) * v + eta_b * given, v + kept * towards)
        variance = (r_s**2 - (eta_b * torch.where(well, w, 0.0)) ** 2).clamp(min=0)
        std = torch.where(well, variance.sqrt(), eta * r_s)
        return operator.pixels(mean + std * z)

    def _corrected(
        self, x: Tensor, x0: Tensor, r_t: float, r_s: float, measurement: Measurement, z: Tensor
    ) -> Tensor:
        operator, eta, eta_b = measurement.operator, self.spec.eta, self.spec.eta_b
        corrected = self.process.centred(x0 + eta_b * agreement(operator, x0, measurement.y))
        x0 = self.process.centred(x0)
        return corrected + r_s * (math.sqrt(1 - eta**2) * (x - x0) / r_t + eta * z)


def agreement(operator: Degradation, x0: Tensor, y: Tensor) -> Tensor:
    """The correction H^+ y - H^+ H x0 of x0 (B, C, H, W) towards the measurement."""
    return operator.pseudo_inverse(y) - operator.pseudo_inverse(operator.apply(x0))
