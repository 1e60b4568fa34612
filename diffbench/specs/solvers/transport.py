"""Spec of the solver between reflecting walls."""

from __future__ import annotations

from typing import ClassVar, Literal

from diffbench.specs.needs import KERNEL, Needs
from diffbench.specs.solvers.sde import TimeSolverSpec


class TransportSpec(TimeSolverSpec):
    """The exact reflected DDIM: the kernel's distribution function carries x from one time to the next.

    The score at x is that of the kernel around one centre in the cube; for it the probability-flow ODE is solved by
    x_s = F_s^-1(F_t(x_t)) with F the kernel's distribution function, which leads from the cube into the cube at any
    step size.  ``order`` 2 takes the mean of the centres at both ends (Heun's); the last step goes to the centre.
    """

    name: Literal["transport"] = "transport"
    implementation: ClassVar[str] = "diffbench.diffusion.solvers.transport:Transport"

    needs: ClassVar[Needs] = (KERNEL,)

    order: Literal[1, 2] = 2
    denoise: Literal["usual"] = "usual"
