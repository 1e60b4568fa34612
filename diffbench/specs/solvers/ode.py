"""Specs of the solvers of the probability-flow ODE, in a process's own time or in sigma/alpha."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from diffbench.specs.base import NonNegativeFloat, Only, PositiveFloat, nothing
from diffbench.specs.needs import GAUSSIAN, ONE_ALPHA, WALLS, HasNeeds, Needs, Rule
from diffbench.specs.processes import ProcessSpec
from diffbench.specs.solvers.grids import level_refusal, range_refusal
from diffbench.specs.solvers.sde import OwnTimeGridSolverSpec, OwnTimeSolverSpec
from diffbench.specs.solvers.solver import GridSolverSpec


class FlowSpec(HasNeeds):
    """A factor of the score that keeps the probability flow between a reflected process's walls.

    bump: the factor is exp((4 - 1/(1/4 - (x - 1/2)^2))/bump), as in the official code, which has 200.
    gate: the factor falls to 0 at the walls, in a layer of width ``gate`` times sigma.  1 gives the factor of a
        ``gated`` network; a thinner layer changes less of the score and needs shorter steps.
    """

    needs: ClassVar[Needs] = (WALLS.where("bump"), WALLS.where("gate"))

    bump: Annotated[PositiveFloat | None, BeforeValidator(nothing)] = None
    gate: Annotated[PositiveFloat | None, BeforeValidator(nothing)] = None

    @model_validator(mode="after")
    def _has_one_of_them(self) -> Self:
        if self.bump is not None and self.gate is not None:
            raise ValueError(
                f"bump: {self.bump:g}, gate: {self.gate:g}: each closes the walls; give one of the two"
            )
        return self


class ODESpec(FlowSpec, OwnTimeGridSolverSpec):
    """The probability-flow ODE (Song et al. 2021, equation 13) by a method with fixed steps.

    ``method`` is Euler's, Heun's, or the classical Runge-Kutta method of order 4 (1, 2 and 4 evaluations a step).  On a
    reflected process only the returned state is reflected, not the states between steps.  With ``bump`` the first
    state lies in [0.01, 0.99], as in the official code.  ``alpha`` is the share of a step after which ``heun``
    evaluates the score again: 1/2 is the midpoint rule (Karras et al. 2022, algorithm 3).
    """

    name: Literal["ode"] = "ode"
    implementation: ClassVar[str] = "diffbench.diffusion.solvers.ode:ProbabilityFlow"

    method: Literal["euler", "heun", "rk4"] = "heun"
    alpha: Annotated[PositiveFloat, Field(le=1)] = 1.0

    @model_validator(mode="after")
    def _alpha_is_heuns(self) -> Self:
        if self.method != "heun" and self.alpha != 1:
            raise ValueError(f"alpha: {self.alpha:g} belongs to method heun, not to {self.method}")
        return self

    @property
    def invertible(self) -> bool:
        """Whether no corrector adds noise."""
        return self.corrector is None

    @property
    def accuracy(self) -> int:
        return {"euler": 1, "heun": 2, "rk4": 4}[self.method]


class AdaptiveODESpec(FlowSpec, OwnTimeSolverSpec):
    """The probability-flow ODE by Dormand and Prince's pair of orders 5 and 4, with step size control.

    rtol, atol: the error of a step may be atol + rtol |x|, with x measured from the middle of the data range, as a root
        mean square over the images that are drawn at a time (the benchmark's ``chunk``).  Song et al. 2021, appendix
        D.2, has 1e-5 for both.
    """

    name: Literal["ode-adaptive"] = "ode-adaptive"
    implementation: ClassVar[str] = "diffbench.diffusion.solvers.ode:AdaptiveProbabilityFlow"

    rtol: PositiveFloat = 1e-5
    atol: PositiveFloat = 1e-5

    @property
    def invertible(self) -> bool:
        return True

    @property
    def full_precision(self) -> bool:
        return True

    @property
    def adaptive(self) -> bool:
        return True


def _sigmas_are_in_range(spec: RatioSolverSpec, process: ProcessSpec) -> str | None:
    """A part of the grid, and every end that is given, must lie in the process's range."""
    if process.ratios is None:
        return None
    smallest, largest = (process.in_range(each) for each in spec.sigmas)
    reason = range_refusal(process, smallest, largest, *process.ratios)
    return reason or level_refusal(process, spec.levels)


class RatioSolverSpec(GridSolverSpec):
    """A solver in (x/alpha, sigma/alpha), the same on every process with one alpha for all coordinates.

    sigma_min, sigma_max: the ends of the grid in sigma/alpha, for data in [-1, 1] whatever the process's range; the
        last step goes to the data.  By default EDM's 0.002 and 80, moved into the process's range.  On a chain each
        sigma is moved to the nearest level.
    """

    needs: ClassVar[Needs] = (GAUSSIAN, ONE_ALPHA, Rule(_sigmas_are_in_range))
    #: Karras et al. 2022, table 1.
    DEFAULTS: ClassVar[tuple[float, float]] = (0.002, 80.0)

    grid: Literal["karras", "log-snr", "uniform", "quadratic"] = "karras"
    sigma_min: Annotated[PositiveFloat | None, BeforeValidator(nothing)] = None
    sigma_max: Annotated[PositiveFloat | None, BeforeValidator(nothing)] = None

    @property
    def levels(self) -> dict[str, float]:
        """``sigma_min`` and ``sigma_max``, those that are given."""
        given = {"sigma_min": self.sigma_min, "sigma_max": self.sigma_max}
        return {key: level for key, level in given.items() if level is not None}

    @property
    def sigmas(self) -> tuple[float, float]:
        """``sigma_min`` and ``sigma_max``, or the defaults."""
        smallest, largest = self.DEFAULTS
        return self.sigma_min or smallest, self.sigma_max or largest

    @model_validator(mode="after")
    def _sigmas_increase(self) -> Self:
        smallest, largest = self.sigmas
        if smallest >= largest:
            raise ValueError(f"sigma_min {smallest} must be below sigma_max {largest}")
        return self


def _some_step_is_churned(spec: HeunSpec) -> str | None:
    """A step is churned where its sigma lies in the window: some of the grid must."""
    (smallest, largest), (low, high) = spec.sigmas, spec.churned
    if not spec.churn or (low <= largest and high >= smallest):
        return None
    key = "churn_min" if low > largest else "churn_max"
    return (
        f"{key}: {getattr(spec, key):g} leaves no step to churn: the grid goes from {smallest:g} to {largest:g}; "
        "choose it within"
    )


class HeunSpec(RatioSolverSpec):
    """EDM's sampler (Karras et al. 2022, algorithm 2) in (x/alpha, sigma/alpha); the last step is Euler's.

    With ``order`` 1 all steps are Euler's.  ``alpha`` is the share of a step after which the denoiser is evaluated
    again: 1 is Heun's method, 1/2 the midpoint rule, 2/3 Ralston's; above 1 that is beyond the step, but never below
    the process's smallest noise (algorithm 3).  On a chain it is at the nearest level; where this is the level at which
    the step starts, the step is Euler's.

    With ``churn`` (S_churn) 0 the solver is deterministic (algorithm 1).  Otherwise each step whose sigma lies in
    [``churn_min``, ``churn_max``] (S_min, S_max, for data in [-1, 1]; all steps by default) first raises sigma by the
    factor 1 + min(churn/steps, sqrt 2 - 1), with fresh noise, scaled by ``churn_noise`` (S_noise).  ``churn_ceiling``
    is the largest sigma/alpha, for data in [-1, 1], to which sigma is raised; by default the process's largest (EDM's
    code has no ceiling).
    """

    name: Literal["heun"] = "heun"
    implementation: ClassVar[str] = "diffbench.diffusion.solvers.ode:Heun"
    needs: ClassVar[Needs] = (Rule(_some_step_is_churned, ()),)
    belonging: ClassVar[tuple[Only, ...]] = tuple(
        Only(f"churn_{each}", "churn") for each in ("min", "max", "ceiling", "noise")
    )

    order: Literal[1, 2] = 2
    alpha: PositiveFloat = 1.0
    churn: NonNegativeFloat = 0.0
    churn_min: Annotated[NonNegativeFloat | None, BeforeValidator(nothing)] = None
    churn_max: Annotated[PositiveFloat | None, BeforeValidator(nothing)] = None
    churn_ceiling: Annotated[PositiveFloat | None, BeforeValidator(nothing)] = None
    churn_noise: NonNegativeFloat = 1.0

    @property
    def churned(self) -> tuple[float, float]:
        """``churn_min`` and ``churn_max``; 0 and infinity by default."""
        return self.churn_min or 0.0, math.inf if self.churn_max is None else self.churn_max

    @model_validator(mode="after")
    def _churns_increase(self) -> Self:
        smallest, largest = self.churned
        if smallest >= largest:
            raise ValueError(f"churn_min {smallest} must be below churn_max {largest}")
        return self

    @property
    def levels(self) -> dict[str, float]:
        """The given ends of the grid and of churn, without a churn of 0, which is below every range."""
        given = {"churn_min": self.churn_min, "churn_max": self.churn_max}
        return super().levels | {key: level for key, level in given.items() if level}

    @model_validator(mode="after")
    def _alpha_is_of_order_two(self) -> Self:
        if self.order == 1 and self.alpha != 1:
            raise ValueError(f"alpha: {self.alpha:g} belongs to order 2, but order is 1")
        return self

    @property
    def invertible(self) -> bool:
        """Whether neither churn nor a corrector adds noise."""
        return self.churn == 0 and self.corrector is None

    @property
    def raises_noise(self) -> bool:
        return self.churn > 0

    @property
    def accuracy(self) -> int:
        """``order``, and 1 with churn; the last step, into the data, is Euler's."""
        return self.order if self.churn == 0 else 1


class DPMSolverSpec(RatioSolverSpec):
    """DPM-Solver++(2M), the multistep method of order 2 (Lu et al. 2022, algorithm 2).

    The first step and the one into the data are of order 1.
    """

    name: Literal["dpm-solver++"] = "dpm-solver++"
    implementation: ClassVar[str] = "diffbench.diffusion.solvers.ode:DPMSolver"

    grid: Literal["karras", "log-snr", "uniform", "quadratic"] = "log-snr"

    @property
    def accuracy(self) -> int:
        return 2
