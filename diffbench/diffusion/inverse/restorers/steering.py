r"""Restorers that steer a solver: after every update the state is brought towards the measurement.

    x_t <- x_t + lambda R (alpha_t y + sigma_t H z - H x_t),     z standard normal

All images are minus the middle of the data range.  alpha_t y + sigma_t H z is a draw from q(y_t | y), the measurement
of the data at time t.  With R = H^+ and lambda = 1 the coordinates that H measures are replaced, and the others stay.
At the data's time sigma is 0, and the result agrees with the measurement.  As in the papers, the noise of the
measurement is ignored.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from diffbench.diffusion.core.condition import UNCONDITIONAL
from diffbench.diffusion.core.process import Process, cast
from diffbench.diffusion.core.streams import normal_like
from diffbench.diffusion.inverse.operators.operator import Operator
from diffbench.diffusion.inverse.operators.separable import Bicubic
from diffbench.diffusion.inverse.restorers.restorer import Measurement, Restorer
from diffbench.diffusion.solvers.corrector import Noise
from diffbench.diffusion.solvers.loop import Solver, solve
from diffbench.specs.restorers import CCDFSpec, ILVRSpec, MedicalSpec, SteeredSpec


@dataclass(frozen=True)
class Imposition:
    """The map x <- x + mix R (alpha y + sigma H z - H x) of images x (B, C, H, W).

    Attributes:
        process: the process of x.
        operator: the operator H.
        y: (B, *measurement_shape).
        mix: the factor lambda of the module's formula.
        until: the smallest time at which the map is applied.
    """

    process: Process
    operator: Operator
    y: Tensor
    mix: float = 1.0
    until: float = -math.inf

    def back(self, residual: Tensor) -> Tensor:
        """R times a residual (B, *measurement_shape), where R = H^+."""
        return self.operator.pseudo_inverse(residual)

    def __call__(self, x: Tensor, t: Tensor, noise: Noise) -> Tensor:
        """The state x at time t, brought towards the measurement."""
        if float(t) < self.until:
            return x
        process, operator = self.process, self.operator
        y_t = cast(process.alpha(t), x) * operator.centred(self.y, process.middle)
        if float(t) != process.data_time:
            y_t = y_t + cast(process.sigma(t), x) * operator.apply(noise(x))
        return x + self.mix * self.back(y_t - operator.apply(process.centred(x)))


class ZeroFilled(Imposition):
    """The imposition where R is the inverse of the whole transform."""

    def back(self, residual: Tensor) -> Tensor:
        """The inverse transform of the residual, with zeros where nothing is measured."""
        return self.operator.zero_filled(residual)


class Resized(Imposition):
    """The imposition where R enlarges by the operator's kernel, so that R H is the low-pass filter of ILVR."""

    def back(self, residual: Tensor) -> Tensor:
        """The residual, enlarged to images (B, C, H, W)."""
        assert isinstance(self.operator, Bicubic)
        return self.operator.enlarge(residual)


class Steered(Restorer):
    """Base: a restorer by a solver, with an imposition for each measurement."""

    spec: SteeredSpec

    def __init__(self, spec: SteeredSpec, solver: Solver) -> None:
        self.spec, self.solver = spec, solver

    def imposition(self, operator: Operator, y: Tensor) -> Imposition:
        """The imposition that follows every update."""
        return Imposition(self.solver.process, operator, y)

    def restore(self, measurement: Measurement, generator: torch.Generator) -> Tensor:
        """Images (B, C, H, W) given y, by the whole grid from noise to the data.

        Raises:
            TypeError: when the operator is not linear.
            ValueError: when y is of the wrong size, or a step's result is not finite.
        """
        y = measurement.y
        z = y.new_empty(len(y), *measurement.operator.image_shape)
        x = self.solver.draw(normal_like(z, generator), generator)
        return self.down(x, measurement, generator)

    def down(
        self,
        x: Tensor,
        measurement: Measurement,
        generator: torch.Generator,
        times: Tensor | None = None,
    ) -> Tensor:
        """The final images, from x (B, C, H, W) down the solver's grid or its part ``times``."""
        operator = measurement.operator
        if not isinstance(operator, Operator):
            raise TypeError(f"{self.spec.name} needs a linear operator, not {operator.spec.name}")
        operator.check(measurement.y)
        noise = partial(normal_like, generator=generator)
        impose = self.imposition(operator, measurement.y)
        x = solve(self.solver, x, UNCONDITIONAL, noise, times, impose)
        return self.solver.returned(x)


class Impute(Steered):
    """Score-SDE imputation (Song et al. 2021, https://arxiv.org/abs/2011.13456, appendix I.2).

    The measured coordinates are drawn anew after every update of predictor and corrector.  With R = H^+ this covers
    inpainting, colourisation and any other linear problem.
    """


class Replace(Impute):
    """Plain replacement: imputation, by default around an ancestral sampler."""


class ILVR(Steered):
    """ILVR (Choi et al. 2021, https://arxiv.org/abs/2108.02938, algorithm 1): x' + phi(y_s) - phi(x').

    The low-pass filter phi is H^+ H, or the paper's reduction and enlargement by a kernel.  y_s has the noise of the
    time s of x'; the official code uses the time before the step.
    """

    spec: ILVRSpec

    def imposition(self, operator: Operator, y: Tensor) -> Imposition:
        """The imposition by phi, down to the last step that is conditioned."""
        times = self.solver.times()
        last_step = round(self.spec.until * (len(times) - 1))
        kind = {"range": Imposition, "resizer": Resized}[self.spec.low_pass]
        # With ``until`` 0 no step is conditioned.
        until = float(times[last_step]) if last_step else math.inf
        return kind(self.solver.process, operator, y, until=until)


class Medical(Steered):
    """The restorer of Song, Shen, Xing & Ermon 2022 (https://arxiv.org/abs/2111.08005, equation 10).

    T^-1 [lambda Lambda P^-1 y_t + (1 - lambda) Lambda T x + (1 - Lambda) T x] is x + lambda T^-1 (y_t - H x), where
    zeros fill the part of T x that is not measured.
    """

    spec: MedicalSpec

    def imposition(self, operator: Operator, y: Tensor) -> Imposition:
        """The imposition by the inverse of the whole transform."""
        return ZeroFilled(self.solver.process, operator, y, mix=self.spec.mix)


class CCDF(Restorer):
    """CCDF (Chung, Sim & Ye 2022, https://arxiv.org/abs/2112.05146): the last steps from alpha_t x + sigma_t z.

    Args:
        spec: the share of the steps to take.
        around: the restorer whose steps are taken.
        estimate: the restorer that makes the estimate x from the measurement.
    """

    def __init__(self, spec: CCDFSpec, around: Steered, estimate: Restorer) -> None:
        self.spec, self.around, self.estimate = spec, around, estimate

    def times(self) -> Tensor:
        """The times of the last steps of the grid: the share ``start`` of all, and at least one step."""
        times = self.around.solver.times()
        steps = max(1, round(self.spec.start * (len(times) - 1)))
        return times[-steps - 1 :]

    def restore(self, measurement: Measurement, generator: torch.Generator) -> Tensor:
        """Images (B, C, H, W) given y."""
        times, process = self.times(), self.around.solver.process
        x0 = self.estimate.restore(measurement, generator)
        x = process.diffuse(x0, times[0], normal_like(x0, generator))
        return self.around.down(x, measurement, generator, times)
