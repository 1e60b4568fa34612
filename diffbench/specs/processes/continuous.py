"""Specs of the Gaussian processes in continuous time, with one alpha."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from diffbench.specs.base import Float, LevelCount, PositiveFloat, nothing
from diffbench.specs.processes.process import ProcessSpec, Real, increasing


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
        smallest, largest = (
            self.sigma(t) / math.exp(self.log_alpha(t)) for t in (self.t_min, self.t_max)
        )
        return smallest, largest

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

    levels: LevelCount = 1000

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
        smallest, largest = (math.exp(-each / 2) for each in (self.log_snr_max, self.log_snr_min))
        return self.unit * smallest, self.unit * largest


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
