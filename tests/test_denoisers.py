"""Denoisers: EDM's preconditioning, parameterisations that must agree, thresholds and call
counts."""

import itertools

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from toys import Toy, close, column, process_of, recorded, toy_eps

from diffbench.diffusion.core.condition import Condition
from diffbench.diffusion.core.predictions import Prediction, linear_form
from diffbench.diffusion.core.process import Process, float64
from diffbench.diffusion.denoisers.denoiser import Counted
from diffbench.diffusion.denoisers.network import NOISE_INPUTS, NetworkDenoiser, noise_input
from diffbench.diffusion.denoisers.thresholds import DynamicThreshold, StaticThreshold, thresholded
from diffbench.diffusion.processes.discrete import Discrete
from diffbench.specs.denoisers import NetworkDenoiserSpec
from diffbench.specs.processes import DiscreteSpec, EDMSpec, VESpec, VPSpec

VIEWS = ["x0", "eps", "v", "score"]
#: Of a chain, which has a level before each.
CHAIN_VIEWS = [*VIEWS, "mean"]
PROCESSES = ["vp", "sub-vp", "ve", "edm", "discrete"]
every_process = pytest.mark.parametrize("name", PROCESSES)


def some_process(name: str) -> Process:
    chain = {"schedule": "linear", "steps": 50} if name == "discrete" else {}
    return process_of(name, **chain)


def at_times(process: Process) -> Tensor:
    """Four times between the process's ends, one an image."""
    if process.spec.time == "discrete":
        return column(float64([3, 17, 30, 49]))
    span = process.t_max - process.t_min
    return column(process.t_min + span * float64([0.05, 0.3, 0.7, 1.0]))


def images(low: float, high: float) -> tuple[Tensor, Tensor]:
    """Data in the range and noise, (4, 2, 3, 3)."""
    generator = torch.Generator().manual_seed(1)
    x0 = torch.rand(4, 2, 3, 3, generator=generator, dtype=torch.float64)
    noise = torch.randn(4, 2, 3, 3, generator=generator, dtype=torch.float64)
    return low + (high - low) * x0, noise


def views_by_hand(process: Process, x_t: Tensor, t: Tensor, x0: Tensor) -> dict[str, Tensor]:
    """Of images less the middle m of the range, which x0 and the mean have; alpha m = m where m is not 0."""
    alpha, sigma = process.alpha(t), process.sigma(t)
    eps = (x_t - alpha * x0) / sigma
    v = (alpha * eps - sigma * (x0 - process.spec.middle)) / (alpha**2 + sigma**2).sqrt()
    views = {"x0": x0, "eps": eps, "v": v, "score": -eps / sigma}
    if process.spec.time == "discrete":
        alpha_s, sigma_s = process.alpha(t - 1), process.sigma(t - 1)
        r = alpha / alpha_s * sigma_s**2 / sigma
        views["mean"] = alpha_s * x0 + r * eps
    return views


def names(name: str) -> list[str]:
    """The views that exist on that process."""
    return CHAIN_VIEWS if name == "discrete" else VIEWS


NATIVES = [(name, native) for name in PROCESSES for native in names(name)]
every_native = pytest.mark.parametrize(("name", "native"), NATIVES)


def agree(got: Prediction, want: dict[str, Tensor], process: Process, t: Tensor) -> None:
    """x0 from eps cancels by ratio = sigma/alpha, eps from x0 by its inverse: 152 and 1e3 at most
    here.

    So does x0 from the mean of the level before, by 1/b with b = sqrt(abar_s) beta_t/(1 - abar_t), which is
    1e-3 or more.  Float64 rounding of 1e-16 becomes 1e-13 of the values, which reach 1e6 for the score.
    """
    for name in want:
        scale = float(want[name].abs().max())
        close(got.view(name), want[name], rtol=1e-9, atol=1e-11 * max(scale, 1.0))


@every_native
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


@every_native
def test_another_x0_changes_every_view(name: str, native: str) -> None:
    process = some_process(name)
    x0, noise = images(-1, 1)
    t = at_times(process)
    x_t = process.diffuse(x0, t, noise)
    first = Prediction(process, x_t, t, native, views_by_hand(process, x_t, t, x0)[native])
    agree(first.with_x0(0.2 * x0), views_by_hand(process, x_t, t, 0.2 * x0), process, t)


@every_native
def test_every_native_quantity_is_a_x_t_and_b_x0(name: str, native: str) -> None:
    process, (x0, noise) = some_process(name), images(-1, 1)
    t = at_times(process)
    x_t = process.diffuse(x0, t, noise)
    a, b = linear_form(process, native, t)
    assert a.dtype == b.dtype == torch.float64 and a.shape == b.shape == t.shape
    want = views_by_hand(process, x_t, t, x0)[native]
    # Two terms of x_t's size over sigma cancel: by the same ratio as in `agree`.
    m = process.spec.middle
    got = a * (x_t - m) + b * (x0 - m) + (m if native in ("x0", "mean") else 0)
    close(got, want, atol=1e-11 * float((a * x_t).abs().max()))


@every_native
@pytest.mark.parametrize("low", [-1, 0])
def test_one_time_for_all_images_gives_the_views_of_the_same_time_for_each(
    name: str, native: str, low: int
) -> None:
    """One sum of x_t and the native quantity against the formulas one after the other; the same cancellations."""
    chain = {"schedule": "linear", "steps": 50} if name == "discrete" else {}
    process = process_of(name, low=low, high=1, **chain)
    x0, noise = images(low, 1)
    for t in at_times(process).flatten():
        x_t = process.diffuse(x0, t, noise)
        value = views_by_hand(process, x_t, t, 0.7 * x0 + 0.1)[native]
        each = Prediction(process, x_t, t.expand(4, 1, 1, 1), native, value)
        agree(Prediction(process, x_t, t, native, value), all_views(each, names(name)), process, t)
        c, d = float64(0.9), float64(0.2)
        want = c * process.centred(each.x0) + d * each.eps
        got = Prediction(process, x_t, t, native, value).combined(c, d)
        close(got, want, rtol=1e-9, atol=1e-11 * float(want.abs().max()))
        close(each.combined(c, d), want)


def all_views(prediction: Prediction, wanted: list[str]) -> dict[str, Tensor]:
    return {name: prediction.view(name) for name in wanted}


def test_a_prediction_with_views_of_its_own_is_asked_for_them() -> None:
    class Doubled(Prediction):
        @property
        def eps(self) -> Tensor:  # type: ignore[override]
            return 2 * self.value

    process, (x_t, value) = some_process("vp"), images(-1, 1)
    arguments = process, x_t, float64(0.5), "eps"
    found = Doubled(*arguments, value).combined(float64(0.9), float64(0.2))
    close(found, Prediction(*arguments, 2 * value).combined(float64(0.9), float64(0.2)), rtol=1e-9)


@every_native
def test_what_a_step_is_made_of_can_be_written_over(name: str, native: str) -> None:
    """A step's noise is added in place."""
    process, (x_t, value) = some_process(name), images(-1, 1)
    t = at_times(process).flatten()[1]
    prediction = Prediction(process, x_t, t, native, value)
    for c, d in [(1.0, 0.0), (0.0, 1.0), (0.5, 0.5)]:
        prediction.combined(float64(c), float64(d)).zero_()
        assert float(x_t.abs().min()) > 0 and float(value.abs().min()) > 0


@pytest.mark.parametrize("name", ["sub-vp", "ve", "edm"])
def test_the_velocity_is_that_of_the_rescaled_variance_preserving_process(name: str) -> None:
    """x_t/k, k^2 = alpha^2 + sigma^2, is VP's x at the time with the same sigma/alpha, where k is 1: a given v is
    one prediction there and here, and v there is the derivative d(x_t/k)/d angle, tan(angle) = sigma/alpha."""
    process, vp = some_process(name), process_of("vp")
    t = at_times(process)
    alpha, sigma = process.alpha(t), process.sigma(t)
    k, there = (alpha**2 + sigma**2).sqrt(), vp.time_of(sigma / alpha)
    close(vp.alpha(there), alpha / k)
    close(vp.sigma(there), sigma / k)
    (x_t, v), m = images(-1, 1), process.spec.middle
    x_t = 2 * k * x_t
    here, rescaled = Prediction(process, m + x_t, t, "v", v), Prediction(vp, x_t / k, there, "v", v)
    close(here.x0, m + rescaled.x0)
    close(here.eps, rescaled.eps)
    x0, noise = images(-1, 1)
    angle, h = (sigma / alpha).atan(), 1e-5
    ahead, behind = (a.cos() * x0 + a.sin() * noise for a in (angle + h, angle - h))
    truth = Prediction(process, process.diffuse(m + x0, t, noise), t, "x0", m + x0)
    # Central differences: h^2/6 = 2e-11 of x's size of 4, rounding 1e-16/h.
    close(truth.velocity, (ahead - behind) / (2 * h), atol=1e-9)


@pytest.mark.parametrize("name", ["vp", "discrete"])
def test_the_velocity_of_a_variance_preserving_process_is_salimans_and_hos(name: str) -> None:
    """alpha eps - sigma x0, with alpha^2 + sigma^2 = 1 to rounding."""
    process, (x0, noise) = some_process(name), images(-1, 1)
    t = at_times(process)
    x_t = process.diffuse(x0, t, noise)
    got = Prediction(process, x_t, t, "eps", noise).velocity
    alpha, sigma = process.alpha(t), process.sigma(t)
    # x0 follows from eps, to rounding times sigma/alpha = 152.
    close(got, alpha * noise - sigma * x0, atol=1e-12)


PARAMETERISATIONS = [
    *(
        (name, *each)
        for name in PROCESSES
        for each in itertools.product(names(name), ["none", "edm"])
    ),
    *((name, "edm", "none") for name in PROCESSES),
]


def inverse_network(denoiser: NetworkDenoiser, t: Tensor, want: dict[str, Tensor], x_t: Tensor):
    """The network whose answer makes the denoiser predict ``want``, from the definition of each
    row.

    Quantities are of data centred on the middle m of their range.
    """
    process, spec = denoiser.process, denoiser.process.spec
    alpha, sigma = process.alpha(t), process.sigma(t)
    m, s_d = (spec.low + spec.high) / 2, 0.5 * (spec.high - spec.low) / 2
    centred = {**want, "x0": want["x0"] - m}

    def plain(native: str) -> Tensor:
        return sigma * centred["score"] if native == "score" else centred[native]

    def edm() -> Tensor:
        v = alpha**2 * s_d**2 + sigma**2
        skip, out = alpha * s_d**2 / v, sigma * s_d / v.sqrt()
        return (centred["x0"] - skip * (x_t - alpha * m)) / out

    return plain, edm


@pytest.mark.parametrize(("name", "predict", "skip"), PARAMETERISATIONS)
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
    denoiser(x_t, t, Condition(y))
    ((x, c_noise, labels, raw),) = given
    alpha, sigma, half = process.alpha(t), process.sigma(t), (spec.high - spec.low) / 2
    centred = x_t - alpha * (spec.low + spec.high) / 2
    variance = alpha**2 * ((0.4 * half) ** 2 if skip == "edm" else 1) + sigma**2
    close(x, centred / variance.sqrt(), rtol=1e-12)
    close(c_noise, (sigma / alpha).log().flatten() / 4, rtol=1e-12)
    close(raw, centred / half, rtol=1e-12)
    assert labels is y


@every_process
@pytest.mark.parametrize("kind", ["log-ratio", "time", "log-sigma"])
@pytest.mark.parametrize("predict", ["eps", "score", "edm"])
def test_noise_inputs_and_unscaled_input(name: str, kind: str, predict: str) -> None:
    """ln(sigma/alpha)/4; 999 t, or the level; ln(sigma/2) for data in [-1, 1] and ln(sigma) in [0, 1].  With
    ``input_scale: none`` the network sees 2x - 1 for data in [0, 1], x for data in [-1, 1], and no more changes."""
    process = some_process(name)
    spec, t = process.spec, at_times(process)
    x_t = process.diffuse(images(spec.low, spec.high)[0], t, images(-1, 1)[1])
    given = []

    def network(*inputs: Tensor | None) -> Tensor:
        given.append(inputs)
        return inputs[1][:, None, None, None] + torch.zeros_like(inputs[0])

    options = {"predict": predict, "noise_input": kind}
    unscaled = NetworkDenoiser(NetworkDenoiserSpec(input_scale="none", **options), process, network)
    scaled = NetworkDenoiser(NetworkDenoiserSpec(**options), process, network)
    assert torch.equal(unscaled(x_t, t).value, scaled(x_t, t).value)
    (x, c_noise, _, raw), (_, c_noise_scaled, _, raw_scaled) = given
    alpha, sigma = process.alpha(t).flatten(), process.sigma(t).flatten()
    want = {
        "log-ratio": (sigma / alpha).log() / 4,
        "time": t.flatten() * (1 if name == "discrete" else 999),
        "log-sigma": (sigma / (1 if spec.low == 0 else 2)).log(),
    }[kind]
    close(c_noise, want, rtol=1e-12)
    centred = x_t - column(alpha) / 2 if spec.low == 0 else x_t
    close(x, centred * (2 if spec.low == 0 else 1), rtol=1e-15)
    close(x, raw, rtol=1e-15)
    assert torch.equal(c_noise_scaled, c_noise) and torch.equal(raw_scaled, raw)


@pytest.mark.parametrize("steps", [50, 4000])
def test_rescaled_time_is_a_thousand_whatever_the_number_of_levels(steps: int) -> None:
    """1000 t/T with t from 0; a continuous time has no levels to count."""
    process = Discrete(DiscreteSpec(steps=steps, schedule="cosine"))
    spec = NetworkDenoiserSpec(predict="eps", noise_input="rescaled-time")
    t, x = column(float64([0, 1, steps - 1])), torch.zeros(3, 1, 2, 2, dtype=torch.float64)
    want = torch.tensor([0, 1000 / steps, 1000 - 1000 / steps], dtype=torch.float64)
    close(noise_input(process, x, t, spec.noise_input), want, rtol=1e-15)
    assert spec.refusal(process.spec) is None
    assert "rescaled-time needs integer times" in spec.refusal(process_of("vp").spec)


@pytest.mark.parametrize(
    ("file", "vp_levels", "ve_levels"), [("sde_losses", 1000, 1000), ("sde_losses_b", 100, 200)]
)
def test_labels_of_discrete_networks_in_continuous_time(
    file: str, vp_levels: int, ve_levels: int
) -> None:
    """score_sde's networks of N levels: (N - 1) t of VP, and of VE the level counted from the most noise, with the
    network's answer to it, at the input that ``sde_definitions`` has."""
    arrays, x = recorded(file), recorded(file.replace("losses", "definitions"))["x"]
    t, told = column(arrays["t"]), []

    def network(seen: Tensor, c_noise: Tensor, y: Tensor | None, raw: Tensor) -> Tensor:
        told.append(c_noise)
        label, image = column(c_noise), (seen + 1) / 2
        return -image / (1 + label**2) + 0.1 * torch.sin(image) / (1 + label)

    up = NetworkDenoiserSpec(predict="eps", noise_input="time", levels=vp_levels)
    down = NetworkDenoiserSpec(
        predict="score", noise_input="descending-time", input_scale="none", levels=ve_levels
    )
    vp, ve = process_of("vp"), process_of("ve")
    assert up.refusal(vp.spec) is None and down.refusal(ve.spec) is None
    NetworkDenoiser(up, vp, network)(x, t)
    score = NetworkDenoiser(down, ve, network)(x, t).score * column(ve.sigma(arrays["t"]))
    close(told[0], arrays["VP_labels_discrete"])
    close(told[1], arrays["VE_labels_discrete"], rtol=0, atol=0)
    close(score, arrays["VE_score_discrete"], atol=1e-14)


def test_levels_of_a_chain() -> None:
    """0 .. T - 1 up, T - 1 .. 0 down, N t/T rescaled, whatever N is of the others."""
    process = Discrete(DiscreteSpec(steps=50, schedule="cosine"))
    t, x = column(float64([0, 1, 49])), torch.zeros(3, 1, 2, 2, dtype=torch.float64)
    close(noise_input(process, x, t, "time"), float64([0, 1, 49]))
    close(noise_input(process, x, t, "descending-time"), float64([49, 48, 0]))
    close(noise_input(process, x, t, "rescaled-time", 10), float64([0, 0.2, 9.8]), rtol=1e-15)


@pytest.mark.parametrize(
    ("told", "process", "reason"),
    [
        (
            "time",
            EDMSpec(),
            "noise_input: time counts 7 levels of times up to 1, but the times of edm go up",
        ),
        ("descending-time", EDMSpec(), "descending-time counts 7 levels of times up to 1"),
        ("rescaled-time", VPSpec(), "rescaled-time needs integer times, and vp is continuous"),
        ("time", DiscreteSpec(schedule="linear"), "levels: 7, but discrete has its own levels"),
        ("time", VPSpec(), None),
        ("descending-time", VESpec(), None),
        ("rescaled-time", DiscreteSpec(schedule="linear"), None),
    ],
)
def test_times_that_cannot_be_counted_are_refused(told, process, reason) -> None:
    spec = NetworkDenoiserSpec(predict="eps", noise_input=told, levels=7)
    refusal = spec.refusal(process)
    assert refusal is None if reason is None else reason in refusal


@pytest.mark.parametrize("told", ["log-ratio", "log-sigma"])
def test_levels_without_a_time_are_refused(told: str) -> None:
    with pytest.raises(ValidationError, match=f"levels: 7 counts times, but noise_input is {told}"):
        NetworkDenoiserSpec(predict="eps", noise_input=told, levels=7)


def test_noise_inputs_follow_the_images_precision() -> None:
    """Of one time for all images, too."""
    x = torch.zeros(3, 1, 2, 2)
    for kind in NOISE_INPUTS:
        got = noise_input(process_of("vp"), x, float64(0.5), kind)
        assert (got.shape, got.dtype) == ((3,), torch.float32)


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
    close(noise_input(process, arrays["x"], column(sigma)), arrays["EDM_c_noise"])
    close(denoiser(arrays["x"], column(sigma)).x0, arrays["EDM_D"])


def test_eps_prediction_is_edms_vp_row() -> None:
    """D(x; sigma) = x - sigma F(x/sqrt(1 + sigma^2); 999 t) at x_t = alpha x."""
    arrays, process = recorded("edm_precond"), process_of("vp")
    t = column(process.time_of(arrays["sigma"]))
    spec = NetworkDenoiserSpec(predict="eps", noise_input="time")
    denoiser = NetworkDenoiser(spec, process, toy_network)
    skip, out, inside = denoiser.coefficients(t)
    close(inside.flatten() * process.alpha(t).flatten(), arrays["VP_c_in"])
    close(out.flatten() * -process.ratio(t).flatten(), arrays["VP_c_out"])
    close((skip + 1).flatten(), arrays["VP_c_skip"])
    close(noise_input(process, arrays["x"], t, "time"), arrays["VP_c_noise"])
    close(denoiser(process.alpha(t) * arrays["x"], t).x0, arrays["VP_D"])


@pytest.mark.parametrize("name", ["edm", "ve"])
def test_score_prediction_is_edms_ve_row(name: str) -> None:
    """D(x; sigma) = x + sigma F(x; ln(sigma/2)) for data in [-1, 1]; on VE's [0, 1] all is half as large, and F
    sees the same.  D = x + sigma^2 score of a network without a skip, and with the score's 1/sigma."""
    arrays, process = recorded("edm_precond"), process_of(name)
    half, middle = process.spec.half_range, process.spec.middle
    t = column(process.time_of(half * arrays["sigma"]))
    x, sigma = half * arrays["x"] + middle, process.sigma(t)
    spec = NetworkDenoiserSpec(predict="score", input_scale="none", noise_input="log-sigma")
    denoiser = NetworkDenoiser(spec, process, toy_network)
    skip, out, inside = denoiser.coefficients(t)
    close((half * inside).flatten(), arrays["VE_c_in"])
    close((1 + sigma**2 * skip).flatten(), arrays["VE_c_skip"])
    close((sigma**2 * out / half).flatten(), arrays["VE_c_out"])
    close(noise_input(process, x, t, "log-sigma"), arrays["VE_c_noise"])
    close((denoiser(x, t).x0 - middle) / half, arrays["VE_D"])


def test_ve_has_the_noise_levels_of_edms_ve_row() -> None:
    """0.02 to 100 for data in [-1, 1]: those of Song et al. for data in [0, 1], twice."""
    process = process_of("ve")
    ends = process.ratio(float64([process.t_min, process.t_max])) / process.spec.half_range
    close(ends, recorded("edm_precond")["VE_sigma_range"])


#: Of score_sde's recorded networks: process, spec, and what they see and are told.
SCORE_SDES = {
    "VP_continuous": ("vp", {"predict": "eps", "noise_input": "time"}),
    "subVP_continuous": ("sub-vp", {"predict": "eps", "noise_input": "time"}),
    "VP_discrete": ("discrete", {"predict": "eps", "noise_input": "time"}),
    "VE_continuous": ("ve", {"predict": "score", "noise_input": "log-sigma"}),
}


@pytest.mark.parametrize(
    ("file", "sigma_max", "steps"), [("sde_losses", 50, 1000), ("sde_losses_b", 90, 100)]
)
@pytest.mark.parametrize("key", SCORE_SDES)
def test_scores_and_noise_inputs_are_score_sdes(
    file: str, sigma_max: float, steps: int, key: str
) -> None:
    """Labels are 999 t, the chain's level t (N - 1) whose fraction sigma leaves out, and sigma.  VE's network is a
    score's, of images in [0, 1]; ours is divided by sigma and sees 2x - 1.  The scores' input is the one that
    ``sde_definitions`` has (where the network is monotone in x, the scores give it back to 4e-16)."""
    arrays, (name, options) = recorded(file), SCORE_SDES[key]
    x, t = recorded(file.replace("losses", "definitions"))["x"], arrays["t"]
    parameters = {
        "ve": {"sigma_max": sigma_max},
        "discrete": {"schedule": "linear", "steps": steps},
    }
    process = process_of(name, **parameters.get(name, {}))
    t = t * (steps - 1) if name == "discrete" else t
    labels = []

    def network(seen: Tensor, c_noise: Tensor, y: Tensor | None, raw: Tensor) -> Tensor:
        labels.append(c_noise.exp() if name == "ve" else c_noise)
        label = column(labels[-1])
        if name != "ve":
            return toy_eps(seen, label)
        image = (seen + 1) / 2
        return label * (-image / (1 + label**2) + 0.1 * torch.sin(image) / (1 + label))

    spec = NetworkDenoiserSpec(input_scale="none", **options)
    score = NetworkDenoiser(spec, process, network)(x, column(t)).score
    sde, training = key.split("_")
    close(labels[0], arrays[f"{sde}_labels_{training}"])
    close(score, arrays[f"{sde}_score_{training}"])


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
    inner = Counted(Toy(process_of("edm"), "eps", toy_eps))
    outer = Counted(StaticThreshold(inner))
    for _ in range(3):
        outer(torch.zeros(2, 1, 1, 1), float64(1))
    assert inner.calls == outer.calls == 3


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_x0_from_the_mean_inverts_the_mean_from_x0_at_every_level(schedule: str) -> None:
    """mean = a x_t + b x0 with b = sqrt(abar_s) beta_t/(1 - abar_t): 1e-4 at least on these chains of 1,000,
    so 1e-16 of x_t's size of 4 becomes 4e-12.  At level 0 the mean is x0."""
    process = process_of("discrete", schedule=schedule, steps=1000)
    t = column(float64(range(1000)))
    x0, noise = torch.linspace(-1, 1, 4000).double(), torch.linspace(-3, 3, 4000).double().sin()
    x0 = x0.reshape(1000, 1, 2, 2)
    x_t = process.diffuse(x0, t, noise.reshape(x0.shape))
    mean = Prediction(process, x_t, t, "x0", x0).mean
    close(Prediction(process, x_t, t, "mean", mean).x0, x0, atol=1e-11)
    close(mean[:1], x0[:1], rtol=1e-15)


@pytest.mark.parametrize("predict", CHAIN_VIEWS)
@pytest.mark.parametrize("learned", [False, True])
def test_a_learned_variance_doubles_the_outputs(predict: str, learned: bool) -> None:
    """The first half is the answer without it; v = (o + 1)/2 of the second."""
    process = some_process("discrete")
    x0, noise = images(-1, 1)
    t = at_times(process)
    x_t = process.diffuse(x0, t, noise)

    def doubled(x: Tensor, c_noise: Tensor, y: Tensor | None, raw: Tensor) -> Tensor:
        answer = torch.cat([x.sin(), 3 * x], dim=1)
        return answer if learned else answer[:, :2]

    spec = NetworkDenoiserSpec(predict=predict, variance="learned" if learned else "fixed")
    prediction = NetworkDenoiser(spec, process, doubled)(x_t, t)
    plain = NetworkDenoiser(
        NetworkDenoiserSpec(predict=predict), process, lambda x, c_noise, y, raw: x.sin()
    )
    assert torch.equal(prediction.value, plain(x_t, t).value)
    if learned:
        # c_in is 1 on a chain, to the rounding of alpha^2 + sigma^2.
        close(prediction.fraction, (3 * x_t + 1) / 2, rtol=1e-14)
    else:
        assert prediction.fraction is None
    assert prediction.log_variance is None
    unbounded = NetworkDenoiserSpec(predict=predict, variance="unbounded")
    if learned:
        own = NetworkDenoiser(unbounded, process, doubled)(x_t, t)
        assert torch.equal(own.value, prediction.value) and own.fraction is None
        close(own.log_variance, 3 * x_t, rtol=1e-14)


def dynamic(name: str, percentile: float, x0: Tensor) -> Tensor:
    """x0 as a dynamic threshold leaves it, at t_max."""
    process = some_process(name)
    inner = Toy(process, "x0", lambda x, t: x0 + 0 * x)
    return DynamicThreshold(inner, percentile)(0 * x0, float64(process.t_max)).x0


@every_process
def test_a_dynamic_threshold_divides_by_the_percentile_of_each_image(name: str) -> None:
    """Of sizes 0, 1, 2, 4 and 8 the 0.75 quantile is 4, and the largest is 8; 8 is clipped to the
    quantile.  Sizes are distances from the range's middle, in units of its half width."""
    spec = some_process(name).spec
    middle, half = (spec.low + spec.high) / 2, (spec.high - spec.low) / 2
    sizes = float64([[0, 1, -2, 4, -8], [0.1, -0.2, 0.3, 0.4, 0.5], [0, -1, 2, -4, 3]])
    x0 = middle + half * sizes.reshape(3, 1, 1, 5)
    want = {
        0.75: float64(
            [[0, 0.25, -0.5, 1, -1], [0.1, -0.2, 0.3, 0.4, 0.5], [0, -1 / 3, 2 / 3, -1, 1]]
        ),
        1.0: float64(
            [[0, 0.125, -0.25, 0.5, -1], [0.1, -0.2, 0.3, 0.4, 0.5], [0, -0.25, 0.5, -1, 0.75]]
        ),
    }
    for percentile, scaled in want.items():
        got = dynamic(name, percentile, x0)
        close(got, middle + half * scaled.reshape(3, 1, 1, 5), rtol=1e-14, atol=1e-15)
        assert got.min() >= spec.low and got.max() <= spec.high


@every_process
def test_an_image_in_the_range_is_left_alone(name: str) -> None:
    """By both thresholds, to the rounding of two additions and a multiplication."""
    spec = some_process(name).spec
    x0 = torch.linspace(spec.low, spec.high, 12).double().reshape(2, 1, 2, 3)
    close(dynamic(name, 1.0, x0), x0, rtol=1e-15, atol=1e-15)
    static = thresholded(Toy(some_process(name), "x0", lambda x, t: x0), "static")
    assert torch.equal(static(x0, float64(1)).x0, x0)


@every_process
def test_eps_follows_from_the_x0_that_a_dynamic_threshold_leaves(name: str) -> None:
    process = some_process(name)
    x0, noise = images(-1, 1)
    t = at_times(process)
    x_t = process.diffuse(x0, t, noise)
    prediction = thresholded(Toy(process, "eps", toy_eps), "dynamic", 0.9)(x_t, t)
    agree(prediction, views_by_hand(process, x_t, t, prediction.x0), process, t)


@pytest.mark.parametrize("kind", ["none", "static", "dynamic"])
def test_a_threshold_keeps_the_variances_fraction(kind: str) -> None:
    process = some_process("discrete")
    x = 3 * images(-1, 1)[1]
    inner = Toy(process, "x0", lambda x, t: 2 * x, lambda x, t: x / 7)
    assert torch.equal(thresholded(inner, kind)(x, float64(9)).fraction, x / 7)
