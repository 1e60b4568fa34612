r"""Laws of objectives and of distributions of training times.

An objective is right where the exact denoiser is its minimum.  Take one x_t that two images x_0 and x_0' may have led
to, equally likely.  Any weight that depends on t alone leaves

    d/dF [L(x_0) + L(x_0')] = 0     at     F = the mean of the two targets,

and a weight that depends on the image or on the noise moves this point.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffbench.conform.law import IdleError, demand, law
from diffbench.conform.trial import (
    SHAPE,
    apart,
    generator,
    images,
    made,
    middle_time,
    moved,
    normal,
    other_range,
    processes,
    refuse_other_levels,
    refuse_randomness,
    served,
)
from diffbench.diffusion.core.condition import UNCONDITIONAL, Condition
from diffbench.diffusion.core.predictions import LENGTHS, Native, Prediction, Truth
from diffbench.diffusion.core.process import Process
from diffbench.diffusion.core.returned import check_rows
from diffbench.diffusion.denoisers.denoiser import Denoiser
from diffbench.diffusion.objectives.losses import Objective
from diffbench.diffusion.objectives.times import Times
from diffbench.specs.denoisers import DenoiserSpec, NetworkDenoiserSpec
from diffbench.specs.objectives import MixedTimesSpec, ObjectiveSpec, TimesSpec
from diffbench.specs.processes import ProcessSpec
from diffbench.specs.registry import build

EQUAL = 1e-6
#: Quantiles of training times, in the middle of equal parts.
QUANTILES = 20_000


class Answer(Denoiser):
    """A denoiser whose native quantity is given; it may depend on nothing but that."""

    def __init__(self, process: Process, native: Native, value: Tensor, learned: bool) -> None:
        super().__init__(process)
        self.native, self.value, self.learned = native, value, learned
        self.told: list[Condition] = []

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Prediction:
        self.told.append(condition)
        value = self.value.to(x_t.dtype).expand_as(x_t)
        fraction = torch.full_like(x_t, 0.3) if self.learned else None
        return Prediction(self.process, x_t, t, self.native, value, fraction)


def pairing(
    spec: ObjectiveSpec, candidates: list[ProcessSpec] | None = None
) -> tuple[Process, DenoiserSpec]:
    """The first process and denoiser that the objective serves.

    Raises:
        IdleError: with the last refusal.
    """
    reason: str | None = "there is no process"
    wanted: list[tuple[Native, str]] = [("eps", "fixed"), ("eps", "learned"), ("mean", "fixed")]
    for process in processes() if candidates is None else candidates:
        for view, variance in wanted:
            denoiser = NetworkDenoiserSpec.model_validate({"predict": view, "variance": variance})
            reason = denoiser.refusal(process=process) or spec.refusal(process, denoiser)
            if reason is None:
                return made(process), denoiser
    raise IdleError(str(reason))


def built(spec: ObjectiveSpec, denoiser: Denoiser) -> Objective:
    """The objective around a denoiser, for images of 17 grey levels."""
    process = denoiser.process
    times = build(spec.times, process)
    objective: Objective = build(spec, denoiser, times, process.spec.half_range / 8)
    return objective


def answers(process: Process, denoiser: DenoiserSpec) -> Answer:
    """A denoiser with some answer, the same on each data range."""
    value = 0.3 * normal((1, *SHAPE), 5)
    if LENGTHS[denoiser.native]:
        value = process.spec.middle + process.spec.half_range * value
    return Answer(process, denoiser.native, value, denoiser.learns_variance)


def losses(objective: Objective, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """Losses (B,) at one time."""
    return objective.losses(x0, t.expand(len(x0), 1, 1, 1), eps, UNCONDITIONAL)


@law(ObjectiveSpec, "shapes and dtypes", "one finite loss an image, (B,), in the dtype of x_0")
def shapes(spec: ObjectiveSpec) -> None:
    """A float64 weight meets float32 images without changing them."""
    process, denoiser = pairing(spec)
    objective = built(spec, answers(process, denoiser))
    x0 = images(process.spec, 4, dtype=torch.float32)
    eps = normal(x0.shape, 2, torch.float32)
    kept = x0.clone(), eps.clone()
    found = objective(x0, eps, generator())
    check_rows(found, (4,), "the objective")
    demand(found.dtype == x0.dtype, f"losses of float32 images are {found.dtype}")
    demand(found.isfinite().all(), f"losses are {found.tolist()}")
    same = torch.equal(x0, kept[0]) and torch.equal(eps, kept[1])
    demand(same, "it changes x_0 or eps in place")


@law(
    ObjectiveSpec,
    "the weight is unbiased: the minimum is the exact denoiser",
    "E[dL/dF | x_t] = 0 at F = E[target | x_t]: the weight depends on t alone",
)
def unbiased(spec: ObjectiveSpec) -> None:
    """Two images that lead to one x_t; the mean of their targets must be where the gradient vanishes."""
    process, denoiser = pairing(spec)
    t = middle_time(process)
    unit = process.spec.half_range
    x0 = process.spec.middle + unit * torch.stack(
        [torch.full(SHAPE, -0.35), torch.full(SHAPE, 0.3)]
    )
    x0 = x0.double()
    x_t = torch.full_like(x0, process.spec.middle + 0.1 * unit)
    mean = process.diffuse(x0, t, torch.zeros_like(x0))
    eps = (x_t - mean) / process.sigma(t)
    noise = process.noise_in(x_t, t, x0, eps)
    target = Truth(process, x_t, t, x0, noise).view(denoiser.native).mean(0, keepdim=True)

    def gradient(at: Tensor) -> Tensor:
        value = at.clone().requires_grad_()
        objective = built(spec, Answer(process, denoiser.native, value, denoiser.learns_variance))
        losses(objective, x0, t, eps).sum().backward()
        assert value.grad is not None
        return value.grad

    size = float(gradient(target + 0.1).abs().max())
    demand(size > 0, "the gradient is 0 everywhere: the loss does not depend on the prediction")
    left = float(gradient(target).abs().max()) / size
    demand(
        left < 1e-4,
        f"the weight is biased: at the posterior mean the gradient is {left:.3g} of that 0.1 away, and not 0",
    )
    demand(
        float((gradient(target + 0.1) * 0.1).sum()) > 0,
        "the loss falls away from the exact denoiser",
    )


@law(ObjectiveSpec, "an image's loss is its own", "L(x_i) is the same in every batch")
def separate(spec: ObjectiveSpec) -> None:
    """A weight that is normalised over a batch depends on the other images."""
    process, denoiser = pairing(spec)
    objective = built(spec, answers(process, denoiser))
    x0 = images(process.spec, 4)
    eps, t = normal(x0.shape, 2), middle_time(process)
    together = losses(objective, x0, t, eps)
    alone = torch.cat([losses(objective, x0[i : i + 1], t, eps[i : i + 1]) for i in range(4)])
    error = apart(alone, together)
    demand(
        error < EQUAL,
        f"the loss of an image alone differs by {error:.3g} from that in a batch of 4",
    )


@law(
    ObjectiveSpec,
    "the expectation is over the paper's times",
    "L = w(t) l(t), with the weight w of each time once",
)
def weighted(spec: ObjectiveSpec) -> None:
    """Times that are drawn more often count less, by as much."""
    process, denoiser = pairing(spec)
    mixed = MixedTimesSpec()
    drawn = (
        spec if mixed.refusal(process=process.spec) else spec.model_copy(update={"times": mixed})
    )
    objective = built(drawn, answers(process, denoiser))
    x0 = images(process.spec, 4)
    eps = normal(x0.shape, 2)
    draws = objective.draw(eps, generator())
    each = objective.losses(x0, draws.t[:, None, None, None], eps, UNCONDITIONAL)
    error = apart(objective(x0, eps, generator()), each * draws.importance)
    demand(error < EQUAL, f"the weights are biased: L differs from w(t) l(t) by {error:.3g}")


@law(ObjectiveSpec, "labels are used", "the denoiser is told the y of each image")
def labels(spec: ObjectiveSpec) -> None:
    """A conditional model is trained with its labels."""
    process, denoiser = pairing(spec)
    answering = answers(process, denoiser)
    x0, y = images(process.spec, 4), torch.tensor([0, 1, 2, 0])
    built(spec, answering)(x0, normal(x0.shape, 2), generator(), y)
    demand(answering.told, "the denoiser is not asked")
    ignored = [
        each for each in answering.told if each.label is None or not torch.equal(each.label, y)
    ]
    demand(not ignored, f"the label is ignored: for y = {y.tolist()} the denoiser is told another")


@law(
    ObjectiveSpec,
    "a seed gives the same losses",
    "L(seed) = L(seed): times and noise are the generator's",
)
def repeats(spec: ObjectiveSpec) -> None:
    """The draws of a step are a function of the seed."""
    process, denoiser = pairing(spec)
    x0 = images(process.spec, 4)
    eps = normal(x0.shape, 2)
    refuse_randomness(
        lambda: built(spec, answers(process, denoiser))(x0, eps, generator()),
        "losses of one seed differ by {}",
    )


@law(
    ObjectiveSpec, "a change of the data range leaves losses as they are", "L' = L on [low', high']"
)
def ranged(spec: ObjectiveSpec) -> None:
    """Squared errors are in units of the process."""
    process, denoiser = pairing(spec, processes("vp", "discrete"))
    here, there = process.spec, other_range(process.spec)
    x0 = images(here, 4)
    eps, t = normal(x0.shape, 2), middle_time(process)
    found = []
    for each in (here, there):
        objective = built(spec, answers(made(each), denoiser))
        found.append(losses(objective, moved(x0, here, each), t, eps))
    error = apart(found[1], found[0])
    demand(
        error < EQUAL, f"losses on {there.range} differ from those on {here.range} by {error:.3g}"
    )


def times_of(spec: TimesSpec) -> Times:
    """The distribution on the first process that it serves."""
    found: Times = build(spec, made(served(spec)))
    return found


@law(
    TimesSpec,
    "levels are in the range",
    "t_min <= t <= t_max, whole on a chain; float64 of u's shape",
)
def levels(spec: TimesSpec) -> None:
    """A network is trained where it will be asked."""
    times = times_of(spec)
    process = times.process
    t, weight = times.quantile(torch.linspace(0, 1 - 1e-9, 501, dtype=torch.float64))
    right = t.shape == weight.shape == (501,) and t.dtype == weight.dtype == torch.float64
    demand(
        right, f"quantile returned {t.dtype} {tuple(t.shape)}, {weight.dtype} {tuple(weight.shape)}"
    )
    refuse_other_levels(process, t, "levels out of range")


@law(
    TimesSpec,
    "the weights of the times are unbiased",
    "E[w(t)] = 1: the expectation is that of the paper's times",
)
def weights(spec: TimesSpec) -> None:
    """Importance sampling changes the gradient's variance, not its mean."""
    times = times_of(spec)
    u = (torch.arange(QUANTILES, dtype=torch.float64) + 0.5) / QUANTILES
    mean = float(times.quantile(u)[1].mean())
    demand(abs(mean - 1) < 0.01, f"the weights are biased: E[w] is {mean:.4g}")


@law(TimesSpec, "state survives", "load(state()) => the same draws")
def survives(spec: TimesSpec) -> None:
    """A resumed training draws what the whole one would have drawn."""
    times, again = times_of(spec), times_of(spec)
    for seed in range(40):
        t, _ = times.draw(64, generator(seed))
        times.update(t, 1 + t.abs())
    again.load({name: each.clone() for name, each in times.state().items()})
    drawn = [each.draw(64, generator(1)) for each in (times, again)]
    same = all(torch.equal(a, b) for a, b in zip(*drawn, strict=True))
    demand(same, "after load the draws of one seed differ")


@law(TimesSpec, "a seed gives the same times", "draw(seed) = draw(seed)")
def times_repeat(spec: TimesSpec) -> None:
    """All numbers come from the generator."""
    refuse_randomness(
        lambda: times_of(spec).draw(16, generator())[0], "times of one seed differ by {}"
    )
