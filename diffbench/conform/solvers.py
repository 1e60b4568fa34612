r"""Laws of solvers: their grid, one step, the last step, and what they make of Gaussian data."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from diffbench.conform.law import demand, law, unless
from diffbench.conform.trial import (
    MEAN,
    PIXEL,
    SHAPE,
    STD,
    Columns,
    GaussianData,
    apart,
    beside,
    data_denoiser,
    generator,
    labelled,
    made,
    moved,
    normal,
    other_range,
    processes,
    refuse_other_levels,
    refuse_randomness,
    served,
)
from diffbench.diffusion.core.condition import UNCONDITIONAL, Condition
from diffbench.diffusion.core.predictions import Prediction
from diffbench.diffusion.core.process import float64
from diffbench.diffusion.core.returned import check_like
from diffbench.diffusion.denoisers.denoiser import Wrapper
from diffbench.diffusion.solvers.loop import Solver, sample, solve
from diffbench.specs.processes import ProcessSpec
from diffbench.specs.registry import build
from diffbench.specs.solvers import DDIMSpec, HeunSpec, ODESpec, SolverSpec

#: Solvers of one float64 problem on two data ranges differ by rounding, magnified by the steps: 1e-9 in the tests.
EQUAL = 1e-6
#: The batch whose noise has exact moments: at most as many draws of one pixel less one.
BATCH = 512
#: How far mean and std of the samples may be from the data's, in the data's std: the prior of VE lacks the data's
#: variance, and 100 steps of DDPM with the posterior's variance lose a tenth.
FAR, STEPS = 0.2, 100
#: By how much a measured order may fall short: at 48 steps the next term of the error adds about a third.
SHORT = 0.4
#: An error that is only rounding and the end of the series: no order can be seen in it.
TINY = 1e-6


def usual(spec: SolverSpec) -> SolverSpec:
    """The solver without a threshold, which would bend Gaussian data, and without guidance, which needs labels."""
    return spec.model_copy(update={"threshold": "none", "w": None, "classifier_scale": None})


def with_steps(spec: SolverSpec, steps: int) -> SolverSpec:
    """The solver with another number of steps, if it has one."""
    return spec.model_copy(update={"steps": steps} if "steps" in type(spec).model_fields else {})


def on(spec: SolverSpec, process: ProcessSpec) -> Solver:
    """The solver on a process, around the denoiser that stands for a model."""
    solver: Solver = build(usual(spec), data_denoiser(made(process)))
    return solver


def built(spec: SolverSpec) -> Solver:
    """The solver on the first process that it serves."""
    return on(spec, served(spec))


def gaussian(spec: SolverSpec) -> Solver:
    """The solver of one Gaussian pixel, in continuous time where it can be."""
    known = (*processes(), *beside(spec, ProcessSpec))
    candidates = [each for each in known if each.family == "gaussian" and each.alpha == "scalar"]
    process = made(served(spec, candidates), PIXEL)
    unless(process.spec.noise == "constant", "its process has noise that does not grow")
    solver: Solver = build(usual(spec), GaussianData(process))
    return solver


def middle_step(solver: Solver) -> tuple[Tensor, Tensor]:
    """The times of a step in the middle of the grid, or of its only step."""
    times = solver.times()
    at = (len(times) - 1) // 2
    return times[at], times[at + 1]


def state(solver: Solver, dtype: torch.dtype = torch.float64) -> Tensor:
    """A state at the time of that step, images (3, C, H, W)."""
    t, _ = middle_step(solver)
    noise = float(solver.process.sigma(t)) * normal((3, *SHAPE), 2, dtype)
    return solver.process.constrain(solver.process.spec.middle + noise)


def some_noise(x: Tensor) -> Tensor:
    """Standard normal noise that is the same at every call."""
    return normal(tuple(x.shape), 3, x.dtype)


@law(SolverSpec, "levels of the grid", "t_max >= t_0 > t_1 > .. > t_n >= data_time, float64")
def grid(spec: SolverSpec) -> None:
    """Time runs from noise to data, inside the range of the process."""
    served(spec)
    for each in (*processes(), *beside(spec, ProcessSpec)):
        if spec.refusal(process=each) is None:
            refuse_levels(on(spec, each))


def refuse_levels(solver: Solver) -> None:
    """Refuse times that do not fall, or are outside the range of the process."""
    process, times = solver.process, solver.times()
    demand(
        times.ndim == 1 and len(times) > 1 and times.dtype == torch.float64,
        f"times() returned {times.dtype} {tuple(times.shape)}",
    )
    for i, (t, s) in enumerate(pairwise(times.tolist())):
        demand(t > s, f"the grid is reversed: t_{i} = {t:.4g} is not above t_{i + 1} = {s:.4g}")
    refuse_other_levels(
        process, times[times != process.data_time], f"levels out of range on {process.spec.name}"
    )


@law(SolverSpec, "shapes and dtypes", "x_s has the shape and the dtype of x_t")
def shapes(spec: SolverSpec) -> None:
    """A float64 coefficient meets float32 images without changing them."""
    solver = built(spec)
    x = state(solver, torch.float32)
    solver.begin()
    check_like(solver.step(x, *middle_step(solver), UNCONDITIONAL, some_noise), x, "step")
    check_like(solver.draw(x, generator()), x, "draw")
    check_like(solver.returned(x), x, "returned")


class Moved(Wrapper):
    """A denoiser whose predicted image, and with it its score, is moved by a little."""

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Prediction:
        told = self.denoiser(x_t, t, condition)
        return told.with_x0(told.x0 + 0.1 * self.process.spec.half_range)


@law(SolverSpec, "the sign of the score", "d x_s/d x0(x_t) > 0: a step goes along +score")
def sign(spec: SolverSpec) -> None:
    """A step moves the state towards the image that is predicted."""
    plain = gaussian(spec)
    unless(spec.accuracy == 0, "its steps do not lead from one level to the next")
    pushed = build(usual(spec), Moved(plain.denoiser))
    t, s = middle_step(plain)
    x = state(plain)[:, :, :1, :1]
    ends = []
    for solver in (plain, pushed):
        solver.begin()
        ends.append(solver.step(x, t, s, UNCONDITIONAL, torch.zeros_like))
    gain = float((ends[1] - ends[0]).mean())
    demand(
        gain > 0,
        f"the sign of the score is wrong: with E[x_0|x_t] raised by 0.1, x_s changes by {gain:.3g}",
    )


@law(SolverSpec, "a step to the data returns x_0", "x_s = E[x_0 | x_t] at s = data_time")
def arrives(spec: SolverSpec) -> None:
    """The last step has nothing left to weigh."""
    solver = built(spec)
    times = solver.times()
    unless(
        float(times[-1]) != solver.process.data_time, f"its grid ends at t = {float(times[-1]):.3g}"
    )
    unless("x0" not in solver.process.spec.views, f"{solver.process.spec.name} has no view x0")
    unless(spec.raises_noise, "a step starts from more noise than x_t has")
    t, s, x = times[-2], times[-1], state(solver)
    solver.begin()
    end = solver.step(x, t, s, UNCONDITIONAL, torch.zeros_like)
    error = apart(end, solver.denoiser(x, t, UNCONDITIONAL).x0)
    demand(error < EQUAL, f"x_s differs from E[x_0|x_t] by {error:.3g}")


@law(SolverSpec, "noise at the last step is zero", "x(data_time) does not depend on z")
def silent(spec: SolverSpec) -> None:
    """Noise that no later step can take away stays in the image."""
    solver = built(spec)
    times = solver.times()
    t, s = times[-2], times[-1]
    unless(
        float(s) != solver.process.data_time,
        f"its grid ends at t = {float(s):.3g}, not at the data",
    )
    unless(spec.raises_noise, "a step takes away the noise that it adds")
    x = state(solver)
    ends = []
    for noise in (torch.zeros_like, some_noise):
        solver.begin()
        ends.append(solver.step(x, t, s, UNCONDITIONAL, noise))
    demand(
        torch.equal(*ends), f"the last step adds noise: x_s differs by {apart(*ends):.3g} with z"
    )


@law(
    SolverSpec,
    "a seed gives the same images",
    "sample(seed) = sample(seed): all noise is the generator's",
)
def repeats(spec: SolverSpec) -> None:
    """The second path is of the same solver, which must have forgotten the first."""
    solver = built(spec)
    refuse_randomness(
        lambda: sample(solver, (2, *SHAPE), generator()), "two samples from one seed differ by {}"
    )


@law(SolverSpec, "inputs are not changed in place", "step(x_t) leaves x_t as it was")
def leaves(spec: SolverSpec) -> None:
    """Whoever watches the path, or steps twice, sees the state as it was."""
    solver = built(spec)
    x = state(solver)
    kept = x.clone()
    solver.begin()
    solver.step(x, *middle_step(solver), UNCONDITIONAL, some_noise)
    demand(torch.equal(x, kept), f"step changes x_t in place, by {apart(x, kept):.3g}")


def moments(x: Tensor, spec: ProcessSpec) -> tuple[float, float]:
    """Mean, minus the middle, and standard deviation over all numbers, in half widths of the range."""
    centred = (x - spec.middle) / spec.half_range
    return float(centred.mean()), float(centred.std(correction=0))


@torch.no_grad()
def error_of(solver: Solver, steps: int) -> float:
    """The error of mean and standard deviation after ``steps`` steps between sigma/alpha = 2 and 0.3.

    Both ends have the exact Gaussian marginals, so that all of the error is the steps'.
    """
    process, columns = solver.process, Columns()
    unit = process.spec.half_range
    first, last = process.time_of(unit * float64([2.0, 0.3])).tolist()
    times = torch.linspace(first, last, steps + 1, dtype=torch.float64)
    denoiser = GaussianData(process)
    z = columns(torch.zeros(BATCH, *PIXEL, dtype=torch.float64))
    mean, variance = denoiser.marginal(times[0], PIXEL)
    x = solve(solver, process.placed(mean + variance.sqrt() * z), UNCONDITIONAL, columns, times)
    mean, variance = denoiser.marginal(times[-1], PIXEL)
    got, width = moments(x, process.spec)
    return math.hypot(got - float(mean) / unit, width - float(variance.sqrt()) / unit)


@law(
    SolverSpec,
    "an analytic Gaussian is followed with the order it states",
    "q(x_t) = N(alpha m, alpha^2 s^2 + sigma^2) at every t; error ~ steps^-accuracy",
)
def converges(spec: SolverSpec) -> None:
    """More steps come nearer to the exact marginal, as fast as ``accuracy`` says.

    The times are not those of the solver's grid: a step may depend on its two times, and on the steps before it.
    """
    unless(spec.accuracy == 0, "its steps do not lead from one level to the next")
    plain = spec.model_copy(update={"corrector": None})
    solver = gaussian(plain)
    unless(solver.process.spec.time == "discrete", "a chain has no shorter steps")
    if spec.adaptive:
        error = error_of(solver, 1)
        demand(error < 1e-3, f"it chooses its steps, and mean and std are wrong by {error:.2g}")
        return
    errors = [error_of(gaussian(with_steps(plain, steps)), steps) for steps in (24, 48, 96)]
    told = ", ".join(f"{each:.2g}" for each in errors)
    demand(errors[-1] < 0.05, f"after 24, 48, 96 steps mean and std are wrong by {told}")
    if errors[-1] < TINY:
        return
    order = math.log2(errors[1] / errors[2])
    demand(
        order > spec.accuracy - SHORT,
        f"after 24, 48, 96 steps the error is {told}: order {order:.1f}, but it states {spec.accuracy}",
    )


@torch.no_grad()
def drawn(solver: Solver) -> tuple[float, float]:
    """The mean and the standard deviation of images, drawn with noise of exact moments."""
    columns = Columns()
    shape = PIXEL if solver.process.spec.alpha == "scalar" else SHAPE
    z = columns(torch.zeros(BATCH, *shape, dtype=torch.float64))
    x = solver.returned(solve(solver, solver.draw(z, generator()), UNCONDITIONAL, columns))
    return moments(x, solver.process.spec)


def refuse_other_data(solver: Solver, far: float) -> None:
    """Refuse samples that are not of the Gaussian that the denoiser knows."""
    mean, width = drawn(solver)
    demand(
        abs(mean - MEAN) < far * STD and abs(width - STD) < far * STD,
        f"samples have mean {mean:.3g} and std {width:.3g}; the data have {MEAN:g} and {STD:g}",
    )


@law(SolverSpec, "a Gaussian is recovered from the prior", "samples ~ N(m, s^2), the data's")
def recovers(spec: SolverSpec) -> None:
    """From the first time of its own grid to the last."""
    unless(spec.accuracy == 0, "its steps do not lead from one level to the next")
    refuse_other_data(gaussian(with_steps(spec, STEPS)), FAR)


@law(
    ProcessSpec,
    "a Gaussian is recovered on it",
    "x_T ~ prior, dx = [f x - g^2/2 score] dt => x_0 ~ N(m, s^2)",
)
def recovers_on(spec: ProcessSpec) -> None:
    """A second-order solver, in time where there are rates, brings the prior to the data."""
    unless(spec.family != "gaussian", f"it is {spec.family}: the marginals are not Gaussian")
    unless(spec.noise == "constant", "its noise is the same at every level")
    solvers: list[SolverSpec] = [
        ODESpec(steps=60, method="heun", grid="karras"),
        HeunSpec(steps=40),
        DDIMSpec(steps=50),
    ]
    served_by = [each for each in solvers if each.refusal(process=spec) is None]
    unless(not served_by, "no deterministic solver serves it")
    process = made(spec, PIXEL if spec.alpha == "scalar" else SHAPE)
    for each in served_by[:2]:
        refuse_other_data(build(each, GaussianData(process)), 0.1)


@law(SolverSpec, "labels are used", "x_s(x_t, y) depends on y where the denoiser's answer does")
def labels(spec: SolverSpec) -> None:
    """The condition of a step reaches the denoiser."""
    solver = gaussian(spec)
    unless(spec.accuracy == 0, "its steps do not ask the denoiser")
    x, times = state(solver)[:, :, :1, :1], middle_step(solver)
    ends = []
    for label in (0, 2):
        solver.begin()
        ends.append(solver.step(x, *times, labelled(label, len(x)), torch.zeros_like))
    demand(not torch.equal(*ends), "the label is ignored: x_s is the same for labels 0 and 2")


@law(
    SolverSpec,
    "a change of the data range changes samples affinely",
    "x' = m' + r (x - m) on [low', high']",
)
def ranged(spec: SolverSpec) -> None:
    """Constants of a solver are for data in [-1, 1], whatever the process's range."""
    spec = usual(spec)
    scaled = [
        each for each in processes("vp", "vp-cosine", "discrete") if each.family == "gaussian"
    ]
    here = served(spec, scaled)
    there = other_range(here)
    found = []
    for each in (here, there):
        solver = build(spec, GaussianData(made(each)))
        torch.manual_seed(0)
        found.append(sample(solver, (2, *SHAPE), generator(), dtype=torch.float64))
    error = apart(found[1], moved(found[0], here, there))
    demand(
        error < EQUAL, f"samples on {there.range} differ from those on {here.range} by {error:.3g}"
    )


@law(SolverSpec, "samples stay in the support", "low <= x <= high where the process has walls")
def support(spec: SolverSpec) -> None:
    """The images of a bounded process lie between its walls."""
    bounded = served(spec, [each for each in processes() if each.bounded])
    x = sample(on(spec, bounded), (8, *SHAPE), generator(), dtype=torch.float64)
    low, high = float(x.min()), float(x.max())
    demand(
        bounded.low - EQUAL <= low and high <= bounded.high + EQUAL,
        f"the support is left: samples reach [{low:.4g}, {high:.4g}], and data lie in {bounded.range}",
    )
