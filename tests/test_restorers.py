"""Restorers: the official steps, agreement with the measurement, and what they refuse."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from test_operators import official
from torch import Tensor
from toys import REFERENCE, Toy, close, mixture_denoiser, process_of, toy_eps

from diffbench.diffusion.core.condition import UNCONDITIONAL
from diffbench.diffusion.core.process import float64
from diffbench.diffusion.denoisers.denoiser import Counted, Denoiser
from diffbench.diffusion.denoisers.exact import GaussianDenoiser
from diffbench.diffusion.inverse.operators.dense import Dense
from diffbench.diffusion.inverse.restorers.ddrm import DDRM
from diffbench.diffusion.inverse.restorers.restorer import Measurement, Restorer
from diffbench.diffusion.inverse.restorers.snips import SNIPS
from diffbench.diffusion.inverse.restorers.steering import Resized
from diffbench.specs.denoisers import GaussianSpec, NetworkDenoiserSpec
from diffbench.specs.operators import BicubicSpec, IdentitySpec, JPEGSpec, OperatorSpec
from diffbench.specs.processes import ProcessSpec, VPSpec
from diffbench.specs.registry import build
from diffbench.specs.restorers import (
    CCDFSpec,
    DDRMSpec,
    ImputeSpec,
    ReplaceSpec,
    RestorerSpec,
    SNIPSSpec,
)
from diffbench.specs.solvers import SolverSpec


def recorded(file: str) -> dict[str, Tensor]:
    with np.load(REFERENCE / f"{file}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def spread(step: Callable[[Callable[[Tensor], Tensor]], Tensor], shape: tuple[int, ...]) -> Tensor:
    """The matrix (D, D) that a step multiplies its one noise with; ``step`` takes D equal images."""
    mean = step(torch.zeros_like)
    unit = torch.eye(math.prod(shape), dtype=torch.float64).reshape(-1, *shape)
    return (step(lambda _: unit) - mean).flatten(1).T


# DDRM.

SHAPE = (3, 8, 8)
CHAIN = process_of("discrete", schedule="linear", steps=1000)


def ddrm_problem(name: str, y: Tensor) -> Measurement:
    operator, places = official(name)
    ours = torch.zeros_like(y)
    ours[:, places] = y
    return Measurement(operator, ours.reshape(-1, *operator.measurement_shape), 0.1)


def repeated(measurement: Measurement, index: int, count: int) -> Measurement:
    y = measurement.y[index : index + 1]
    return Measurement(measurement.operator, y.expand(count, *y.shape[1:]), measurement.std)


@pytest.mark.parametrize("name", ["deno", "inp", "sr2", "color"])
def test_a_step_is_ddrms(name: str) -> None:
    arrays = recorded("ddrm_step")
    measurement = ddrm_problem(name, arrays[f"{name}_y"])
    denoiser = Toy(CHAIN, "eps", toy_eps)
    ddrm, x = DDRM(DDRMSpec(), denoiser), arrays["x_t"]
    for j, (t, s) in enumerate(arrays["pairs"].double()):
        close(ddrm.step(x, t, s, measurement, torch.zeros_like), arrays[f"{name}_mean"][j])
        close(denoiser(x, t).x0, arrays[f"{name}_x0"][j])
        one, many = repeated(measurement, 0, 192), x[:1].expand(192, *SHAPE)
        L = spread(
            lambda noise, t=t, s=s, x=many, m=one: ddrm.step(x, t, s, m, noise),  # type: ignore[misc]
            SHAPE,
        )
        close(L.square().sum(1).reshape(SHAPE), arrays[f"{name}_var"][j])
        want = arrays[f"{name}_stdspec"][j].sort(descending=True).values
        close(torch.linalg.svdvals(L), want, atol=1e-9)


@pytest.mark.parametrize("name", ["deno", "inp", "sr2", "color"])
def test_the_start_is_ddrms(name: str) -> None:
    """Divided by sigma: the official code multiplies by 1/r where alpha belongs (GOTCHAS 54)."""
    arrays = recorded("ddrm_step")
    measurement = ddrm_problem(name, arrays[f"{name}_y"])
    ddrm, t = DDRM(DDRMSpec(), Toy(CHAIN, "eps", toy_eps)), arrays["pairs"][0, 0].double()
    sigma = CHAIN.sigma(t)
    close(ddrm.start(measurement, t, torch.zeros_like) / sigma, arrays[f"{name}_init_mean"])
    one = repeated(measurement, 0, 192)
    L = spread(lambda noise: ddrm.start(one, t, noise), SHAPE) / sigma
    want = arrays[f"{name}_init_stdspec"].sort(descending=True).values
    close(torch.linalg.svdvals(L), want, atol=1e-9)


@pytest.mark.parametrize("name", ["deno", "inp", "sr2", "color"])
def test_a_whole_path_is_ddrms(name: str) -> None:
    arrays = recorded("ddrm_step")
    measurement = ddrm_problem(name, arrays[f"{name}_y"])
    ddrm = DDRM(DDRMSpec(steps=5, grid="strided"), Toy(CHAIN, "eps", toy_eps))
    times, x = ddrm.times(), arrays["x_t"]
    assert times.tolist() == [800, 600, 400, 200, 0, CHAIN.data_time]
    path = [x]
    for t, s in zip(times[:-1], times[1:], strict=True):
        path.append(ddrm.step(path[-1], t, s, measurement, torch.zeros_like))
    close(torch.stack(path), arrays[f"{name}_path"])


def test_each_eta_moves_its_own_coordinates() -> None:
    """A step from r = 2 to 0.5 with coordinates that are not measured, worse known and better known: what is measured
    with noise 1 by s = 1 and by s = 4 has w of 1 and 1/4.  Only the noise of its own kind follows an eta; the better
    known keep sqrt(r^2 - (eta_b w)^2)."""
    s = torch.tensor([0.0, 1.0, 4.0]).diag()[1:]
    operator = Dense(IdentitySpec(), (1, 1, 3), s)
    process = process_of("edm")
    y = torch.zeros(3, *operator.measurement_shape).double()
    x = torch.zeros(3, 1, 1, 3).double()

    def noise_of(**etas: float) -> list[float]:
        restorer = DDRM(DDRMSpec(**etas), Toy(process, "x0", lambda x, t: 0 * x))
        measurement = Measurement(operator, y, 1.0)
        root = spread(
            lambda noise: restorer.step(x, float64(2.0), float64(0.5), measurement, noise),
            (1, 1, 3),
        )
        return [round(float(each), 9) for each in root.square().sum(1).sqrt()]

    assert noise_of(eta=0.2, eta_a=0.4, eta_b=0) == [0.1, 0.2, 0.5]
    assert noise_of(eta=0.6, eta_a=0.4, eta_b=0) == [0.3, 0.2, 0.5]
    assert noise_of(eta=0.6, eta_b=1) == [0.3, 0.3, round(0.1875**0.5, 9)]


def test_jpeg_has_no_eta_a() -> None:
    said = DDRMSpec(eta_a=0.5).refusal(operator=JPEGSpec())
    assert said == "eta_a: 0.5 needs a linear operator, and jpeg is not linear"
    assert DDRMSpec(eta_a=0.5).refusal(operator=IdentitySpec()) is None


def test_ccdf_is_refused_an_operator_in_the_words_of_its_restorer() -> None:
    """So that a table has one footnote for both."""
    for steered in (ReplaceSpec(), ImputeSpec()):
        reason = steered.refusal(operator=JPEGSpec())
        assert reason == f"{steered.name} needs a linear operator, and jpeg is not linear"
        assert CCDFSpec(around=steered).refusal(operator=JPEGSpec()) == reason
        known = VPSpec(), NetworkDenoiserSpec(predict="eps"), JPEGSpec()
        assert CCDFSpec(around=steered).refusal(*known) == reason


# SNIPS.


@pytest.mark.parametrize("name", ["sr2", "crop"])
@pytest.mark.parametrize("run", [0, 1])
def test_updates_are_snips(name: str, run: int) -> None:
    arrays = recorded("snips_step")
    sigmas = arrays["sigmas"][run]
    operator = Dense(IdentitySpec(), SHAPE, arrays[f"{name}_H"])
    y = arrays[f"{name}_y"].reshape(-1, *operator.measurement_shape)
    measurement = Measurement(operator, y, 0.1)
    spec = SNIPSSpec(step=float(0.00033 / sigmas[-1] ** 2))
    snips = SNIPS(spec, Toy(process_of("ve"), "eps", toy_eps))

    def score(x: Tensor, label: int) -> Tensor:
        return -x / (0.5 + 0.1 * label) + 0.1 * torch.sin(3 * x)

    x, path = arrays["x_init"], []
    for label, r in enumerate(sigmas.tolist()):
        for i in range(2):
            if i == 0:
                many, one = x[:1].expand(192, *SHAPE), repeated(measurement, 0, 192)
                L = spread(
                    lambda noise, x=many, r=r, label=label, m=one: snips.update(  # type: ignore[misc]
                        x, score(x, label), r, m.operator, m, noise
                    ),
                    SHAPE,
                )
                want = arrays[f"{name}_r{run}_var"][label]
                close(L.square().sum(1).reshape(3, 64), want.expand(3, 64))
            x = snips.update(x, score(x, label), r, operator, measurement, torch.zeros_like)
            path.append(x)
    close(torch.stack(path), arrays[f"{name}_r{run}_traj"])


# ILVR.


def test_the_loop_is_ilvrs() -> None:
    """To 1e-5, five steps of the resizer's 1e-6; the reference noised to the time before the step, as there."""
    arrays = recorded("ilvr_loop")
    operator = build(BicubicSpec(factor=4), tuple(arrays["ref"].shape[1:]))
    spec = {"name": "ancestral", "steps": 5, "variance": "large", "threshold": "none"}
    solver = build(SolverSpec.choose(spec), Toy(CHAIN, "eps", toy_eps))
    impose = Resized(CHAIN, operator, operator.apply(arrays["ref"]))
    times, x = solver.times(), arrays["init"]
    for j, i in enumerate(range(4, -1, -1)):
        t, s = times[j], times[j + 1]
        x = solver.step(x, t, s, UNCONDITIONAL, lambda _, i=i: arrays["z1"][i])
        if i > 0:
            x = impose(x, t, lambda _, i=i: arrays["z2"][i])
        close(x, arrays["samples"][j], rtol=0, atol=1e-5)


# Agreement with the measurement.

OPERATORS = [
    {"name": "box-mask", "height": 2, "width": 2},
    {"name": "block-average", "factor": 2},
    {"name": "mri", "acceleration": 2, "centre": 0.25},
]
RESTORERS = [
    {"name": "impute", "solver": {"name": "euler-maruyama", "steps": 10}},
    {
        "name": "impute",
        "solver": {"name": "reverse-diffusion", "steps": 40, "corrector": {"snr": 0.1}},
    },
    {"name": "replace", "solver": {"name": "ancestral", "steps": 10}},
    {"name": "ilvr", "solver": {"name": "ancestral", "steps": 10}},
    {"name": "medical", "solver": {"name": "euler-maruyama", "steps": 10}},
    {"name": "ddrm", "steps": 10},
]


def restorer_of(spec: RestorerSpec, denoiser: Denoiser, images: Tensor) -> Restorer:
    """What the stage builds."""
    facts = {
        "denoiser": lambda: denoiser,
        "solver": lambda: build(spec.inner, denoiser),
        "around": lambda: restorer_of(spec.around, denoiser, images),
        "estimate": lambda: restorer_of(spec.estimate, denoiser, images),
        "images": lambda: images,
        "middle": lambda: denoiser.process.middle,
    }
    return build(spec, **{name: facts[name]() for name in spec.facts})


def problem(operator: dict, std: float = 0.0) -> tuple[Measurement, Tensor]:
    images = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(1)).double() * 2 - 1
    H = build(OperatorSpec.choose(operator), (1, 4, 4))
    return Measurement(H, H.apply(images[:3]), std), images


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda each: each["name"])
@pytest.mark.parametrize("restorer", RESTORERS, ids=str)
def test_without_noise_the_result_agrees_with_the_measurement(
    restorer: dict, operator: dict
) -> None:
    """To rounding: the last update puts H x = y in float64."""
    measurement, images = problem(operator)
    denoiser = mixture_denoiser(process_of("vp"), 16)
    chosen = RestorerSpec.choose(restorer)
    x = restorer_of(chosen, denoiser, images).restore(measurement, torch.Generator().manual_seed(0))
    # mri's zero filling is H^T, of singular value 1/sqrt(2) where a frequency's mirror image is not measured.
    if restorer["name"] == "medical" and operator["name"] == "mri":
        assert torch.isfinite(x).all()
    else:
        close(measurement.operator.apply(x), measurement.y, atol=1e-9)


def test_snips_draws_from_the_posterior_of_a_full_rank_measurement() -> None:
    """The official code leaves such a measurement out (GOTCHAS 57).

    Standard deviations within 5 %: their mean over four pixels and 5,000 draws has a standard error of 0.5 %. Means
    within 5 standard errors of a draw's mean, and 5 % of a standard deviation.
    """
    axes = torch.linalg.qr(torch.arange(16.0).sin().reshape(4, 4).double())[0]
    covariance = axes @ float64([0.02, 0.1, 0.25, 0.6]).diag() @ axes.T
    mean, std, count = float64([0.3, -0.2, 0.1, 0.0]), 0.3, 5000
    tensors = {"mean": mean, "covariance": covariance}
    denoiser = GaussianDenoiser(GaussianSpec(), process_of("vp"), tensors)
    y = float64([0.5, 0.1, -0.4, 0.2])
    gain = covariance @ torch.linalg.inv(covariance + std**2 * torch.eye(4))
    want, sd = mean + gain @ (y - mean), (covariance - gain @ covariance).diag().sqrt()
    measurement = Measurement(
        build(OperatorSpec.choose({"name": "identity"}), (1, 2, 2)),
        y.reshape(1, 1, 2, 2).expand(count, 1, 2, 2),
        std,
    )
    snips = SNIPS(SNIPSSpec(), denoiser)
    x = snips.restore(measurement, torch.Generator().manual_seed(0)).flatten(1)
    assert abs(float((x.std(0) / sd).mean()) - 1) < 0.05
    assert bool(((x.mean(0) - want).abs() / sd < 5 / count**0.5 + 0.05).all())


@pytest.mark.parametrize(("start", "calls"), [(1.0, 10), (0.5, 5), (0.01, 1)])
def test_ccdf_takes_the_last_of_the_steps(start: float, calls: int) -> None:
    measurement, images = problem(OPERATORS[1])
    exact = mixture_denoiser(process_of("vp"), 16)
    around = {"name": "replace", "solver": {"name": "ancestral", "steps": 10}}
    for estimate in ("pseudo-inverse", "posterior-mean"):
        spec = {"name": "ccdf", "around": around, "start": start, "estimate": {"name": estimate}}
        denoiser = Counted(exact)
        ccdf = restorer_of(RestorerSpec.choose(spec), denoiser, images)
        x = ccdf.restore(measurement, torch.Generator().manual_seed(0))
        assert denoiser.calls == calls
        close(measurement.operator.apply(x), measurement.y, atol=1e-9)


def test_jpeg_is_for_ddrm_alone() -> None:
    vp = ProcessSpec.choose({"name": "vp"})
    jpeg = JPEGSpec()
    assert DDRMSpec().refusal(vp, None, jpeg) is None
    for name in ("impute", "replace", "ilvr", "medical", "ccdf", "snips"):
        reason = RestorerSpec.choose({"name": name}).refusal(vp, None, jpeg)
        assert reason is not None
        assert "linear" in reason


@pytest.mark.parametrize("name", ["reflected", "ihdm", "blurring"])
def test_processes_without_one_alpha_are_refused(name: str) -> None:
    process = ProcessSpec.choose({"name": name, **({"sigma_max": 1} if name == "blurring" else {})})
    for restorer in ("ddrm", "snips", "impute", "replace"):
        reason = RestorerSpec.choose({"name": restorer}).refusal(process, None, IdentitySpec())
        assert reason is not None
        assert "\n" not in reason
        assert process.name in reason


def test_a_measurement_of_the_wrong_size_is_refused() -> None:
    measurement, images = problem(OPERATORS[1])
    wrong = Measurement(measurement.operator, float64(torch.zeros(3, 1, 3, 3)), 0.0)
    denoiser = mixture_denoiser(process_of("vp"), 16)
    for name in ("ddrm", "snips", "replace"):
        restorer = restorer_of(RestorerSpec.choose({"name": name}), denoiser, images)
        with pytest.raises(ValueError, match=r"a measurement has the shape \(1, 3, 3\)"):
            restorer.restore(wrong, torch.Generator())
