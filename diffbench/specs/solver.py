"""Specs of the solvers, and the reasons for which one cannot serve a process.

``refusal(process, denoiser)`` returns None, or the reason: the plan prints it as a footnote before any job
runs.  Without a denoiser it is about the process alone.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from diffbench.specs.base import (
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Registered,
    nothing,
)
from diffbench.specs.denoiser import DenoiserSpec
from diffbench.specs.process import ProcessSpec, Variance, increasing

DISCRETE_GRIDS = "integer times have no SDE or ODE; use ancestral, ddim or heun"
#: How the levels of a discrete chain are thinned out.
IntegerGrid = Literal["respaced", "strided", "quadratic"]
Threshold = Literal["none", "static", "dynamic"]


def strided_levels(levels: int, steps: int) -> range | None:
    """Levels 0, c, 2c, .. with the first integer c that takes ``steps`` of them; None where none does."""
    # The smallest stride that takes no more than that: any other takes fewer or as many.
    chosen = range(0, levels, -(-levels // steps))
    return chosen if len(chosen) == steps else None


def grid_refusal(process: ProcessSpec, grid: str, steps: int) -> str | None:
    """Why there is no such grid on a discrete chain; None when there is, and in continuous time."""
    levels = getattr(process, "steps", None)
    if process.time != "discrete" or levels is None:
        return None
    if steps > levels:
        return f"steps: {steps} on a chain of {levels}; at most {levels} can be taken"
    if grid == "strided" and strided_levels(levels, steps) is None:
        return f"steps: no integer stride takes exactly {steps} of {levels} steps"
    return None


def variance_refusal(variance: Variance, denoiser: DenoiserSpec | None) -> str | None:
    """Why the denoiser has no such variance; None when it has."""
    if variance == "learned" and denoiser is not None and not denoiser.learns_variance:
        return "variance: learned is asked of a model with fixed variance; use small or large"
    return None


class SolverSpec(Registered):
    """A solver on a grid of ``steps`` steps.

    threshold: what is done to every predicted x0 before a step is formed.  ``static`` clips it to the
        data range; ``dynamic`` first divides it by its ``percentile`` of absolute values, where that is
        outside the range (Saharia et al. 2022, section 2.3).
    w: weight of classifier-free guidance, (1 + w) conditional - w unconditional (Ho & Salimans 2022,
        equation 6; 1 + w elsewhere).  Costs a second evaluation; at 0 the conditional model alone.
    classifier_scale: s in classifier guidance (Dhariwal & Nichol 2021, algorithms 1 and 2), by the
        benchmark's noise-aware classifier; at 0 no guidance.
    labels: the classes to draw, in turn; the training images' proportions by default.
    """

    kind: ClassVar[str] = "solver"

    name: str
    steps: PositiveInt
    threshold: Threshold = "none"
    percentile: Annotated[Fraction, Field(gt=0)] = 0.995
    w: Annotated[NonNegativeFloat | None, BeforeValidator(nothing)] = None
    classifier_scale: Annotated[NonNegativeFloat | None, BeforeValidator(nothing)] = None
    labels: Annotated[
        Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] | None, BeforeValidator(nothing)
    ] = None

    @property
    def uses_labels(self) -> bool:
        """Whether guidance or a choice of classes needs them."""
        return any(each is not None for each in (self.w, self.classifier_scale, self.labels))

    def refusal(self, process: ProcessSpec, denoiser: DenoiserSpec | None = None) -> str | None:
        """Why this solver cannot serve the denoiser on the process; None when it can."""
        if process.family != "gaussian":
            return f"{self.name} needs a Gaussian process, and {process.name} is {process.family}"
        reason = grid_refusal(process, "respaced", self.steps)
        if reason or denoiser is None:
            return reason
        return self._guidance_refusal(denoiser)

    def _guidance_refusal(self, denoiser: DenoiserSpec) -> str | None:
        if self.w is not None and not denoiser.takes_labels:
            return f"w: {self.w:g} is asked of an unconditional model; it needs denoiser.conditional: true"
        if self.labels and not denoiser.takes_labels and self.classifier_scale is None:
            return f"labels: {list(self.labels)} are asked of an unconditional model without a classifier"
        return None


class TransitionSolverSpec(SolverSpec):
    """A solver that steps by the transition rule x_s = alpha_s x0 + r e + n z.

    Grids: ``respaced`` (evenly spaced reals, rounded, both ends), ``strided`` (a constant stride from the
    first level), ``quadratic`` (evenly spaced in the square root, both ends: DDIM on CIFAR-10); in continuous
    time ``uniform`` and ``karras`` (evenly spaced down to ``last`` in time, or in (sigma/alpha)^(1/rho)).
    """

    grid: IntegerGrid | Literal["uniform", "karras"] = "respaced"
    last: PositiveFloat = 1e-3
    rho: PositiveFloat = 7.0

    def refusal(self, process: ProcessSpec, denoiser: DenoiserSpec | None = None) -> str | None:
        """Integer grids need integer times; uniform ones continuous times."""
        if reason := super().refusal(process, denoiser):
            return reason
        if (self.grid in ("uniform", "karras")) != (process.time == "continuous"):
            return f"the {self.grid} grid does not exist in {process.time} time"
        return grid_refusal(process, self.grid, self.steps)


class AncestralSpec(TransitionSolverSpec):
    """DDPM's sampler (Ho et al. 2020, algorithm 2), clipping predicted x0 as the official code does.

    ``variance``: ``small`` is the posterior's, ``large`` is beta_t, ``learned`` the network's choice in
    between.  On a thinned grid with ``threshold: none``, ``large`` is the sigma-hat of DDIM's table 1.
    """

    name: Literal["ancestral"] = "ancestral"
    implementation: ClassVar[str] = "diffbench.diffusion.solvers.transition:Ancestral"

    variance: Variance = "small"
    threshold: Threshold = "static"

    def refusal(self, process: ProcessSpec, denoiser: DenoiserSpec | None = None) -> str | None:
        """A learned variance must have been learned."""
        reason = super().refusal(process, denoiser)
        return reason or variance_refusal(self.variance, denoiser)


class DDIMSpec(TransitionSolverSpec):
    """DDIM with any eta in [0, 1] (Song, Meng & Ermon 2021, equation 12)."""

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

    def refusal(self, process: ProcessSpec, denoiser: DenoiserSpec | None = None) -> str | None:
        """Discrete processes have no SDE view."""
        return DISCRETE_GRIDS if process.time == "discrete" else super().refusal(process, denoiser)


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

    def refusal(self, process: ProcessSpec, denoiser: DenoiserSpec | None = None) -> str | None:
        """x/alpha needs one alpha for all coordinates."""
        if process.alpha != "scalar":
            return f"{self.name} divides by alpha, which {process.name} has one of per coordinate"
        return super().refusal(process, denoiser)
