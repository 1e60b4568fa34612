"""One function and one loss, as specs have it, against the classes' own numbers, over the registry."""

import itertools

import numpy as np
import pytest
import torch
from toys import Toy, chosen_process, made, process_of

from diffbench.diffusion.core.predictions import Prediction
from diffbench.diffusion.core.process import float64
from diffbench.diffusion.denoisers.network import NetworkDenoiser
from diffbench.diffusion.objectives.times import UniformTimes
from diffbench.specs.denoisers import NetworkDenoiserSpec
from diffbench.specs.forms import VIEWS
from diffbench.specs.objectives import ObjectiveSpec, UniformTimesSpec
from diffbench.specs.processes import DiscreteSpec, ProcessSpec
from diffbench.specs.registry import build

NAMES = sorted(
    name
    for name, spec in ProcessSpec.known.items()
    if str(getattr(spec, "implementation", "")).startswith("diffbench.")
)
SPECS = [*map(chosen_process, NAMES), DiscreteSpec(schedule="linear", steps=1000)]
every_process = pytest.mark.parametrize(
    "spec", SPECS, ids=lambda spec: f"{spec.name}-{spec.t_max:g}"
)
#: Numbers that are equal but for rounding: differences of float64 at 1e-16, magnified by 1/sigma and 1/alpha up to 1e5.
EQUAL = 1e-9


def times_of(process):
    """Five times of the process, none at an end."""
    first, last = process.t_min, process.t_max
    found = first + (last - first) * float64([0.11, 0.3, 0.5, 0.72, 0.9])
    return (found.round() if process.spec.time == "discrete" else found)[:, None, None, None]


def states_of(process):
    """(x_t, t), five of each, with their images and noise."""
    generator = torch.Generator().manual_seed(1)
    x0, noise = torch.randn(2, 5, 1, 2, 2, generator=generator, dtype=torch.float64)
    if process.spec.bounded:
        x0 = x0.sigmoid()
    t = times_of(process)
    return process.diffuse(x0, t, noise), t, x0, noise


def network(sign):
    """A network that answers differently to anything that it sees or is told; sign * F."""

    def answer(x, c_noise, y, raw):
        told = (0.37 * c_noise + 0.2).cos()[:, None, None, None]
        return sign * (0.4 + (0.8 * x + told).sin())

    return answer


def answers(spec, process):
    """p x_t and q F of a denoiser, the sign of the second that of its first number."""
    x_t, t, _, _ = states_of(process)
    view = "eps" if "eps" in process.spec.views else "mean"
    nothing, found = (
        NetworkDenoiser(spec, process, network(sign))(x_t, t).view(view) for sign in (0, 1)
    )
    part = (found - nothing).flatten()
    return torch.cat([nothing.flatten(), part * part[0].sign()]).numpy()


def choices(process):
    """Every parameterisation that a network can have on the process."""
    widths = sorted({0.5, 1.0, 1 / process.half_range})
    keys = ("predict", "skip", "data_std", "input_scale", "noise_input")
    values = [NetworkDenoiserSpec.model_fields[key].annotation for key in keys]
    options = [
        widths if key == "data_std" else v.__args__ for key, v in zip(keys, values, strict=True)
    ]
    found = [
        NetworkDenoiserSpec(**dict(zip(keys, each, strict=True)))
        for each in itertools.product(*options)
    ]
    return [
        each
        for each in found
        if each.refusal(process) is None and (each.data_std == 0.5 or each.form(process).output[1])
    ]


@every_process
def test_two_denoisers_are_one_function_exactly_where_their_forms_are_equal(spec):
    process, known = made(spec), choices(spec)
    forms = [each.form(spec) for each in known]
    found = np.stack([answers(each, process) for each in known])
    scale = np.abs(found).max(0)
    apart = (np.abs(found[:, None] - found[None]) / scale).max(-1)
    same = np.array([[a == b for b in forms] for a in forms])
    assert len(known) > 3
    assert ((apart < EQUAL) == same).all()


def test_with_a_skip_eps_x0_mean_v_and_score_are_one_function():
    """The issue of an ablation with the skip: what is predicted is a name."""
    spec = DiscreteSpec(schedule="linear")
    skip = [NetworkDenoiserSpec(predict=each, skip="edm") for each in VIEWS]
    plain = [NetworkDenoiserSpec(predict=each) for each in VIEWS]
    assert len({each.form(spec) for each in skip}) == 1
    # eps and score differ in the sign of the network's output.
    assert len({each.form(spec) for each in plain}) == len(VIEWS) - 1


def test_v_is_edms_skip_for_data_of_standard_deviation_1():
    v = NetworkDenoiserSpec(predict="v")
    for name in ("vp", "edm", "sub-vp"):
        spec = chosen_process(name)
        assert v.form(spec) == NetworkDenoiserSpec(predict="edm", data_std=1).form(spec)
        assert v.form(spec) != NetworkDenoiserSpec(predict="edm").form(spec)


def losses_of(process):
    """(objective, denoiser) of everything that can train a network on the process."""
    objectives = [
        each
        for known in ObjectiveSpec.known.values()
        if known.implementation.startswith("diffbench.")
        for each in options_of(known)
    ]
    denoisers = [
        NetworkDenoiserSpec(predict=predict, variance=variance)
        for predict, variance in itertools.product((*VIEWS, "edm"), ("fixed", "learned"))
    ]
    return [
        (each, denoiser)
        for denoiser in denoisers
        for each in objectives
        if denoiser.refusal(process) is None
        and each.model_copy(update={"times": UniformTimesSpec()}).refusal(process, denoiser) is None
    ]


def options_of(known):
    """An objective with each value of its choices, and of its numbers two."""
    keys = [key for key in known.model_fields if key in ("weight", "variance", "data_std")]
    values = [getattr(known.model_fields[key].annotation, "__args__", (0.5, 1.0)) for key in keys]
    for chosen in itertools.product(*values):
        yield known(**dict(zip(keys, chosen, strict=True)))


def error(objective, denoiser, process):
    """The loss at each time, whatever is predicted, of one error of the noise."""
    x_t, t, x0, noise = states_of(process)
    off = 0.1 * torch.tensor([[0.5, -1.0], [2.0, 1.0]]).double()
    fraction = torch.full_like(x_t, 0.4) if denoiser.learns_variance else None
    if "eps" in process.spec.views:
        seen = Prediction(process, x_t, t, "eps", noise + off)
    else:
        seen = Prediction(process, x_t, t, "mean", 0.9 * x_t + off)
    value = seen.view(denoiser.native)
    prediction = Prediction(process, x_t, t, denoiser.native, value, fraction)
    toy = Toy(process, denoiser.native, lambda x, t: x)
    loss = build(
        objective, denoiser=toy, times=UniformTimes(UniformTimesSpec(), process), spacing=0.1
    )
    return loss.error(prediction, x0, noise).numpy()


@every_process
def test_two_losses_are_one_exactly_where_their_specs_say_so(spec):
    """One function of time where their powers are equal, and one number where their scales are too."""
    process, known = made(spec), losses_of(spec)
    assert known
    losses = [objective.loss(spec, denoiser) for objective, denoiser in known]
    values = np.stack([error(*each, process) for each in known])
    for (a, x), (b, y) in itertools.combinations(zip(losses, values, strict=True), 2):
        said = a.weight is not None and b.weight is not None
        shape = a.beside == b.beside and (
            a.weight == b.weight or said and a.weight.powers == b.weight.powers
        )
        scale = a.weight.scale / b.weight.scale if said and shape else 1.0
        ratio = x / y
        constant = np.ptp(ratio) < EQUAL * np.abs(ratio).max()
        assert (constant if not a.beside else np.allclose(x, y, rtol=EQUAL)) == shape, (a, b)
        if shape:
            assert ratio == pytest.approx(scale, rel=EQUAL)


@every_process
def test_what_a_process_keeps_is_so(spec):
    process = made(spec)
    t = times_of(process)
    alpha, sigma = process.alpha(t), process.sigma(t)
    # Float32 tables do not exist here: a sum of squares of cosines is 1 to a few 1e-16.
    power = bool(((alpha**2 + sigma**2 - 1).abs() < 1e-12).all())
    signal = bool((alpha == 1).all())
    assert {"signal": (True, False), "power": (False, True), "": (False, False)}[spec.keeps] == (
        signal,
        power,
    )
    steady = bool((sigma == sigma[0]).all())
    assert (spec.steady is not None) == steady
    if spec.time == "continuous":
        rate = process.g2(t) / sigma**2
        assert (spec.growth is not None) == bool(((rate - rate[0]).abs() < 1e-9 * rate).all())
        if spec.growth is not None:
            assert float(rate[0].flatten()[0]) == pytest.approx(spec.growth, rel=1e-12)


def test_likelihood_weighting_is_no_weighting_of_a_geometric_process():
    """g^2 is in proportion to sigma^2: on VE Song et al.'s two weightings are one loss."""
    process = process_of("ve")
    t = times_of(process)
    assert process.g2(t) / process.sigma(t) ** 2 == pytest.approx(process.spec.growth)
