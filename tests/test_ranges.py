r"""The law of data ranges: on another range, x' = m' + r (x - m) with r the ratio of the widths, a process whose own
constants are mapped gives the mapped samples, restorations and latents, the same losses and bits, and densities that
differ by D ln r.  What papers state for [-1, 1] stays as it is.  Networks see, and are told, the same.

Here a process is on its paper's range, and there on another.  Everything is float64, and both sides do the same
operations on numbers that differ by an affine map: rounding of 1e-16 passes through some 30 steps, which magnify it by
no more than the largest number on the way where they are not stable (``test_must_run``): 1e-9 of the largest number is
asked, or of 1.

EDM's time is its noise level, so that rates are per unit of length there: ``weight: likelihood`` is one, and the first
step that a step size control tries (Hairer's rule) adds one and its square.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from test_must_run import SERVED, own, solver_of
from torch import Tensor
from toys import chosen_process, close, float64, mixture_denoiser, process_of

from diffbench.data.grey_levels import GreyLevels
from diffbench.diffusion.core.condition import UNCONDITIONAL, Condition
from diffbench.diffusion.core.predictions import Prediction
from diffbench.diffusion.core.process import Process
from diffbench.diffusion.denoisers.denoiser import Counted, Denoiser
from diffbench.diffusion.denoisers.exact import ReflectedMixtureDenoiser
from diffbench.diffusion.denoisers.guidance import Classifier
from diffbench.diffusion.denoisers.network import NetworkDenoiser
from diffbench.diffusion.inverse.restorers.restorer import Measurement
from diffbench.diffusion.likelihoods.ode import ODELikelihood
from diffbench.diffusion.solvers.encoding import encode
from diffbench.diffusion.solvers.loop import sample, solve
from diffbench.specs.denoisers import DenoiserSpec, MixtureSpec, ReflectedEmpiricalSpec
from diffbench.specs.likelihoods import LikelihoodSpec, ODELikelihoodSpec
from diffbench.specs.objectives import ObjectiveSpec, TimesSpec
from diffbench.specs.operators import OperatorSpec
from diffbench.specs.processes import RANGES, ProcessSpec
from diffbench.specs.registry import build
from diffbench.specs.restorers import RestorerSpec
from diffbench.specs.solvers import HeunSpec, SolverSpec

SHAPE = (3, 1, 2, 2)
#: Constants of processes that are lengths in units of their range.
OWN = {
    "ve": ("sigma_min", "sigma_max"),
    "reflected": ("sigma_min", "sigma_max"),
    "edm": ("sigma_min", "sigma_max"),
    "ihdm": ("sigma",),
}
PROCESSES = own(ProcessSpec)
every_process = pytest.mark.parametrize("name", PROCESSES)


class Pair:
    """A process here and there, and what is the same on both sides."""

    def __init__(
        self, spec: ProcessSpec, low: float, high: float, shape: tuple[int, ...] = SHAPE
    ) -> None:
        self.spec, self.shape = spec, shape
        self.low, self.high = low, high
        self.ratio = (high - low) / (spec.high - spec.low)
        constants = {key: self.ratio * getattr(spec, key) for key in OWN.get(spec.name, ())}
        # Not validated: the law holds on ranges that no paper has.
        self.moved = spec.model_copy(update={"low": low, "high": high, **constants})
        images = spec.low + (spec.high - spec.low) * uniform((5, *shape[1:]), 3)
        self.here = self.process(spec, images)
        self.there = self.process(self.moved, self.map(images))

    def process(self, spec: ProcessSpec, images: Tensor) -> Process:
        facts = {"image_shape": self.shape[1:], "images": images}
        return build(spec, **{name: facts[name] for name in spec.facts})

    @property
    def sides(self) -> tuple[Process, Process]:
        return self.here, self.there

    def map(self, x: Tensor) -> Tensor:
        middle = (self.spec.low + self.spec.high) / 2
        return (self.low + self.high) / 2 + self.ratio * (x - middle)

    def data(self, seed: int = 4) -> Tensor:
        return self.spec.low + (self.spec.high - self.spec.low) * uniform(self.shape, seed)

    def agree(self, here: Tensor, there: Tensor) -> None:
        scale = max(1.0, float(there.abs().max()), float(here.abs().max()))
        close(there, self.map(here), rtol=0, atol=1e-9 * scale)


def uniform(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.rand(shape, generator=generator(seed), dtype=torch.float64)


def generator(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def other_range(spec: ProcessSpec) -> tuple[float, float]:
    """The other one that papers use."""
    (chosen,) = (each for each in RANGES if each != (spec.low, spec.high))
    return chosen


def ranges(spec: ProcessSpec) -> list[tuple[float, float]]:
    return [other_range(spec), (-3.0, 2.0)]


def pair_of(name: str, **parameters: object) -> Pair:
    spec = chosen_process(name)
    spec = ProcessSpec.choose({**spec.model_dump(), **parameters})
    return Pair(spec, *other_range(spec))


class ToyNetwork:
    """A smooth function of all that a network sees and is told, with as many outputs as are asked for."""

    def __init__(self, outputs: int) -> None:
        self.outputs = outputs

    def __call__(
        self, seen: Tensor, c_noise: Tensor, y: Tensor | None, raw: Tensor, *_: Tensor
    ) -> Tensor:
        level = c_noise.reshape(-1, 1, 1, 1).tanh()
        size = (raw / (1 + raw.abs())).abs()
        parts = [
            0.3 * seen * (level + k).cos() + 0.1 * (seen + size).sin() for k in range(self.outputs)
        ]
        return torch.cat([part[:, : raw.shape[1]] for part in parts], dim=1)


def network_of(process: Process, **given: object) -> Denoiser:
    spec = DenoiserSpec.choose({"name": "network", **given})
    return build(spec, process, ToyNetwork(spec.outputs))


def parameterisations(spec: ProcessSpec) -> Iterator[DenoiserSpec]:
    """Every denoiser of a network that serves the process."""
    for predict in ("eps", "x0", "v", "score", "mean", "edm"):
        for skip in ("none", "edm", "residual", "addition"):
            for options in ({}, {"input_scale": "none", "noise_input": "log-sigma"}):
                yield DenoiserSpec.choose({"predict": predict, "skip": skip, **options})
    for name in ("gated", "kernel-mixture"):
        yield DenoiserSpec.choose({"name": name})


def denoisers() -> Iterator[object]:
    for name in PROCESSES:
        for spec in parameterisations(chosen_process(name)):
            # The mean of blur is what its process predicts; the logarithm of a constant noise says nothing.
            if spec.refusal(chosen_process(name)) is None:
                words = [str(value) for value in spec.model_dump(exclude_defaults=True).values()]
                yield pytest.param(name, spec, id="-".join([name, spec.name, *words]))


def usual(process: Process) -> Denoiser:
    """The one that stands for a trained model on a process."""
    spec = process.spec
    if spec.family == "reflected":
        return build(DenoiserSpec.choose("gated"), process, ToyNetwork(1))
    if spec.noise == "constant":
        return network_of(process, predict="mean", skip="residual")
    return network_of(process, predict="eps", skip="edm")


def times_of(pair: Pair) -> list[tuple[Tensor, Tensor]]:
    """Three times, here and there: the same but for EDM's, which are noise levels."""
    here = pair.here.spec
    scale = pair.ratio if here.name == "edm" else 1.0
    shares = float64([0.2, 0.5, 1.0])
    times = here.t_min + shares * (here.t_max - here.t_min)
    times = times.round() if here.time == "discrete" else times
    return [(t, scale * t) for t in times]


# A denoiser's predictions, and what becomes of data.


@pytest.mark.parametrize(("name", "spec"), list(denoisers()))
def test_predictions_are_mapped(name: str, spec: DenoiserSpec) -> None:
    for low, high in ranges(chosen_process(name)):
        pair = Pair(chosen_process(name), low, high)
        x0, noise = pair.data(), 2 * uniform(SHAPE, 6) - 1
        for t, t_there in times_of(pair):
            x = pair.here.diffuse(x0, t, noise)
            x_there = pair.there.diffuse(pair.map(x0), t_there, noise)
            pair.agree(x, x_there)
            here, there = (
                build(spec, process, ToyNetwork(spec.outputs))(each, time)
                for process, each, time in ((pair.here, x, t), (pair.there, x_there, t_there))
            )
            views_agree(pair, here, there)


def views_agree(pair: Pair, here: Prediction, there: Prediction) -> None:
    for view in pair.spec.views:
        if view == "mean" and pair.spec.time != "discrete":
            continue
        got, want = there.view(view), here.view(view)
        if view in ("x0", "mean"):
            pair.agree(want, got)
            continue
        want = want / pair.ratio if view == "score" else want
        close(got, want, rtol=0, atol=1e-9 * max(1.0, float(want.abs().max())))


@every_process
def test_the_prior_is_mapped(name: str) -> None:
    pair = pair_of(name)
    if pair.spec.noise == "constant":
        close(
            pair.there.prior_means(pair.map(pair.data())),
            pair.map(pair.here.prior_means(pair.data())),
        )
        return
    z = uniform(SHAPE, 7) - 0.5
    x, x_there = (process.prior_sample(z) for process in pair.sides)
    pair.agree(x, x_there)
    dims = math.prod(SHAPE[1:])
    want = pair.here.prior_log_prob(x) - dims * math.log(pair.ratio)
    close(pair.there.prior_log_prob(x_there), want)


def test_ves_prior_is_about_the_middle_or_its_centre() -> None:
    z = torch.zeros(1, 1, 1, 1).double()
    for parameters, want in (
        ({}, 0.5),
        ({"centre": 0}, 0.0),
        ({"low": -1}, 0.0),
        ({"centre": 2}, 2.0),
    ):
        process = process_of("ve", **parameters)
        assert float(process.prior_sample(z)) == float(process.start(float64(0.3), z)) == want


# Samples.


def served() -> Iterator[object]:
    for each in SERVED:
        process, name, settings = each.values
        if (process, name) == ("edm", "ode-adaptive"):
            # On another path, see above: ``test_an_adaptive_path_is_the_same_to_its_tolerance``.
            continue
        if "corrector" in settings and name not in ("euler-maruyama", "langevin", "heun"):
            continue
        yield pytest.param(process, name, settings, id=each.id)
        if name == "euler-maruyama" and settings:
            yield pytest.param(
                process, name, {"corrector": {"step_size": 1e-3}}, id=f"{each.id}-step"
            )
    thresholds = [
        (
            "heun",
            {
                "churn": 3.0,
                "churn_min": 0.05,
                "churn_max": 20.0,
                "sigma_min": 0.03,
                "sigma_max": 60.0,
            },
        ),
        ("heun", {"threshold": "static"}),
        ("ddim", {"threshold": "dynamic", "percentile": 0.6}),
        ("dpm-solver++", {"sigma_min": 0.03, "threshold": "static"}),
    ]
    for name, settings in thresholds:
        for process in PROCESSES:
            if solver_of(name, process, **settings).refusal(chosen_process(process)) is None:
                yield pytest.param(process, name, settings, id="-".join([process, name, *settings]))
    for settings in ({"bump": 200.0}, {"method": "euler"}):
        yield pytest.param("reflected", "ode", settings, id=f"reflected-ode-{settings}")
    for name in ("euler-maruyama", "reverse-diffusion"):
        yield pytest.param("reflected", name, {"walls": "project"}, id=f"reflected-{name}-project")


@pytest.mark.parametrize(("process", "name", "settings"), list(served()))
def test_samples_are_mapped(process: str, name: str, settings: dict) -> None:
    spec = solver_of(name, process, **settings)
    for low, high in ranges(chosen_process(process)):
        pair = Pair(chosen_process(process), low, high)
        assert spec.refusal(pair.moved) is None
        here, there = (
            sample(build(spec, usual(each)), SHAPE, generator(), dtype=torch.float64)
            for each in pair.sides
        )
        pair.agree(here, there)


def test_an_adaptive_path_is_the_same_to_its_tolerance() -> None:
    """Each of n steps may add 1e-8 (1 + |x|), x below 5 times 80, on either side."""
    pair, spec = (
        pair_of("edm"),
        SolverSpec.choose({"name": "ode-adaptive", "rtol": 1e-8, "atol": 1e-8}),
    )
    found, steps = [], 0.0
    for process in pair.sides:
        denoiser = Counted(usual(process))
        found.append(sample(build(spec, denoiser), SHAPE, generator(), dtype=torch.float64))
        steps += denoiser.calls / 6
    close(found[1], pair.map(found[0]), rtol=0, atol=steps * 1e-8 * 400)


@pytest.mark.parametrize("name", ["vp", "ve", "edm", "discrete", "reflected", "blurring"])
def test_guided_samples_are_mapped(name: str) -> None:
    """By a classifier, which sees the same, and by labels."""
    solver = "euler-maruyama" if name == "reflected" else "ddim"
    pair = pair_of(name)
    spec = solver_of(solver, name, classifier_scale=2.0)
    results = []
    for process in pair.sides:
        classifier = Classifier(process, two_classes, 2)
        built = build(spec, usual(process), classifier)
        y = torch.tensor([0, 1, 0])
        results.append(sample(built, SHAPE, generator(), Condition(y), dtype=torch.float64))
    pair.agree(*results)


def two_classes(x: Tensor, c_noise: Tensor) -> Tensor:
    total = x.flatten(1).sin().sum(1) * c_noise.tanh()
    return torch.stack([total, -total], dim=1)


@pytest.mark.parametrize("name", [each for each in PROCESSES if each != "ihdm"])
def test_latents_are_mapped(name: str) -> None:
    pair, solver = pair_of(name), "ode" if name == "reflected" else "ddim"
    spec = solver_of(solver, name)
    here, there = (build(spec, usual(process)) for process in pair.sides)
    z, z_there = encode(here, pair.data()), encode(there, pair.map(pair.data()))
    pair.agree(z, z_there)
    pair.agree(
        solve(here, z, UNCONDITIONAL, torch.zeros_like),
        solve(there, z_there, UNCONDITIONAL, torch.zeros_like),
    )


def test_exact_denoisers_are_mapped() -> None:
    """A mixture, the training images themselves, and images between walls, from mapped tensors."""
    for name in ("vp", "ve", "edm", "discrete"):
        pair = pair_of(name)
        inner = mixture_denoiser(pair.here)
        tensors = {
            "weights": inner.tensors["weights"],
            "means": pair.map(inner.tensors["means"]),
            "covariances": pair.ratio**2 * inner.tensors["covariances"],
        }
        there = build(MixtureSpec(), pair.there, tensors)
        images = pair.data(8)
        empirical = DenoiserSpec.choose("empirical")
        known = build(empirical, pair.here, {"images": images})
        known_there = build(empirical, pair.there, {"images": pair.map(images)})
        for t, t_there in times_of(pair):
            x = pair.here.diffuse(pair.data(), t, uniform(SHAPE, 9) - 0.5)
            views_agree(pair, inner(x, t), there(pair.map(x), t_there))
            views_agree(pair, known(x, t), known_there(pair.map(x), t_there))


def test_the_exact_reflected_denoiser_is_mapped() -> None:
    pair = pair_of("reflected")
    tensors = {
        "weights": float64([0.6, 0.4]),
        "centres": uniform((2, 4), 10),
        "widths": float64([0.1, 0.2]),
    }
    mapped = {
        **tensors,
        "centres": pair.map(tensors["centres"]),
        "widths": pair.ratio * tensors["widths"],
    }
    here = ReflectedMixtureDenoiser(ReflectedEmpiricalSpec(), pair.here, tensors)
    there = ReflectedMixtureDenoiser(ReflectedEmpiricalSpec(), pair.there, mapped)
    for t, t_there in times_of(pair):
        x = pair.data()
        views_agree(pair, here(x, t), there(pair.map(x), t_there))
        want = here.log_prob(x, t) - 4 * math.log(pair.ratio)
        close(there.log_prob(pair.map(x), t_there), want)


# Losses.


def objectives() -> Iterator[object]:
    for name in PROCESSES:
        process = chosen_process(name)
        for objective, settings in (
            ("simple", {}),
            ("score-matching", {}),
            ("score-matching", {"weight": "likelihood"}),
            ("score-matching", {"weight": "unit"}),
            ("edm", {}),
            ("mean", {}),
            ("vlb", {"variance": "small"}),
        ):
            spec = ObjectiveSpec.choose({"name": objective, **settings})
            for denoiser in parameterisations(process):
                if denoiser.refusal(process) is None and spec.refusal(process, denoiser) is None:
                    words = denoiser.model_dump(exclude_defaults=True).values()
                    label = "-".join(
                        map(str, [name, objective, *settings.values(), denoiser.name, *words])
                    )
                    yield pytest.param(name, spec, denoiser, id=label)


@pytest.mark.parametrize(("name", "spec", "denoiser"), list(objectives()))
def test_losses_are_the_same(name: str, spec: ObjectiveSpec, denoiser: DenoiserSpec) -> None:
    pair = pair_of(name)
    losses = []
    for process, x0 in ((pair.here, pair.data()), (pair.there, pair.map(pair.data()))):
        times = build(spec.times, process)
        grey = GreyLevels(17, process.spec.low, process.spec.high, process.spec.bounded)
        built = build(denoiser, process, ToyNetwork(denoiser.outputs))
        objective = build(spec, built, times, grey.spacing)
        losses.append(objective(x0, uniform(SHAPE, 6) - 0.5, generator()))
    rate = name == "edm" and getattr(spec, "weight", "") == "likelihood"
    close(losses[1], losses[0] / (pair.ratio if rate else 1.0), rtol=1e-8)


def serving(choices: dict[str, object]) -> list[object]:
    """Every process with each of these specs that serves it."""
    return [
        pytest.param(name, spec, id=f"{name}-{label}")
        for name in PROCESSES
        for label, spec in choices.items()
        if spec.refusal(chosen_process(name)) is None
    ]


TIMES = {each: TimesSpec.choose(each) for each in ("uniform", "lognormal", "mixed", "log-snr")}


@pytest.mark.parametrize(("name", "spec"), serving(TIMES))
def test_training_times_are_the_same_noise(name: str, spec: TimesSpec) -> None:
    """Also with constants that are stated for [-1, 1]."""
    pair = pair_of(name)
    here, there = (build(spec, process).quantile(uniform((50,), 11)) for process in pair.sides)
    scale = pair.ratio if name == "edm" else 1.0
    close(there[0], scale * here[0], rtol=1e-8)
    close(there[1], here[1], rtol=1e-8)


# Likelihoods.


FIXED = ODELikelihoodSpec(trace="exact", method="rk4", steps=4)
ADAPTIVE = ODELikelihoodSpec(trace="exact", rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("name", "spec"), serving({"rk4": FIXED, "adaptive": ADAPTIVE}))
def test_densities_differ_by_the_jacobian_and_bits_do_not(
    name: str, spec: ODELikelihoodSpec
) -> None:
    """EDM's adaptive path is another one, see above: each of some 60 steps may add 1e-3 of a number of order 1."""
    pair, adaptive = pair_of(name), name == "edm" and spec is ADAPTIVE
    close_enough = {"rtol": 0, "atol": 0.06} if adaptive else {"rtol": 1e-8}
    dims, found = math.prod(SHAPE[1:]), []
    for process, x in ((pair.here, pair.data()), (pair.there, pair.map(pair.data()))):
        cells = GreyLevels(17, process.spec.low, process.spec.high, process.spec.bounded)
        likelihood = ODELikelihood(spec, usual(process), cells)
        found.append((likelihood.log_prob(x, generator()), likelihood(x, generator())["total"]))
    (here, latent), bits = found[0]
    (there, latent_there), bits_there = found[1]
    close(there, here - dims * math.log(pair.ratio), **close_enough)
    close(bits_there, bits, **close_enough)
    if not adaptive:
        pair.agree(latent, latent_there)


BOUNDS = {
    "vlb": LikelihoodSpec.choose({"name": "vlb", "steps": 5}),
    "heat-bound": LikelihoodSpec.choose("heat-bound"),
}


@pytest.mark.parametrize(("name", "spec"), serving(BOUNDS))
def test_bounds_are_the_same(name: str, spec: LikelihoodSpec) -> None:
    pair = pair_of(name)
    found = []
    for process, x in ((pair.here, pair.data()), (pair.there, pair.map(pair.data()))):
        cells = GreyLevels(17, process.spec.low, process.spec.high, process.spec.bounded)
        found.append(build(spec, usual(process), cells)(x, generator()))
    for key in ("total", "prior", "terms"):
        close(found[1][key], found[0][key], rtol=1e-8)


# Restorations.


RESTORERS = [
    "pseudo-inverse",
    "posterior-mean",
    "impute",
    "replace",
    "ilvr",
    "medical",
    "ccdf",
    {"name": "ccdf", "estimate": "posterior-mean"},
    "ddrm",
    {"name": "snips", "levels": 10, "sigma_max": 40.0, "sigma_min": 0.05},
]
FEW = {"name": "ancestral", "steps": 5}
TASKS = [
    ({"name": "mask", "rows": [".#", "#."]}, 0.1),
    ({"name": "gaussian-blur", "size": 3, "std": 0.6}, 0.05),
]


def restorer_of(given: object) -> RestorerSpec:
    spec = RestorerSpec.choose(given)
    if "solver" in type(spec).model_fields:
        return type(spec)(solver=FEW)
    if spec.name == "ccdf":
        return spec.model_copy(update={"around": restorer_of("replace"), "start": 0.6})
    return spec.model_copy(update={"steps": 5}) if spec.name == "ddrm" else spec


def restorations() -> Iterator[object]:
    for name in PROCESSES:
        for given in RESTORERS:
            for task, std in TASKS:
                spec, operator = restorer_of(given), OperatorSpec.choose(task)
                if spec.refusal(chosen_process(name), None, operator) is None:
                    yield pytest.param(
                        name, spec, operator, std, id=f"{name}-{given}-{operator.name}"
                    )


@pytest.mark.parametrize(("name", "spec", "operator", "std"), list(restorations()))
def test_restorations_are_mapped(
    name: str, spec: RestorerSpec, operator: OperatorSpec, std: float
) -> None:
    restored_agree(pair_of(name), spec, operator, std)


def test_restorations_of_jpeg_are_mapped() -> None:
    """What is rounded is the same on both sides, but for the rounding of the map: no number here is near a half."""
    spec, operator = restorer_of("ddrm"), OperatorSpec.choose({"name": "jpeg", "quality": 50})
    for name in ("vp", "ve"):
        pair = pair_of(name)
        pair = Pair(pair.spec, pair.low, pair.high, shape=(2, 1, 8, 8))
        restored_agree(pair, spec, operator, 0.0)
        restored_agree(pair, restorer_of("pseudo-inverse"), operator, 0.0)


def restored_agree(pair: Pair, spec: RestorerSpec, operator: OperatorSpec, std: float) -> None:
    results = []
    for process, ratio, place in (
        (pair.here, 1.0, lambda x: x),
        (pair.there, pair.ratio, pair.map),
    ):
        low, high = process.spec.low, process.spec.high
        facts = {"image_shape": pair.shape[1:], "low": low, "high": high}
        H = build(operator, **{name: facts[name] for name in operator.facts})
        y = H.apply(place(pair.data()))
        measurement = Measurement(H, y + std * ratio * uniform(tuple(y.shape), 12), std * ratio)
        images = place(pair.spec.low + uniform((20, *pair.shape[1:]), 13))
        results.append(made(spec, usual(process), images).restore(measurement, generator()))
    pair.agree(*results)


def made(spec: RestorerSpec, denoiser: Denoiser, images: Tensor):
    facts = {
        "denoiser": lambda: denoiser,
        "solver": lambda: build(spec.inner, denoiser),
        "around": lambda: made(spec.around, denoiser, images),
        "estimate": lambda: made(spec.estimate, denoiser, images),
        "images": lambda: images,
        "middle": lambda: denoiser.process.middle,
    }
    return build(spec, **{name: facts[name]() for name in spec.facts})


# EDM's sampler, written from its Algorithm 2, on an analytic mixture.


MEANS = float64([[0.2, 0.7, 0.4], [0.8, 0.1, 0.5]])
WEIGHTS, STD = float64([0.4, 0.6]), 0.1


def ideal(x: Tensor, sigma: float) -> Tensor:
    """D(x; sigma) of data 2 y - 1, y the mixture of Gaussians of one deviation about MEANS in [0, 1]."""
    means, v = 2 * MEANS - 1, (2 * STD) ** 2 + sigma**2
    logs = WEIGHTS.log() - (x[:, None] - means).square().sum(-1) / (2 * v)
    mean = logs.softmax(1) @ means
    return mean + (2 * STD) ** 2 / v * (x - mean)


def algorithm_2(
    latents: Tensor, noises: Tensor, steps: int, churn: float, low: float, high: float
) -> Tensor:
    """Karras et al. 2022, algorithm 2 with sigma(t) = t, s(t) = 1 and the settings of table 1 (0.002, 80, rho 7)."""
    i, rho = torch.arange(steps, dtype=torch.float64), 7
    t = (80 ** (1 / rho) + i / (steps - 1) * (0.002 ** (1 / rho) - 80 ** (1 / rho))) ** rho
    t = [*t.tolist(), 0.0]
    x = t[0] * latents
    for k in range(steps):
        gamma = min(churn / steps, math.sqrt(2) - 1) if low <= t[k] <= high else 0.0
        t_hat = t[k] + gamma * t[k]
        x_hat = x + math.sqrt(t_hat**2 - t[k] ** 2) * noises[k]
        d = (x_hat - ideal(x_hat, t_hat)) / t_hat
        x = x_hat + (t[k + 1] - t_hat) * d
        if t[k + 1] != 0:
            d_next = (x - ideal(x, t[k + 1])) / t[k + 1]
            x = x_hat + (t[k + 1] - t_hat) * (d + d_next) / 2
    return x


@pytest.mark.parametrize("churn", [0.0, 5.0])
@pytest.mark.parametrize("name", ["edm", "ve"])
def test_heun_is_edms_sampler(name: str, churn: float) -> None:
    """On EDM, and on VE in [0, 1] with the solver's default settings, from the same latents and noise: to 1e-13, which
    a start of 80 and some 36 evaluations round by.  VE must have 0.002, which is 0.001 there."""
    latents = torch.randn(6, 3, generator=generator(), dtype=torch.float64)
    noises = torch.randn(18, 6, 3, generator=generator(6), dtype=torch.float64)
    want = algorithm_2(latents, noises, 18, churn, 0.05, 50.0)
    parameters = {"ve": {"sigma_min": 1e-4}}.get(name, {})
    process = process_of(name, **parameters)
    half, middle = process.spec.half_range, process.spec.middle
    tensors = {
        "weights": WEIGHTS,
        "means": middle + half * (2 * MEANS - 1),
        "covariances": ((2 * half * STD) ** 2 * torch.eye(3).double()).expand(2, 3, 3),
    }
    given = {"churn": churn, "churn_min": 0.05, "churn_max": 50.0} if churn else {}
    solver = build(HeunSpec(steps=18, **given), build(MixtureSpec(), process, tensors))
    assert solver.spec.refusal(process.spec) is None
    x = solver.start(latents.reshape(6, 1, 1, 3))
    times = solver.times()[:-1]
    drawn = [n for n, t in zip(noises, times, strict=True) if float(solver.churned(t)) != float(t)]
    given_noises = iter(drawn)
    got = solve(solver, x, UNCONDITIONAL, lambda like: next(given_noises).reshape(like.shape))
    close((got.reshape(6, 3) - middle) / half, want, rtol=0, atol=1e-13)


# What a user is told.


def test_a_range_that_no_paper_has_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"low, high: the data range must be \[-1, 1\] or \[0, 1\], not \[0, 2\]"
    ):
        process_of("vp", low=0, high=2)


@every_process
def test_the_spec_of_a_range_is_read_back(name: str) -> None:
    """On both ranges; [-1, 1] is left out where it goes without saying, and nowhere else."""
    spec = chosen_process(name)
    for low, high in RANGES:
        moved = ProcessSpec.choose({**spec.model_dump(), "low": low, "high": high})
        assert type(moved).read(moved.canonical()) == moved
        assert (moved.low, moved.high) == (low, high)
    assert ("low" in spec.model_dump()) == (spec.low != -1)


def test_given_levels_are_told_in_the_units_of_the_process() -> None:
    spec = HeunSpec(steps=9, churn=5, churn_min=0.05, churn_max=1)
    assert spec.note(chosen_process("edm")) is None
    assert HeunSpec(steps=9).note(chosen_process("ve")) is None
    note = spec.note(chosen_process("ve"))
    assert note.startswith("churn_min 0.05 is 0.025, churn_max 1 is 0.5 for data in [0, 1]")


def test_default_levels_are_clipped_to_the_process() -> None:
    """EDM's 0.002 to 80 are 0.001 to 40 in [0, 1]; VE has 0.01 to 50 there, or less on small images."""
    for parameters, want in (
        ({}, [40.0, 0.01]),
        ({"sigma_min": 5e-4, "sigma_max": 5}, [5.0, 0.001]),
    ):
        process = process_of("ve", **parameters)
        solver = build(SolverSpec.choose({"name": "heun", "steps": 5}), usual(process))
        close(process.sigma(solver.times()[[0, -2]]), float64(want))


def test_every_length_of_a_process_is_mapped_here() -> None:
    """A process of the package whose sigma_min, sigma_max or sigma are lengths is in ``OWN``, and blur is in pixels."""
    for name in PROCESSES:
        fields = set(ProcessSpec.known[name].model_fields) & {"sigma", "sigma_min", "sigma_max"}
        assert set(OWN.get(name, ())) == (set() if name == "blurring" else fields)


def test_networks_stand_for_plain_denoisers() -> None:
    """The law is about something: on the default ranges the toy model's samples differ from its start."""
    process = process_of("ve")
    assert isinstance(usual(process), NetworkDenoiser)
    x = sample(build(HeunSpec(steps=5), usual(process)), SHAPE, generator(), dtype=torch.float64)
    assert x.std() < 10
