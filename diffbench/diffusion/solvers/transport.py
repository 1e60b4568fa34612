r"""The exact DDIM of reflected diffusion.

DDIM keeps the predicted x0 over a step and solves the probability-flow ODE for it exactly.  Between reflecting walls
let F_t(. | h) be the distribution function of the kernel around a centre h, in coordinates in which the cube is
[0, 1].  The flow keeps F:

    x_s = F_s^-1(F_t(x_t | h) | h).

The kernel's score increases strictly with h.  So the score at x_t (an average of kernels' scores over the images that
x_t may have come from) belongs to exactly one h, which replaces x0.  Where noise is small and the walls are far,
h = E[x_0 | x_t].  Where a guided score is beyond the score of every kernel, h is at a wall.  F maps [0, 1] onto itself,
so no step, however long, leaves the cube.  At sigma = 0, F^-1 is h.
"""

from __future__ import annotations

from torch import Tensor

from diffbench.diffusion.core import grids
from diffbench.diffusion.core.condition import Condition
from diffbench.diffusion.core.process import cast
from diffbench.diffusion.processes.reflected import Reflected
from diffbench.diffusion.processes.reflection import centre, transport
from diffbench.diffusion.solvers.corrector import Noise
from diffbench.diffusion.solvers.sde import OwnTimeGridSolver
from diffbench.specs.solvers import TransportSpec


class Transport(OwnTimeGridSolver):
    """The exact DDIM of a reflected process; order 2 is Heun's form, with the mean of two centres."""

    process: Reflected
    spec: TransportSpec

    def noisy_times(self) -> Tensor:
        """The noisy times, ``steps`` of them, decreasing; the last step goes to the data."""
        spec = self.spec
        return grids.descending(self.process, spec.grid, spec.steps, spec.last, spec.rho)

    def times(self) -> Tensor:
        """The noisy times, then the data's."""
        return grids.to_data(self.process, self.noisy_times())

    def centre(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """The centre h at (x_t, t), in the cube [0, 1]."""
        scaled = -self.denoiser(x_t, t, condition).eps
        in_cube = self.process.to_cube(x_t)
        return centre(in_cube, scaled, cast(self.process.sigma_in_cube(t), x_t))

    def step(self, x_t: Tensor, t: Tensor, s: Tensor, condition: Condition, noise: Noise) -> Tensor:
        """The centre h in the step to the data, the result of ``advance`` in any other; both are in the cube."""
        if float(s) == self.process.data_time:
            return self.process.from_cube(self.centre(x_t, t, condition))
        return self.advance(x_t, t, s, condition, noise)

    def advance(
        self, x_t: Tensor, t: Tensor, s: Tensor, condition: Condition, noise: Noise
    ) -> Tensor:
        """The state at s by the flow of the kernel around h; order 2 uses the mean of h at x_t and h at this state."""
        process, h = self.process, self.centre(x_t, t, condition)
        in_cube, sigmas = process.to_cube(x_t), [process.sigma_in_cube(each) for each in (t, s)]
        sigma_t, sigma_s = (cast(each, x_t) for each in sigmas)
        x_s = process.from_cube(transport(in_cube, h, sigma_t, sigma_s))
        if self.spec.order == 1:
            return x_s
        h = (h + self.centre(x_s, s, condition)) / 2
        return process.from_cube(transport(in_cube, h, sigma_t, sigma_s))
