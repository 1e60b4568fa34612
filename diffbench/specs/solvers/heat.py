"""Spec of the solver that steps down levels of blur."""

from __future__ import annotations

from typing import ClassVar, Literal

from diffbench.specs.base import PositiveFloat
from diffbench.specs.needs import CONSTANT, Needs
from diffbench.specs.solvers.solver import SolverSpec


class InverseHeatSpec(SolverSpec):
    """The sampler of inverse heat dissipation (Rissanen, Heinonen & Solin 2023, algorithm 2).

    It starts from a blurred training image with noise.  Each step takes the predicted mean of the level before, and
    adds noise of standard deviation delta = ``ratio`` times the process's sigma.  The last mean is returned.
    """

    name: Literal["inverse-heat"] = "inverse-heat"
    implementation: ClassVar[str] = "diffbench.diffusion.solvers.heat:InverseHeat"

    needs: ClassVar[Needs] = (CONSTANT,)

    ratio: PositiveFloat = 1.25
