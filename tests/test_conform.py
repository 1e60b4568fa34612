"""The laws of `diffbench.conform`: every class of the package obeys them, and each planted fault is named."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from commands import REPOSITORY, forget

from diffbench.cli import main
from diffbench.conform.file import verdicts
from diffbench.conform.law import judged
from diffbench.conform.trial import example
from diffbench.specs.base import Registered
from diffbench.specs.errors import PlanError
from diffbench.specs.networks import UNetSpec
from diffbench.specs.solvers import DDIMSpec, HeunSpec

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "attention": (4,)}
STEPS = {"solver": {"name": "ancestral", "steps": 40}}
#: The keys with which a class is tried, where it has no default or a default that is large.
GIVEN: dict[tuple[str, str], dict[str, object]] = {
    ("process", "discrete"): {"schedule": "cosine", "steps": 50},
    ("process", "blurring"): {"sigma_max": 0.5},
    ("solver", "reverse-diffusion"): {"steps": 40},
    ("solver", "langevin"): {"steps": 10, "corrector": {"step_size": 1e-3}},
    ("solver", "transport"): {"steps": 5},
    ("solver", "ode-adaptive"): {"rtol": 1e-4, "atol": 1e-4},
    **{
        ("network", name): SMALL
        for name in ("ddpm", "ddpmpp", "edm-ddpmpp", "edm-ncsnpp", "ncsnpp", "reflected")
    },
    **{("network", name): SMALL | {"groups": 4} for name in ("iddpm", "ddpm-original", "ihdm")},
    ("network", "adm"): SMALL | {"groups": 4, "head_channels": 4},
    **{
        ("network", name): {"channels": 8, "blocks": 1, "groups": 4}
        for name in ("vdm", "reflected-vdm")
    },
    ("network", "unet"): {"channels": 8, "inner_channels": 8, "embedding": 16},
    **{
        ("operator", name): {"size": 3}
        for name in ("uniform-blur", "gaussian-blur", "anisotropic-blur")
    },
    **{("operator", name): {"factor": 2} for name in ("block-average", "bicubic")},
    ("operator", "box-mask"): {"height": 3, "width": 2},
    ("operator", "mask"): {"rows": ("#.......", *("........",) * 7)},
    **{("restorer", name): STEPS for name in ("ilvr", "replace", "inpaint-tuned")},
    ("restorer", "ccdf"): {"around": {"name": "replace", **STEPS}, "start": 0.5},
    **{
        ("restorer", name): {
            "solver": {"name": "reverse-diffusion", "steps": 40, "corrector": {"snr": 0.16}}
        }
        for name in ("impute", "medical")
    },
    ("restorer", "snips"): {"levels": 30},
    ("likelihood", "ode"): {"method": "rk4", "steps": 12},
    ("data", "imagenet"): {"size": 32},
    ("image measure", "lpips"): {"backbone_sha256": "0" * 64, "sha256": "0" * 64},
    ("analysis", "latents"): {"solver": {"name": "ddim", "steps": 2}},
    ("extractor", "dinov2"): {"sha256": "0" * 64},
    ("analysis", "simplex"): {"training": {"steps": 4}},
}


def shipped() -> Iterator[object]:
    """Every class of the package with a spec."""
    kinds = [each for each in Registered.__subclasses__() if ".specs." in each.__module__]
    for kind in sorted(kinds, key=lambda each: each.kind):
        for name, model in sorted(kind.known.items()):
            if model.__module__.startswith("diffbench.specs"):
                yield pytest.param(kind, name, id=f"{kind.kind}-{name}")


@pytest.mark.parametrize(("kind", "name"), list(shipped()))
def test_every_class_of_the_package_obeys_the_laws(kind: type[Registered], name: str) -> None:
    given = {kind.chosen_by: name, **GIVEN.get((kind.kind, name), {})}
    found = judged(example(kind.known[name], given))
    assert found
    assert [each.line for each in found if each.failed] == []


@pytest.mark.parametrize("given", [{"churn": 10}, {"w": 2}, {"classifier_scale": 1}], ids=str)
def test_settings_that_bend_a_path_raise_no_alarm(given: dict[str, object]) -> None:
    found = judged(HeunSpec.model_validate({"name": "heun", "steps": 9, **given}))
    assert [each.line for each in found if each.failed] == []


@pytest.mark.parametrize("file", sorted((REPOSITORY / "examples").glob("*.py")), ids=str)
def test_the_examples_obey_the_laws(file: Path) -> None:
    found = {
        name: [each.line for each in said if each.failed] for name, said in verdicts(file).items()
    }
    assert found and not any(found.values()), found


HEAD = """
from collections.abc import Mapping
from typing import ClassVar, Literal
import numpy as np
import torch
from torch import Tensor
"""
SOLVER = """
from diffbench.diffusion.solvers.transition import DDIM
from diffbench.specs.solvers import DDIMSpec

class Planted(DDIM):
    {body}

class PlantedSpec(DDIMSpec):
    name: Literal["planted"] = "planted"
    implementation: ClassVar[str | type] = Planted
"""
STEP = "def step(self, x_t, t, s, condition, noise):\n        "
PROCESS = """
from diffbench.diffusion.processes.continuous import VP
from diffbench.specs.processes import VPSpec

class Planted(VP):
    {body}

class PlantedSpec(VPSpec):
    name: Literal["planted"] = "planted"
    implementation: ClassVar[str | type] = Planted
"""
WALLS = """
from diffbench.diffusion.processes.reflected import Reflected
from diffbench.specs.processes import ReflectedSpec

class Planted(Reflected):
    {body}

class PlantedSpec(ReflectedSpec):
    name: Literal["planted"] = "planted"
    implementation: ClassVar[str | type] = Planted
"""
DENOISER = """
from diffbench.diffusion.core.condition import Condition
from diffbench.diffusion.core.predictions import Prediction
from diffbench.diffusion.denoisers.network import NetworkDenoiser
from diffbench.specs.denoisers import NetworkDenoiserSpec

class Planted(NetworkDenoiser):
    {body}

class PlantedSpec(NetworkDenoiserSpec):
    name: Literal["planted"] = "planted"
    implementation: ClassVar[str | type] = Planted
    conditional: bool = True
"""
EXACT = """
from diffbench.diffusion.denoisers.exact import GaussianDenoiser
from diffbench.specs.denoisers import GaussianSpec

class Planted(GaussianDenoiser):
    {body}

class PlantedSpec(GaussianSpec):
    name: Literal["planted"] = "planted"
    implementation: ClassVar[str | type] = Planted
"""
NETWORK = """
from diffbench.networks.network import Network
from diffbench.specs.networks import NetworkSpec

class Planted(Network):
    def __init__(self, spec, image_shape, in_channels, out_channels, classes):
        super().__init__()
        self.layer = torch.nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.table = torch.nn.Embedding(classes + 1, out_channels)
        self.noise = torch.nn.Linear(1, out_channels)
        self.null = classes

    def forward(self, x, c_noise, y=None, raw=None):
        y = torch.full((len(x),), self.null) if y is None else y
        told = self.table(y) + self.noise(c_noise[:, None])
        {body}

class PlantedSpec(NetworkSpec):
    name: Literal["planted"] = "planted"
    implementation: ClassVar[str | type] = Planted
"""
LIKELIHOOD = """
from diffbench.diffusion.likelihoods.ode import ODELikelihood
from diffbench.specs.likelihoods import ODELikelihoodSpec

class Planted(ODELikelihood):
    {body}

class PlantedSpec(ODELikelihoodSpec):
    name: Literal["planted"] = "planted"
    implementation: ClassVar[str | type] = Planted
    method: Literal["rk4"] = "rk4"
    steps: int = 12
"""
OPERATOR = """
from diffbench.diffusion.inverse.operators.selections import RandomMask
from diffbench.specs.operators import RandomMaskSpec

class Planted(RandomMask):
    {body}

class PlantedSpec(RandomMaskSpec):
    name: Literal["planted"] = "planted"
    implementation: ClassVar[str | type] = Planted
"""
RESTORER = """
from diffbench.diffusion.inverse.restorers.restorer import Restorer
from diffbench.specs.restorers import RestorerSpec

class Restoring(Restorer):
    def __init__(self, spec, middle):
        self.spec, self.middle = spec, middle

    def restore(self, measurement, generator):
        {body}

class RestoringSpec(RestorerSpec):
    name: Literal["restoring"] = "restoring"
    implementation: ClassVar[str | type] = Restoring
    facts: ClassVar[tuple[str, ...]] = ("middle",)
"""
MEASURE = """
from diffbench.metrics.measures import Measure, Measured
from diffbench.specs.measures import MeasureSpec

class Planted(Measure):
    last = 0.0

    def of(self, z, rows):
        centre = self.reference.features.mean(0)
        {body}
        return Measured({{"planted": {{"value": float(found), "se": None}}}})

class PlantedSpec(MeasureSpec):
    name: Literal["planted"] = "planted"
    implementation: ClassVar[str | type] = Planted
    better: ClassVar[Mapping[str, str]] = {{"planted": "{better}"}}
"""
IMAGES = """
from diffbench.metrics.restoration import ImageMeasure
from diffbench.specs.image_measures import ImageMeasureSpec

class Planted(ImageMeasure):
    def __init__(self, spec, shape, device):
        self.spec = spec

    def __call__(self, truth, drawn):
        error = (drawn.double() - truth.double()[:, None]).square().flatten(2).mean(2)
        {body}

class PlantedSpec(ImageMeasureSpec):
    name: Literal["planted"] = "planted"
    implementation: ClassVar[str | type] = Planted
"""
OBJECTIVE = """
from diffbench.diffusion.objectives.losses import Simple
from diffbench.specs.objectives import SimpleSpec

class Planted(Simple):
    def error(self, prediction, x0, eps):
        {body}

class PlantedSpec(SimpleSpec):
    name: Literal["planted"] = "planted"
    implementation: ClassVar[str | type] = Planted
"""
TIMES = """
from diffbench.diffusion.objectives.times import UniformTimes
from diffbench.specs.objectives import UniformTimesSpec

class Planted(UniformTimes):
    def quantile(self, u):
        {body}

class PlantedSpec(UniformTimesSpec):
    name: Literal["planted"] = "planted"
    implementation: ClassVar[str | type] = Planted
"""
DATA = """
from diffbench.data.datasets import Digits
from diffbench.specs.data import DigitsSpec

class Planted(Digits):
    def load(self):
        {body}

class PlantedSpec(DigitsSpec):
    name: Literal["planted"] = "planted"
    implementation: ClassVar[str | type] = Planted
"""
LAST = f"{STEP}x = super().step(x_t, t, s, condition, noise)\n        return "

#: The fault -> a file that has it, the law that must fail, and a part of what is said.
FAULTS: dict[str, tuple[str, str, str]] = {
    "the sign of the score, in a solver": (
        SOLVER.format(
            body=f"{STEP}h = (s - t).to(x_t)\n"
            "        p, f, g2 = self.process, self.process.f(t).to(x_t), self.process.g2(t).to(x_t)\n"
            "        told = self.denoiser(x_t, t, condition)\n"
            "        return told.x0 if float(s) == p.data_time else x_t + h * (f * x_t + g2 / 2 * told.score)"
        ),
        "the sign of the score",
        "the sign of the score is wrong",
    ),
    "the sign of the score, in a denoiser": (
        EXACT.format(
            body="def predict(self, x_t, t, condition):\n"
            "        told = super().predict(x_t, t, condition)\n"
            "        return told.with_x0(2 * x_t / self.process.alpha(t).to(x_t) - told.x0)"
        ),
        "the sign of the score",
        "the sign of the score is wrong",
    ),
    "alpha and sigma swapped": (
        PROCESS.format(
            body="def alpha(self, t):\n        return super().sigma(t)\n\n"
            "    def sigma(self, t):\n        return super().alpha(t)"
        ),
        "data are where time begins",
        "alpha and sigma are swapped",
    ),
    "prior off": (
        PROCESS.format(body="def prior_sample(self, z):\n        return 0.5 * z"),
        "the prior is the end of the perturbation",
        "they must agree",
    ),
    "non-determinism": (
        SOLVER.format(body=f"{LAST}x + 1e-3 * torch.randn_like(x)"),
        "a seed gives the same images",
        "two samples from one seed differ",
    ),
    "label ignored, by a solver": (
        SOLVER.format(
            body=f"{STEP}return super().step(x_t, t, s, type(condition)(), noise)",
        ),
        "labels are used",
        "the label is ignored",
    ),
    "label ignored, by a denoiser": (
        DENOISER.format(
            body="def predict(self, x_t, t, condition):\n"
            "        return super().predict(x_t, t, Condition())"
        ),
        "labels are used",
        "the label is ignored",
    ),
    "label ignored, by a network": (
        NETWORK.format(
            body="return self.layer(x) + self.noise(c_noise[:, None])[:, :, None, None]"
        ),
        "noise and labels are used",
        "the label is ignored",
    ),
    "label ignored, by an objective": (
        OBJECTIVE.format(
            body="return super().error(prediction, x0, eps)\n\n"
            "    def losses(self, x0, t, eps, condition):\n"
            "        return super().losses(x0, t, eps, type(condition)())"
        ),
        "labels are used",
        "the label is ignored",
    ),
    "wrong shape, of a step": (
        SOLVER.format(body=f"{LAST}x[:1]"),
        "shapes and dtypes",
        "step returned float32 (1, 1, 2, 2)",
    ),
    "wrong shape, of a network": (
        NETWORK.format(body="return (self.layer(x) + told[:, :, None, None])[:, :1]"),
        "shapes and dtypes",
        "with in_channels 3 and out_channels 2 forward returned float32 (2, 1,",
    ),
    "float64 leak": (
        SOLVER.format(body=f"{LAST}x * self.process.alpha(t).reshape(1)"),
        "shapes and dtypes",
        "step returned float64",
    ),
    "view that disagrees": (
        DENOISER.format(
            body="def predict(self, x_t, t, condition):\n"
            "        told = super().predict(x_t, t, condition)\n"
            "        told.x0 = 0.9 * told.x0\n"
            "        return told"
        ),
        "views of a prediction agree",
        "differs from",
    ),
    "in-place change": (
        SOLVER.format(body=f"{LAST}x_t.copy_(x)"),
        "inputs are not changed in place",
        "changes x_t in place",
    ),
    "grid reversed": (
        SOLVER.format(body="def times(self):\n        return super().times().flip(0)"),
        "levels of the grid",
        "the grid is reversed",
    ),
    "noise at the last step": (
        SOLVER.format(body=f"{LAST}x + 0.01 * noise(x)"),
        "noise at the last step is zero",
        "the last step adds noise",
    ),
    "likelihood off by the range": (
        LIKELIHOOD.format(
            body="def bits(self, log_prob, x0):\n"
            "        return super().bits(log_prob, x0) - np.log2(self.process.spec.half_range)"
        ),
        "probabilities sum to 1",
        "off by -1.0",
    ),
    "prior's density off by the range": (
        PROCESS.format(
            body="def prior_log_prob(self, x):\n"
            "        return super().prior_log_prob(x) + np.log(2.0) * x[0].numel()"
        ),
        "the prior's density integrates to 1",
        "the integral is 2",
    ),
    "support left, by a process": (
        WALLS.format(body="def constrain(self, x):\n        return x"),
        "states stay in the support",
        "and data lie in [0, 1]",
    ),
    "f that is not alpha'/alpha": (
        PROCESS.format(body="def f(self, t):\n        return -self.beta(t)"),
        "rates are derivatives",
        "but alpha'/alpha is",
    ),
    "an order that is not reached": (
        SOLVER.format(body="pass") + "\n    @property\n    def accuracy(self):\n        return 2\n",
        "an analytic Gaussian is followed with the order it states",
        "but it states 2",
    ),
    "an adjoint that is none": (
        OPERATOR.format(body="def adjoint(self, y):\n        return 2 * super().adjoint(y)"),
        "the adjoint is the adjoint",
        "but <x, H^T y> is",
    ),
    "a noise-free measurement not honoured": (
        RESTORER.format(body="return 0.9 * measurement.operator.pseudo_inverse(measurement.y)"),
        "a measurement without noise is honoured",
        "H x differs from y by",
    ),
    "a restorer that sees the truth": (
        OPERATOR.format(
            body="def apply(self, x):\n        self.seen = x\n        return super().apply(x)"
        )
        + RESTORER.format(body="return getattr(measurement.operator, 'seen')"),
        "a restorer does not see the truth",
        "it sees the truth",
    ),
    "a restorer that does not know the data range": (
        RESTORER.format(body="return measurement.operator.pseudo_inverse(measurement.y)"),
        "a change of the data range changes restorations affinely",
        "restorations on [0, 1] differ",
    ),
    "a rate that is of one data range": (
        PROCESS.format(
            body="def sigma2_rate(self, t):\n        return self.beta(t) * self.alpha(t) ** 2"
        ),
        "rates are derivatives",
        "for data in [0, 1] g^2 is",
    ),
    "weights of times that count twice": (
        OBJECTIVE.format(
            body="return super().error(prediction, x0, eps)\n\n"
            "    def losses_for(self, x0, draws):\n"
            "        return super().losses_for(x0, draws) * draws.importance.to(x0)"
        ),
        "the expectation is over the paper's times",
        "L differs from w(t) l(t)",
    ),
    "a metric whose direction is reversed": (
        MEASURE.format(body="found = np.square(z.mean(0) - centre).sum()", better="higher"),
        "the direction is as said",
        "the direction is reversed: planted is",
    ),
    "a distance whose direction is reversed": (
        IMAGES.format(body="return -error"),
        "the direction is as said",
        "the direction is reversed",
    ),
    "a metric that depends on order": (
        MEASURE.format(
            body="found = np.square(z[: len(z) // 2].mean(0) - centre).sum()", better="lower"
        ),
        "the order of the samples does not matter",
        "depends on the order of the samples",
    ),
    "a metric that depends on the batch before": (
        MEASURE.format(
            body="found = np.square(z.mean(0) - centre).sum() + self.last\n        self.last = found",
            better="lower",
        ),
        "a score does not depend on what was scored before",
        "depends on the batch before",
    ),
    "a distance that depends on the batch": (
        IMAGES.format(body="return error - error.mean() + 1e-3 * len(truth)"),
        "the batch does not matter",
        "it depends on the batch",
    ),
    "an objective whose weight is biased": (
        OBJECTIVE.format(
            body="return super().error(prediction, x0, eps) * eps.square().flatten(1).mean(1)"
        ),
        "the weight is unbiased: the minimum is the exact denoiser",
        "the weight is biased",
    ),
    "an objective whose weight is of the batch": (
        OBJECTIVE.format(
            body="found = super().error(prediction, x0, eps)\n        return found / found.mean()"
        ),
        "an image's loss is its own",
        "the loss of an image alone differs",
    ),
    "times whose weights are biased": (
        TIMES.format(body="return super().quantile(u**2)[0], 1 / (1 + u)"),
        "the weights of the times are unbiased",
        "the weights are biased",
    ),
    "levels out of range, of a grid": (
        SOLVER.format(body="def times(self):\n        return 1.5 * super().times()"),
        "levels of the grid",
        "levels out of range",
    ),
    "levels out of range, of training": (
        TIMES.format(body="t, w = super().quantile(u)\n        return 1.5 * t, w"),
        "levels are in the range",
        "levels out of range",
    ),
    "levels out of range, of data": (
        DATA.format(
            body="from dataclasses import replace\n"
            "        found = super().load()\n"
            "        return replace(found, train=found.train + np.uint8(1))"
        ),
        "levels are in the range",
        "levels out of range: a level is 17",
    ),
}


@pytest.fixture
def extension(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Path]]:
    """Write an extension file; what it registered is forgotten at the end."""
    monkeypatch.chdir(tmp_path)
    path = Path("planted.py")

    def write(text: str) -> Path:
        path.write_text(text)
        return path

    yield write
    forget(path)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named(fault: str, extension: Callable[[str], Path]) -> None:
    text, law, said = FAULTS[fault]
    found = verdicts(extension(HEAD + text))
    failed = {each.law.name: each.line for lines in found.values() for each in lines if each.failed}
    assert law in failed, failed
    assert said in failed[law]


NOTHING = "pass"
SOUND = {
    "solver": SOLVER.format(body=NOTHING),
    "process": PROCESS.format(body=NOTHING),
    "walls": WALLS.format(body=NOTHING),
    "denoiser": DENOISER.format(body=NOTHING),
    "exact": EXACT.format(body=NOTHING),
    "network": NETWORK.format(body="return self.layer(x) + told[:, :, None, None]"),
    "likelihood": LIKELIHOOD.format(body=NOTHING),
    "operator and restorer": OPERATOR.format(body=NOTHING)
    + RESTORER.format(
        body="y = measurement.centred(self.middle).y\n"
        "        return self.middle + measurement.operator.pseudo_inverse(y)"
    ),
    "measure": MEASURE.format(body="found = np.square(z.mean(0) - centre).sum()", better="lower"),
    "image measure": IMAGES.format(body="return error"),
    "objective": OBJECTIVE.format(body="return super().error(prediction, x0, eps)"),
    "times": TIMES.format(body="return super().quantile(u)"),
    "data": DATA.format(body="return super().load()"),
}


@pytest.mark.parametrize("kind", SOUND)
def test_the_same_files_without_a_fault_pass(kind: str, extension: Callable[[str], Path]) -> None:
    found = verdicts(extension(HEAD + SOUND[kind]))
    assert [each.line for lines in found.values() for each in lines if each.failed] == []


def test_the_command_prints_the_equation_that_failed(
    extension: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    text, law, said = FAULTS["prior off"]
    assert main(["conform", str(extension(HEAD + text))]) == 1
    printed = capsys.readouterr().out.splitlines()
    (line,) = (each for each in printed if each.startswith(f"  failed          {law}: "))
    assert said in line and line.endswith("the law: q(x_T) = prior: mean and sigma(t_max)")
    assert printed[0] == "planted.py: process planted"
    assert " laws passed, 2 failed, " in printed[-1]


def test_the_command_succeeds_where_all_laws_are_obeyed(
    extension: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = extension(HEAD + SOUND["solver"])
    assert main(["conform", str(path), "--set", "steps=30"]) == 0
    assert ", 0 failed, " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\ny = x.nothing\n", r"planted\.py:2 cannot be imported: AttributeError"),
        ("x = 1\n", r"planted\.py registers nothing: define a spec class"),
        (
            HEAD + SOLVER.format(body=NOTHING) + "    where: tuple[str, str]\n",
            r"solver planted: where has no default: give one with --set where=VALUE",
        ),
    ],
)
def test_a_file_that_cannot_be_tried_is_one_line(
    text: str, said: str, extension: Callable[[str], Path]
) -> None:
    with pytest.raises(PlanError, match=said) as error:
        verdicts(extension(text))
    assert "\n" not in str(error.value)


def test_an_error_of_a_class_has_its_file_and_line(extension: Callable[[str], Path]) -> None:
    text = HEAD + SOLVER.format(body=f"{STEP}return x_t.nothing")
    failed = [each for each in verdicts(extension(text))["solver planted"] if each.failed]
    line = 1 + text[: text.index("x_t.nothing")].count("\n")
    assert failed and all(f"planted.py:{line}: AttributeError" in each.reason for each in failed)


def test_laws_leave_the_global_random_state_alone() -> None:
    before = torch.random.get_rng_state()
    judged(DDIMSpec(steps=5))
    judged(UNetSpec(channels=8, inner_channels=8, embedding=16))
    assert torch.equal(before, torch.random.get_rng_state())
