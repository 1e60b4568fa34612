"""Denoisers: EDM's preconditioning, parameterisations that must agree, thresholds and call
counts."""

import itertools

import pytest
import torch
from torch import Tensor
from toys import Toy, close, column, process_of, recorded, toy_eps

from diffbench.diffusion.denoisers import Denoiser, NetworkDenoiser, StaticThreshold
from diffbench.diffusion.predictions import Prediction
from diffbench.diffusion.processes.gaussian import GaussianProcess, at
from diffbench.specs.denoiser import NetworkDenoiserSpec

VIEWS = ["x0", "eps", "v", "score"]
PROCESSES = ["vp", "sub-vp", "ve", "edm", "discrete"]
every_process = pytest.mark.parametrize("name", PROCESSES)


def some_process(name: str) -> GaussianProcess:
    chain = {"schedule": "linear", "steps": 50} if name == "discrete" else {}
    return process_of(name, **chain)


def at_times(process: GaussianProcess) -> Tensor:
    """Four times between the process's ends, one an image."""
    if process.spec.time == "discrete":
        return column(at([3, 17, 30, 49]))
    span = process.t_max - process.t_min
    return column(process.t_min + span * at([0.05, 0.3, 0.7, 1.0]))


def images(low: float, high: float) -> tuple[Tensor, Tensor]:
    """Data in the range and noise, (4, 2, 3, 3)."""
    generator = torch.Generator().manual_seed(1)
    x0 = torch.rand(4, 2, 3, 3, generator=generator, dtype=torch.float64)
    noise = torch.randn(4, 2, 3, 3, generator=generator, dtype=torch.float64)
    return low + (high - low) * x0, noise


def views_by_hand(
    process: GaussianProcess, x_t: Tensor, t: Tensor, x0: Tensor
) -> dict[str, Tensor]:
    alpha, sigma = process.alpha(t), process.sigma(t)
    eps = (x_t - alpha * x0) / sigma
    return {"x0": x0, "eps": eps, "v": alpha * eps - sigma * x0, "score": -eps / sigma}


def agree(got: Prediction, want: dict[str, Tensor], process: GaussianProcess, t: Tensor) -> None:
    """x0 from eps cancels by ratio = sigma/alpha, eps from x0 by its inverse: 152 and 1e3 at most
    here.

    Float64 rounding of 1e-16 becomes 1e-13 of the values, which reach 1e6 for the score.
    """
    for name in VIEWS:
        scale = float(want[name].abs().max())
        close(got.view(name), want[name], rtol=1e-9, atol=1e-11 * max(scale, 1.0))


@every_process
@pytest.mark.parametrize("native", VIEWS)
def test_every_view_follows_from_every_native_quantity(name: str, native: str) -> None:
    process = some_process(name)
    x0, noise = images(-1, 1)
    t = at_times(process)
    x_t = process.diffuse(x0, t, noise)
    guess = 0.7 * x0 + 0.1
    want = views_by_hand(process, x_t, t, guess)
    prediction = Prediction(process, x_t, t, native, want[native])
    assert prediction.view(native) is want[native]
    agree(prediction, want, process, t)


@every_process
@pytest.mark.parametrize("native", VIEWS)
def test_another_x0_changes_every_view(name: str, native: str) -> None:
    process = some_process(name)
    x0, noise = images(-1, 1)
    t = at_times(process)
    x_t = process.diffuse(x0, t, noise)
    first = Prediction(process, x_t, t, native, views_by_hand(process, x_t, t, x0)[native])
    agree(first.with_x0(0.2 * x0), views_by_hand(process, x_t, t, 0.2 * x0), process, t)


PARAMETERISATIONS = [
    *itertools.product(["x0", "eps", "v", "score"], ["none", "edm"]),
    ("edm", "none"),
]


def inverse_network(denoiser: NetworkDenoiser, t: Tensor, want: dict[str, Tensor], x_t: Tensor):
    """The network whose answer makes the denoiser predict ``want``, from the definition of each
    row.

    Quantities are of data centred on the middle m of their range: x0 - m, v + sigma m.
    """
    process, spec = denoiser.process, denoiser.process.spec
    alpha, sigma = process.alpha(t), process.sigma(t)
    m, s_d = (spec.low + spec.high) / 2, 0.5 * (spec.high - spec.low) / 2
    centred = {**want, "x0": want["x0"] - m, "v": want["v"] + sigma * m}

    def plain(native: str) -> Tensor:
        return sigma * centred["score"] if native == "score" else centred[native]

    def edm() -> Tensor:
        v = alpha**2 * s_d**2 + sigma**2
        skip, out = alpha * s_d**2 / v, sigma * s_d / v.sqrt()
        return (centred["x0"] - skip * (x_t - alpha * m)) / out

    return plain, edm


@every_process
@pytest.mark.parametrize(("predict", "skip"), PARAMETERISATIONS)
def test_parameterisations_agree(name: str, predict: str, skip: str) -> None:
    """Each, with the network that represents one given x0, predicts that x0 and all that
    follows."""
    process = some_process(name)
    x0, noise = images(process.spec.low, process.spec.high)
    t = at_times(process)
    x_t = process.diffuse(x0, t, noise)
    want = views_by_hand(process, x_t, t, 0.6 * x0 + 0.2)

    def network(x: Tensor, c_noise: Tensor, y: Tensor | None, raw: Tensor) -> Tensor:
        plain, edm = inverse_network(denoiser, t, want, x_t)
        return edm() if "edm" in (predict, skip) else plain(predict)

    denoiser = NetworkDenoiser(NetworkDenoiserSpec(predict=predict, skip=skip), process, network)
    agree(denoiser(x_t, t), want, process, t)


@every_process
@pytest.mark.parametrize("skip", ["none", "edm"])
def test_what_the_network_is_given(name: str, skip: str) -> None:
    """Unit-variance input for data of variance s_d^2 about m, or 1; ln(sigma/alpha)/4; the raw
    image in units of the half range."""
    process = some_process(name)
    spec, t = process.spec, at_times(process)
    x_t, y = process.diffuse(*images(spec.low, spec.high)[:1], t, images(-1, 1)[1]), torch.arange(4)
    given = []
    denoiser = NetworkDenoiser(
        NetworkDenoiserSpec(predict="eps", skip=skip, data_std=0.4),
        process,
        lambda *inputs: given.append(inputs) or inputs[0],
    )
    denoiser(x_t, t, y)
    ((x, c_noise, labels, raw),) = given
    alpha, sigma, half = process.alpha(t), process.sigma(t), (spec.high - spec.low) / 2
    centred = x_t - alpha * (spec.low + spec.high) / 2
    variance = alpha**2 * ((0.4 * half) ** 2 if skip == "edm" else 1) + sigma**2
    close(x, centred / variance.sqrt(), rtol=1e-12)
    close(c_noise, (sigma / alpha).log().flatten() / 4, rtol=1e-12)
    close(raw, centred / half, rtol=1e-12)
    assert labels is y


def toy_network(x: Tensor, c_noise: Tensor, y: Tensor | None, raw: Tensor) -> Tensor:
    """The inner network of ``edm_precond``."""
    return 0.3 * torch.sin(x) + 0.01 * column(c_noise)


def test_edm_preconditioning() -> None:
    arrays, process = recorded("edm_precond"), process_of("edm")
    denoiser = NetworkDenoiser(NetworkDenoiserSpec(predict="edm"), process, toy_network)
    sigma = arrays["sigma"]
    skip, out, inside = denoiser.coefficients(sigma)
    close(skip, arrays["EDM_c_skip"])
    close(out, arrays["EDM_c_out"])
    close(inside, arrays["EDM_c_in"])
    close(denoiser.c_noise(sigma), arrays["EDM_c_noise"])
    close(denoiser(arrays["x"], column(sigma)).x0, arrays["EDM_D"])


def test_eps_prediction_is_edms_vp_row() -> None:
    """D(x; sigma) = x - sigma F(x/sqrt(1 + sigma^2)) at x_t = alpha x; the network's time is EDM's
    own.

    Tolerance: VP's time is found from ln(1 + sigma^2), at sigma = 0.002 to 1e-16/4e-6 of itself.
    """
    arrays, process = recorded("edm_precond"), process_of("vp")
    t = column(process.time_of(arrays["sigma"]))

    def network(x: Tensor, c_noise: Tensor, y: Tensor | None, raw: Tensor) -> Tensor:
        return toy_network(x, arrays["VP_c_noise"], y, raw)

    denoiser = NetworkDenoiser(NetworkDenoiserSpec(predict="eps"), process, network)
    skip, out, inside = denoiser.coefficients(t)
    close(inside.flatten() * process.alpha(t).flatten(), arrays["VP_c_in"])
    close(out.flatten() * -process.ratio(t).flatten(), arrays["VP_c_out"])
    close((skip + 1).flatten(), arrays["VP_c_skip"])
    close(999 * t.flatten(), arrays["VP_c_noise"])
    close(denoiser(process.alpha(t) * arrays["x"], t).x0, arrays["VP_D"])


@every_process
def test_a_static_threshold_clips_to_the_data_range(name: str) -> None:
    process = some_process(name)
    x0, noise = images(-1, 1)
    t = at_times(process)
    x_t = process.diffuse(x0, t, noise)
    inner = Toy(process, "eps", toy_eps)
    clipped, free = StaticThreshold(inner)(x_t, t), inner(x_t, t)
    low, high = process.spec.low, process.spec.high
    assert (free.x0 > high).any() and (free.x0 < low).any()
    agree(clipped, views_by_hand(process, x_t, t, free.x0.clamp(low, high)), process, t)


def test_calls_are_counted_through_a_threshold() -> None:
    inner: Denoiser = Toy(process_of("edm"), "eps", toy_eps)
    outer = StaticThreshold(inner)
    for _ in range(3):
        outer(torch.zeros(2, 1, 1, 1), at(1))
    assert inner.calls == outer.calls == 3
