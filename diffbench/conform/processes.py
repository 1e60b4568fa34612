r"""Laws of processes: q(x_t | x_0), its rates, its prior and its range."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import torch
from torch import Tensor

from diffbench.conform.law import LawError, demand, law, unless
from diffbench.conform.trial import (
    PIXEL,
    SHAPE,
    apart,
    column,
    images,
    inner_times,
    made,
    moved,
    normal,
    other_range,
)
from diffbench.diffusion.core.process import Process, cast, float64
from diffbench.diffusion.core.returned import check_like
from diffbench.specs.processes import ProcessSpec

#: What float64 coefficients may differ by: rounding of 1e-16, magnified by 1/sigma^2 up to 1e10 near the data.
EQUAL = 1e-6
#: What a derivative by central differences of 1e-4 of the range may differ by: the third derivative of exp(17 t), the
#: steepest of the papers', over 6, times 1e-8, is 5e-7 of the first.
RATE = 1e-4
#: How far the end of the perturbation may be from the prior, in the prior's standard deviation: DDPM's has 0.6 % of the
#: signal left, and EDM's prior leaves out the data's 0.5 beside 80.
FAR = 0.05


def on_both_ranges(check: Callable[[ProcessSpec], None]) -> Callable[[ProcessSpec], None]:
    """The check on each of the two data ranges: the unit is 1 on the range that a process is written for."""

    @wraps(check)
    def checked(spec: ProcessSpec) -> None:
        for each in (spec, other_range(spec)):
            try:
                check(each)
            except LawError as why:
                raise LawError(f"for data in {each.range} {why}") from why

    return checked


def times_of(process: Process) -> Tensor:
    """Times that broadcast against coordinates where alpha has several."""
    times = inner_times(process)
    return times if process.spec.alpha == "scalar" else column(times)


def differ(what: str, got: Tensor, want: Tensor, by: str, tolerance: float) -> None:
    """Refuse two coefficients that differ by more than a share of the wanted one."""
    want = want.expand_as(got) if want.ndim <= got.ndim else want
    got = got.expand_as(want)
    error = ((got - want).abs() / want.abs().clamp(min=1e-3)).flatten()
    worst = int(error.argmax())
    told = f"{what} is {float(got.flatten()[worst]):.6g}, but {by} is {float(want.flatten()[worst]):.6g}"
    demand(float(error[worst]) <= tolerance, told)


@law(
    ProcessSpec,
    "shapes and dtypes",
    "x_t has the shape and the dtype of x_0; alpha(t), sigma(t) are float64, of t's shape",
)
@on_both_ranges
def shapes(spec: ProcessSpec) -> None:
    """A float64 coefficient meets float32 images without changing them."""
    process, t = made(spec), inner_times(made(spec))
    x0 = images(spec, len(t), dtype=torch.float32)
    check_like(process.diffuse(x0, column(t), normal(x0.shape, 2, x0.dtype)), x0, "diffuse")
    check_like(process.prior_sample(torch.zeros_like(x0)), x0, "prior_sample")
    check_like(process.sigma(t), t, "sigma")
    alpha = process.alpha(times_of(process))
    demand(alpha.dtype == torch.float64, f"alpha is {alpha.dtype}")


@law(ProcessSpec, "data are where time begins", "alpha(data_time) = 1, sigma(data_time) = 0")
@on_both_ranges
def begins(spec: ProcessSpec) -> None:
    """Nothing has happened to data."""
    unless(spec.noise == "constant", "its noise is the same at every level")
    process = made(spec)
    t = float64(process.data_time)
    alpha, sigma = float(process.alpha(t).min()), float(process.sigma(t))
    swapped = "; alpha and sigma are swapped" if alpha == 0 and sigma else ""
    demand(
        alpha == 1 and sigma == 0,
        f"at t = {float(t):g} alpha is {alpha:.4g} and sigma {sigma:.4g}{swapped}",
    )


@law(ProcessSpec, "noise grows", "sigma(t)/alpha(t) increases with t")
def grows(spec: ProcessSpec) -> None:
    """Levels of noise follow one another in time."""
    unless(spec.noise == "constant", "its noise is the same at every level")
    process, t = made(spec), inner_times(made(spec))
    ratio = process.ratio(times_of(process))
    falls = (ratio.flatten(1) if ratio.ndim > 1 else ratio[:, None]).diff(dim=0) <= 0
    first = int(falls.any(1).double().argmax())
    demand(
        not falls.any(),
        f"it does not grow from t = {float(t[first]):.4g} to {float(t[first + 1]):.4g}",
    )


@law(
    ProcessSpec, "the perturbation is q(x_t | x_0)", "x_t - m = B^-1[alpha B(x_0 - m)] + sigma eps"
)
@on_both_ranges
def perturbs(spec: ProcessSpec) -> None:
    """The draw has the mean and the noise that alpha and sigma say."""
    unless(spec.family != "gaussian", f"it is {spec.family}, not Gaussian")
    process = made(spec)
    t = column(inner_times(process))
    x0, eps = images(spec, len(t)), normal((len(t), *SHAPE), 2)
    want = process.basis.scale(cast(process.alpha(t), x0), x0 - spec.middle)
    want = spec.middle + want + process.sigma(t) * eps
    differ("x_t", process.diffuse(x0, t, eps), want, "m + alpha (x_0 - m) + sigma eps", EQUAL)
    truth = process.noise_in(want, t, x0, eps)
    differ("the noise in x_t", truth, eps, "eps = -sigma d/dx_t ln q(x_t | x_0)", EQUAL)


def slope(process: Process, function: str, t: Tensor, power: int) -> Tensor:
    """The derivative of ln alpha (power 0) or of sigma^2, by central differences."""
    step = 1e-4 * (process.t_max - process.t_min)

    def value(at: Tensor) -> Tensor:
        found: Tensor = getattr(process, function)(at)
        return found**power if power else found.log()

    return (value(t + step) - value(t - step)) / (2 * step)


@law(ProcessSpec, "rates are derivatives", "f = alpha'/alpha, g^2 = (sigma^2)' - 2 f sigma^2")
@on_both_ranges
def rates(spec: ProcessSpec) -> None:
    """Solvers in time use f and g^2 alone, and must arrive at the same marginals."""
    unless(spec.time == "discrete", "integer times have no rates")
    process = made(spec)
    t = times_of(process)
    f = slope(process, "alpha", t, 0)
    differ("f", process.f(t), f, "alpha'/alpha", RATE)
    sigma2 = slope(process, "sigma", t, 2)
    g2 = sigma2 - 2 * f * process.sigma(t) ** 2
    differ("g^2", process.g2(t), g2, "(sigma^2)' - 2 f sigma^2", RATE)


@law(
    ProcessSpec,
    "a transition has the marginal at its end",
    "alpha_ts alpha_s = alpha_t, alpha_ts^2 sigma_s^2 + sigma^2_ts = sigma_t^2 and sigma^2_ts > 0",
)
@on_both_ranges
def transitions(spec: ProcessSpec) -> None:
    """Steps of a chain lead from one level to the next."""
    unless(spec.family != "gaussian", f"it is {spec.family}: its transitions are not Gaussian")
    unless(spec.noise == "constant", "its noise is the same at every level")
    process = made(spec)
    times = times_of(process)
    s, t = times[:-1], times[1:]
    alpha, variance = process.transition(t, s)
    differ("alpha_ts alpha_s", alpha * process.alpha(s), process.alpha(t), "alpha_t", EQUAL)
    arrived = alpha**2 * process.sigma(s) ** 2 + variance
    differ("alpha_ts^2 sigma_s^2 + sigma^2_ts", arrived, process.sigma(t) ** 2, "sigma_t^2", EQUAL)
    demand((variance > 0).all(), f"sigma^2_ts is {float(variance.min()):.4g}")


@law(
    ProcessSpec,
    "a transition to the data returns x_0",
    "E[x_s | x_t, x_0] = x_0 and Var = 0 at s = data_time",
)
@on_both_ranges
def arrives(spec: ProcessSpec) -> None:
    """The last step of a chain has no noise."""
    unless(spec.family != "gaussian", f"it is {spec.family}: its transitions are not Gaussian")
    unless(spec.noise == "constant", "its noise is the same at every level")
    process = made(spec)
    t = times_of(process)
    data = torch.full_like(t, process.data_time)
    kept, image = process.posterior_mean(t, data)
    variance = process.posterior_variance(t, data)
    told = f"the mean has {float(kept.abs().max()):.4g} x_t + {float(image.min()):.4g} x_0"
    demand(float(kept.abs().max()) < EQUAL and apart(image, torch.ones_like(image)) < EQUAL, told)
    demand(variance.abs().max() < EQUAL, f"the variance is {float(variance.abs().max()):.4g}")


@law(ProcessSpec, "time_of is the inverse of the ratio", "time_of(sigma(t)/alpha(t)) = t")
@on_both_ranges
def inverts(spec: ProcessSpec) -> None:
    """Grids in sigma/alpha become times."""
    unless(spec.family != "gaussian" or spec.alpha == "vector", "it has no one ratio at a time")
    unless(spec.noise == "constant", "its noise is the same at every level")
    process = made(spec)
    t = inner_times(process)
    differ("time_of(ratio(t))", process.time_of(process.ratio(t)), t, "t", EQUAL)


@law(
    ProcessSpec, "the prior is the end of the perturbation", "q(x_T) = prior: mean and sigma(t_max)"
)
@on_both_ranges
def prior(spec: ProcessSpec) -> None:
    """Samplers start where training ends."""
    unless(spec.noise == "constant", "its sampler draws the start from training images")
    process = made(spec)
    x0 = images(spec, 4096)
    end = process.diffuse(x0, float64(process.t_max), normal(x0.shape, 2))
    drawn = process.prior_sample(normal(x0.shape, 3))
    # 16,384 numbers: the standard error of each is below 0.8 % of the standard deviation.
    width = float(drawn.std())
    demand(
        abs(float(end.std()) - width) < FAR * width,
        f"q(x_T) has std {float(end.std()):.3g}, prior_sample() draws {width:.3g}; they must agree",
    )
    centre = float(drawn.mean())
    demand(
        abs(float(end.mean()) - centre) < FAR * width + 1e-6,
        f"q(x_T) has mean {float(end.mean()):.3g}, prior_sample() draws {centre:.3g}; they must agree",
    )


@law(ProcessSpec, "the prior's density integrates to 1", "int exp(prior_log_prob(x)) dx = 1")
@on_both_ranges
def integrates(spec: ProcessSpec) -> None:
    """A likelihood is of a density; a factor of the data range shows here."""
    process = made(spec, PIXEL)
    ends = process.prior_sample(float64([-8.0, 8.0]).reshape(2, 1, 1, 1)).flatten()
    x = torch.linspace(float(ends[0]), float(ends[1]), 20001, dtype=torch.float64)
    try:
        density = process.prior_log_prob(column(x)).exp()
    except TypeError as none:
        unless(none, str(none))
        raise
    total = float(torch.trapezoid(density, x))
    demand(abs(total - 1) < 1e-3, f"the integral is {total:.4g}; is the unit of the range missing?")


@law(
    ProcessSpec,
    "states stay in the support",
    "x in support => x_t and prior in support; constrain(x) in support",
)
@on_both_ranges
def support(spec: ProcessSpec) -> None:
    """Where states are bounded, nothing is outside the data range."""
    process = made(spec)
    x0 = images(spec, 64)
    found = {
        "prior_sample": process.prior_sample(normal(x0.shape, 2)),
        "diffuse": process.diffuse(x0, float64(process.t_max), normal(x0.shape, 3)),
        "constrain": process.constrain(spec.middle + 3 * normal(x0.shape, 4)),
    }
    for what, x in found.items():
        low, high = float(x.min()), float(x.max())
        outside = bool(process.outside(x).any())
        if spec.bounded:
            outside = outside or low < spec.low - EQUAL or high > spec.high + EQUAL
        demand(not outside, f"{what} reaches [{low:.4g}, {high:.4g}], and data lie in {spec.range}")


@law(
    ProcessSpec,
    "a change of the data range changes results affinely",
    "on [low, high]: the same alpha, sigma times one factor, and m stays m",
)
def ranged(spec: ProcessSpec) -> None:
    """Images may lie in [-1, 1] or in [0, 1]: constants are in units of the range, or lengths as they are."""
    here, there = made(spec), made(other_range(spec))
    t = times_of(here)
    differ("alpha on the other range", there.alpha(t), here.alpha(t), "alpha here", EQUAL)
    factor = there.sigma(t) / here.sigma(t)
    ratio = there.spec.half_range / here.spec.half_range
    allowed = min((1.0, ratio), key=lambda each: abs(each - float(factor.flatten()[0])))
    differ(
        "sigma's factor", factor, torch.full_like(factor, allowed), "that of the range, or 1", EQUAL
    )
    for process in (here, there):
        middle = torch.full((len(t), *SHAPE), process.spec.middle, dtype=torch.float64)
        x_t = process.diffuse(middle, column(t.flatten()), torch.zeros_like(middle))
        told = f"the middle of {process.spec.range} moves to {float(x_t.flatten()[-1]):.4g}"
        demand(apart(x_t, middle) < EQUAL, told)
    x0 = images(spec, len(t))
    silent = torch.zeros_like(x0)
    at = column(t.flatten())
    got = there.diffuse(moved(x0, here.spec, there.spec), at, silent)
    want = moved(here.diffuse(x0, at, silent), here.spec, there.spec)
    demand(apart(got, want) < EQUAL, f"the mean of x_t differs by {apart(got, want):.3g}")


@law(
    ProcessSpec,
    "the same draw twice, and inputs as they were",
    "diffuse is a function that changes nothing",
)
def pure(spec: ProcessSpec) -> None:
    """Noise is an argument, and arguments are not changed in place."""
    process = made(spec)
    x0, t = images(spec, 4), float64(inner_times(made(spec))[3])
    eps = normal(x0.shape, 2)
    kept = x0.clone(), eps.clone()
    first = process.diffuse(x0, t, eps)
    again = process.diffuse(x0, t, eps)
    demand(
        torch.equal(x0, kept[0]) and torch.equal(eps, kept[1]),
        "diffuse changes x_0 or eps in place",
    )
    demand(torch.equal(first, again), f"two draws from one eps differ by {apart(first, again):.3g}")
