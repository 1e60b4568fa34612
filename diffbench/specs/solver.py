"""Specs of the solvers, and the reasons for which one cannot serve a process.

``refusal(process)`` returns None, or the reason: the plan prints it as a footnote before any job runs.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import model_validator

from diffbench.specs.base import Fraction, NonNegativeFloat, PositiveFloat, PositiveInt, Registered
from diffbench.specs.process import ProcessSpec, increasing

DISCRETE_GRIDS = "integer times have no SDE or ODE; use ancestral, ddim or heun"


class SolverSpec(Registered):
    """A solver on a grid of ``steps`` steps.

    ``threshold: static`` clips every predicted x0 to the data range before the step is formed.
    """

    kind: ClassVar[str] = "solver"

    name: str
    steps: PositiveInt
    threshold: Literal["none", "static"] = "none"

    def refusal(self, process: ProcessSpec) -> str | None:
        """Why this solver cannot serve the process; None when it can."""
        if process.family != "gaussian":
            return f"{self.name} needs a Gaussian process, and {process.name} is {process.family}"
        if process.time == "discrete" and self.steps > getattr(process, "steps", self.steps):
            return f"{self.steps} steps on a chain of {getattr(process, 'steps', 0)}"
        return None


class TransitionSolverSpec(SolverSpec):
    """A solver that steps by the transition rule x_s = alpha_s x0 + r e + n z.

    Grids: ``respaced`` (evenly spaced reals, rounded, both ends), ``strided`` (a constant stride from
    the first level); in continuous time ``uniform`` and ``karras`` (evenly spaced down to ``last`` in time, or
    in (sigma/alpha)^(1/rho)).
    """

    grid: Literal["respaced", "strided", "uniform", "karras"] = "respaced"
    last: PositiveFloat = 1e-3
    rho: PositiveFloat = 7.0

    def refusal(self, process: ProcessSpec) -> str | None:
        """Integer grids need integer times; uniform ones continuous times."""
        if reason := super().refusal(process):
            return reason
        if (self.grid in ("uniform", "karras")) != (process.time == "continuous"):
            return f"the {self.grid} grid does not exist in {process.time} time"
        levels = getattr(process, "steps", 0)
        if self.grid == "strided" and not any(
            len(range(0, levels, stride)) == self.steps for stride in range(1, levels + 1)
        ):
            return f"no integer stride takes exactly {self.steps} of {levels} steps"
        return None


class AncestralSpec(TransitionSolverSpec):
    """DDPM's sampler (Ho et al. 2020, algorithm 2), clipping predicted x0 as the official code does.

    ``variance``: ``small`` is the posterior's, ``large`` is beta_t.
    """

    name: Literal["ancestral"] = "ancestral"
    implementation: ClassVar[str] = "diffbench.diffusion.solvers.transition:Ancestral"

    variance: Literal["small", "large"] = "small"
    threshold: Literal["none", "static"] = "static"


class DDIMSpec(TransitionSolverSpec):
    """DDIM with any eta (Song, Meng & Ermon 2021, equation 12)."""

    name: Literal["ddim"] = "ddim"
    implementation: ClassVar[str] = "diffbench.diffusion.solvers.transition:DDIM"

    eta: Fraction = 0.0


class TimeSolverSpec(SolverSpec):
    """A solver of the SDE or ODE in the process's own continuous time.

    The grid has ``steps`` steps from t_max.  With ``denoise`` the last of them goes from ``last`` to
    the data by the posterior mean E[x0 | x_t] (Tweedie's formula); without it the grid stops at ``last``.
    ``last`` is 1e-3 for VP and sub-VP, 1e-5 for VE (Song et al. 2021, appendix C).
    """

    last: PositiveFloat = 1e-3
    denoise: bool = True

    def refusal(self, process: ProcessSpec) -> str | None:
        """Discrete processes have no SDE view."""
        return DISCRETE_GRIDS if process.time == "discrete" else super().refusal(process)


class EulerMaruyamaSpec(TimeSolverSpec):
    """Euler-Maruyama on the reverse SDE (Song et al. 2021, section 4.1) on a uniform grid."""

    name: Literal["euler-maruyama"] = "euler-maruyama"
    implementation: ClassVar[str] = "diffbench.diffusion.solvers.sde:EulerMaruyama"

    grid: Literal["uniform", "karras"] = "uniform"
    rho: PositiveFloat = 7.0


class ODESpec(TimeSolverSpec):
    """The probability-flow ODE (Song et al. 2021, equation 13) by Euler's or Heun's method."""

    name: Literal["ode"] = "ode"
    implementation: ClassVar[str] = "diffbench.diffusion.solvers.ode:ProbabilityFlow"

    method: Literal["euler", "heun"] = "heun"
    grid: Literal["uniform", "karras"] = "uniform"
    rho: PositiveFloat = 7.0


class HeunSpec(SolverSpec):
    """EDM's sampler (Karras et al. 2022, algorithm 2) in (x/alpha, sigma/alpha).

    The grid interpolates sigma^(1/rho) from ``sigma_max`` to ``sigma_min``, both moved into the range
    that the process has, and ends at 0; the last step is Euler's.  On a discrete process each sigma goes
    to the nearest tabulated level.

    With ``churn`` (S_churn) 0 it is deterministic (algorithm 1).  Otherwise each step whose sigma lies in
    [``churn_min``, ``churn_max``] (S_min, S_max) first raises it by the factor 1 + min(churn/steps, sqrt 2 - 1),
    never above the process's largest, with fresh noise ``churn_noise`` (S_noise) times what that takes.
    """

    name: Literal["heun"] = "heun"
    implementation: ClassVar[str] = "diffbench.diffusion.solvers.ode:Heun"

    sigma_min: PositiveFloat = 0.002
    sigma_max: PositiveFloat = 80.0
    rho: PositiveFloat = 7.0
    churn: NonNegativeFloat = 0.0
    churn_min: NonNegativeFloat = 0.0
    churn_max: PositiveFloat = 1e30
    churn_noise: NonNegativeFloat = 1.0

    _sigmas_increase = model_validator(mode="after")(increasing("sigma_min", "sigma_max"))

    def refusal(self, process: ProcessSpec) -> str | None:
        """x/alpha needs one alpha for all coordinates."""
        if process.alpha != "scalar":
            return f"{self.name} divides by alpha, which {process.name} has one of per coordinate"
        return super().refusal(process)
