"""Blurring diffusion and inverse heat dissipation: recorded arrays, neighbours among the processes, closed forms."""

import math

import pytest
import torch
from torch import Tensor
from toys import Toy, close, column, diagonal_denoiser, made, process_of, recorded

from diffbench.data.grey_levels import GreyLevels
from diffbench.diffusion.core.condition import UNCONDITIONAL
from diffbench.diffusion.core.predictions import Prediction
from diffbench.diffusion.core.process import Process, float64
from diffbench.diffusion.core.transitions import posterior_residual, step_mean
from diffbench.diffusion.denoisers.network import NetworkDenoiser
from diffbench.diffusion.likelihoods.ode import ODELikelihood
from diffbench.diffusion.likelihoods.vlb import HeatBound
from diffbench.diffusion.objectives.losses import Mean
from diffbench.diffusion.objectives.times import UniformTimes
from diffbench.diffusion.processes.heat import IHDM
from diffbench.diffusion.solvers.loop import sample, solve
from diffbench.specs.denoisers import NetworkDenoiserSpec
from diffbench.specs.likelihoods import HeatBoundSpec, ODELikelihoodSpec, VLBSpec
from diffbench.specs.objectives import MeanSpec, UniformTimesSpec
from diffbench.specs.processes import BlurringSpec, IHDMSpec
from diffbench.specs.registry import build
from diffbench.specs.solvers import AncestralSpec, DDIMSpec, InverseHeatSpec, SolverSpec

BLURS = [0, 1, 10, 20]


def blurring(
    size: int, sigma_max: float, schedule: str = "sin2", width: int | None = None
) -> Process:
    return made(BlurringSpec(sigma_max=sigma_max, schedule=schedule), (3, size, width or size))


@pytest.mark.parametrize("size", [8, 32])
@pytest.mark.parametrize("sigma_max", BLURS)
def test_blurring_is_its_pseudo_code(size: int, sigma_max: int) -> None:
    arrays, process = recorded(f"blurring_diffusion{size}"), blurring(size, sigma_max)
    t = arrays["t"]
    close(process.sigma(t), arrays["sigma"])
    close(process.signal(t), arrays["a"])
    close(process.alpha(column(t))[:, 0], arrays[f"b{sigma_max}_alpha"])
    drawn = torch.cat([process.diffuse(arrays["x"], each, arrays["eps"]) for each in t])
    close(drawn, arrays[f"b{sigma_max}_z_t"])


@pytest.mark.parametrize("size", [8, 32])
@pytest.mark.parametrize("sigma_max", BLURS)
def test_blurrings_steps_are_its_pseudo_codes(size: int, sigma_max: int) -> None:
    """The pseudo-code adds 1e-8 to sigma^2_{t|s} in the mean's first term: with it, to rounding, and without it to
    1e-6, since sigma^2_{t|s} is at least 0.02 here and the terms of the mean at most 100 times it."""
    arrays, process = recorded(f"blurring_diffusion{size}"), blurring(size, sigma_max)
    z, basis = arrays["z"], process.basis
    for i, t in enumerate(arrays["t_den"]):
        s, sigma = t - 0.1, process.sigma(t)
        eps = 0.3 * z * torch.cos(10 * t) + 0.1 * torch.sin(z)
        want = arrays[f"b{sigma_max}_mu_denoise"][i : i + 1]
        variance = process.posterior_variance(t, s)
        close(variance.expand(size, size), arrays[f"b{sigma_max}_var_denoise"][i])
        alpha, sigma2 = process.transition(t, s)
        assert (sigma2 > 0.02).all()
        first = basis.scale(alpha * variance / (sigma2 + 1e-8), z)
        second = basis.scale(variance / alpha / process.sigma(s) ** 2, z - sigma * eps)
        close(first + second, want)
        prediction = Prediction(process, z, t, "eps", eps)
        ours = step_mean(prediction, s, posterior_residual(process, t, s))
        close(ours, want, rtol=1e-6, atol=1e-6)


def test_without_blur_it_is_the_cosine_process() -> None:
    process, cosine = blurring(8, 0), process_of("vp-cosine")
    t = column(torch.linspace(0, 1, 11).double())
    for name in ("alpha", "sigma", "f", "g2", "ratio", "noise_level"):
        got, want = getattr(process, name)(t), getattr(cosine, name)(t)
        close(got, want.expand_as(got), rtol=1e-12, atol=1e-12)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    for spec in (AncestralSpec(steps=9, threshold="none"), DDIMSpec(steps=9)):
        ends = [
            sample(
                build(spec, Toy(each, "eps", lambda x, t: torch.sin(x))),
                x.shape,
                noise(),
                dtype=x.dtype,
            )
            for each in (process, cosine)
        ]
        close(*ends, rtol=1e-12, atol=1e-11)


def noise() -> torch.Generator:
    return torch.Generator().manual_seed(4)


@pytest.mark.parametrize("schedule", ["sin2", "sin"])
def test_the_blur_rises_as_it_says(schedule: str) -> None:
    process = blurring(8, 3, schedule)
    t = torch.linspace(0, 1, 5).double()
    width = 3 * (torch.pi / 2 * t).sin() ** (2 if schedule == "sin2" else 1)
    close((2 * process.heat(t)[0]).sqrt(), width, atol=1e-12)


def diagonal(process: Process) -> tuple[Toy, Tensor, Tensor]:
    """The exact denoiser of a Gaussian that is diagonal in the coordinates, its mean and variances (H, W)."""
    h, w = process.basis.eigenvalues.shape
    mean = torch.linspace(-0.4, 0.5, h * w).double().reshape(h, w)
    variances = torch.linspace(0.9, 0.05, h * w).double().reshape(h, w)
    return diagonal_denoiser(process, mean, variances), mean, variances


@pytest.mark.parametrize("schedule", ["sin2", "sin"])
@pytest.mark.parametrize("sigma_max", [0.0, 0.4, 2.0])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_exact_steps_end_near_the_data(schedule: str, sigma_max: float, eta: float) -> None:
    """DDIM's map of each coordinate, composed by an affine recursion of its own, is the sampler's, to 1e-9."""
    process = made(BlurringSpec(sigma_max=sigma_max, schedule=schedule), (1, 2, 3))
    denoiser, mean, variances = diagonal(process)
    solver = build(DDIMSpec(steps=12, eta=eta), denoiser)
    A, b = torch.ones(2, 3).double(), torch.zeros(2, 3).double()
    times = solver.times()
    for t, s in zip(times[:-1], times[1:], strict=True):
        (a_t, a_s), (s_t, s_s) = (
            [f(each) for each in (t, s)] for f in (process.alpha, process.sigma)
        )
        total = a_t**2 * variances + s_t**2
        x0 = a_t * variances / total, mean - a_t**2 * variances / total * mean
        n2 = eta**2 * s_s**2 / s_t**2 * (s_t**2 - (a_t / a_s) ** 2 * s_s**2)
        r = (s_s**2 - n2).sqrt()
        slope = a_s * x0[0] + r * (1 - a_t * x0[0]) / s_t
        shift = a_s * x0[1] - r * a_t * x0[1] / s_t
        A, b = slope * A, slope * b + shift
    x = torch.zeros(1, 1, 2, 3).double()
    got = solve(solver, x, UNCONDITIONAL, torch.zeros_like)
    close(process.basis.coordinates(got)[0, 0], b, atol=1e-9)
    unit = torch.eye(6).double().reshape(6, 1, 2, 3)
    moved = process.basis.coordinates(
        solve(solver, process.basis.pixels(unit), UNCONDITIONAL, torch.zeros_like) - got
    )
    close(moved.reshape(6, 6), A.flatten().diag(), atol=1e-9)


@pytest.mark.parametrize("sigma_max", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("shape", [(1, 2, 3), (2, 3, 1)])
def test_bits_are_the_closed_form(sigma_max: float, shape: tuple[int, int, int]) -> None:
    """As in test_ode_likelihood: z = r (u - a m) + alpha(1) m per coordinate, log p = log N(z) + log r."""
    process = made(BlurringSpec(sigma_max=sigma_max), shape)
    denoiser, mean, variances = diagonal(process)
    likelihood = ODELikelihood(
        ODELikelihoodSpec(trace="exact", rtol=1e-7, atol=1e-7), denoiser, GreyLevels(256)
    )
    u = mean + variances.sqrt() * torch.randn(6, *shape, generator=noise()).double()
    first = float64(likelihood.first_time)
    a, v = process.alpha(first), process.alpha(first) ** 2 * variances + process.sigma(first) ** 2
    last = (
        process.alpha(float64(1.0)),
        process.alpha(float64(1.0)) ** 2 * variances + process.sigma(float64(1.0)) ** 2,
    )
    r = (last[1] / v).sqrt()
    z = r * (u - a * mean) + last[0] * mean
    want = process.prior_log_prob(z) + r.log().sum() * shape[0]
    with torch.no_grad():
        got, _ = likelihood.log_prob(process.basis.pixels(u), noise())
    bits = (got - want) / u[0].numel() / math.log(2)
    assert bits.abs().max() < 1e-3


def test_the_bound_is_above_the_entropy_and_falls_with_steps() -> None:
    """Of levels of Gaussian data under the exact denoiser; the bound's gap to the data's bits closes with its steps."""
    process = made(BlurringSpec(sigma_max=0.5), (1, 2, 3))
    denoiser, mean, variances = diagonal(process)
    cells, shape = GreyLevels(256), (2000, 1, 2, 3)
    u = mean / 4 + (variances / 16).sqrt() * torch.randn(shape, generator=noise()).double()
    quarter = diagonal_denoiser(process, mean / 4, variances / 16)
    x0 = cells.to_model(cells.from_model(process.basis.pixels(u))).double()
    entropy = (2 * math.pi * math.e * variances / 16).log().mean() / 2 - math.log(cells.spacing)
    options = {"threshold": "none", "grid": "log-snr"}
    totals = [
        float(build(VLBSpec(steps=n, **options), quarter, cells)(x0, noise())["total"].mean())
        for n in (10, 40, 160)
    ]
    truth = float(entropy) / math.log(2)
    assert totals[0] > totals[1] > totals[2] > truth
    # A step's loss is of second order in its length, all steps' of first order: a fourth of the gap is left each time.
    assert totals[2] - truth < 1.2 / 4 * (totals[1] - truth)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["euler-maruyama", "ode", "reverse-diffusion", "ddim", "ancestral"]
)
def test_samplers_reach_the_data(name: str) -> None:
    """4,000 draws of an exact Gaussian on non-square images: variances within 5 standard errors and 3 % of steps."""
    process = made(BlurringSpec(sigma_max=0.3), (1, 2, 3))
    denoiser, mean, variances = diagonal(process)
    given = {"name": name, "steps": 400, "threshold": "none"}
    solver = build(SolverSpec.choose(given), denoiser)
    u = process.basis.coordinates(sample(solver, (4000, 1, 2, 3), noise(), dtype=torch.float64))[
        :, 0
    ]
    assert ((u.mean(0) - mean).abs() < 5 * (variances / 4000).sqrt() + 0.02).all()
    assert ((u.var(0) / variances - 1).abs() < 5 * (2 / 4000) ** 0.5 + 0.05).all()


def ihdm(sigma: float = 0.01, **parameters: object) -> IHDM:
    spec = IHDMSpec(sigma=sigma, **{"levels": 12, "blur_min": 0.5, "blur_max": 8.0, **parameters})
    return made(spec, (3, 8, 8))


def toy_network(u: Tensor, t: Tensor) -> Tensor:
    """The network of ``ihdm_loss_sampler`` in u + net(u, k), with k = t + 1."""
    return u + 0.1 * torch.sin(2 * u) - 0.02 * u * torch.cos(0.1 * (t + 1))


def test_the_loss_is_ihdms() -> None:
    """A sum over pixels there; a mean, in units of sigma^2, here."""
    arrays, process = recorded("ihdm_loss_sampler"), ihdm()
    close(process.widths, arrays["blur_schedule"])
    x, t = arrays["x"], column(arrays["k"] - 1)
    objective = Mean(
        MeanSpec(), Toy(process, "mean", toy_network), UniformTimes(UniformTimesSpec(), process)
    )
    losses = (
        objective.losses(x, t, arrays["noise"], UNCONDITIONAL) * x[0].numel() * process.noise_std**2
    )
    close(losses, arrays["losses"])
    close(losses.mean(), arrays["loss"])


def test_the_sampler_is_ihdms() -> None:
    arrays, process = recorded("ihdm_loss_sampler"), ihdm()
    solver = build(InverseHeatSpec(ratio=1.25), Toy(process, "mean", toy_network))
    x, times = arrays["u_K"], solver.times()
    close(times, torch.arange(11, -2, -1).double())
    for noise_, want, t, s in zip(arrays["noises"], arrays["traj"], times, times[1:], strict=False):
        mean = solver.step(x, t, s, UNCONDITIONAL, torch.zeros_like)
        x = mean + 0.0125 * noise_
        close(x, want)
    close(mean, arrays["sample"])


def test_every_level_is_trained_or_all_but_the_last() -> None:
    process = ihdm()
    u = torch.linspace(0, 1 - 1e-9, 1000, dtype=torch.float64)
    for highest, last in ((True, 11), (False, 10)):
        t, weights = UniformTimes(UniformTimesSpec(highest=highest), process).quantile(u)
        assert sorted(set(t.tolist())) == list(range(last + 1)) and (weights == 1).all()


def test_a_network_adds_to_its_input() -> None:
    """x + sigma F, or x + F; F sees the image in [-1, 1] and the logarithm of the blur's width."""
    process, seen = ihdm(0.1), {}

    def network(x: Tensor, c_noise: Tensor, y: Tensor | None, raw: Tensor) -> Tensor:
        seen.update(x=x, c_noise=c_noise)
        return torch.full_like(x, 0.5)

    x, t = torch.rand(2, 3, 8, 8).double(), column(float64([0, 11]))
    for skip, out in (("residual", 0.1), ("addition", 1.0)):
        denoiser = NetworkDenoiser(NetworkDenoiserSpec(predict="mean", skip=skip), process, network)
        close(denoiser(x, t).mean, x + out * 0.5)
        close(seen["x"], 2 * x - 1)
        close(seen["c_noise"], float64([math.log(0.5), math.log(8.0)]))
    with pytest.raises(TypeError, match="ihdm has no x0: its network predicts the level before"):
        _ = denoiser(x, t).x0


def test_the_prior_is_made_of_training_images() -> None:
    process = ihdm(0.1, blur_max=40.0)
    solver = build(InverseHeatSpec(ratio=1.5), Toy(process, "mean", toy_network))
    z = torch.zeros(200, 3, 8, 8).double()
    start = solver.draw(z, noise())
    means = process.prior_means(z)
    assert all((start - mean).abs().flatten(1).amax(1).min() == 0 for mean in means)
    close(means, process.images.mean((2, 3), keepdim=True).expand_as(means), atol=1e-9)
    close(solver.draw(z + 1, noise()), start + 0.15)


def test_the_bound_of_one_training_image_is_in_closed_form() -> None:
    """One image in the prior: the bound of the prior's term is the KL itself. With the exact mean every step's KL is
    D (sigma^2/delta^2 - 1 + 2 ln(delta/sigma))/2, the same as the prior's, and the decoder a Gaussian's bin."""
    process = ihdm(0.05)
    process.images = 0.1 + 0.8 * process.images[:1]
    x0 = GreyLevels(256, 0, 1).to_model(GreyLevels(256, 0, 1).from_model(process.images)).double()
    process.images = x0
    exact = Toy(process, "mean", lambda x, t: process.blurred(x0, t - 1))
    bound = HeatBound(HeatBoundSpec(ratio=1.2), exact, GreyLevels(256, 0, 1))
    got = bound(x0, noise())
    each = (1 / 1.2**2 - 1 + 2 * math.log(1.2)) / 2 / math.log(2)
    close(got["prior"], float64([each]))
    close(got["terms"][1:], torch.full((11,), each, dtype=torch.float64))
    half_bin = 0.5 / 255 / (1.2 * 0.05)
    inside = torch.special.ndtr(float64(half_bin)) - torch.special.ndtr(float64(-half_bin))
    close(got["terms"][0], -inside.log2())
    far = HeatBound(HeatBoundSpec(ratio=1.2), exact, GreyLevels(256, 0, 1)).prior(x0 + 0.1)
    blurred = process.blurred(x0 + 0.1, float64(11.0)) - process.blurred(x0, float64(11.0))
    close(far, each + bits_of(blurred.square() / (2 * 0.06**2)))


def bits_of(nats: Tensor) -> Tensor:
    return nats.flatten(1).mean(1) / math.log(2)


def test_the_prior_of_many_is_at_most_the_nearests_and_log_n() -> None:
    process = ihdm(0.05)
    bound = HeatBound(HeatBoundSpec(), Toy(process, "mean", toy_network), GreyLevels(256, 0, 1))
    x0 = process.images
    many = bound.prior(x0)
    process.images = x0[:1]
    alone = bound.prior(x0[:1])
    assert many[0] <= alone + math.log2(len(x0)) / x0[0].numel() + 1e-12


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"blur_min": 9.0}, "blur_min 9.0 must be below blur_max 8.0"),
        ({"sigma": 0.0}, "greater than 0"),
    ],
)
def test_mistakes_are_refused(parameters: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ihdm(**parameters)
