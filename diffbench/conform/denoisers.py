r"""Laws of denoisers: the views of a prediction, labels, and what an exact denoiser must answer."""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor

from diffbench.conform.law import demand, law, unless
from diffbench.conform.trial import (
    CLASSES,
    apart,
    denoiser_of,
    images,
    labelled,
    made,
    middle_time,
    moved,
    normal,
    other_range,
    processes,
    served,
    training_images,
)
from diffbench.diffusion.core.predictions import Native, Prediction
from diffbench.diffusion.core.process import Process, cast, float64
from diffbench.diffusion.core.returned import check_like
from diffbench.diffusion.denoisers.denoiser import Denoiser
from diffbench.specs.denoisers import DenoiserSpec

#: Views of one prediction, in float64: rounding, magnified by 1/(alpha sigma), at most 1e4 at the times below.
EQUAL = 1e-6


def built(spec: DenoiserSpec) -> Denoiser:
    """The denoiser on the first process that it serves."""
    return denoiser_of(spec, made(served(spec)))


def states(process: Process, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Noisy images (4, C, H, W) at that time, and the time."""
    t = middle_time(process)
    x0 = images(process.spec, 4, dtype=dtype)
    return process.diffuse(x0, t, normal(x0.shape, 2, dtype)), t


def views_of(process: Process) -> list[Native]:
    """The views that a prediction has: the mean is that of the level before, so that a chain alone has it."""
    whole = process.spec.time == "discrete"
    return [
        each
        for each in get_args(Native)
        if each in process.spec.views and (whole or each != "mean")
    ]


@law(
    DenoiserSpec,
    "shapes and dtypes",
    "a prediction has the shape and the dtype of x_t, in every view",
)
def shapes(spec: DenoiserSpec) -> None:
    """A float64 coefficient meets float32 images without changing them."""
    denoiser = built(spec)
    x, t = states(denoiser.process, torch.float32)
    told = denoiser(x, t)
    for name in views_of(denoiser.process):
        check_like(told.view(name), x, f"the view {name}")


@law(
    DenoiserSpec,
    "views of a prediction agree",
    "x_t - m = alpha (x0 - m) + sigma eps, score = -eps/sigma, v = (alpha eps - rho (x0 - m))/k",
)
def views(spec: DenoiserSpec) -> None:
    """Every solver may ask for another view of one answer."""
    denoiser = built(spec)
    process = denoiser.process
    x, t = states(process)
    told = denoiser(x, t)
    have = views_of(process)
    unless(len(have) < 2, f"{process.spec.name} has one view")
    plain = Prediction(process, x, t, told.native, told.value)
    alpha, sigma, scale = cast(process.alpha(t), x), cast(process.sigma(t), x), process.basis.scale
    if "x0" in have:
        rebuilt = process.placed(scale(alpha, process.centred(told.x0)) + sigma * told.eps)
        refuse(rebuilt, x, "alpha x0 + sigma eps", "x_t")
    if "score" in have:
        refuse(told.score, -told.eps / sigma, "score", "-eps/sigma")
    for name in have:
        refuse(told.view(name), plain.view(name), name, f"{name} of the native {told.native}")


def refuse(got: Tensor, want: Tensor, what: str, by: str) -> None:
    """Refuse two views that differ."""
    error = apart(got, want)
    opposite = "; its sign is wrong" if apart(got, -want) < EQUAL <= error else ""
    demand(error < EQUAL, f"{what} differs from {by} by {error:.3g}{opposite}")


@law(
    DenoiserSpec,
    "the same answer twice, and inputs as they were",
    "D(x_t, t) is a function that changes nothing",
)
def pure(spec: DenoiserSpec) -> None:
    """Solvers ask at one state more than once."""
    denoiser = built(spec)
    x, t = states(denoiser.process)
    kept = x.clone()
    first, again = denoiser(x, t).value, denoiser(x, t).value
    demand(torch.equal(x, kept), "it changes x_t in place")
    demand(torch.equal(first, again), f"two answers differ by {apart(first, again):.3g}")
    alone = denoiser(x[:1], t).value
    error = apart(alone, first[:1])
    demand(error < EQUAL, f"an image's answer depends on the rest of the batch, by {error:.3g}")


@law(DenoiserSpec, "labels are used", "D(x_t, t, y) depends on y; y = classes is the null class")
def labels(spec: DenoiserSpec) -> None:
    """A conditional denoiser is told the class."""
    unless(not spec.takes_labels, "it is unconditional")
    denoiser = built(spec)
    x, t = states(denoiser.process)
    demand(
        denoiser.classes == CLASSES, f"classes is {denoiser.classes}, but it was given {CLASSES}"
    )
    first, other, null = (denoiser(x, t, labelled(y, len(x))).value for y in (0, 2, CLASSES))
    used = not torch.equal(first, other) and not torch.equal(first, null)
    demand(used, "the label is ignored: the answer is the same for labels 0 and 2, or for none")


@law(
    DenoiserSpec,
    "an exact denoiser is the posterior mean",
    "E[x_0 | x_T] = E[x_0] at the most noise, and x_0 at the least",
)
def exact(spec: DenoiserSpec) -> None:
    """Both ends are known whatever the data are."""
    unless(spec.trained, "it is trained: its answer is not known")
    denoiser = built(spec)
    process = denoiser.process
    unless("x0" not in process.spec.views, f"{process.spec.name} has no view x0")
    x0, _ = training_images(process.spec)
    x0 = x0.double()
    t = float64(process.t_max)
    # The signal that is left moves the mean by alpha s^2/sigma of the data's, below 1 % on the papers' processes.
    found = denoiser(process.diffuse(x0, t, normal(x0.shape, 2)), t).x0
    error = float((found - x0.mean(0)).abs().max()) / process.spec.half_range
    demand(error < 0.1, f"at the most noise E[x_0|x_t] is {error:.3g} from the mean of the data")
    t = float64(process.time_of(float64(1e-2 * process.spec.half_range)))
    found = denoiser(process.diffuse(x0, t, torch.zeros_like(x0)), t).x0
    error = float((found - x0).abs().max()) / process.spec.half_range
    demand(error < 0.1, f"at noise 0.01 E[x_0|x_t] is {error:.3g} from x_0")


@law(
    DenoiserSpec,
    "the sign of the score",
    "score = grad ln q(x_t): (x_t - E[x_t]) . score < 0 at the most noise",
)
def sign(spec: DenoiserSpec) -> None:
    """Far from the data the score points back to them."""
    unless(spec.trained, "it is trained: its answer is not known")
    denoiser = built(spec)
    process = denoiser.process
    unless("score" not in process.spec.views, f"{process.spec.name} has no view score")
    x0, _ = training_images(process.spec)
    at = middle_time(process, 0.5)
    x = process.diffuse(x0.double(), at, normal(x0.shape, 2))
    score = denoiser(x, at).score
    slope = float(((x - x.mean(0)) * score).mean())
    demand(
        slope < 0,
        f"the sign of the score is wrong: (x_t - E[x_t]) . score is {slope:.3g}, must be below 0",
    )


@law(
    DenoiserSpec,
    "a change of the data range changes answers affinely",
    "x0'(x') = m' + r (x0(x) - m): a network sees and is told the same",
)
def ranged(spec: DenoiserSpec) -> None:
    """Data in [0, 1] are data in [-1, 1], moved."""
    here = served(spec, processes("vp", "discrete"))
    there = other_range(here)
    unless("x0" not in here.views, f"{here.name} has no view x0")
    x, t = states(made(here))
    answers = [denoiser_of(spec, made(each))(moved(x, here, each), t).x0 for each in (here, there)]
    error = apart(answers[1], moved(answers[0], here, there))
    demand(error < 1e-5, f"x0 on {there.range} differs from x0 on {here.range} by {error:.3g}")
