"""Specs of the solvers that step by the transition rule."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator

from diffbench.specs.base import Fraction, PositiveFloat, nothing
from diffbench.specs.denoisers import DenoiserSpec
from diffbench.specs.needs import GAUSSIAN, LEARNED, Needs, Rule, view
from diffbench.specs.processes import ProcessSpec, Variance
from diffbench.specs.solvers.grids import LAST
from diffbench.specs.solvers.solver import GridSolverSpec, Threshold


def _steps_are_of_the_variance(
    spec: Any, process: ProcessSpec, denoiser: DenoiserSpec | None
) -> str | None:
    if spec.variance != "learned" or denoiser is None or not denoiser.variance_of_levels:
        return None
    levels = process.level_count
    if levels is None or spec.steps in (None, levels):
        return None
    return (
        f"steps: {spec.steps}, but this model's variance, unbounded, is that of the steps between all {levels} "
        f"levels; take {levels} steps, or variance: small or large"
    )


#: What ``variance`` needs, for ``steps`` steps or, where ``steps`` is None, for all steps of a chain.
VARIANCE: Needs = (
    LEARNED.where("variance", "learned").hinting("use small or large"),
    Rule(_steps_are_of_the_variance, ("process", "denoiser")),
)


class TransitionSolverSpec(GridSolverSpec):
    """A solver that steps by the transition rule x_s = alpha_s x0 + r e + n z, into the data.

    last: the last time with noise; the process's own by default (1e-3 for VP and sub-VP, 1e-5 for VE,
        sigma_min for EDM).  On a chain it is the first level.
    """

    needs: ClassVar[Needs] = (GAUSSIAN, view("x0"), *LAST)

    last: Annotated[PositiveFloat | None, BeforeValidator(nothing)] = None


class AncestralSpec(TransitionSolverSpec):
    """DDPM's sampler (Ho et al. 2020, algorithm 2), with predicted x0 clipped as in the official code.

    ``variance``: ``small`` is the posterior's, ``large`` is beta_t, ``learned`` is between them,
    where the network says.  On a thinned grid with ``threshold: none``, ``large`` is the sigma-hat of DDIM's table 1.
    """

    name: Literal["ancestral"] = "ancestral"
    implementation: ClassVar[str] = "diffbench.diffusion.solvers.transition:Ancestral"
    needs: ClassVar[Needs] = VARIANCE

    variance: Variance = "small"
    threshold: Threshold = "static"


class DDIMSpec(TransitionSolverSpec):
    """DDIM with any eta in [0, 1] (Song, Meng & Ermon 2021, equation 12)."""

    name: Literal["ddim"] = "ddim"
    implementation: ClassVar[str] = "diffbench.diffusion.solvers.transition:DDIM"

    eta: Fraction = 0.0

    @property
    def invertible(self) -> bool:
        """Whether neither the step nor a corrector adds noise."""
        return self.eta == 0 and self.corrector is None
