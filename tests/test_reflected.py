"""Reflected diffusion: recorded arrays, walls that hold, exact densities, and the denoisers' boundary condition."""

import math

import pytest
import torch
from torch import Tensor
from toys import REFLECTED, Toy, close, column, made, process_of, recorded

from diffbench.data.grey_levels import GreyLevels
from diffbench.diffusion.core.condition import UNCONDITIONAL, Condition
from diffbench.diffusion.core.predictions import Prediction
from diffbench.diffusion.core.process import Process, float64
from diffbench.diffusion.denoisers.boundary import Bumped, Gated, KernelMixture
from diffbench.diffusion.denoisers.denoiser import Counted, Denoiser
from diffbench.diffusion.denoisers.exact import ReflectedMixtureDenoiser
from diffbench.diffusion.denoisers.guidance import ClassifierFreeGuidance
from diffbench.diffusion.denoisers.network import NetworkDenoiser
from diffbench.diffusion.likelihoods.ode import ODELikelihood
from diffbench.diffusion.objectives.losses import ScoreMatching
from diffbench.diffusion.objectives.times import UniformTimes
from diffbench.diffusion.processes.reflection import fold, log_density
from diffbench.diffusion.solvers.corrector import Langevin
from diffbench.diffusion.solvers.loop import sample, solve
from diffbench.specs.denoisers import (
    GatedSpec,
    KernelMixtureSpec,
    NetworkDenoiserSpec,
    ReflectedEmpiricalSpec,
)
from diffbench.specs.likelihoods import ODELikelihoodSpec
from diffbench.specs.objectives import ScoreMatchingSpec, UniformTimesSpec
from diffbench.specs.processes import ReflectedSpec, VPSpec
from diffbench.specs.registry import build
from diffbench.specs.solvers import (
    EulerMaruyamaSpec,
    LangevinSpec,
    ODESpec,
    SolverSpec,
    TransportSpec,
)

SHAPE = (40, 1, 2, 2)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def official_score(x: Tensor, sigma: Tensor) -> Tensor:
    """The network of the recorded steps, which is the score itself."""
    return -0.5 * x / (0.1 + sigma) + 0.2 * torch.cos(4 * x)


def official(process: Process) -> Toy:
    return Toy(process, "score", lambda x, t: official_score(x, process.sigma(t)))


def test_the_sde_is_the_official_one() -> None:
    arrays, process = recorded("reflected_reflect"), process_of("reflected")
    t = arrays["t"]
    close(process.g2(t).sqrt(), arrays["diffusion"])
    close(process.sigma(t), arrays["std"])
    close(process.sigma(torch.linspace(0, 1, 1000).double()), arrays["discrete_sigmas"], rtol=1e-6)
    close(process.sigma(torch.linspace(0, 1, 1000, dtype=torch.float64)), arrays["discrete_sigmas"])


def test_reverse_drifts_are_the_official_ones() -> None:
    """A reverse step of length 1, before anything is reflected, is x - drift; the chain's noise is VE's, between levels
    floor(t (N - 1)) and the one before, from the data to the first."""
    arrays, process = recorded("reflected_reflect"), process_of("reflected")
    x, t = arrays["x"], column(arrays["t"])
    denoiser = Toy(process, "score", lambda x, t: 0.3 * torch.cos(3 * x) - t * x)
    step = build(EulerMaruyamaSpec(steps=1), denoiser).advance
    flow = build(ODESpec(steps=1, method="euler"), denoiser).advance
    close(x - step(x, t, t - 1, UNCONDITIONAL, torch.zeros_like), arrays["rev0_drift"])
    close(x - flow(x, t, t - 1, UNCONDITIONAL, torch.zeros_like), arrays["rev1_drift"])
    level = (arrays["t"] * 999).floor()
    before = torch.where(level == 0, process.data_time, (level - 1) / 999)
    close(process.chain_step(level / 999, before)[1].sqrt(), arrays["disc_G"])


def test_the_loss_is_the_official_one() -> None:
    """The official target adds 1e-12 to its density: at the widest of these it is 1e-7 of it."""
    arrays, process = recorded("reflected_loss_steps"), process_of("reflected")
    t = arrays["u"] * (1 - 1e-5) + 1e-5
    close(t, arrays["t"])
    close(process.sigma(t), arrays["sigma"])
    x0, t4 = arrays["x0"], column(t)
    x_t = process.diffuse(x0, t4, arrays["z"])
    close(x_t, arrays["perturbed"])
    target = -process.noise_in(x_t, t4, x0, arrays["z"]) / process.sigma(t4)
    scale = arrays["target"].abs().clamp(min=1)
    assert ((target - arrays["target"]).abs() / scale).max() < 1e-6
    times = UniformTimes(UniformTimesSpec(), process)
    for name, weight in (("lw0", "sigma2"), ("lw1", "likelihood")):
        objective = ScoreMatching(ScoreMatchingSpec(weight=weight), official(process), times)
        losses = objective.losses(x0, t4, arrays["z"], UNCONDITIONAL)
        close(losses, arrays[f"loss_{name}_rm1"], rtol=1e-6)
        close(losses * x0[0].numel() / 2, arrays[f"loss_{name}_rm0"], rtol=1e-6)


def test_steps_are_the_official_ones() -> None:
    arrays, process = recorded("reflected_loss_steps"), process_of("reflected")
    x, t = arrays["xs"], column(arrays["t"])
    solver = build(EulerMaruyamaSpec(steps=1000), official(process))
    for name, noise in (("em_mean", torch.zeros_like), ("em_x", lambda _: arrays["z2"])):
        close(
            solver.confine(solver.advance(x, t, t - 1 / 1000, UNCONDITIONAL, noise)), arrays[name]
        )
    langevin = Langevin(LangevinSpec(snr=0.01), official(process))
    close(langevin.update(x, t, UNCONDITIONAL, lambda _: arrays["z2"]), arrays["langevin0.01_x"])
    # The official mean is not reflected.
    close(
        langevin.update(x, t, UNCONDITIONAL, lambda _: arrays["z2"], quiet=True),
        fold(arrays["langevin0.01_mean"]),
    )


def test_the_sampling_loop_is_the_official_one() -> None:
    """30 levels, each but the last with a step of 1/30 from it; the noise of the last step stays (GOTCHAS: the
    denoiser's result is thrown away)."""
    arrays, process = recorded("reflected_pc_sampler"), process_of("reflected")
    solver, x = build(EulerMaruyamaSpec(steps=30), official(process)), arrays["init"]
    for i, t in enumerate(torch.linspace(1, 1e-5, 30, dtype=torch.float64)[:-1]):
        x = solver.step(x, t, t - 1 / 30, UNCONDITIONAL, lambda _, i=i: arrays["noises"][i, 1])
    close(x, arrays["sample"])


def exact(process: Process, **tensors: Tensor) -> ReflectedMixtureDenoiser:
    return ReflectedMixtureDenoiser(ReflectedEmpiricalSpec(), process, {**REFLECTED, **tensors})


def small() -> Process:
    return made(ReflectedSpec(sigma_min=0.01, sigma_max=1.25))


class Guided(Denoiser):
    """Two exact models, one a class and their mixture without: guidance can be taken to any weight."""

    classes = 2

    def __init__(self, process: Process) -> None:
        super().__init__(process)
        parts = {"weights": torch.ones(1).double()}
        self.models = [
            exact(process, **parts, **{k: REFLECTED[k][[i]] for k in ("centres", "widths")})
            for i in range(2)
        ]
        self.mixture = exact(process)

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Prediction:
        return self.mixture(x_t, t) if condition.label is None else self.models[0](x_t, t)


INSIDE = [
    {"name": "euler-maruyama"},
    {"name": "euler-maruyama", "walls": "project"},
    {"name": "euler-maruyama", "noise": 0.5},
    {"name": "euler-maruyama", "corrector": {"snr": 0.3}},
    {"name": "reverse-diffusion"},
    {
        "name": "reverse-diffusion",
        "walls": "project",
        "corrector": {"snr": 0.3, "order": "corrector-first"},
    },
    {"name": "langevin"},
    {"name": "transport"},
    {"name": "transport", "order": 1},
]


@pytest.mark.slow
@pytest.mark.parametrize("settings", INSIDE, ids=lambda each: "-".join(map(str, each.values())))
@pytest.mark.parametrize("steps", [2, 7, 30])
@pytest.mark.parametrize("w", [None, 0, 4, 15, 1000])
def test_every_state_is_in_the_cube(settings: dict, steps: int, w: float | None) -> None:
    """For a network that knows no wall as for an exact one, at any weight; all seeds are in the draws."""
    process = small()
    for denoiser in (Guided(process), Unaware(process)):
        solver = build(SolverSpec.choose({**settings, "steps": steps, "w": w}), denoiser)
        states, step = [], solver.step

        def watched(*args: object, step: object = step, states: list = states) -> Tensor:
            states.append(step(*args))
            return states[-1]

        solver.step = watched
        y = torch.zeros(SHAPE[0], dtype=torch.long)
        states.append(sample(solver, SHAPE, generator(steps), Condition(y)))
        assert solver.moved == 0
        assert all(((x >= 0) & (x <= 1)).all() for x in states)


class Unaware(Denoiser):
    """A wild score that vanishes at no wall."""

    classes = 2

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Prediction:
        y = condition.label
        shift = 0 if y is None else 1 + y[:, None, None, None]
        return Prediction(self.process, x_t, t, "eps", torch.sin(5 * x_t) * 2 + shift)


def test_the_flow_of_an_exact_score_stays_inside_as_steps_shrink() -> None:
    """And a score that vanishes at no wall carries pixels out at any step: what is returned is inside all the same."""
    process = small()
    moved = {}
    for steps in (4, 16, 64):
        for name, denoiser in (("exact", Guided(process)), ("unaware", Unaware(process))):
            y = torch.zeros(500, dtype=torch.long)
            solver = build(ODESpec(steps=steps, w=15), denoiser)
            x = sample(solver, (500, 1, 2, 2), generator(), Condition(y), dtype=torch.float64)
            assert ((x >= 0) & (x <= 1)).all()
            moved[name, steps] = solver.moved
    assert moved["exact", 4] > 0 and moved["exact", 64] == 0
    assert moved["unaware", 64] > 0.1


def spread(x: Tensor) -> Tensor:
    """Numbers that describe a sample of SHAPE[1:]: means of cos(pi k x) per pixel and of products of two pixels."""
    x = x.flatten(1)
    features = [torch.cos(math.pi * k * x) for k in (1, 2, 3)]
    return torch.cat([*features, features[0] * features[0].roll(1, 1)], 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"name": "euler-maruyama", "steps": 300},
        {"name": "euler-maruyama", "steps": 300, "walls": "project"},
        {"name": "euler-maruyama", "steps": 300, "noise": 0.5},
        {"name": "reverse-diffusion", "steps": 150, "corrector": {"snr": 0.1}},
        {"name": "ode", "steps": 60},
        {"name": "ode-adaptive"},
        {"name": "transport", "steps": 60},
    ],
    ids=lambda each: "-".join(map(str, each.values())),
)
def test_samples_have_the_exact_density(settings: dict) -> None:
    """4,000 draws against as many from the data density, 16 moments: 4.5 standard errors each, and 0.02 for steps."""
    process = small()
    denoiser = exact(process)
    x = sample(
        build(SolverSpec.choose(settings), denoiser),
        (4000, 1, 2, 2),
        generator(1),
        dtype=torch.float64,
    )
    want, got = spread(data(4000)), spread(x)
    error = ((want.var(0) + got.var(0)) / 4000).sqrt()
    assert ((want.mean(0) - got.mean(0)).abs() < 4.5 * error + 0.02).all()


def data(count: int, widths: Tensor | None = None) -> Tensor:
    """Draws of the mixture of reflected Gaussians."""
    which = torch.multinomial(REFLECTED["weights"], count, replacement=True, generator=generator(2))
    z = torch.randn(count, 4, generator=generator(3), dtype=torch.float64)
    x = fold(REFLECTED["centres"][which] + (widths or REFLECTED["widths"])[which, None] * z)
    return x.reshape(count, 1, 2, 2)


def test_the_analytic_score_is_the_gradient_of_its_density() -> None:
    denoiser = exact(small())
    x = (0.02 + 0.96 * torch.rand(6, 1, 2, 2, generator=generator()).double()).requires_grad_()
    for t in (float64(0.0), float64(0.5), column(torch.linspace(0.1, 1, 6).double())):
        (gradient,) = torch.autograd.grad(denoiser.log_prob(x, t).sum(), x)
        close(denoiser(x, t).score.detach(), gradient, atol=1e-8)


@pytest.mark.slow
def test_bits_are_the_closed_form() -> None:
    """The prior is uniform to 2e-(pi 3)^2/2 = 1e-19 at sigma = 3; the density at time ``last`` is known."""
    process = made(ReflectedSpec(sigma_min=0.01, sigma_max=3))
    denoiser, cells = exact(process), GreyLevels(256, 0, 1, inside=True)
    x = data(40)
    for options in (
        {"trace": "exact"},
        {"trace": "exact", "method": "dormand-prince", "steps": 60},
    ):
        likelihood = ODELikelihood(ODELikelihoodSpec(**options), denoiser, cells)
        with torch.no_grad():
            got, latent = likelihood.log_prob(x, generator())
        want = denoiser.log_prob(x, float64(likelihood.first_time))
        assert ((got - want).abs() / 4 / math.log(2)).max() < 1e-3
        assert (latent > -1e-6).all() and (latent < 1 + 1e-6).all()
    probed = ODELikelihood(ODELikelihoodSpec(probes=2), denoiser, cells)
    with torch.no_grad():
        noisy = probed.log_prob(data(400), generator())[0] - denoiser.log_prob(
            data(400), float64(probed.first_time)
        )
    assert noisy.mean().abs() < 4 * noisy.std() / 20 + 0.004


def test_levels_of_a_bounded_process_are_cells_inside_it() -> None:
    """Dequantised levels stay in the cube, and the rounding rule inverts it exactly."""
    for count in (2, 17, 256):
        cells = GreyLevels(count, 0, 1, inside=True)
        k = torch.arange(count, dtype=torch.uint8).reshape(count, 1, 1, 1)
        x = cells.to_model(k).double()
        for u in (0.0, 0.5, 0.99):
            spread_ = cells.dequantise(x, torch.full_like(x, u))
            assert (spread_ >= -1e-7).all() and (spread_ <= 1 + 1e-7).all()
            assert (
                cells.from_model(spread_.clamp(0, 1) + 1e-6)[..., 0].flatten()
                == k.numpy().flatten()
            ).all()
        assert cells.log_jacobian == pytest.approx(-math.log(count))


def network(outputs: int):
    """Any smooth function, with that many numbers a pixel."""

    def answer(x: Tensor, c_noise: Tensor, y: Tensor | None, raw: Tensor) -> Tensor:
        c = c_noise[:, None, None, None]
        return torch.cat([torch.sin((k + 2) * x + c + k) + 0.3 for k in range(outputs)], 1)

    return answer


BUILT_IN = {
    "gated": lambda process: Gated(GatedSpec(), process, network(1)),
    "kernel-mixture": lambda process: KernelMixture(KernelMixtureSpec(), process, network(3)),
    "exact": exact,
}
every_construction = pytest.mark.parametrize("name", BUILT_IN)


@every_construction
def test_the_score_is_zero_at_the_walls_and_odd_about_them(name: str) -> None:
    """Its derivative there is finite, so 1e-9 off the wall it is at most 1e-9 times a slope below 1e6."""
    process = small()
    denoiser = BUILT_IN[name](process)
    x = torch.rand(8, 1, 2, 2, generator=generator()).double()
    for t in (float64(0.0), float64(0.4), float64(1.0)):
        for wall in (0.0, 1.0):
            at_wall = x.clone()
            at_wall[:, :, 0, 0] = wall
            assert denoiser(at_wall, t).eps[:, :, 0, 0].abs().max() < 1e-12
            near, mirrored = at_wall.clone(), at_wall.clone()
            near[:, :, 0, 0] = wall + 0.03
            mirrored[:, :, 0, 0] = wall - 0.03
            a, b = (denoiser(each, t).eps for each in (near, mirrored))
            close(a[:, :, 0, 0], -b[:, :, 0, 0], atol=1e-10)
        close(denoiser(x + 2, t).eps, denoiser(x, t).eps, atol=1e-9)


def test_a_plain_network_does_not() -> None:
    denoiser = NetworkDenoiser(NetworkDenoiserSpec(predict="score"), small(), network(1))
    assert denoiser(torch.zeros(1, 1, 2, 2).double(), float64(0.5)).eps.abs().min() > 0.1


def test_the_kernel_mixture_is_the_score_of_a_mixture() -> None:
    """With centres and weights that do not depend on x: two kernels, weighted."""
    process, answers = small(), torch.tensor([0.3, -0.2, 0.7]).double()

    def constant(x: Tensor, *_: object) -> Tensor:
        return answers.reshape(1, 3, 1, 1).expand(len(x), 3, *x.shape[2:])

    denoiser = KernelMixture(KernelMixtureSpec(data_std=1e-6), process, constant)
    x, t = (
        torch.linspace(0.01, 0.99, 12).double().reshape(1, 1, 3, 4).requires_grad_(),
        float64(0.6),
    )
    sigma = process.sigma(t)
    # Without spread of the data both centres are in the middle.
    odds = [torch.sigmoid(sign * float64(0.7)).log() for sign in (-1, 1)]
    log_p = torch.stack([each + log_density(x, 0 * x + 0.5, sigma) for each in odds]).logsumexp(0)
    (want,) = torch.autograd.grad(log_p.sum(), x)
    close(denoiser(x.detach(), t).score, want, atol=1e-5)


def test_guidance_keeps_the_boundary_condition() -> None:
    """At any weight, exact: a weighted difference of fields that vanish."""
    guided = ClassifierFreeGuidance(Guided(small()), 15)
    x = torch.tensor([0.0, 1.0, 0.3, 0.0]).double().reshape(1, 1, 2, 2)
    told = Condition(torch.zeros(1, dtype=torch.long))
    assert guided(x, float64(0.5), told).eps.flatten()[[0, 1, 3]].abs().max() < 1e-10


def test_the_bump_is_one_in_the_middle_and_nothing_at_the_walls() -> None:
    process = small()
    bumped = Bumped(Toy(process, "score", lambda x, t: 1 + 0 * x), 200)
    x = float64([0.5, 0.0, 1.0, 0.01]).reshape(1, 1, 2, 2)
    want = [1.0, 0.0, 0.0, math.exp((4 - 1 / (0.25 - 0.49**2)) / 200)]
    close(bumped(x, float64(0.5)).score.flatten(), float64(want), atol=1e-9)
    start = build(ODESpec(steps=3, bump=200), Toy(process, "score", lambda x, t: 0 * x)).start
    z = torch.tensor([-40.0, 40.0]).double().reshape(1, 1, 1, 2)
    close(start(z).flatten(), float64([0.01, 0.99]))


def test_transport_is_exact_for_one_kernel() -> None:
    """Data of one kernel per pixel: the flow is the transport itself, in a single step as in many."""
    process = small()
    tensors = {
        "weights": torch.ones(1).double(),
        "centres": REFLECTED["centres"][[1]],
        "widths": torch.zeros(1).double(),
    }
    denoiser = Counted(exact(process, **tensors))
    x = torch.rand(50, 1, 2, 2, generator=generator()).double()
    for steps in (2, 9):
        solver = build(TransportSpec(steps=steps), denoiser)
        got = solve(solver, x, UNCONDITIONAL, torch.zeros_like)
        close(got, tensors["centres"].reshape(1, 1, 2, 2).expand_as(got), atol=1e-3)
    assert denoiser.calls == 4 - 1 + 18 - 1


@pytest.mark.parametrize(
    ("spec", "process", "reason"),
    [
        (
            {"name": "ode", "steps": 5, "bump": 200},
            VPSpec(),
            "bump: 200 needs walls, and vp has none",
        ),
        (
            {"name": "euler-maruyama", "steps": 5, "walls": "project"},
            VPSpec(),
            "walls: project needs walls, and vp has none",
        ),
        (
            {"name": "ode", "steps": 5, "threshold": "static"},
            ReflectedSpec(),
            "threshold: static needs the view x0, and reflected has no x0",
        ),
        (
            {"name": "euler-maruyama", "steps": 5, "denoise": "tweedie"},
            ReflectedSpec(),
            "denoise: tweedie needs a Gaussian",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(spec: dict, process: object, reason: str) -> None:
    assert SolverSpec.choose(spec).refusal(process).startswith(reason)


def test_mistakes_are_refused() -> None:
    process, x = small(), torch.full((1, 1, 2, 2), 1.5)
    with pytest.raises(
        ValueError, match=r"images for reflected must lie in \[0, 1\], not in \[1.5, 1.5\]"
    ):
        process.diffuse(x, float64(0.5), x)
    likelihood = ODELikelihood(
        ODELikelihoodSpec(), exact(process), GreyLevels(256, 0, 1, inside=True)
    )
    with pytest.raises(ValueError, match="images for reflected must lie in"):
        likelihood.log_prob(x, generator())
    with pytest.raises(ValueError, match="sigma_min 2.0 must be below sigma_max 1.0"):
        ReflectedSpec(sigma_min=2, sigma_max=1)
    with pytest.raises(TypeError, match="reflected has no x0: Tweedie's formula does not hold"):
        _ = exact(process)(x / 2, float64(0.5)).x0
