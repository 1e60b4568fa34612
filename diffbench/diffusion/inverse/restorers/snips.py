r"""SNIPS (Kawar, Vaksman & Elad 2021, https://arxiv.org/abs/2105.14951, algorithm 1).

Annealed Langevin dynamics of u = V^T x, where x stands for x_t/alpha_t, at decreasing noise levels r = sigma_t/alpha_t.
All images are minus the middle of the data range.  y/s = S^+ U^T y has noise w = std/s.

    u <- u + h G + sqrt(2 h) z

    not measured   G = V^T score                            h = step r^2
    r < w          G = V^T score + (y/s - u)/(w^2 - r^2)    h = step r^2 (1 - r^2/w^2)
    r >= w         G = (y/s - u)/(r^2 - w^2)                h = step (r^2 - w^2)

where score = (x0 - x)/r^2.  The official code ignores the measurement when every coordinate is measured; this code does
not.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from diffbench.diffusion.core import grids
from diffbench.diffusion.core.process import cast, float64
from diffbench.diffusion.core.streams import normal_like
from diffbench.diffusion.denoisers.denoiser import Denoiser
from diffbench.diffusion.inverse.operators.operator import Operator
from diffbench.diffusion.inverse.restorers.restorer import Measurement, Restorer
from diffbench.diffusion.solvers.corrector import Noise
from diffbench.specs.restorers import SNIPSSpec


class SNIPS(Restorer):
    """The restorer SNIPS, for linear operators."""

    def __init__(self, spec: SNIPSSpec, denoiser: Denoiser) -> None:
        self.spec, self.denoiser, self.process = spec, denoiser, denoiser.process

    def times(self) -> Tensor:
        """The times of the noise levels, decreasing."""
        process, spec = self.process, self.process.spec
        low, high = (float(process.ratio(float64(t))) for t in (spec.last, process.t_max))
        largest = high if self.spec.sigma_max is None else spec.in_range(self.spec.sigma_max)
        smallest = low if self.spec.sigma_min is None else spec.in_range(self.spec.sigma_min)
        return grids.by_ratio(process, "log-snr", self.spec.levels, largest, smallest, 1.0)

    def restore(self, measurement: Measurement, generator: torch.Generator) -> Tensor:
        """Images (B, C, H, W) given y; they still have the noise of the last level.

        Raises:
            TypeError: when the operator is not linear.
            ValueError: when y is of the wrong size.
        """
        operator, y = measurement.operator, measurement.y
        if not isinstance(operator, Operator):
            raise TypeError(f"{self.spec.name} needs a linear operator, not {operator.spec.name}")
        operator.check(y)
        noise = partial(normal_like, generator=generator)
        times, process = self.times(), self.process
        centred = measurement.centred(process.middle)
        start = process.start(times[0], noise(y.new_empty(len(y), *operator.image_shape)))
        x = process.centred(start) / cast(process.alpha(times[0]), start)
        for t in times:
            alpha, r = cast(process.alpha(t), x), float(process.ratio(t))
            for _ in range(self.spec.updates):
                x0 = self.denoiser(process.placed(alpha * x), t).x0
                score = (process.centred(x0) - x) / r**2
                x = self.update(x, score, r, operator, centred, noise)
        return process.placed(x)

    def update(
        self,
        x: Tensor,
        score: Tensor,
        r: float,
        operator: Operator,
        measurement: Measurement,
        noise: Noise,
    ) -> Tensor:
        """The state after one update of x = x_t/alpha_t (B, C, H, W), whose noise is r, given a measurement."""
        u, prior, z = (operator.coordinates(each) for each in (x, score, noise(x)))
        given = operator.spectral(measurement.y)
        inverse = operator.inverse_gains(given)
        w = torch.where(inverse > 0, measurement.std * inverse, math.inf)
        well, gap = w <= r, (w**2 - r**2).abs()
        # At r = w the step is 0, whatever the gradient.
        pull = torch.where(gap > 0, (inverse * given - u) / gap, 0.0)
        gradient = torch.where(well, pull, prior + pull)
        size = torch.where(well, gap, r**2 * (1 - (r / w) ** 2))
        h = self.spec.step * size
        return operator.pixels(u + h * gradient + (2 * h).sqrt() * z)
