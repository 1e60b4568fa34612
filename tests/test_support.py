"""Between walls a likelihood is a density's or no number: quadrature in one dimension, product, cell, samplers."""

import math

import pytest
import torch
from pydantic import ValidationError
from toys import Toy, made

from diffbench.data.grey_levels import GreyLevels
from diffbench.diffusion.core.process import MOVED, Process
from diffbench.diffusion.denoisers.boundary import Gated, KernelMixture
from diffbench.diffusion.denoisers.denoiser import Denoiser
from diffbench.diffusion.denoisers.network import NetworkDenoiser
from diffbench.diffusion.likelihoods.ode import ODELikelihood
from diffbench.diffusion.solvers.loop import sample
from diffbench.jobs.likelihood import summary
from diffbench.reporting.cells import cells_of
from diffbench.reporting.records import long
from diffbench.reporting.results import Outcome
from diffbench.specs.data import DigitsSpec
from diffbench.specs.denoisers import GatedSpec, KernelMixtureSpec, NetworkDenoiserSpec
from diffbench.specs.jobs import LikelihoodStageSpec, TrainSpec
from diffbench.specs.likelihoods import ODELikelihoodSpec
from diffbench.specs.processes import ReflectedSpec, VPSpec
from diffbench.specs.registry import build
from diffbench.specs.solvers import SolverSpec

CELLS = GreyLevels(256, 0, 1, inside=True)
#: The flow dx/dsigma = eps = c (2 x - 1) from sigma = 0.01 to 1.25 takes x - 1/2 to e^(2.48 c) times that: the latents'
#: length.
LENGTHS = [6.3, 2.5, 1.45]


def process() -> Process:
    return made(ReflectedSpec(sigma_min=0.01, sigma_max=1.25))


def outward(length: float) -> Toy:
    """A score that does not vanish at the walls: latents fill that length."""
    c = math.log(length) / 2.48
    return Toy(process(), "eps", lambda x, t: c * (2 * x - 1))


def network(outputs: int):
    """A smooth function with that many numbers a pixel, which vanishes at no wall."""

    def answer(
        x: torch.Tensor, c_noise: torch.Tensor, y: object, raw: torch.Tensor
    ) -> torch.Tensor:
        c = c_noise[:, None, None, None]
        return torch.cat([0.1 * torch.sin((k + 2) * x + c + k) for k in range(outputs)], 1)

    return answer


def plain() -> Denoiser:
    spec = NetworkDenoiserSpec(predict="score", input_scale="none")
    return NetworkDenoiser(spec, process(), network(1))


def points(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """x in [0, 1], (count, 1, 1, 1), and weights: midpoints in u of x = (1 - cos pi u)/2, which are dense at walls."""
    u = math.pi * (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return ((1 - u.cos()) / 2).reshape(-1, 1, 1, 1), math.pi / 2 * u.sin() / count


def likelihood(denoiser: Denoiser, **options: object) -> ODELikelihood:
    return ODELikelihood(ODELikelihoodSpec(trace="exact", **options), denoiser, CELLS)


CLOSED = {
    "gated": (lambda: Gated(GatedSpec(), process(), network(1)), {}),
    "kernel-mixture": (lambda: KernelMixture(KernelMixtureSpec(), process(), network(3)), {}),
    **{
        f"{name}, {key} {value:g}": (make, {key: value})
        for name, make in (("network", plain), ("outward", lambda: outward(2.5)))
        for key, value in (("bump", 200), ("gate", 1), ("gate", 0.3))
    },
}


#: A long way through time, as fine as n, and a short one.
METHODS = {
    "fixed": lambda n: [{"method": "dormand-prince", "steps": steps} for steps in (n, n // 2)],
    "adaptive": lambda n: [{"rtol": rtol, "atol": rtol} for rtol in (1e-8, 1e-6)],
}


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", CLOSED)
def test_every_closed_construction_has_a_density(name: str, method: str) -> None:
    """Its integral is 1.

    Midpoints err by O(1/n^2), with n by a third of the change from n/2.  The long way through time errs by less than
    the change from the short one: of order 5, by 1/31 of it with twice the steps, by (1/100)^(4/5) of it with a
    hundredth of the tolerance.  Ten times the one, for what is not yet O(1/n^2), and all of the other are allowed, and
    must be little.  The bump has layers of 1/200 at the walls.
    """
    make, closed = CLOSED[name]
    count, steps = (3200, 128) if "bump" in closed else (200, 32)
    long, short = METHODS[method](steps)

    def integral(count: int, way: dict) -> float:
        x, weights = points(count)
        with torch.no_grad():
            log_prob, latent = likelihood(make(), **closed, **way).log_prob(x, torch.Generator())
        assert not process().outside(latent).any()
        return float((log_prob.exp() * weights).sum())

    rough, fine, got = integral(count // 2, short), integral(count, short), integral(count, long)
    error = 10 * abs(fine - rough) / 3 + abs(got - fine) + 1e-9
    assert abs(got - 1) < error < 1e-2


@pytest.mark.parametrize("length", LENGTHS)
def test_latents_outside_the_cube_have_no_density(length: float) -> None:
    """exp(log det) integrates to the latents' length; of the images 1/length have a density, and it integrates to 1.

    Where these images end is known to half a cell, 1/(2 n), of a density near ``length``, at both ends.
    """
    count, way = 2000, {"method": "dormand-prince", "steps": 16}
    x = ((torch.arange(count, dtype=torch.float64) + 0.5) / count).reshape(-1, 1, 1, 1)
    flow = likelihood(outward(length), **way)
    with torch.no_grad():
        latent, log_det = flow.latent(x, torch.Generator())
        log_prob, _ = flow.log_prob(x, torch.Generator())
    assert float(log_det.exp().mean()) == pytest.approx(length, rel=1e-5)
    outside = ((latent - 0.5).abs() > 0.5 + MOVED / 2).flatten()
    assert torch.equal(log_prob.isneginf(), outside)
    assert float(outside.double().mean()) == pytest.approx(1 - 1 / length, abs=1.5 / count)
    assert float(log_prob.exp().mean()) == pytest.approx(1, abs=1.5 * length / count)


def test_one_pixel_outside_is_the_images_end() -> None:
    prior = process().prior_log_prob
    x = torch.tensor([[0.0, 1.0], [0.5, 1.01], [-0.2, 0.5], [1 + 1e-5, -1e-5]])
    assert prior(x.reshape(4, 1, 1, 2)).tolist() == [0, -math.inf, -math.inf, 0]


def bits_of(denoiser: Denoiser, count: int = 64, **options: object) -> dict:
    """The product's content for images of one pixel on each of the levels 0, 4, .., 252."""
    x = CELLS.to_model(4 * torch.arange(count, dtype=torch.uint8).reshape(-1, 1, 1, 1)).double()
    spec = ODELikelihoodSpec(trace="exact", **{"method": "dormand-prince", "steps": 16, **options})
    parts = [ODELikelihood(spec, denoiser, CELLS)(x, torch.Generator().manual_seed(0))]
    train = TrainSpec(
        variant="plain",
        seed=0,
        data=DigitsSpec(),
        process=denoiser.process.spec,
        denoiser=NetworkDenoiserSpec(predict="score"),
    )
    stage = LikelihoodStageSpec(
        variant="plain", seed=0, kind_id="ode", likelihood=spec, train=train
    )
    return summary(stage, 256, 1, parts)


def test_the_product_says_why_there_is_no_number_and_the_cell_too() -> None:
    """Of 64 levels 1 - 1/2.5 = 60 % end outside, to two levels; the sum would be log2(256/2.5) = 6.678 bits."""
    content = bits_of(outward(2.5))
    bits, outside = content["bits_per_dim"], content["outside"]
    assert bits["value"] is None and bits["se"] is None
    assert outside["images"] == outside["pixels"] == pytest.approx(0.6, abs=2 / 64)
    assert outside["bits_if_inside"] == pytest.approx(math.log2(256 / 2.5), abs=1e-4)
    share = f"{100 * outside['images']:.3g} % of the images"
    assert share in bits["reason"] and "6.678 bits/dim, which is no likelihood" in bits["reason"]
    job = {"variant": "plain", "seed": 0, "stage": "likelihood", "item": "ode"}
    table = long([(job, Outcome("ok", scores={"bits_per_dim": bits}))])
    (found,) = cells_of(table).values()
    assert (found.status, found.note, found.mean) == ("missing", bits["reason"], None)


@pytest.mark.parametrize("closed", [{"bump": 200, "steps": 160}, {"gate": 0.3}], ids=str)
def test_a_closed_wall_gives_the_product_a_number(closed: dict) -> None:
    content = bits_of(outward(2.5), **closed)
    assert content["bits_per_dim"]["value"] == content["outside"]["bits_if_inside"]
    assert content["outside"]["images"] == 0 and "reason" not in content["bits_per_dim"]


def test_steps_that_jump_over_a_closed_wall_are_seen() -> None:
    """The bump's layer, 1/200, is thinner than the last of 16 steps is long."""
    content = bits_of(outward(2.5), bump=200)
    assert content["bits_per_dim"]["value"] is None and 0 < content["outside"]["images"] < 0.6


def test_other_processes_have_no_outside() -> None:
    vp = made(VPSpec())
    content = bits_of(Toy(vp, "eps", lambda x, t: 0 * x))
    assert content["bits_per_dim"]["value"] > 0 and "outside" not in content


@pytest.mark.parametrize("name", ["ode", "ode-adaptive"])
@pytest.mark.parametrize("closed", [{}, {"bump": 200}, {"gate": 0.3}], ids=str)
def test_samplers_close_the_walls_too(name: str, closed: dict) -> None:
    """Down the flow an inward score becomes an outward one: 1 - 1/6.3 of the samples leave an open cube."""
    steps = {"steps": 400} if name == "ode" else {}
    inward = Toy(process(), "eps", lambda x, t: -outward(6.3).formula(x, t))
    solver = build(SolverSpec.choose({"name": name, **steps, **closed}), inward)
    x = sample(solver, (500, 1, 1, 2), torch.Generator().manual_seed(0), dtype=torch.float64)
    assert ((x >= 0) & (x <= 1)).all()
    assert solver.moved == 0 if closed else solver.moved > 0.5


@pytest.mark.parametrize(
    "kind", [ODELikelihoodSpec, *(SolverSpec.known[n] for n in ("ode", "ode-adaptive"))]
)
def test_mistakes_are_refused(kind: type) -> None:
    steps = {"steps": 5} if kind is SolverSpec.known["ode"] else {}
    for key in ("bump", "gate"):
        assert (
            kind(**steps, **{key: 2}).refusal(VPSpec()) == f"{key}: 2 needs walls, and vp has none"
        )
        assert kind(**steps, **{key: 2}).refusal(ReflectedSpec()) is None
    with pytest.raises(
        ValidationError, match="bump: 2, gate: 1: each closes the walls; give one of the two"
    ):
        kind(**steps, bump=2, gate=1)
