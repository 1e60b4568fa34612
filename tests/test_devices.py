"""Nothing mixes devices: images on the device `meta`, which has no data, meet times and tables on the CPU.

A tensor of the CPU with more than one number, or one that indexes, cannot meet those of another device.
"""

from functools import partial

import pytest
import torch
from toys import Toy, process_of, toy_eps

from diffbench.data.grey_levels import GreyLevels
from diffbench.diffusion.core.condition import UNCONDITIONAL, Condition
from diffbench.diffusion.core.process import float64
from diffbench.diffusion.core.streams import normal_like, stream
from diffbench.diffusion.denoisers.guidance import Classifier
from diffbench.diffusion.denoisers.network import NOISE_INPUTS, noise_input
from diffbench.diffusion.inverse.restorers.ddrm import DDRM
from diffbench.diffusion.inverse.restorers.restorer import Measurement
from diffbench.diffusion.likelihoods.vlb import VLB
from diffbench.diffusion.objectives.classifier import CrossEntropy
from diffbench.diffusion.solvers.corrector import Langevin
from diffbench.specs.denoisers import DenoiserSpec
from diffbench.specs.likelihoods import VLBSpec
from diffbench.specs.objectives import ObjectiveSpec, TimesSpec
from diffbench.specs.operators import OperatorSpec
from diffbench.specs.processes import ProcessSpec
from diffbench.specs.registry import build
from diffbench.specs.restorers import DDRMSpec
from diffbench.specs.solvers import (
    AncestralSpec,
    DDIMSpec,
    HeunSpec,
    LangevinSpec,
    ReverseDiffusionSpec,
)

META = torch.device("meta")
IMAGES = torch.empty(3, 1, 4, 4, device=META)


class Learned(Toy):
    """A toy that learns its variance."""

    def predict(self, x_t, t, condition):
        prediction = super().predict(x_t, t, condition)
        prediction.fraction = 0.5 + 0 * x_t
        return prediction


def denoiser_of(name, **parameters):
    return Learned(process_of(name, **parameters), "eps", lambda x, t: toy_eps(x, t.to(x)))


CHAIN = ("discrete", {"schedule": "cosine", "steps": 30})


@pytest.mark.parametrize("variance", ["small", "large", "learned"])
def test_the_bound(variance):
    bound = VLB(VLBSpec(variance=variance), denoiser_of(CHAIN[0], **CHAIN[1]), GreyLevels(17))
    times = bound.times()
    for t, s in [(times[0], times[1]), (times[-2], times[-1])]:
        assert bound.term(IMAGES, t, s, IMAGES).device == META


VE = ProcessSpec.choose("ve"), DenoiserSpec.choose({"predict": "eps"})
OBJECTIVES = [ObjectiveSpec.choose(name) for name in sorted(ObjectiveSpec.known)]


@pytest.mark.parametrize(
    ("spec", "process"),
    [(spec, CHAIN) for spec in OBJECTIVES]
    + [(spec, ("ve", {})) for spec in OBJECTIVES if "integer times" not in str(spec.refusal(*VE))],
    ids=lambda value: getattr(value, "name", value[0] if isinstance(value, tuple) else None),
)
def test_objectives(spec, process):
    denoiser = denoiser_of(process[0], **process[1])
    times = build(TimesSpec.choose("uniform"), denoiser.process)
    losses = build(spec, denoiser, times, 2 / 16)(IMAGES, IMAGES, torch.Generator())
    assert (losses.device, losses.shape) == (META, (3,))


SOLVERS = [
    AncestralSpec(steps=5, variance="large", classifier_scale=1),
    AncestralSpec(steps=5, variance="learned", threshold="dynamic"),
    DDIMSpec(steps=5, eta=0.5, w=1),
    HeunSpec(steps=5, churn=10, classifier_scale=1),
    HeunSpec(steps=5, alpha=0.5, churn=10, churn_ceiling=3),
    ReverseDiffusionSpec(steps=5),
]


@pytest.mark.parametrize("spec", SOLVERS, ids=lambda spec: spec.name)
def test_solvers(spec):
    denoiser = denoiser_of(CHAIN[0], **CHAIN[1])
    classifier = Classifier(denoiser.process, lambda x, c: x.flatten(1)[:, :5] + c[:, None], 5)
    solver = build(spec, denoiser, classifier)
    told = Condition(torch.zeros(3, dtype=torch.long, device=META))
    times = solver.times()
    for t, s in [(times[0], times[1]), (times[-2], times[-1])]:
        assert solver.step(IMAGES, t, s, told, torch.empty_like).device == META


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU: torch.cuda.is_available() is false"
)
@pytest.mark.parametrize("spec", SOLVERS, ids=lambda spec: spec.name)
def test_a_step_does_not_wait_for_a_gpu(spec):
    device = torch.device("cuda")
    denoiser = Learned(process_of(CHAIN[0], **CHAIN[1]), "eps", lambda x, t: 0.3 * x)
    classifier = Classifier(denoiser.process, lambda x, c: x.flatten(1)[:, :5] + c[:, None], 5)
    solver = build(spec, denoiser, classifier)
    told = Condition(torch.zeros(3, dtype=torch.long, device=device))
    x, noise = (
        torch.ones(3, 1, 4, 4, device=device),
        partial(normal_like, generator=stream("noise")),
    )
    first, *_, before, last = solver.process.walk(solver.times())
    x = solver.move(x, first, before, told, noise)
    torch.cuda.set_sync_debug_mode("error")
    try:
        x = solver.move(x, before, last, told, noise)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert x.isfinite().all()


@pytest.mark.parametrize("rule", ["norms", "annealed"])
def test_correctors(rule):
    corrector = Langevin(
        LangevinSpec(snr=0.1, rule=rule, longest=1), denoiser_of(CHAIN[0], **CHAIN[1])
    )
    assert corrector.correct(IMAGES, float64(7), UNCONDITIONAL, torch.empty_like).device == META


@pytest.mark.parametrize("kind", sorted(NOISE_INPUTS))
@pytest.mark.parametrize("name", ["ve", "discrete"])
def test_noise_inputs(name, kind):
    process = process_of(name, **({} if name == "ve" else CHAIN[1]))
    times = float64([[[[0.0]]], [[[0.5]]], [[[1.0]]]])
    assert noise_input(process, IMAGES, times, kind, 50).device == META


@pytest.mark.parametrize("operator", [{"name": "identity"}, {"name": "random-mask"}])
def test_ddrm(operator):
    operator = build(OperatorSpec.choose(operator), (1, 4, 4))
    y = torch.empty(3, *operator.measurement_shape, device=META)
    ddrm = DDRM(DDRMSpec(eta_a=0.3), denoiser_of(CHAIN[0], **CHAIN[1]))
    times = ddrm.times()
    problem = Measurement(operator, y, 0.1)
    assert ddrm.step(IMAGES, times[0], times[1], problem, torch.empty_like).device == META


def test_the_classifiers_loss():
    process = process_of("vp")
    classifier = Classifier(process, lambda x, c: x.flatten(1)[:, :5] + c[:, None], 5)
    loss = CrossEntropy(classifier, build(TimesSpec.choose("uniform"), process))
    y = torch.zeros(3, dtype=torch.long, device=META)
    assert loss(IMAGES, IMAGES, torch.Generator(), y).device == META
