"""Specs of the processes: what happens to data.

Each spec states its parameters and, for the plan, its properties: its ``family``, whether its ``time`` is
discrete or continuous, whether ``alpha`` is one scalar or one number per coordinate, and its data range.

Constants that papers state for data in [-1, 1] (a sampler's sigma_min, training times, ``data_std``) are in those units
on every process; only ``in_range`` and ``in_units`` convert them.  A process's own constants are in units of its data
range.  ``unit`` is the length that its paper calls 1; it is not 1 on another range than the paper's.

The formulas of alpha and sigma that a plan needs are stated only here.  Each takes a time, and the module whose
functions it calls: ``math`` for a float in a plan, ``torch`` for a tensor in the process's class.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from diffbench.specs.base import Float, Int, NonNegativeFloat, PositiveFloat, Registered, nothing

#: The variance of a step of a discrete chain: the posterior's, that of the forward step, or a learned one in between.
Variance = Literal["small", "large", "learned"]

#: The data ranges that papers write their processes for.
RANGES = ((-1.0, 1.0), (0.0, 1.0))


#: What a level of a chain adds to the variance.
Beta = Annotated[PositiveFloat, Field(lt=1)]

#: A time, or what is computed from it: a float or a tensor of float64.
Real = Any


def linear_ends(
    steps: int, first: float | None = None, last: float | None = None
) -> tuple[float, float]:
    """Return the first and last beta of DDPM's linear schedule, the paper's where they are not given.

    Raises:
        ValueError: where the paper's scaled last beta reaches 1 (20 steps or fewer).
    """
    scale = 1000 / steps
    first = 1e-4 * scale if first is None else first
    last = 0.02 * scale if last is None else last
    if last >= 1:
        raise ValueError(
            f"the linear schedule needs more than 20 steps, not {steps}, or a beta_last: its last beta is 20/steps"
        )
    return first, last


def increasing(lower: str, upper: str) -> Callable[[Any], Any]:
    """Return a validator: the field ``lower`` must be below the field ``upper``."""

    def check(spec: Any) -> Any:
        low, high = getattr(spec, lower), getattr(spec, upper)
        if low >= high:
            raise ValueError(f"{lower} {low} must be below {upper} {high}")
        return spec

    return check


class ProcessSpec(Registered):
    """A process of any family.

    low, high: the range of the data, -1 and 1 or 0 and 1.  The process shrinks the data towards the middle of the
        range, and its own constants are in units of the range.  With these constants mapped to another range,
        everything is the same but for the map.
    """

    kind: ClassVar[str] = "process"
    family: ClassVar[str] = "gaussian"
    time: ClassVar[Literal["discrete", "continuous"]] = "continuous"
    alpha: ClassVar[Literal["scalar", "vector"]] = "scalar"
    #: Half the width of the data range for which the process's paper writes its formulas.
    written_for: ClassVar[float] = 1.0
    #: The views that a prediction has; ``viewless`` is the reason why it has no other.
    views: ClassVar[tuple[str, ...]] = ("eps", "x0", "v", "score", "mean")
    viewless: ClassVar[str] = ""
    #: Whether states stay between ``low`` and ``high``, so that grey levels are cells inside that range.
    bounded: ClassVar[bool] = False
    #: Whether noise grows with time, or is the same at every level.
    noise: ClassVar[Literal["growing", "constant"]] = "growing"
    #: Facts of the data set that are arguments of the process's class, besides the spec.
    facts: ClassVar[tuple[Literal["image_shape", "images"], ...]] = ()
    #: Whether uniform times cover all noise levels evenly; they do not where time is sigma itself.
    even: ClassVar[bool] = True
    #: What is 1 at all times: alpha (``signal``), alpha^2 + sigma^2 (``power``) or neither.
    keeps: ClassVar[Literal["signal", "power", ""]] = ""

    name: str
    # Specs leave [-1, 1] out, so that they are the same as before there were ranges.
    low: Annotated[Float, Field(exclude_if=lambda low: low == -1)] = -1.0
    high: Annotated[Float, Field(exclude_if=lambda high: high == 1)] = 1.0

    @model_validator(mode="after")
    def _range_is_known(self) -> Self:
        if (self.low, self.high) not in RANGES:
            raise ValueError(
                f"low, high: the data range must be [-1, 1] or [0, 1], not {self.range}"
            )
        return self

    @property
    def t_min(self) -> float:
        """The smallest time at which a denoiser may be evaluated."""
        return 0.0

    @property
    def t_max(self) -> float:
        """The largest time, at which sampling starts."""
        return 1.0

    @property
    def last(self) -> float:
        """The last time with noise in a sampler's grid by default: the cut-off of the process's paper."""
        return self.t_min

    @property
    def ratios(self) -> tuple[float, float] | None:
        """The range of sigma/alpha; None where only the process's class can compute it."""
        return None

    @property
    def growth(self) -> float | None:
        """The constant value of g^2/sigma^2; None where it depends on time."""
        return None

    @property
    def steady(self) -> float | None:
        """The constant value of sigma; None where it depends on time."""
        return None

    @property
    def level_count(self) -> int | None:
        """How many levels a chain has; None in continuous time."""
        return round(self.t_max) + 1 if self.time == "discrete" else None

    @property
    def chain_rate(self) -> float:
        """The largest beta(t), if a forward step is sqrt(1 - beta(t) (t - s)) x_s plus noise; else 0."""
        return 0.0

    @property
    def langevin_rate(self) -> float:
        """The largest beta(t), if a Langevin step is scaled by 1 - beta(t)/N; else 0."""
        return 0.0

    @property
    def middle(self) -> float:
        """The middle of the data range."""
        return (self.high + self.low) / 2

    @property
    def half_range(self) -> float:
        """Half the width of the data range: 1 for [-1, 1]."""
        return (self.high - self.low) / 2

    @property
    def unit(self) -> float:
        """The length that the process's paper calls 1: 1, unless the data range is not the paper's."""
        return self.half_range / self.written_for

    @property
    def range(self) -> str:
        """The data range in words."""
        return f"[{self.low:g}, {self.high:g}]"

    @property
    def centre_of_prior(self) -> float:
        """The mean of every pixel of a Gaussian prior."""
        return self.middle

    def in_range(self, length: float) -> float:
        """Return a length that is stated for data in [-1, 1], in units of this range."""
        return self.half_range * length

    def in_units(self, length: float) -> float:
        """Return a length in units of this range, as it is for data in [-1, 1]."""
        return length / self.half_range


class DiscreteSpec(ProcessSpec):
    """The discrete chain of DDPM (Ho et al. 2020) with the schedules of DDPM and Improved DDPM.

    ``linear``: beta from 1e-4 to 0.02 at 1,000 steps, scaled by 1000/steps otherwise, unless ``beta_first`` and
    ``beta_last`` give those at the first and last level; ``cosine``: Nichol & Dhariwal 2021, equation 17, s = 0.008,
    beta clipped at 0.999.
    """

    name: Literal["discrete"] = "discrete"
    implementation: ClassVar[str] = "diffbench.diffusion.processes.discrete:Discrete"
    time: ClassVar[Literal["discrete", "continuous"]] = "discrete"
    keeps: ClassVar[Literal["signal", "power", ""]] = "power"

    schedule: Literal["linear", "cosine"]
    steps: Annotated[Int, Field(ge=2)] = 1000
    beta_first: Annotated[Beta | None, BeforeValidator(nothing)] = None
    beta_last: Annotated[Beta | None, BeforeValidator(nothing)] = None

    @property
    def t_max(self) -> float:
        """The last level."""
        return self.steps - 1.0

    @property
    def ends(self) -> dict[str, float]:
        """The betas at the ends that are given, by the names of the schedule's arguments."""
        said = {"first": self.beta_first, "last": self.beta_last}
        return {name: beta for name, beta in said.items() if beta is not None}

    @model_validator(mode="after")
    def _betas_stay_below_one(self) -> Self:
        if self.schedule == "linear":
            linear_ends(self.steps, **self.ends)
        elif self.ends:
            raise ValueError(
                "beta_first, beta_last: these are the ends of the linear schedule, but the schedule is "
                f"{self.schedule}"
            )
        return self


class LinearBetaSpec(ProcessSpec):
    """An SDE with beta linear in time; samplers stop at 1e-3 (Song et al. 2021, appendix C)."""

    beta_min: PositiveFloat = 0.1
    beta_max: PositiveFloat = 20.0

    _betas_increase = model_validator(mode="after")(increasing("beta_min", "beta_max"))

    @property
    def t_min(self) -> float:
        """The smallest time of training (Song et al. 2021, appendix C)."""
        return 1e-5

    @property
    def last(self) -> float:
        """The last time with noise in a sampler, which is above the smallest time of training."""
        return 1e-3

    def log_alpha(self, t: Real, functions: Any = math) -> Real:
        """The logarithm of alpha: -1/2 times the integral of beta."""
        return -0.25 * t**2 * (self.beta_max - self.beta_min) - 0.5 * t * self.beta_min

    def sigma(self, t: Real, functions: Any = math) -> Real:
        """The noise sigma: the unit times sqrt(1 - alpha^2)."""
        return self.unit * functions.sqrt(-functions.expm1(2 * self.log_alpha(t, functions)))

    @property
    def ratios(self) -> tuple[float, float]:
        first, last = (
            self.sigma(t) / math.exp(self.log_alpha(t)) for t in (self.t_min, self.t_max)
        )
        return first, last

    @property
    def langevin_rate(self) -> float:
        return self.beta_max


class VPSpec(LinearBetaSpec):
    """The variance-preserving SDE (Song et al. 2021, equation 11)."""

    name: Literal["vp"] = "vp"
    implementation: ClassVar[str] = "diffbench.diffusion.processes.continuous:VP"
    keeps: ClassVar[Literal["signal", "power", ""]] = "power"

    @property
    def chain_rate(self) -> float:
        return self.beta_max


class VPChainSpec(LinearBetaSpec):
    """DDPM's chain in continuous time: at the times i/(N - 1), i from 0 on, it has the marginals of the N levels.

    Its betas go from ``beta_min``/N to ``beta_max``/N, with N = ``levels``: the linear schedule of Ho et al. 2020 by
    default.  VP, its limit, has 4.9 % more noise at the first level and 3.4 % more signal at the last.
    """

    name: Literal["vp-chain"] = "vp-chain"
    implementation: ClassVar[str] = "diffbench.diffusion.processes.continuous:VPChain"
    keeps: ClassVar[Literal["signal", "power", ""]] = "power"

    levels: Annotated[Int, Field(ge=2)] = 1000

    @model_validator(mode="after")
    def _betas_stay_below_half(self) -> Self:
        if self.levels < 2 * self.beta_max:
            raise ValueError(
                f"levels {self.levels} must be at least twice beta_max {self.beta_max:g}: a level's beta is "
                "beta_max/levels, and at most 1/2"
            )
        return self

    @property
    def t_min(self) -> float:
        """The first level."""
        return 0.0

    @property
    def last(self) -> float:
        """The first level; the data are below it."""
        return self.t_min

    @property
    def first(self) -> float:
        """The beta of the first level."""
        return self.beta_min / self.levels

    @property
    def rise(self) -> float:
        """The difference between the betas of a level and of the level below."""
        return (self.beta_max - self.beta_min) / (self.levels - 1) / self.levels

    @property
    def data_time(self) -> float:
        """The time of the data, one level below the first."""
        return -1 / (self.levels - 1)

    def factors(self, t: Real) -> tuple[Real, Real]:
        """The n and z of ln abar = ln Gamma(z + n) - ln Gamma(z) + n ln d, with n factors 1 - beta and d the rise."""
        n = (self.levels - 1) * (t - self.data_time)
        return n, (1 - self.first) / self.rise + 1 - n

    def log_alpha(self, t: Real, functions: Any = math) -> Real:
        """The logarithm of alpha: half of ln abar, by Stirling's series.

        Terms of size n cancel to n beta, so that the relative error is 1e-12.  The series ends at 1/z^3: z is above
        39, where the next term is 1e-11.
        """
        n, z = self.factors(t)
        u = z + n
        series = (1 / u - 1 / z) / 12 - (u**-3 - z**-3) / 360
        growth = math.log1p(self.rise - self.first)
        return 0.5 * ((z - 0.5) * functions.log1p(n / z) - n + n * growth + series)

    @property
    def langevin_rate(self) -> float:
        """0: a Langevin step is scaled by alpha^2 of a transition."""
        return 0.0


class SubVPSpec(LinearBetaSpec):
    """The sub-variance-preserving SDE (Song et al. 2021, equation 12)."""

    name: Literal["sub-vp"] = "sub-vp"
    implementation: ClassVar[str] = "diffbench.diffusion.processes.continuous:SubVP"

    def sigma(self, t: Real, functions: Any = math) -> Real:
        """The noise sigma: the unit times 1 - alpha^2."""
        return -self.unit * functions.expm1(2 * self.log_alpha(t, functions))


class VPCosineSpec(ProcessSpec):
    """A variance-preserving process in continuous time with the noise levels of the cosine schedule.

    alpha = cos(a), sigma = sin(a) with the angle a linear in time, so that
    ln(alpha^2/sigma^2) = -2 ln tan(a) falls from ``log_snr_max`` to ``log_snr_min`` (Nichol & Dhariwal 2021,
    section 3.2; in continuous time Kingma et al. 2021 and Hoogeboom & Salimans 2023).
    """

    name: Literal["vp-cosine"] = "vp-cosine"
    implementation: ClassVar[str] = "diffbench.diffusion.processes.continuous:VPCosine"
    keeps: ClassVar[Literal["signal", "power", ""]] = "power"

    log_snr_min: Annotated[Float, Field(ge=-50, le=50)] = -10.0
    log_snr_max: Annotated[Float, Field(ge=-50, le=50)] = 10.0

    _log_snrs_increase = model_validator(mode="after")(increasing("log_snr_min", "log_snr_max"))

    @property
    def ratios(self) -> tuple[float, float]:
        """The range of sigma/alpha: the unit times exp(-log SNR/2)."""
        first, last = (math.exp(-each / 2) for each in (self.log_snr_max, self.log_snr_min))
        return self.unit * first, self.unit * last


class BlurringSpec(VPCosineSpec):
    """Blurring diffusion (Hoogeboom & Salimans 2023): the cosine schedule's noise, and blur by heat dissipation.

    The blur's width in pixels rises to ``sigma_max`` as sin^2(pi t/2) or sin(pi t/2) (``schedule``); it scales no
    coordinate by less than ``d_min``.  At ``sigma_max`` 0 it is vp-cosine.
    """

    name: Literal["blurring"] = "blurring"  # type: ignore[assignment]
    implementation: ClassVar[str] = "diffbench.diffusion.processes.heat:Blurring"
    keeps: ClassVar[Literal["signal", "power", ""]] = ""
    alpha: ClassVar[Literal["scalar", "vector"]] = "vector"
    facts: ClassVar[tuple[Literal["image_shape", "images"], ...]] = ("image_shape",)

    schedule: Literal["sin2", "sin"] = "sin2"
    sigma_max: NonNegativeFloat = 20.0
    d_min: Annotated[PositiveFloat, Field(lt=1)] = 0.001


class IHDMSpec(ProcessSpec):
    """Inverse heat dissipation (Rissanen, Heinonen & Solin 2023): blur in levels, under constant noise.

    ``levels`` of blur have widths from ``blur_min`` to ``blur_max`` pixels, ``geometric``, as in the paper, or
    ``linear``; time 0 is the first level, and the data are below it.  ``sigma`` is the noise of every level, in
    units of the data range, which is [0, 1].
    """

    name: Literal["ihdm"] = "ihdm"
    implementation: ClassVar[str] = "diffbench.diffusion.processes.heat:IHDM"
    time: ClassVar[Literal["discrete", "continuous"]] = "discrete"
    alpha: ClassVar[Literal["scalar", "vector"]] = "vector"
    written_for: ClassVar[float] = 0.5
    noise: ClassVar[Literal["growing", "constant"]] = "constant"
    views: ClassVar[tuple[str, ...]] = ("mean",)
    viewless: ClassVar[str] = (
        "its network predicts the level before, and an image cannot be computed from its blur"
    )
    facts: ClassVar[tuple[Literal["image_shape", "images"], ...]] = ("image_shape", "images")

    low: Float = 0.0
    high: Float = 1.0
    levels: Annotated[Int, Field(ge=2)] = 200
    blur_min: PositiveFloat = 0.5
    blur_max: PositiveFloat = 24.0
    spacing: Literal["geometric", "linear"] = "geometric"
    sigma: PositiveFloat = 0.01

    _blurs_increase = model_validator(mode="after")(increasing("blur_min", "blur_max"))

    @property
    def steady(self) -> float:
        return self.sigma

    @property
    def t_max(self) -> float:
        """The last level."""
        return self.levels - 1.0


class GeometricSpec(ProcessSpec):
    """A process that adds noise to data in [0, 1], with sigma geometric in time.

    ``sigma_min`` and ``sigma_max`` are in units of the data range.
    """

    keeps: ClassVar[Literal["signal", "power", ""]] = "signal"

    written_for: ClassVar[float] = 0.5

    low: Float = 0.0
    high: Float = 1.0
    sigma_min: PositiveFloat = 0.01
    sigma_max: PositiveFloat

    _sigmas_increase = model_validator(mode="after")(increasing("sigma_min", "sigma_max"))

    @property
    def growth(self) -> float:
        """The constant g^2/sigma^2 of sigma^2 = sigma_min^2 (sigma_max/sigma_min)^(2 t)."""
        return 2 * math.log(self.sigma_max / self.sigma_min)

    @property
    def last(self) -> float:
        """The smallest time of training (Song et al. 2021, appendix C; Lou & Ermon 2023, official code)."""
        return 1e-5

    @property
    def ratios(self) -> tuple[float, float]:
        return self.sigma_min, self.sigma_max


class VESpec(GeometricSpec):
    """The variance-exploding SDE (Song et al. 2021, equation 9), on data in [0, 1].

    ``sigma_max`` should be near the largest distance between two training images (Song & Ermon 2020,
    technique 1): 50 for CIFAR-10.  ``centre`` is the prior's mean, the middle of the data range by default; the
    official code starts from 0.
    """

    name: Literal["ve"] = "ve"
    implementation: ClassVar[str] = "diffbench.diffusion.processes.continuous:VE"

    sigma_max: PositiveFloat = 50.0
    centre: Annotated[Float | None, BeforeValidator(nothing)] = None

    @property
    def centre_of_prior(self) -> float:
        return self.middle if self.centre is None else self.centre


class ReflectedSpec(GeometricSpec):
    """Reflected Brownian motion in the cube of the data range (Lou & Ermon 2023): VE's noise between walls.

    The defaults are the paper's for CIFAR-10; at ``sigma_max`` 1.25 the density is already within 0.1 % of uniform.
    """

    name: Literal["reflected"] = "reflected"
    implementation: ClassVar[str] = "diffbench.diffusion.processes.reflected:Reflected"
    family: ClassVar[str] = "reflected"
    views: ClassVar[tuple[str, ...]] = ("eps", "score")
    viewless: ClassVar[str] = "Tweedie's formula does not hold between reflecting walls"
    bounded: ClassVar[bool] = True

    sigma_max: PositiveFloat = 5.0


class EDMSpec(ProcessSpec):
    """EDM's process, sigma(t) = t and alpha = 1 (Karras et al. 2022, table 1, last column).

    Time is in units of the data range.
    """

    name: Literal["edm"] = "edm"
    implementation: ClassVar[str] = "diffbench.diffusion.processes.continuous:EDM"
    keeps: ClassVar[Literal["signal", "power", ""]] = "signal"
    even: ClassVar[bool] = False

    sigma_min: PositiveFloat = 0.002
    sigma_max: PositiveFloat = 80.0

    _sigmas_increase = model_validator(mode="after")(increasing("sigma_min", "sigma_max"))

    @property
    def t_min(self) -> float:
        return self.sigma_min

    @property
    def t_max(self) -> float:
        return self.sigma_max

    @property
    def ratios(self) -> tuple[float, float]:
        return self.sigma_min, self.sigma_max
