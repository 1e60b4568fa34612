"""Specs of the solvers, and the reasons for which one cannot serve a process.

``refusal(process, denoiser)`` returns None, or the reason: the plan prints it as a footnote before any job
runs.  Without a denoiser it is about the process alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import AfterValidator, BeforeValidator, Field, SerializeAsAny, model_validator

from diffbench.specs.base import (
    Fraction,
    Int,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Registered,
    Spec,
    nothing,
)
from diffbench.specs.denoisers import DenoiserSpec
from diffbench.specs.processes import ProcessSpec, Variance
from diffbench.specs.weights import OfWeights

#: Even in time, in its square root, in (sigma/alpha)^(1/rho), in its logarithm; or on a chain alone: every c-th level,
#: squares up to 0.8 of its length.
Grid = Literal["uniform", "quadratic", "karras", "log-snr", "strided", "quadratic-0.8"]
#: How the levels of a chain are thinned out.
IntegerGrid = Literal["uniform", "strided", "quadratic", "quadratic-0.8"]
#: Those that only a chain has.
LEVELS_ALONE = ("strided", "quadratic-0.8")
Threshold = Literal["none", "static", "dynamic"]
#: One noise level, or the two ends of a range.
Levels = Sequence[float]


def strided_levels(levels: int, steps: int) -> range | None:
    """Levels 0, c, 2c, .. with the first integer c that takes ``steps`` of them; None where none does."""
    # The smallest stride that takes no more than that: any other takes fewer or as many.
    chosen = range(0, levels, -(-levels // steps))
    return chosen if len(chosen) == steps else None


def grid_refusal(process: ProcessSpec, grid: str, steps: int) -> str | None:
    """Why the process has no such grid; None when it has."""
    if grid == "karras" and (reason := ratio_refusal(process, "the karras grid")):
        return reason
    # Of several alphas one may stand for the process (blurring's, without the blur): then it has a range of ratios.
    one = process.alpha == "scalar" or process.ratios is not None
    if grid == "log-snr" and not one and (reason := ratio_refusal(process, "the log-snr grid")):
        return reason
    levels = getattr(process, "steps", None)
    if process.time != "discrete" or levels is None:
        return (
            f"grid: {grid} takes levels of a chain, and {process.name} has none"
            if grid in LEVELS_ALONE
            else None
        )
    if steps == 1 and grid in get_args(IntegerGrid):
        return "steps: 1 on a chain starts at its first level, almost without noise; take 2 or more"
    if steps > levels:
        return f"steps: {steps} on a chain of {levels}; at most {levels} can be taken"
    if grid == "strided" and strided_levels(levels, steps) is None:
        return f"steps: no integer stride takes exactly {steps} of {levels} steps"
    return None


def ratio_refusal(process: ProcessSpec, what: str) -> str | None:
    """Why there is no one sigma/alpha for all coordinates; None when there is."""
    if process.family != "gaussian":
        return f"{what} needs a Gaussian process, and {process.name} is {process.family}"
    if process.alpha != "scalar":
        return f"{what} divides by alpha, which {process.name} has one of per coordinate"
    return None


#: Two noise levels that differ by less are one, converted.
ROUNDING = 1e-9


def outside(process: ProcessSpec, keys: str, levels: Levels, ends: Levels) -> str:
    """That noise levels, in units of [-1, 1], are outside the process's own; in its units too, where those differ."""

    def told(lengths: Levels) -> str:
        return " to ".join(f"{each:g}" for each in lengths)

    reason = f"{keys}: {told(levels)} is outside the sigma/alpha of {process.name}, {told(ends)}"
    if process.half_range == 1:
        return reason
    here, there = ([process.in_range(each) for each in group] for group in (levels, ends))
    return (
        f"{reason}, for data in [-1, 1]; those are the key's units, where older files had those of "
        f"{process.name}: for data in {process.range}, {told(here)} is outside {told(there)}"
    )


def level_refusal(process: ProcessSpec, levels: Mapping[str, float]) -> str | None:
    """Why one of these noise levels, by key and in units of [-1, 1], is none of the process's; None when all are.

    Of some processes the plan does not know the range.
    """
    if process.ratios is None:
        return None
    low, high = (process.in_units(end) for end in process.ratios)
    for key, level in levels.items():
        if not low * (1 - ROUNDING) <= level <= high * (1 + ROUNDING):
            return outside(process, key, [level], [low, high])
    return None


def range_refusal(
    process: ProcessSpec, smallest: float, largest: float, low: float, high: float
) -> str | None:
    """Why a grid of sigma/alpha misses the process's, low to high, all in its units; None when it does not."""
    if smallest < high and largest > low:
        return None
    levels, ends = (
        [process.in_units(each) for each in group] for group in ([smallest, largest], [low, high])
    )
    return outside(process, "sigma_min, sigma_max", levels, ends)


def last_refusal(process: ProcessSpec, last: float | None) -> str | None:
    """Why a grid cannot end at that time; None when it can."""
    if last is None or process.t_min <= last < process.t_max:
        return None
    return f"last: {last:g} is outside the times of {process.name}, {process.t_min:g} to {process.t_max:g}"


def sde_refusal(process: ProcessSpec, instead: str) -> str | None:
    """Why the process has no SDE and no ODE, and what there is instead; None when it has."""
    return f"integer times have no SDE or ODE; {instead}" if process.time == "discrete" else None


def chain_time_refusal(process: ProcessSpec, last: float | None, denoise: str) -> str | None:
    """Why a solver in time cannot step down a chain to its data; None when it can, or when it is no chain."""
    if process.time != "discrete":
        return None
    if last is not None:
        return f"last: {last:g} is asked of a chain, whose last level is its first"
    if denoise not in ("usual", "tweedie"):
        return f"denoise: {denoise} is of continuous time; a chain's last step goes to the data"
    return process.view_refusal("score")


def variance_refusal(
    variance: Variance, denoiser: DenoiserSpec | None, process: ProcessSpec, steps: int | None
) -> str | None:
    """Why the denoiser has no such variance for that many steps, None for all of a chain's; None when it has."""
    if variance != "learned" or denoiser is None:
        return None
    if not denoiser.learns_variance:
        return "variance: learned is asked of a model with fixed variance; use small or large"
    levels = round(process.t_max) + 1
    if denoiser.variance_of_levels and steps not in (None, levels):
        return (
            f"steps: {steps}, but this model's variance, unbounded, is that of the steps between all {levels} levels; "
            "take them, or variance: small or large"
        )
    return None


class SolverSpec(OfWeights, Registered):
    """A solver: how an image is drawn.

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

    @property
    def levels(self) -> dict[str, float]:
        """Keys that are noise levels in units of [-1, 1], where they are given."""
        return {}

    def note(self, process: ProcessSpec) -> str | None:
        """What given noise levels are in the process's units, which they had in older files, where those are others."""
        if process.half_range == 1 or not self.levels:
            return None
        told = ", ".join(
            f"{key} {level:g} is {process.in_range(level):g}" for key, level in self.levels.items()
        )
        return f"{told} for data in {process.range}: keys are for data in [-1, 1] (older files: {process.range})"

    @property
    def invertible(self) -> bool:
        """Whether its steps can be taken upwards, from an image to its latent."""
        return False

    @property
    def full_precision(self) -> bool:
        """Whether the network must be evaluated in float32: a step size control takes rounding for error."""
        return False

    @property
    def adaptive(self) -> bool:
        """Whether the number of its evaluations depends on the images."""
        return False

    def refusal(self, process: ProcessSpec, denoiser: DenoiserSpec | None = None) -> str | None:
        """Why this solver cannot serve the denoiser on the process; None when it can."""
        if self.threshold != "none" and (reason := process.view_refusal("x0")):
            return f"threshold: {self.threshold} changes x0, and {reason}"
        return None if denoiser is None else self._guidance_refusal(denoiser)

    def _guidance_refusal(self, denoiser: DenoiserSpec) -> str | None:
        if self.w is not None and not denoiser.takes_labels:
            return f"w: {self.w:g} is asked of an unconditional model; it needs denoiser.conditional: true"
        if self.labels and not denoiser.takes_labels and self.classifier_scale is None:
            return f"labels: {list(self.labels)} are asked of an unconditional model without a classifier"
        return None


AnySolver = Annotated[SerializeAsAny[SolverSpec], BeforeValidator(SolverSpec.choose)]


def _of_the_last_step(solver: SolverSpec) -> SolverSpec:
    if solver.names_weights:
        raise ValueError("at and ema_std belong to a variant's own solvers; leave them out here")
    return solver


#: The solver that something else drives, by the weights of the last step.
InnerSolver = Annotated[AnySolver, AfterValidator(_of_the_last_step)]


class LangevinSpec(Spec):
    """Langevin corrector: x + eps score + sqrt(2 eps) z (Song et al. 2021, algorithms 4 and 5).

    snr: r in eps = 2 a (r |z|/|score|)^2, where the norms are means over the images that are drawn at a time
        (the benchmark's ``chunk``) and a is 1 for VE and EDM, 1 - beta(t)/N for VP and sub-VP, 1 - beta_t on a chain.
    rule: ``norms`` is that; ``annealed`` takes eps = 2 a (r sigma_t)^2, the annealed Langevin dynamics of Song &
        Ermon 2019, algorithm 1, as in Song et al. 2021, official code.
    step_size: eps itself, in place of ``snr``: a variance, on the range of the process's paper.
    longest: eps is never above it; a variance as well.  By default 0.5 on ``reflected``, as wide as its cube, and no
        limit elsewhere.
    updates: per level.
    levels: N; a chain has its own.
    order: ``predictor-first`` as in the paper's algorithms, or ``corrector-first`` as in its code, which
        corrects at the prior's level too and not at the last.
    """

    snr: Annotated[PositiveFloat | None, BeforeValidator(nothing)] = None
    rule: Literal["norms", "annealed"] = "norms"
    step_size: Annotated[PositiveFloat | None, BeforeValidator(nothing)] = None
    longest: Annotated[PositiveFloat | None, BeforeValidator(nothing)] = None
    updates: PositiveInt = 1
    levels: Annotated[Int, Field(ge=2)] = 1000
    order: Literal["predictor-first", "corrector-first"] = "predictor-first"

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if (self.snr is None) == (self.step_size is None):
            raise ValueError("one of snr (0.16 is usual) and step_size is wanted")
        if self.step_size is not None and self.rule != "norms":
            raise ValueError(f"rule: {self.rule} makes eps of snr, and step_size is eps itself")
        if self.step_size is not None and self.longest is not None:
            raise ValueError("longest: a limit of what snr asks for, and step_size is eps itself")
        return self

    def refusal(self, process: ProcessSpec) -> str | None:
        """Langevin steps need a score, and a scale."""
        if reason := process.view_refusal("score"):
            return f"corrector: {reason}; leave the corrector out"
        reason = process.scale_refusal(self.levels) if self.step_size is None else None
        return f"corrector.levels: {reason}" if reason else None


def _a_corrector(value: object) -> object:
    if not isinstance(value, dict | LangevinSpec | None | str) or (
        isinstance(value, str) and value != "none"
    ):
        raise ValueError(f"a mapping such as {{snr: 0.16}} is wanted, not {value!r}")
    return nothing(value)


class GridSolverSpec(SolverSpec):
    """A solver on a grid of ``steps`` steps, with or without a corrector.

    grid: ``uniform`` (evenly spaced times), ``quadratic`` (in their square roots: DDIM on CIFAR-10, by its text),
        ``karras`` (in (sigma/alpha)^(1/``rho``)), ``log-snr`` (in ln(sigma/alpha)).  On a chain times are rounded to
        levels, ``strided`` is a constant stride from the first, and ``quadratic-0.8`` the grid of DDIM's code on
        CIFAR-10: squares that end at 0.8 of the chain's length.
    corrector: Langevin steps at each level, before or after the solver's own.
    """

    steps: PositiveInt
    grid: Grid = "uniform"
    rho: PositiveFloat = 7.0
    corrector: Annotated[LangevinSpec | None, BeforeValidator(_a_corrector)] = None

    def refusal(self, process: ProcessSpec, denoiser: DenoiserSpec | None = None) -> str | None:
        """The grid must exist, and so must what the corrector needs."""
        if reason := grid_refusal(process, self.grid, self.steps):
            return reason
        if self.corrector is not None and (reason := self.corrector.refusal(process)):
            return reason
        return super().refusal(process, denoiser)


class TransitionSolverSpec(GridSolverSpec):
    """A solver that steps by the transition rule x_s = alpha_s x0 + r e + n z, into the data.

    last: the last time with noise; the process's own by default (1e-3 for VP and sub-VP, 1e-5 for VE,
        sigma_min for EDM).  A chain's is its first level.
    """

    last: Annotated[PositiveFloat | None, BeforeValidator(nothing)] = None

    def refusal(self, process: ProcessSpec, denoiser: DenoiserSpec | None = None) -> str | None:
        """The rule is of the Gaussian family."""
        if process.family != "gaussian":
            return f"{self.name} needs a Gaussian process, and {process.name} is {process.family}"
        if reason := process.view_refusal("x0"):
            return f"{self.name} steps by x0, and {reason}"
        if process.time == "discrete" and self.last is not None:
            return f"last: {self.last:g} is asked of a chain, whose last level is its first"
        return last_refusal(process, self.last) or super().refusal(process, denoiser)


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
        return reason or variance_refusal(self.variance, denoiser, process, self.steps)


class DDIMSpec(TransitionSolverSpec):
    """DDIM with any eta in [0, 1] (Song, Meng & Ermon 2021, equation 12)."""

    name: Literal["ddim"] = "ddim"
    implementation: ClassVar[str] = "diffbench.diffusion.solvers.transition:DDIM"

    eta: Fraction = 0.0

    @property
    def invertible(self) -> bool:
        """Without noise."""
        return self.eta == 0 and self.corrector is None


class TimeSpec(SolverSpec):
    """A solver of the SDE or the ODE in the process's own continuous time, from the prior at t_max.

    last: the last time with noise; the process's own by default (1e-3 for VP and sub-VP, 1e-5 for VE,
        sigma_min for EDM).
    denoise: how the noise that is left there is removed.  ``tweedie``: by a step to the data, the posterior
        mean E[x0 | x_t].  ``noiseless``: the last update leaves its noise out, as in the official code of Song
        et al. 2021 (that of ``langevin`` has none).  ``none``: it is not.  ``usual``: ``tweedie``, or
        ``noiseless`` on processes that are not Gaussian, for which Tweedie's formula does not hold.
    """

    last: Annotated[PositiveFloat | None, BeforeValidator(nothing)] = None
    denoise: Literal["usual", "tweedie", "noiseless", "none"] = "usual"

    def ending(self, process: ProcessSpec) -> Literal["tweedie", "noiseless", "none"]:
        """What ``denoise`` is on a process."""
        if self.denoise != "usual":
            return self.denoise
        return "tweedie" if process.family == "gaussian" else "noiseless"

    def refusal(self, process: ProcessSpec, denoiser: DenoiserSpec | None = None) -> str | None:
        """There must be such a time, and a way to end there."""
        reason = self._time_refusal(process) or last_refusal(process, self.last)
        if not reason and self.denoise == "tweedie" and process.family != "gaussian":
            reason = (
                f"denoise: tweedie needs a Gaussian process, and {process.name} is {process.family}"
            )
        return reason or super().refusal(process, denoiser)

    def _time_refusal(self, process: ProcessSpec) -> str | None:
        """A chain has no SDE view."""
        growing = process.noise == "growing"
        instead = "use ancestral, ddim, heun or dpm-solver++" if growing else "use inverse-heat"
        return sde_refusal(process, instead)


class TimeSolverSpec(TimeSpec, GridSolverSpec):
    """One on a grid of ``steps`` steps; where ``denoise`` is a step to the data, it is the last of them."""


class ReverseSDESpec(TimeSolverSpec):
    """A solver of the reverse SDE, or of any member of the family that has its marginals.

    noise: gbar/g in dx = [f x - (g^2 + gbar^2)/2 score] dt + gbar dw: 1 is the reverse SDE, 0 the
        probability-flow ODE (Song et al. 2021, appendix D.1; Karras et al. 2022, equation 6).
    walls: what a step does that leaves a reflected process's cube: ``reflect``, or ``project`` to the nearest point
        of the cube, which is thresholding as an SDE sees it (Lou & Ermon 2023, section 5).
    """

    noise: Fraction = 1.0
    walls: Literal["reflect", "project"] = "reflect"

    def refusal(self, process: ProcessSpec, denoiser: DenoiserSpec | None = None) -> str | None:
        """Only what lives between walls can be projected."""
        if self.walls == "project" and not process.bounded:
            return f"walls: project, but {process.name} has none"
        return super().refusal(process, denoiser)


class EulerMaruyamaSpec(ReverseSDESpec):
    """Euler-Maruyama on the reverse SDE (Song et al. 2021, section 4.1)."""

    name: Literal["euler-maruyama"] = "euler-maruyama"
    implementation: ClassVar[str] = "diffbench.diffusion.solvers.sde:EulerMaruyama"


class ReverseDiffusionSpec(ReverseSDESpec):
    """The reverse-diffusion sampler (Song et al. 2021, appendix E): the forward chain's step, reversed.

    VP's chain is DDPM's, with beta(t) (t - s) for beta; VE's, EDM's and a discrete chain's is their exact transition;
    the others' is Euler's, on which this is Euler-Maruyama.  ``noise: 0`` is the paper's probability-flow sampler.
    """

    name: Literal["reverse-diffusion"] = "reverse-diffusion"
    implementation: ClassVar[str] = "diffbench.diffusion.solvers.sde:ReverseDiffusion"

    def refusal(self, process: ProcessSpec, denoiser: DenoiserSpec | None = None) -> str | None:
        """VP's chain needs steps short enough."""
        if reason := super().refusal(process, denoiser):
            return reason
        reason = process.chain_refusal(self.longest_step(process))
        return f"steps: {self.steps}: {reason}" if reason else None

    def _time_refusal(self, process: ProcessSpec) -> str | None:
        """Of a chain, its own steps reversed."""
        return chain_time_refusal(process, self.last, self.denoise)

    def longest_step(self, process: ProcessSpec) -> float:
        """Of the grids that are even in time, 1/steps as in the paper, or in its root; 0 of the others."""
        if self.grid == "uniform":
            return process.t_max / self.steps
        last = process.last if self.last is None else self.last
        first = process.t_max**0.5
        share = (first - last**0.5) / max(self.steps - 1, 1)
        return process.t_max - (first - share) ** 2 if self.grid == "quadratic" else 0.0


class LangevinOnlySpec(LangevinSpec):
    """Two updates a level by default, each level before the next is gone to."""

    updates: PositiveInt = 2
    order: Literal["corrector-first"] = "corrector-first"


def _wanted(value: object) -> object:
    if value is None or value == "none":
        raise ValueError("langevin is nothing without a corrector; {snr: 0.22} is usual")
    return _a_corrector(value)


class CorrectorOnlySpec(TimeSolverSpec):
    """Langevin dynamics at each noise level in turn, without a predictor (Song et al. 2021, table 1, C2000).

    On a chain the levels are its own.
    """

    name: Literal["langevin"] = "langevin"
    implementation: ClassVar[str] = "diffbench.diffusion.solvers.sde:CorrectorOnly"

    corrector: Annotated[LangevinOnlySpec, BeforeValidator(_wanted)] = LangevinOnlySpec(snr=0.22)

    def _time_refusal(self, process: ProcessSpec) -> str | None:
        """It asks for no more than a score."""
        return chain_time_refusal(process, self.last, self.denoise)


class FlowSpec(Spec):
    """What keeps the probability flow between a reflected process's walls, whatever the score is there.

    bump: the official code's way: the score times exp((4 - 1/(1/4 - (x - 1/2)^2))/bump) (200 there).
    gate: the score times a factor that closes at the walls, in a layer ``gate`` times sigma: 1 is the factor of a
        ``gated`` network, a thinner one leaves more of the score as it is and needs shorter steps.
    """

    bump: Annotated[PositiveFloat | None, BeforeValidator(nothing)] = None
    gate: Annotated[PositiveFloat | None, BeforeValidator(nothing)] = None

    @model_validator(mode="after")
    def _has_one_of_them(self) -> Self:
        if self.bump is not None and self.gate is not None:
            raise ValueError(
                f"bump: {self.bump:g}, gate: {self.gate:g}: either closes the walls; give one"
            )
        return self

    def walls_refusal(self, process: ProcessSpec) -> str | None:
        """Both need walls."""
        given = [key for key in ("bump", "gate") if getattr(self, key) is not None]
        if process.bounded or not given:
            return None
        return f"{given[0]}: {getattr(self, given[0]):g}, but {process.name} has no walls"


class ODESpec(FlowSpec, TimeSolverSpec):
    """The probability-flow ODE (Song et al. 2021, equation 13) by a method with fixed steps.

    ``method``: Euler's, Heun's, or the classical one of order 4 (1, 2 and 4 evaluations a step).  On a reflected
    process the state is not reflected on the way, only what is returned.  With ``bump`` it starts in [0.01, 0.99], as
    the official code does.  ``alpha`` is the share of a step after which ``heun`` asks for the second time: 1/2 is the
    midpoint rule (Karras et al. 2022, algorithm 3).
    """

    name: Literal["ode"] = "ode"
    implementation: ClassVar[str] = "diffbench.diffusion.solvers.ode:ProbabilityFlow"

    method: Literal["euler", "heun", "rk4"] = "heun"
    alpha: Annotated[PositiveFloat, Field(le=1)] = 1.0

    @model_validator(mode="after")
    def _alpha_is_heuns(self) -> Self:
        if self.method != "heun" and self.alpha != 1:
            raise ValueError(f"alpha: {self.alpha:g} is of method heun, not of {self.method}")
        return self

    def refusal(self, process: ProcessSpec, denoiser: DenoiserSpec | None = None) -> str | None:
        """What closes walls needs some."""
        return self.walls_refusal(process) or super().refusal(process, denoiser)

    @property
    def invertible(self) -> bool:
        """It has no noise."""
        return self.corrector is None


class AdaptiveODESpec(FlowSpec, TimeSpec):
    """The probability-flow ODE by Dormand and Prince's pair of orders 5 and 4, with step size control.

    rtol, atol: a step's error may be atol + rtol |x|, x less the middle of the data range, as a root mean square over
        the images that are drawn at a time (the benchmark's ``chunk``).  1e-5 each in Song et al. 2021, appendix D.2.
    """

    name: Literal["ode-adaptive"] = "ode-adaptive"
    implementation: ClassVar[str] = "diffbench.diffusion.solvers.ode:AdaptiveProbabilityFlow"

    rtol: PositiveFloat = 1e-5
    atol: PositiveFloat = 1e-5

    def refusal(self, process: ProcessSpec, denoiser: DenoiserSpec | None = None) -> str | None:
        """What closes walls needs some."""
        return self.walls_refusal(process) or super().refusal(process, denoiser)

    @property
    def invertible(self) -> bool:
        """It has no noise."""
        return True

    @property
    def full_precision(self) -> bool:
        """The error is estimated."""
        return True

    @property
    def adaptive(self) -> bool:
        """Steps are as long as the error allows."""
        return True


class TransportSpec(TimeSolverSpec):
    """The exact reflected DDIM: the kernel's distribution function carries x from one time to the next.

    The score at x is that of the kernel around one centre in the cube; for it the probability-flow ODE is solved by
    x_s = F_s^-1(F_t(x_t)) with F the kernel's distribution function, which leads from the cube into the cube at any
    step size.  ``order`` 2 takes the mean of the centres at both ends (Heun's); the last step goes to the centre.
    """

    name: Literal["transport"] = "transport"
    implementation: ClassVar[str] = "diffbench.diffusion.solvers.transport:Transport"

    order: Literal[1, 2] = 2
    denoise: Literal["usual"] = "usual"

    def refusal(self, process: ProcessSpec, denoiser: DenoiserSpec | None = None) -> str | None:
        """Only a reflected process has such a kernel."""
        if not process.bounded:
            return "transport follows the kernel between walls, and here are none"
        return super().refusal(process, denoiser)


class InverseHeatSpec(SolverSpec):
    """The sampler of inverse heat dissipation (Rissanen, Heinonen & Solin 2023, algorithm 2).

    From a blurred training image with noise, level by level: the predicted mean and noise of standard deviation
    delta = ``ratio`` times the process's sigma; the last mean is returned.
    """

    name: Literal["inverse-heat"] = "inverse-heat"
    implementation: ClassVar[str] = "diffbench.diffusion.solvers.heat:InverseHeat"

    ratio: PositiveFloat = 1.25

    def refusal(self, process: ProcessSpec, denoiser: DenoiserSpec | None = None) -> str | None:
        """Its levels are of blur alone."""
        if process.noise == "growing":
            return "inverse-heat steps through blur under constant noise, and here noise grows"
        return super().refusal(process, denoiser)


class RatioSolverSpec(GridSolverSpec):
    """A solver in (x/alpha, sigma/alpha), the same on every process with one alpha for all coordinates.

    sigma_min, sigma_max: the ends of the grid in sigma/alpha, for data in [-1, 1] whatever the process's range; the
        last step goes to the data.  By default EDM's 0.002 and 80, moved into what the process has.  On a chain each
        sigma goes to the nearest tabulated level.
    """

    #: Karras et al. 2022, table 1.
    DEFAULTS: ClassVar[tuple[float, float]] = (0.002, 80.0)

    grid: Literal["karras", "log-snr", "uniform", "quadratic"] = "karras"
    sigma_min: Annotated[PositiveFloat | None, BeforeValidator(nothing)] = None
    sigma_max: Annotated[PositiveFloat | None, BeforeValidator(nothing)] = None

    @property
    def levels(self) -> dict[str, float]:
        """Those that are given."""
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

    def refusal(self, process: ProcessSpec, denoiser: DenoiserSpec | None = None) -> str | None:
        """x/alpha needs one alpha for all coordinates, and the grid a part of its range."""
        reason = ratio_refusal(process, self.name) or self._range_refusal(process)
        return reason or super().refusal(process, denoiser)

    def _range_refusal(self, process: ProcessSpec) -> str | None:
        if process.ratios is None:
            return None
        smallest, largest = (process.in_range(each) for each in self.sigmas)
        if reason := range_refusal(process, smallest, largest, *process.ratios):
            return reason
        return level_refusal(process, self.levels)


class HeunSpec(RatioSolverSpec):
    """EDM's sampler (Karras et al. 2022, algorithm 2) in (x/alpha, sigma/alpha); the last step is Euler's.

    With ``order`` 1 all steps are.  ``alpha`` is the share of a step after which it asks for the second time: 1 is
    Heun's method, 1/2 the midpoint rule, 2/3 Ralston's; above 1 it asks beyond the step, but not below the process's
    smallest noise (algorithm 3).  On a chain it asks at the nearest level; where that is where the step starts, the
    step is Euler's.

    With ``churn`` (S_churn) 0 it is deterministic (algorithm 1).  Otherwise each step whose sigma lies in
    [``churn_min``, ``churn_max``] (S_min, S_max, for data in [-1, 1]; all of them by default) first raises it by the
    factor 1 + min(churn/steps, sqrt 2 - 1), with fresh noise ``churn_noise`` (S_noise) times what that takes.
    ``churn_ceiling`` is the sigma/alpha, for data in [-1, 1], above which it is never raised; the process's largest by
    default (EDM's code has none).
    """

    name: Literal["heun"] = "heun"
    implementation: ClassVar[str] = "diffbench.diffusion.solvers.ode:Heun"

    order: Literal[1, 2] = 2
    alpha: PositiveFloat = 1.0
    churn: NonNegativeFloat = 0.0
    churn_min: Annotated[NonNegativeFloat | None, BeforeValidator(nothing)] = None
    churn_max: Annotated[PositiveFloat | None, BeforeValidator(nothing)] = None
    churn_ceiling: Annotated[PositiveFloat | None, BeforeValidator(nothing)] = None
    churn_noise: NonNegativeFloat = 1.0

    @property
    def churned(self) -> tuple[float, float]:
        """``churn_min`` and ``churn_max``, or all there is."""
        return self.churn_min or 0.0, math.inf if self.churn_max is None else self.churn_max

    @model_validator(mode="after")
    def _churns_increase(self) -> Self:
        smallest, largest = self.churned
        if smallest >= largest:
            raise ValueError(f"churn_min {smallest} must be below churn_max {largest}")
        return self

    @property
    def levels(self) -> dict[str, float]:
        """Those of churn too; 0 is below all of them."""
        given = {"churn_min": self.churn_min, "churn_max": self.churn_max}
        return super().levels | {key: level for key, level in given.items() if level}

    @model_validator(mode="after")
    def _alpha_is_of_order_two(self) -> Self:
        if self.order == 1 and self.alpha != 1:
            raise ValueError(f"alpha: {self.alpha:g} is of order 2, and here order is 1")
        return self

    @property
    def invertible(self) -> bool:
        """Without noise."""
        return self.churn == 0 and self.corrector is None


class DPMSolverSpec(RatioSolverSpec):
    """DPM-Solver++(2M), the multistep method of order 2 (Lu et al. 2022, algorithm 2).

    The first step and the one into the data are of order 1.
    """

    name: Literal["dpm-solver++"] = "dpm-solver++"
    implementation: ClassVar[str] = "diffbench.diffusion.solvers.ode:DPMSolver"

    grid: Literal["karras", "log-snr", "uniform", "quadratic"] = "log-snr"
