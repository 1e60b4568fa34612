"""Latents: encoding against closed forms, orders of convergence, slerp, and the analysis as a stage."""

import io
import json
import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from commands import REPOSITORY
from PIL import Image
from torch import Tensor
from toys import Toy, close, process_of, toy_eps

from diffbench.analyses import job as analysis
from diffbench.diffusion.core.condition import UNCONDITIONAL, Condition
from diffbench.diffusion.core.predictions import Prediction
from diffbench.diffusion.core.process import Process, float64
from diffbench.diffusion.denoisers.denoiser import Denoiser
from diffbench.diffusion.denoisers.exact import GaussianDenoiser
from diffbench.diffusion.solvers.encoding import encode, slerp
from diffbench.diffusion.solvers.loop import Solver, solve
from diffbench.jobs import data, train
from diffbench.plan.jobs import Plan
from diffbench.plan.loading import load_plan
from diffbench.specs.analyses import GradientNoiseSpec, LatentsSpec
from diffbench.specs.denoisers import GaussianSpec, NetworkDenoiserSpec
from diffbench.specs.processes import DiscreteSpec, VPSpec
from diffbench.specs.registry import build
from diffbench.specs.solvers import (
    AdaptiveODESpec,
    AncestralSpec,
    CorrectorOnlySpec,
    DDIMSpec,
    DPMSolverSpec,
    EulerMaruyamaSpec,
    HeunSpec,
    LangevinSpec,
    ODESpec,
    SolverSpec,
)
from diffbench.store import paths
from diffbench.store.products import read_product, write_product
from diffbench.training import models

MEAN = float64([0.3, -0.2, 0.1, 0.4])


def covariance() -> Tensor:
    """Full, with eigenvalues from 0.02 upwards."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    return 0.15 * a @ a.T + 0.02 * torch.eye(4, dtype=torch.float64)


def gaussian(process: Process) -> Denoiser:
    tensors = {"mean": MEAN, "covariance": covariance()}
    return GaussianDenoiser(GaussianSpec(), process, tensors)


def some_images() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(3, 1, 2, 2, generator=generator, dtype=torch.float64)
    return MEAN.reshape(1, 1, 2, 2) + 0.3 * noise


def flow(process: Process, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """The probability flow of the Gaussian from t to s: along each axis of C the distance from alpha m in units of
    sqrt(alpha^2 variance + sigma^2) is kept."""
    variances, axes = torch.linalg.eigh(covariance())

    def size(time: Tensor) -> Tensor:
        return (process.alpha(time) ** 2 * variances + process.sigma(time) ** 2).sqrt()

    along = (x.flatten(1) - process.alpha(t) * MEAN) @ axes / size(t)
    return (process.alpha(s) * MEAN + (along * size(s)) @ axes.T).reshape(x.shape)


def noisy_times(solver: Solver) -> Tensor:
    times = solver.times()
    return times[times != solver.process.data_time]


def down(solver: Solver, z: Tensor) -> Tensor:
    """The solver's steps from a latent to the lowest noisy level."""
    for t, s in pairwise(noisy_times(solver)):
        z = solver.step(z, t, s, UNCONDITIONAL, torch.zeros_like)
    return z


#: Process, solver with n steps, order.
METHODS: list[tuple[str, Callable[[int], SolverSpec], int]] = [
    ("vp", lambda n: DDIMSpec(steps=n), 1),
    ("edm", lambda n: DDIMSpec(steps=n, grid="karras"), 1),
    ("sub-vp", lambda n: ODESpec(steps=n, method="euler"), 1),
    ("edm", lambda n: HeunSpec(steps=n), 2),
    ("vp", lambda n: HeunSpec(steps=n), 2),
    ("vp", lambda n: ODESpec(steps=n, method="heun"), 2),
    ("vp", lambda n: ODESpec(steps=n, method="rk4"), 4),
    ("vp-cosine", lambda n: ODESpec(steps=n, method="rk4"), 4),
    ("sub-vp", lambda n: ODESpec(steps=n, method="rk4"), 4),
    ("ve", lambda n: ODESpec(steps=n, method="rk4"), 4),
]
every_method = pytest.mark.parametrize(("name", "spec", "order"), METHODS)


def order_of(errors: list[float]) -> float:
    """By halving the step."""
    return math.log2(errors[0] / errors[1])


@every_method
def test_latents_of_gaussian_data_converge_to_the_flow_with_the_solvers_order(
    name: str, spec: Callable[[int], SolverSpec], order: int
) -> None:
    """From 80 to 160 steps.  The error's next term is smaller by about a step, which on these grids moves the
    measured order by less than 0.15."""
    x, errors = some_images(), []
    for steps in (80, 160):
        solver = build(spec(steps), gaussian(process_of(name)))
        times = noisy_times(solver)
        exact = flow(solver.process, x, times[-1], times[0])
        errors.append(float((encode(solver, x) - exact).abs().max() / exact.abs().max()))
    assert abs(order_of(errors) - order) <= 0.15
    assert errors[1] <= {1: 0.05, 2: 2e-3, 4: 4e-7}[order]


@pytest.mark.slow
@every_method
def test_round_trips_err_by_the_order_and_one_more_where_it_is_even(
    name: str, spec: Callable[[int], SolverSpec], order: int
) -> None:
    """A step up errs by C h^(p + 1) and the step back by C (-h)^(p + 1): these double for odd p, and cancel for even
    p, where h^(p + 2) is left of each step and h^(p + 1) of the whole."""
    x, errors = some_images(), []
    for steps in (80, 160):
        solver = build(spec(steps), gaussian(process_of(name)))
        errors.append(float((down(solver, encode(solver, x)) - x).abs().max()))
    assert abs(order_of(errors) - (order + (order % 2 == 0))) <= 0.15


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vp", "sub-vp", "ve", "vp-cosine", "edm"])
def test_decoding_ends_in_the_posterior_mean_of_the_image_as_noisy(name: str) -> None:
    """An image is taken for x_t of the lowest level, so the last step gives E[x_0 | x_t = image], however many steps
    are taken; without that step it gives the image.  The round trip alone errs by less than 1e-6 (above: 5e-3 at 10
    steps of order 5, so 1e-8 of VP at 160; EDM's ends are further apart in time and its grid is karras)."""
    x, process = some_images(), process_of(name)
    grid = "karras" if name == "edm" else "uniform"
    for denoise in ("tweedie", "none"):
        spec = ODESpec(steps=160, method="rk4", denoise=denoise, grid=grid)
        solver = build(spec, gaussian(process))
        got = solve(solver, encode(solver, x), UNCONDITIONAL, torch.zeros_like)
        t = noisy_times(solver)[-1]
        alpha, c = process.alpha(t), covariance()
        gain = (
            alpha
            * c
            @ torch.linalg.inv(alpha**2 * c + process.sigma(t) ** 2 * torch.eye(4).double())
        )
        mean = (MEAN + (x.flatten(1) - alpha * MEAN) @ gain.T).reshape(x.shape)
        close(got, mean if denoise == "tweedie" else x, rtol=0, atol=1e-6)


def test_the_adaptive_solver_encodes_too() -> None:
    """To a hundred times its tolerance of a step."""
    x, process = some_images(), process_of("vp")
    solver = build(AdaptiveODESpec(rtol=1e-7, atol=1e-7), gaussian(process))
    times = noisy_times(solver)
    close(encode(solver, x), flow(process, x, times[-1], times[0]), rtol=0, atol=1e-5)


class Told(Toy):
    """Keeps the times and the labels that it is told."""

    def __init__(self, process: Process) -> None:
        super().__init__(process, "eps", toy_eps)
        self.told: list[tuple[float, Tensor | None]] = []

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Prediction:
        self.told.append((float(t), condition.label))
        return super().predict(x_t, t, condition)


def test_encoding_on_a_chain_is_ddims_upward_step_at_every_level() -> None:
    """x_u = sqrt(abar_u) x_0 + sqrt(1 - abar_u) eps(x_t, t) from each kept level t to the next, u, in numpy; the
    first level is the image's own, and the last is not asked."""
    process = process_of("discrete", schedule="linear", steps=50)
    abar = np.cumprod(1 - np.linspace(1e-4, 0.02, 50) * 1000 / 50)
    levels = [0, 12, 24, 37, 49]
    x, y = some_images(), torch.tensor([1, 2, 0])
    want = x.numpy()
    for t, u in pairwise(levels):
        eps = 0.3 * want * np.cos(0.01 * t) + 0.1 * np.sin(want)
        x0 = (want - np.sqrt(1 - abar[t]) * eps) / np.sqrt(abar[t])
        want = np.sqrt(abar[u]) * x0 + np.sqrt(1 - abar[u]) * eps
    denoiser = Told(process)
    got = encode(build(DDIMSpec(steps=5), denoiser), x, Condition(y))
    close(got, torch.from_numpy(want), rtol=1e-11)
    assert [t for t, _ in denoiser.told] == levels[:-1]
    assert all(labels is y for _, labels in denoiser.told)


CORRECTOR = LangevinSpec(snr=0.1)
NO_WAY_BACK: list[SolverSpec] = [
    HeunSpec(steps=4, churn=5),
    HeunSpec(steps=4, corrector=CORRECTOR),
    DDIMSpec(steps=4, eta=0.5),
    DDIMSpec(steps=4, corrector=CORRECTOR),
    ODESpec(steps=4, corrector=CORRECTOR),
    DPMSolverSpec(steps=4),
    AncestralSpec(steps=4),
    EulerMaruyamaSpec(steps=4),
    EulerMaruyamaSpec(steps=4, noise=0),
    CorrectorOnlySpec(steps=4),
]
without_a_way_back = pytest.mark.parametrize(
    "spec", NO_WAY_BACK, ids=lambda spec: spec.digest()[:4] + spec.name
)


@without_a_way_back
def test_a_solver_that_cannot_be_reversed_is_refused(spec: SolverSpec) -> None:
    solver = build(spec, Toy(process_of("vp"), "eps", toy_eps))
    with pytest.raises(ValueError, match=rf"{solver.spec.name.split('+')[0]}.* cannot encode"):
        encode(solver, some_images())


def test_a_latent_that_is_not_finite_is_an_error_with_its_time() -> None:
    denoiser = Toy(process_of("vp"), "eps", lambda x, t: x * math.inf if t > 0.4 else x)
    with pytest.raises(
        ValueError, match=r"the step up from time 0.5005 to 1: the state is not finite"
    ):
        encode(build(DDIMSpec(steps=3), denoiser), some_images())


# --- slerp


def latents(count: int, size: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(count, 1, 2, size // 2, generator=generator, dtype=torch.float64)


def test_slerp_starts_and_ends_at_its_ends() -> None:
    """Of any norms: the coefficients are sin(w)/sin(w) = 1 and 0 there."""
    a, b = latents(10).chunk(2)
    close(slerp(a, 2 * b, 0.0), a, rtol=1e-13)
    close(slerp(a, 2 * b, 1.0), 2 * b, rtol=1e-13)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_slerp_keeps_the_norm_and_divides_the_angle(share: float) -> None:
    """On a sphere of radius 3, each pair by its own angle, of 0.3 or more: rounding is 1e-16/sin(w)."""
    a, b = (3 * x / x.flatten(1).norm(dim=1)[:, None, None, None] for x in latents(10).chunk(2))
    between = slerp(a, b, share)
    close(between.flatten(1).norm(dim=1), torch.full((5,), 3.0).double(), rtol=1e-12)

    def angle(u: Tensor, v: Tensor) -> Tensor:
        return ((u * v).flatten(1).sum(1) / 9).clamp(-1, 1).acos()

    assert (angle(a, b) > 0.3).all() and angle(a, b).std() > 0.1
    close(angle(a, between), share * angle(a, b), rtol=1e-11)
    close(angle(between, b), (1 - share) * angle(a, b), rtol=1e-11)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("angle", [1e-3, 0.4, math.pi / 2, 3.0])
def test_slerp_of_plane_vectors(share: float, angle: float) -> None:
    """Unit vectors at angles 0 and w, in a plane, to the one at share w; acos near 1 rounds by 1e-16/w."""
    a = float64([1.0, 0.0]).reshape(1, 1, 1, 2)
    b = float64([math.cos(angle), math.sin(angle)]).reshape(1, 1, 1, 2)
    want = float64([math.cos(share * angle), math.sin(share * angle)])
    close(slerp(a, b, share).flatten(), want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_parallel_and_opposite_latents_are_interpolated_on_the_line(
    dtype: torch.dtype, share: float
) -> None:
    """Where the angle has no direction.  float32's acos near -1 and 1 is off by 3e-4, which between two parallel
    latents moves nothing and between opposite ones leaves the sphere: only finite there."""
    a = latents(4).to(dtype)
    same = slerp(a, 2 * a, share)
    close(same, (1 + share) * a, rtol=1e-6, atol=1e-6)
    opposite = slerp(a, -a, share)
    assert opposite.isfinite().all() and opposite.dtype == dtype
    assert opposite.abs().max() <= 1.01 * a.abs().max()
    if dtype == torch.float64:
        close(opposite, (1 - 2 * share) * a, rtol=0, atol=1e-12)


# --- the spec


@without_a_way_back
def test_the_analysis_refuses_a_solver_without_a_way_back(spec: SolverSpec) -> None:
    with pytest.raises(ValueError, match=r"solver: .* cannot encode in a number of steps"):
        LatentsSpec(solver=spec)


def test_the_analysis_needs_a_number_of_steps_two_or_more() -> None:
    """The adaptive solver has none; one step to the data has no way up."""
    with pytest.raises(ValueError, match="ode-adaptive cannot encode in a number of steps"):
        LatentsSpec(solver=AdaptiveODESpec())
    for steps in ([], [1, 10], [0]):
        with pytest.raises(ValueError, match="steps"):
            LatentsSpec(solver={"name": "ddim", "steps": 5}, steps=steps)


CHAIN = DiscreteSpec(schedule="cosine", steps=50)
FREE, CONDITIONAL = (NetworkDenoiserSpec(predict="eps", conditional=c) for c in (False, True))
REFUSALS = [
    ({"name": "ddim"}, (10, 50), CHAIN, FREE, None),
    ({"name": "ddim"}, (10, 51), CHAIN, FREE, "steps: 51, but a chain of 50 levels has at most 50"),
    ({"name": "ddim", "grid": "strided"}, (10, 20), CHAIN, FREE, "steps: no integer stride"),
    ({"name": "ddim", "grid": "strided"}, (10, 25), CHAIN, FREE, None),
    (
        {"name": "ddim", "grid": "strided"},
        (10,),
        VPSpec(),
        FREE,
        "solver.grid: strided needs integer",
    ),
    ({"name": "ode"}, (10,), CHAIN, FREE, "solver: integer times have no SDE or ODE"),
    ({"name": "ode"}, (10,), VPSpec(), FREE, None),
    ({"name": "heun"}, (10,), CHAIN, FREE, None),
    (
        {"name": "heun", "w": 1},
        (10,),
        VPSpec(),
        FREE,
        "solver.w: 1 needs denoiser.conditional: true, and this model is unconditional",
    ),
    ({"name": "heun", "w": 1}, (10,), VPSpec(), CONDITIONAL, "solver: a latent has no guidance"),
    (
        {"name": "ddim", "labels": [3]},
        (10,),
        VPSpec(),
        CONDITIONAL,
        "solver: a latent has no guidance",
    ),
    (
        {"name": "ddim", "classifier_scale": 1},
        (10,),
        VPSpec(),
        FREE,
        "solver: a latent has no guidance",
    ),
    ({"name": "ddim"}, (10,), VPSpec(), CONDITIONAL, None),
    ({"name": "ddim", "last": 3}, (10,), VPSpec(), FREE, "solver.last: 3 is outside the times"),
]


@pytest.mark.parametrize(("solver", "steps", "process", "denoiser", "reason"), REFUSALS)
def test_an_analysis_that_cannot_be_made_says_why(solver, steps, process, denoiser, reason) -> None:
    spec = LatentsSpec(solver={"steps": 5, **solver}, steps=steps)
    refusal = spec.refusal(process, denoiser)
    assert refusal is None if reason is None else refusal.startswith(reason)


# --- the stage

BENCHMARK = """\
name: small
data: {name: digits}
network: {name: unet, channels: 8, inner_channels: 8, heads: 2, embedding: 16}
training: {steps: 1, batch: 16, lr: 1e-3, precision: bf16}
device: cpu
samples: 100
variants: [exact, conditional]
methods:
  exact:
    process: vp
    denoiser: {name: gaussian}
    analyses:
      latents: {name: latents, solver: {name: heun, steps: 9}, steps: [5, 20], images: 30, pairs: 4, between: 3}
      one: {name: latents, solver: {name: ddim, steps: 9}, steps: [3], images: 1}
  conditional:
    process: {name: discrete, schedule: cosine, steps: 20}
    denoiser: {predict: eps, conditional: true, variance: learned}
    objective: {name: hybrid, label_dropout: 0.1}
    analyses:
      latents: {name: latents, solver: {name: ddim, steps: 9}, steps: [4, 10], images: 5, pairs: 8}
      noise: {name: gradient-noise, draws: 2}
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Plan:
    """A plan whose data and models are made; its root is absolute."""
    folder = tmp_path_factory.mktemp("latents")
    (folder / "bench.yaml").write_text(BENCHMARK)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "RESULTS", folder / "results")
        plan = load_plan([folder / "bench.yaml"], {}, REPOSITORY)
        spec = plan.job("data").spec
        dataset = build(spec.data).load()
        write_product(paths.dataset(plan.root), lambda file: data.save(dataset, file), spec)
        before = torch.get_deterministic_debug_mode()
        try:
            for variant in ("exact", "conditional"):
                train.run(plan.job("train", variant).spec, plan.root, "cpu")
            yield plan
        finally:
            torch.set_deterministic_debug_mode(before)


def analysed(plan: Plan, variant: str, item: str) -> tuple[dict, Image.Image]:
    """The analysis's result and its picture."""
    job = plan.job("analysis", variant, 0, item)
    analysis.run(job.spec, plan.root, "cpu")
    content = json.loads(read_product(job.product, job.spec).read_bytes())
    return content, Image.open(io.BytesIO(job.product.with_suffix(".png").read_bytes()))


def cells(picture: Image.Image, columns: int) -> np.ndarray:
    """The images of a picture, (rows, columns, 8, 8), in 0..255: digits enlarged by 560 // (9 columns)."""
    scale = 560 // (9 * columns)
    values = np.asarray(picture)
    assert values.shape[1] == columns * 9 * scale + scale
    rows = (values.shape[0] - scale) // (9 * scale)
    inside = values[scale:, scale:].reshape(rows, 9 * scale, columns, 9 * scale)
    return inside.transpose(0, 2, 1, 3)[:, :, : 8 * scale : scale, : 8 * scale : scale]


def test_the_latents_of_an_exact_denoiser_are_stored_with_a_picture(trained: Plan) -> None:
    """Numbers by hand: of n noisy levels each but the last costs Heun two evaluations; errors are those of data in
    [0, 1], a quarter of those in [-1, 1]; se is over images.  The picture's outer columns are the images."""
    content, picture = analysed(trained, "exact", "latents")
    assert set(content) == {"steps", "nfe", "error", "se", "metrics", "images", "solver"}
    assert content["metrics"]["reconstruction"]["value"] == content["error"][-1]
    assert (content["steps"], content["nfe"], content["images"]) == ([5, 20], [8, 38], 30)
    assert content["solver"]["name"] == "heun"
    assert 0 < content["error"][1] < content["error"][0]

    spec = trained.job("train", "exact").spec
    dataset = data.load(trained.root, spec.data)
    denoiser = models.load_denoiser(spec, trained.root, dataset, torch.device("cpu"))
    x = models.grey_levels_of(dataset, spec.process).to_model(dataset.test[:30])
    for i, steps in enumerate(content["steps"]):
        solver = build(HeunSpec(steps=steps), denoiser)
        with torch.no_grad():
            back = solve(solver, encode(solver, x), UNCONDITIONAL, torch.zeros_like)
        each = ((back - x).double().numpy() ** 2 / 4).mean((1, 2, 3))
        assert content["error"][i] == pytest.approx(each.mean(), rel=1e-5)
        assert content["se"][i] == pytest.approx(each.std(ddof=1) / np.sqrt(30), rel=1e-5)

    grid = cells(picture, columns=5)
    assert grid.shape == (4, 5, 8, 8)
    grey = np.round(dataset.test[:8, :, :, 0] * (255 / 16))
    assert np.array_equal(grid[:, 0], grey[0::2]) and np.array_equal(grid[:, -1], grey[1::2])
    # Beside them their own latents, decoded: a level is 16 of 255, and the rms error less than half of one.
    assert content["error"][1] ** 0.5 < 1 / 32
    for column, near, far in ((1, 0, 1), (3, 1, 0)):
        distances = [np.abs(grid[:, column] - grey[k::2]).mean() for k in (near, far)]
        assert distances[0] < 16 and distances[1] > 2 * distances[0]


def test_an_analysis_gives_the_same_bytes_again(trained: Plan) -> None:
    product = trained.job("analysis", "exact", 0, "latents").product
    first = analysed(trained, "exact", "latents")[0], product.with_suffix(".png").read_bytes()
    again = analysed(trained, "exact", "latents")[0], product.with_suffix(".png").read_bytes()
    assert first == again


@pytest.mark.parametrize("variant", ["exact", "conditional"])
def test_images_that_are_seen_apart_have_the_same_latents(
    trained: Plan, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    together, _ = analysed(trained, variant, "latents")
    monkeypatch.setattr("diffbench.analyses.latents.TOGETHER", 2)
    apart, _ = analysed(trained, variant, "latents")
    assert apart["nfe"] == together["nfe"]
    # Float32 sums of another batch size.
    assert apart["error"] == pytest.approx(together["error"], rel=1e-4)


def test_one_image_has_no_standard_error_and_no_pair(trained: Plan) -> None:
    content, _ = analysed(trained, "exact", "one")
    assert (content["steps"], content["nfe"], content["images"]) == ([3], [2], 1)
    assert content["se"] == [None]


def test_a_conditional_network_is_told_the_labels_in_full_precision(
    trained: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the images, on the way up and down; between two images those of the first.  Five images have two pairs."""
    told, seen = [], set()
    call = models.NetworkRunner.__call__

    def noted(self, x: Tensor, c_noise: Tensor, y: Tensor | None, raw: Tensor) -> Tensor:
        told.append(y)
        seen.add(self.precision)
        return call(self, x, c_noise, y, raw)

    monkeypatch.setattr(models.NetworkRunner, "__call__", noted)
    content, picture = analysed(trained, "conditional", "latents")
    assert (content["steps"], content["nfe"]) == ([4, 10], [3, 9])
    labels = data.load(trained.root, trained.job("data").spec.data).test_labels[:5].tolist()
    trips, ways = told[: 3 + 4 + 9 + 10], told[3 + 4 + 9 + 10 :]
    assert all(y.tolist() == labels for y in trips)
    assert len(ways) == 9 * 10 and all(y.tolist() == labels[0:4:2] for y in ways)
    assert seen == {"fp32"}
    assert cells(picture, columns=11).shape == (2, 11, 8, 8)


def test_only_an_analysis_of_the_model_waits_for_training(trained: Plan) -> None:
    """Gradient noise trains a network of its own."""
    model = trained.job("train", "conditional").product
    jobs = {item: trained.job("analysis", "conditional", 0, item) for item in ("latents", "noise")}
    assert trained.inputs(jobs["latents"]) == [paths.dataset(trained.root), model]
    assert trained.inputs(jobs["noise"]) == [paths.dataset(trained.root)]
    assert (LatentsSpec.uses_model, GradientNoiseSpec.uses_model) == (True, False)
