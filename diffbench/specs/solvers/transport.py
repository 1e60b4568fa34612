"""Spec of the solver for processes between reflecting walls."""

from __future__ import annotations

from typing import ClassVar, Literal

from diffbench.specs.needs import KERNEL, Needs
from diffbench.specs.solvers.sde import OwnTimeGridSolverSpec


class TransportSpec(OwnTimeGridSolverSpec):
    """The exact reflected DDIM: the kernel's distribution function carries x from one time to the next.

    The score at x is the score of the kernel around one centre in the cube.  For this kernel the exact solution of the
    probability-flow ODE is x_s = F_s^-1(F_t(x_t)), with F the kernel's distribution function; it stays in the cube at
    any step size.  ``order`` 2 takes the mean of the centres at both ends of a step, as Heun's method does.  The last
    step goes to the centre.
    """

    name: Literal["transport"] = "transport"
    implementation: ClassVar[str] = "diffbench.diffusion.solvers.transport:Transport"

    needs: ClassVar[Needs] = (KERNEL,)

    order: Literal[1, 2] = 2
    denoise: Literal["usual"] = "usual"
