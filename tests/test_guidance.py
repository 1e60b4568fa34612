"""Guidance against guided-diffusion's steps, laws of every process and view, and an exact class posterior."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal
from toys import Toy, close, column, process_of, recorded, toy_eps, toy_fraction

from diffbench.diffusion.core.condition import Condition
from diffbench.diffusion.core.predictions import Native, Prediction
from diffbench.diffusion.core.process import Process, float64
from diffbench.diffusion.denoisers.denoiser import Denoiser
from diffbench.diffusion.denoisers.exact import GaussianDenoiser, MixtureDenoiser
from diffbench.diffusion.denoisers.guidance import (
    Classifier,
    ClassifierFreeGuidance,
    ClassifierGuidance,
)
from diffbench.diffusion.denoisers.thresholds import StaticThreshold
from diffbench.diffusion.solvers.loop import sample
from diffbench.specs.denoisers import GaussianSpec, MixtureSpec
from diffbench.specs.processes import ProcessSpec
from diffbench.specs.registry import build
from diffbench.specs.solvers import AncestralSpec, DDIMSpec, HeunSpec, SolverSpec

CHOICES = {"discrete": {"schedule": "linear", "steps": 50}}
PROCESSES = [
    name
    for name, known in sorted(ProcessSpec.known.items())
    if known.family == "gaussian" and known.alpha == "scalar"
]
every_process = pytest.mark.parametrize("name", PROCESSES)
VIEWS: list[Native] = ["x0", "eps", "v", "score"]


def some_process(name: str) -> Process:
    return process_of(name, **CHOICES.get(name, {}))


def views(name: str) -> list[Native]:
    """The mean of the level before exists on a chain."""
    return [*VIEWS, "mean"] if ProcessSpec.known[name].time == "discrete" else VIEWS


def some_times(process: Process) -> Tensor:
    """Four times between the process's ends, one an image."""
    if process.spec.time == "discrete":
        return column(float64([0, 17, 30, 49]))
    span = process.t_max - process.t_min
    return column(process.t_min + span * float64([0.05, 0.3, 0.7, 1.0]))


def points(process: Process) -> tuple[Tensor, Tensor]:
    """x_t, (4, 1, 2, 3), and its times."""
    t, generator = some_times(process), torch.Generator().manual_seed(1)
    x0, noise = torch.randn(2, 4, 1, 2, 3, generator=generator, dtype=torch.float64)
    return process.diffuse(0.5 * x0, t, noise), t


class Conditional(Denoiser):
    """A toy of 3 classes whose answer depends on the label, or is the null class's; it keeps what it is told."""

    classes = 3

    def __init__(self, process: Process, native: Native = "eps") -> None:
        super().__init__(process)
        self.native, self.told = native, []

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Prediction:
        y = condition.label
        self.told.append(y)
        labels = torch.full((len(x_t),), 3) if y is None else y
        value = (x_t + labels[:, None, None, None]).sin() * self.process.sigma(t)
        return Prediction(
            self.process, x_t, t, self.native, value, labels[:, None, None, None] + 0 * x_t
        )


LABELS = torch.tensor([0, 2, 1, 2])
KNOWN = Condition(LABELS)
COMBINATIONS = [(name, native) for name in PROCESSES for native in views(name)]


def sizes_agree(got: Tensor, want: Tensor, *terms: Tensor) -> None:
    """To 1e-11 of the largest term: views cancel by sigma/alpha, 152 at most, or its inverse, 1e3, and 1/b
    = 700 of the mean; weights of 1 + w and w add a digit."""
    close(got, want, rtol=1e-9, atol=1e-11 * max(float(x.abs().max()) for x in (want, *terms)))


@pytest.mark.parametrize(("name", "native"), COMBINATIONS)
@pytest.mark.parametrize("w", [0.3, 4.0])
def test_classifier_free_guidance_is_one_combination_in_every_view(
    name: str, native: Native, w: float
) -> None:
    process = some_process(name)
    x_t, t = points(process)
    inner = Conditional(process, native)
    guided = ClassifierFreeGuidance(inner, w)(x_t, t, KNOWN)
    conditional, unconditional = inner(x_t, t, KNOWN), inner(x_t, t)
    for view in views(name):
        c, u = conditional.view(view), unconditional.view(view)
        sizes_agree(guided.view(view), (1 + w) * c - w * u, (1 + w) * c)


@every_process
def test_weight_zero_is_the_conditional_model_at_one_evaluation(name: str) -> None:
    process = some_process(name)
    x_t, t = points(process)
    inner = Conditional(process)
    guided = ClassifierFreeGuidance(inner, 0.0)(x_t, t, KNOWN)
    assert inner.told == [LABELS]
    assert torch.equal(guided.value, inner(x_t, t, KNOWN).value)


def test_other_weights_cost_two_evaluations_and_keep_the_conditional_variance() -> None:
    process = some_process("discrete")
    x_t, t = points(process)
    inner = Conditional(process)
    guided = ClassifierFreeGuidance(inner, 0.5)(x_t, t, KNOWN)
    assert inner.told == [LABELS, None]
    assert torch.equal(guided.fraction, inner(x_t, t, KNOWN).fraction)


@pytest.mark.parametrize("w", [0.0, 1.0])
def test_guidance_needs_labels(w: float) -> None:
    process = some_process("vp")
    x_t, t = points(process)
    with pytest.raises(ValueError, match="needs labels"):
        ClassifierFreeGuidance(Conditional(process), w)(x_t, t)
    with pytest.raises(ValueError, match="needs labels"):
        ClassifierGuidance(Conditional(process), Given(lambda x, t: x), w)(x_t, t)


class Given(Classifier):
    """A guide whose gradient is a closed form."""

    def __init__(self, formula: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.formula = formula

    def gradient(self, x_t: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return self.formula(x_t, t)


def recorded_gradient(x: Tensor, t: Tensor) -> Tensor:
    """The gradient of ``gd_guidance``."""
    return 0.7 * torch.cos(x) - 0.2 * x + 0.001 * t


CHAINS = {"": ("linear", 1000), "_cos4000": ("cosine", 4000)}
KINDS = {"small": "FIXED_SMALL", "large": "FIXED_LARGE", "learned": "LEARNED_RANGE"}


@pytest.mark.parametrize("suffix", CHAINS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_guided_ancestral_steps(suffix: str, kind: str, scale: float) -> None:
    """Without a threshold; level 0 steps into the data."""
    arrays, (schedule, steps) = recorded(f"gd_guidance{suffix}"), CHAINS[suffix]
    process = process_of("discrete", schedule=schedule, steps=steps)
    guide = Given(lambda x, t: recorded_gradient(x, t) / scale)
    denoiser = Toy(process, "eps", toy_eps, toy_fraction)
    spec = AncestralSpec(steps=steps, variance=kind, threshold="none", classifier_scale=scale)
    solver = build(spec, denoiser, guide)
    told = Condition(torch.zeros(1, dtype=torch.long))
    means = [
        solver.step(x[None], t, t - 1, told, torch.zeros_like)
        for x, t in zip(arrays["x_t"], arrays["t"], strict=True)
    ]
    close(torch.cat(means), arrays[f"{KINDS[kind]}_cond_mean"])
    close(recorded_gradient(arrays["x_t"], column(arrays["t"])), arrays["grad"])


@pytest.mark.parametrize(
    ("grid", "before"), [({"steps": 50}, 1), ({"steps": 2}, 49), ({"steps": 1}, 1)]
)
def test_the_shift_into_the_data_has_the_variance_of_the_grids_step_before(
    grid: dict, before: int
) -> None:
    """btilde = (1 - abar_0)/(1 - abar_t) (1 - abar_t/abar_0), t the grid's level before 0, or 1 where there
    is none."""
    process, told = some_process("discrete"), Condition(torch.zeros(4, dtype=torch.long))
    x = points(process)[0]
    inner = Toy(process, "eps", toy_eps)
    spec = AncestralSpec(variance="large", threshold="none", classifier_scale=1, **grid)
    solver = build(spec, inner, Given(lambda x, t: 0 * x + 1))
    got = solver.step(x, float64(0), float64(-1), told, torch.zeros_like) - inner(x, float64(0)).x0
    abar = np.cumprod(1 - np.linspace(1e-4, 0.02, 50) * 1000 / 50)
    want = (1 - abar[0]) / (1 - abar[before]) * (1 - abar[before] / abar[0])
    close(got, torch.full_like(x, want), rtol=1e-9)


@pytest.mark.parametrize("threshold", ["none", "static"])
@pytest.mark.parametrize("eta", [0.0, 0.6])
@pytest.mark.parametrize(("t", "s"), [(49, 48), (30, 7), (5, 0), (0, -1)])
def test_guided_ddim_steps_with_a_shifted_eps(threshold: str, eta: float, t: int, s: int) -> None:
    """guided-diffusion's condition_score: eps of the thresholded x_0, less sqrt(1 - abar) times the gradient;
    x_0 follows from it and is not clipped again."""
    process = some_process("discrete")
    betas = np.linspace(1e-4, 0.02, 50) * 1000 / 50
    abar = np.append(np.cumprod(1 - betas), 1.0)
    a, b, scale = abar[t], abar[s], 2.0
    x, z = np.random.default_rng(3).standard_normal((2, 4, 1, 2, 3))
    x = 3 * x
    eps = toy_eps(torch.from_numpy(x), float64(t)).numpy()
    x0 = (x - np.sqrt(1 - a) * eps) / np.sqrt(a)
    if threshold == "static":
        x0 = x0.clip(-1, 1)
        eps = (x - np.sqrt(a) * x0) / np.sqrt(1 - a)
    gradient = 0.7 * np.cos(x) - 0.2 * x + 0.001 * t
    eps = eps - np.sqrt(1 - a) * scale * gradient
    x0 = (x - np.sqrt(1 - a) * eps) / np.sqrt(a)
    noise = eta * np.sqrt((1 - b) / (1 - a) * (1 - a / b))
    want = np.sqrt(b) * x0 + np.sqrt(1 - b - noise**2) * eps + noise * z
    assert threshold == "none" or np.abs(x0).max() > 1
    spec = DDIMSpec(steps=50, eta=eta, threshold=threshold, classifier_scale=scale)
    solver = build(spec, Toy(process, "eps", toy_eps), Given(recorded_gradient))
    told = Condition(torch.zeros(4, dtype=torch.long))
    got = solver.step(
        torch.from_numpy(x), float64(t), float64(s), told, lambda _: torch.from_numpy(z)
    )
    close(got, torch.from_numpy(want), rtol=1e-10)


@every_process
def test_a_guide_is_added_to_the_score_in_every_view(name: str) -> None:
    """eps - sigma g, x0 + sigma^2 g/alpha and what follows; the prediction without it is kept."""
    process = some_process(name)
    x_t, t = points(process)
    inner = Conditional(process)
    guide = 1.5 * recorded_gradient(x_t, t)
    guided = ClassifierGuidance(inner, Given(recorded_gradient), 1.5)(x_t, t, KNOWN)
    base = inner(x_t, t, KNOWN)
    alpha, sigma = process.alpha(t), process.sigma(t)
    eps, x0 = base.eps - sigma * guide, base.x0 + sigma**2 * guide / alpha
    sizes_agree(guided.score, base.score + guide)
    sizes_agree(guided.eps, eps)
    sizes_agree(guided.x0, x0, x_t / alpha)
    k = (alpha**2 + sigma**2).sqrt()
    offset = x0 - process.spec.middle
    sizes_agree(guided.velocity, (alpha * eps - sigma * offset) / k, sigma * x_t / alpha / k)
    assert torch.equal(guided.guide, guide) and torch.equal(guided.fraction, base.fraction)
    for view in VIEWS:
        assert torch.equal(guided.unguided.view(view), base.view(view))


@pytest.mark.parametrize(("t", "s"), [(49, 48), (30, 7), (5, 0)])
def test_the_ancestral_shift_is_that_of_the_score_times_alpha_t_over_alpha_s(
    t: int, s: int
) -> None:
    """With variance large, v: its shift is v g, and that of the posterior's mean by x0 + sigma^2 g/alpha is
    v g alpha_s/alpha_t.  They agree to first order in a step."""
    process = some_process("discrete")
    x_t, told = points(process)[0], Condition(torch.zeros(4, dtype=torch.long))
    settings = {"steps": 50, "threshold": "none"}
    inner = Toy(process, "eps", toy_eps)
    plain = build(AncestralSpec(**settings, variance="large"), inner)
    guided = build(
        AncestralSpec(**settings, variance="large", classifier_scale=1),
        inner,
        Given(recorded_gradient),
    )
    by_score = build(
        DDIMSpec(**settings, eta=1, classifier_scale=1), inner, Given(recorded_gradient)
    )
    base, shifted, scored = (
        solver.step(x_t, float64(t), float64(s), told, torch.zeros_like)
        for solver in (plain, guided, by_score)
    )
    alpha = process.alpha(float64(t)) / process.alpha(float64(s))
    close(shifted - base, alpha * (scored - base), rtol=1e-9, atol=1e-12)


def no_classifier(x: Tensor, t: Tensor) -> Tensor:
    raise AssertionError("a classifier was asked")


@pytest.mark.parametrize(
    "spec",
    [
        AncestralSpec(steps=9),
        AncestralSpec(steps=9, variance="learned", threshold="dynamic"),
        DDIMSpec(steps=9, eta=0.5),
        HeunSpec(steps=9),
        HeunSpec(steps=9, churn=5),
    ],
    ids=lambda spec: spec.digest()[:4] + spec.name,
)
def test_scale_zero_is_the_sampler_without_guidance_bit_for_bit(spec: SolverSpec) -> None:
    process, y = some_process("discrete"), torch.tensor([0, 1])
    denoiser = Toy(process, "eps", toy_eps, toy_fraction)
    guided = build(
        spec.model_copy(update={"classifier_scale": 0.0}), denoiser, Given(no_classifier)
    )
    images = [
        sample(solver, (2, 1, 4, 4), torch.Generator().manual_seed(5), Condition(y))
        for solver in (guided, build(spec, denoiser))
    ]
    assert torch.equal(*images) and images[0].std() > 0


@pytest.mark.parametrize("threshold", ["none", "static"])
@pytest.mark.parametrize("classes", [0, 3])
def test_thresholds_act_between_the_two_kinds_of_guidance(threshold: str, classes: int) -> None:
    """Clip((1 + w) c - w u), then the classifier's gradient; only a conditional denoiser is told labels."""
    process = some_process("discrete")
    x_t, t = points(process)
    inner = Conditional(process)
    inner.classes = classes
    w = 2.0 if classes else None
    spec = DDIMSpec(steps=9, threshold=threshold, w=w, classifier_scale=1.5)
    got = build(spec, inner, Given(recorded_gradient)).denoiser(x_t, t, KNOWN)
    assert [y is LABELS for y in inner.told] == ([True, False] if classes else [False])
    conditional, unconditional = inner(x_t, t, KNOWN), inner(x_t, t)
    base = unconditional
    if classes:
        base = base.with_x0(3 * conditional.x0 - 2 * unconditional.x0)
    if threshold == "static":
        base = base.with_x0(base.x0.clamp(-1, 1))
    shift = process.sigma(t) ** 2 / process.alpha(t) * 1.5 * recorded_gradient(x_t, t)
    sizes_agree(got.x0, base.x0 + shift, x_t / process.alpha(t))


def test_a_scale_without_a_classifier_is_refused() -> None:
    with pytest.raises(ValueError, match="classifier_scale: 2, but there is no classifier"):
        build(DDIMSpec(steps=9, classifier_scale=2), Toy(some_process("discrete"), "eps", toy_eps))


class LinearSoftmax(nn.Module):
    """Logits W x + c_noise b of 3 classes."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(6)
        self.weight = nn.Parameter(torch.randn(3, 6, generator=generator, dtype=torch.float64))
        self.bias = nn.Parameter(torch.randn(3, generator=generator, dtype=torch.float64))

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T + c_noise[:, None] * self.bias


@every_process
def test_the_gradient_of_a_linear_softmax(name: str) -> None:
    """c (W_y - sum_k p_k W_k) with c = (alpha^2 h^2 + sigma^2)^(-1/2) and p of the logits at c (x_t - alpha
    m), ln(sigma/alpha)/4; under no_grad, and without a trace on the network or the image."""
    process, network = some_process(name), LinearSoftmax()
    x_t, t = points(process)
    alpha, sigma = process.alpha(t), process.sigma(t)
    half, middle = (
        (process.spec.high - process.spec.low) / 2,
        (process.spec.high + process.spec.low) / 2,
    )
    c = (alpha**2 * half**2 + sigma**2).rsqrt()
    W, b = network.weight.detach().numpy(), network.bias.detach().numpy()
    scaled = (c * (x_t - alpha * middle)).flatten(1).numpy()
    gate = (alpha * half * c).reshape(-1, 1).numpy()
    logits = gate * (scaled @ W.T + ((sigma / alpha).log() / 4).numpy().reshape(-1, 1) * b)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    want = c * torch.from_numpy(gate * (W[LABELS.numpy()] - p @ W)).reshape(x_t.shape)
    classifier = Classifier(process, network, 3)
    with torch.no_grad():
        got = classifier.gradient(x_t, t, LABELS)
        close(classifier.logits(x_t, t), torch.from_numpy(logits), rtol=1e-11)
    close(got, want, rtol=1e-11, atol=1e-13)
    assert not got.requires_grad and not x_t.requires_grad
    assert network.weight.grad is None and network.bias.grad is None


def test_a_gradient_vanishes_with_the_signal() -> None:
    """At the last level of the cosine chain alpha is 5e-5 and sigma 1: whatever the network says, the
    gradient is alpha times a softmax's, so that dividing by alpha leaves x0 a finite shift, at most
    |W_0 - W_k| for two of its rows."""
    process, network = process_of("discrete", schedule="cosine"), LinearSoftmax()
    t, x_t = float64(999), torch.ones(1, 1, 1, 6, dtype=torch.float64)
    shift = Classifier(process, network, 3).gradient(x_t, t, torch.zeros(1, dtype=torch.long))
    W = network.weight.detach()
    assert process.alpha(t) < 1e-4
    assert float((shift / process.alpha(t)).norm()) <= float((W[0] - W).norm(dim=1).max())


WEIGHTS = float64([0.35, 0.65])
MEANS = float64([[0.4, -0.3, 0.1], [-0.2, 0.3, -0.4]])
FACTORS = torch.linspace(-0.4, 0.5, 18, dtype=torch.float64).sin().reshape(2, 3, 3)
COVARIANCES = FACTORS @ FACTORS.mT + 0.05 * torch.eye(3, dtype=torch.float64)


def mixture(process: Process) -> MixtureDenoiser:
    tensors = {"weights": WEIGHTS, "means": MEANS, "covariances": COVARIANCES}
    return MixtureDenoiser(MixtureSpec(), process, tensors)


def component(process: Process, y: int) -> GaussianDenoiser:
    tensors = {"mean": MEANS[y], "covariance": COVARIANCES[y]}
    return GaussianDenoiser(GaussianSpec(), process, tensors)


class ExactClassifier(Classifier):
    """The class posterior p(y | x_t) of the mixture, w_y N(x_t; alpha m_y, alpha^2 C_y + sigma^2 I) over
    their sum."""

    def __init__(self, process: Process) -> None:
        self.process, self.classes = process, 2

    def logits(self, x_t: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (
            each.reshape(-1, 1, 1) for each in (self.process.alpha(t), self.process.sigma(t))
        )
        noise = sigma[..., None] ** 2 * torch.eye(3, dtype=torch.float64)
        marginals = MultivariateNormal(alpha * MEANS, alpha[..., None] ** 2 * COVARIANCES + noise)
        return WEIGHTS.log() + marginals.log_prob(x_t.reshape(-1, 1, 3))


@every_process
@pytest.mark.parametrize("y", [0, 1])
def test_an_exact_classifier_makes_the_mixture_its_class(name: str, y: int) -> None:
    """Bayes: grad log p(x_t) + grad log p(y | x_t) = grad log p(x_t | y), the Gaussian's score."""
    process = some_process(name)
    t, generator = some_times(process), torch.Generator().manual_seed(7)
    x0, noise = torch.randn(2, 4, 1, 1, 3, generator=generator, dtype=torch.float64)
    x_t = process.diffuse(0.5 * x0, t, noise)
    labels = torch.full((4,), y)
    guided = ClassifierGuidance(mixture(process), ExactClassifier(process), 1.0)(
        x_t, t, Condition(labels)
    )
    want = component(process, y)(x_t, t)
    for view in VIEWS:
        sizes_agree(guided.view(view), want.view(view), x_t / process.alpha(t))


@pytest.mark.parametrize(
    "spec",
    [DDIMSpec(steps=9), DDIMSpec(steps=9, eta=1.0), HeunSpec(steps=9, churn=4)],
    ids=["ddim", "ddim-eta-1", "heun-churn"],
)
def test_samples_of_a_mixture_guided_to_a_class_are_the_classes(spec: SolverSpec) -> None:
    """From the same noise; a difference of 1e-15 grows by 1/alpha of the highest level, 360, at most."""
    process, y = some_process("discrete"), torch.ones(5, dtype=torch.long)
    guided_spec = spec.model_copy(update={"classifier_scale": 1.0})
    solvers = [
        build(guided_spec, mixture(process), ExactClassifier(process)),
        build(spec, component(process, 1)),
    ]
    x, want = (
        sample(
            solver,
            (5, 1, 1, 3),
            torch.Generator().manual_seed(8),
            Condition(y),
            dtype=torch.float64,
        )
        for solver in solvers
    )
    close(x, want, atol=1e-9)


@pytest.mark.parametrize("name", ["vp", "edm"])
def test_what_guidance_adds_is_not_clipped(name: str) -> None:
    """A gradient of 100 takes x0 out of the range that the threshold inside keeps."""
    process = some_process(name)
    x_t, t = points(process)
    inner = StaticThreshold(Conditional(process))
    guided = ClassifierGuidance(inner, Given(lambda x, t: 100 + 0 * x), 1.0)(x_t, t, KNOWN)
    assert guided.unguided.x0.abs().max() <= 1 < guided.x0.abs().max()
