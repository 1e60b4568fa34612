r"""The exact DDIM of reflected diffusion.

DDIM keeps the predicted x0 over a step and solves the probability-flow ODE for it exactly.  Between reflecting walls,
for the kernel around a centre h with the distribution function F_t, in coordinates in which the cube is [0, 1], the
flow keeps F:

    x_s = F_s^-1(F_t(x_t | h) | h).

The kernel's score increases strictly with h, so that the score at x_t (an average of kernels' scores over the
images that x_t may have come from) belongs to one h, which takes x0's place: h = E[x_0 | x_t] where noise is small
and walls are far.  A guided score beyond every kernel's has h at a wall.  F maps [0, 1] onto itself, so no step,
however long, leaves the cube.  At sigma = 0, F^-1 is h.
"""

from __future__ import annotations

from torch import Tensor

from diffbench.diffusion.core import grids
from diffbench.diffusion.core.condition import Condition
from diffbench.diffusion.core.process import cast
from diffbench.diffusion.processes.reflected import Reflected
from diffbench.diffusion.processes.reflection import centre, transport
from diffbench.diffusion.solvers.corrector import Noise
from diffbench.diffusion.solvers.sde import GridTimeSolver
from diffbench.specs.solvers import TransportSpec


class Transport(GridTimeSolver):
    """See the module; Heun's form with the mean of two centres."""

    process: Reflected
    spec: TransportSpec

    def noisy_times(self) -> Tensor:
        """``steps`` of them: the last step is to the data."""
        spec = self.spec
        return grids.descending(self.process, spec.grid, spec.steps, spec.last, spec.rho)

    def times(self) -> Tensor:
        """They, and the data's."""
        return grids.to_data(self.process, self.noisy_times())

    def centre(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """H at (x_t, t), in the cube [0, 1]."""
        scaled = -self.denoiser(x_t, t, condition).eps
        place = self.process.to_cube(x_t)
        return centre(place, scaled, cast(self.process.sigma_in_cube(t), x_t))

    def step(self, x_t: Tensor, t: Tensor, s: Tensor, condition: Condition, noise: Noise) -> Tensor:
        """To h into the data, ``advance`` elsewhere; nothing leaves the cube."""
        if float(s) == self.process.data_time:
            return self.process.from_cube(self.centre(x_t, t, condition))
        return self.advance(x_t, t, s, condition, noise)

    def advance(
        self, x_t: Tensor, t: Tensor, s: Tensor, condition: Condition, noise: Noise
    ) -> Tensor:
        """The flow of the kernel around h, or of that around the mean of h here and where it leads."""
        process, h = self.process, self.centre(x_t, t, condition)
        place, sigmas = process.to_cube(x_t), [process.sigma_in_cube(each) for each in (t, s)]
        sigma_t, sigma_s = (cast(each, x_t) for each in sigmas)
        x_s = process.from_cube(transport(place, h, sigma_t, sigma_s))
        if self.spec.order == 1:
            return x_s
        h = (h + self.centre(x_s, s, condition)) / 2
        return process.from_cube(transport(place, h, sigma_t, sigma_s))
