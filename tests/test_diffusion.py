"""The library as one imports it: its names, its rooms and their order, classes made from keywords."""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from toys import mixture_denoiser, process_of

from diffbench import diffusion
from diffbench.data.grey_levels import GreyLevels
from diffbench.diffusion import (
    CCDF,
    VLB,
    VP,
    Bicubic,
    Blurring,
    EulerMaruyama,
    Heun,
    Impute,
    LogNormalTimes,
    NetworkDenoiser,
    PseudoInverse,
    Simple,
    StaticThreshold,
    sample,
)
from diffbench.diffusion.core.described import Described, spec_of
from diffbench.specs.base import Registered
from diffbench.specs.registry import build, implementation
from diffbench.specs.restorers import PseudoInverseSpec, ReplaceSpec
from diffbench.specs.solvers import HeunSpec

HERE = Path(diffusion.__file__).parent
REPOSITORY = HERE.parents[1]

#: By name, keywords of the specs that cannot do without, and of some others.
SETTINGS = {
    "discrete": {"schedule": "cosine"},
    "vp": {"beta_max": 10},
    "blurring": {"sigma_max": 2},
    "network": {"predict": "eps", "masks": True},
    "hybrid": {"weight": 0.5},
    "ode-adaptive": {"rtol": 1e-3},
    "box-mask": {"height": 2, "width": 3},
    "mask": {"rows": (".#",)},
    "block-average": {"factor": 2},
    "bicubic": {"factor": 2},
    "uniform-blur": {"size": 3},
    "gaussian-blur": {"size": 3, "std": 1},
    "anisotropic-blur": {"size": 3, "std_rows": 1, "std_columns": 2},
    "ilvr": {"until": 0.5},
    "ccdf": {"start": 0.5},
}
STEPS = {"steps": 7}


def registered() -> list[type[Registered]]:
    """The specs whose classes are in this library."""
    return [
        model
        for kind in Registered.__subclasses__()
        for model in kind.known.values()
        if str(getattr(model, "implementation", "")).startswith("diffbench.diffusion.")
    ]


def keywords(model: type[Registered]) -> dict[str, object]:
    name = model.model_fields["name"].default
    required = model.model_fields["steps"].is_required() if "steps" in model.model_fields else False
    return SETTINGS.get(name, {}) | (STEPS if required else {})


every_spec = pytest.mark.parametrize(
    "model", registered(), ids=lambda model: f"{model.kind}-{model.model_fields['name'].default}"
)


@every_spec
def test_every_class_is_made_from_keywords_as_from_its_spec(
    model: type[Registered], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever else it takes, by place or by name, goes to the class."""
    settings = keywords(model)
    spec = model(**settings)
    described = implementation(spec)
    assert issubclass(described, Described) and spec_of(described) is model
    assert not inspect.isabstract(described)
    first, *others = list(inspect.signature(described.__init__).parameters)[1:]
    assert first == "spec" and not set(others) & set(settings)
    given = []

    @functools.wraps(described.__init__)
    def noted(self: object, *args: object, **named: object) -> None:
        given.append((args, named))

    monkeypatch.setattr(described, "__init__", noted)
    named = {others[-1]: "last"} if others else {}
    described("first", **settings, **named)
    described(spec, "first", **named)
    build(spec, "first", **named)
    assert given == [((spec, "first"), named)] * 3
    if others:
        described(**dict.fromkeys(others, "given"), **settings)
        assert given[-1] == ((spec,), dict.fromkeys(others, "given"))


def test_a_solver_from_keywords_samples_as_from_its_spec() -> None:
    denoiser = mixture_denoiser(VP(beta_max=10))

    def drawn(solver: Heun) -> Tensor:
        return sample(solver, (3, 1, 2, 2), torch.Generator().manual_seed(0))

    made = Heun(denoiser, steps=9, churn=5)
    assert made.spec == HeunSpec(steps=9, churn=5)
    assert torch.equal(drawn(made), drawn(build(HeunSpec(steps=9, churn=5), denoiser)))
    assert EulerMaruyama(denoiser, steps=4).times().tolist()[0] == 1


def test_every_kind_can_be_made_from_keywords() -> None:
    process = VP(beta_max=10)
    assert (process.spec.beta_max, process.beta_max) == (10, 10)
    blurring = Blurring((1, 8, 8), sigma_max=2, d_min=0.01)
    assert blurring.sigma_max == 2 and blurring.basis.eigenvalues.shape == (8, 8)
    denoiser = NetworkDenoiser(process, lambda x, *_: x, predict="x0", skip="none", classes=3)
    assert denoiser.native == "x0" and denoiser.classes == 3
    operator = Bicubic((1, 8, 8), factor=2)
    assert operator.measurement_shape == (1, 4, 4)
    impute = Impute(EulerMaruyama(denoiser, steps=6))
    assert isinstance(impute.solver, EulerMaruyama) and impute.spec.name == "impute"
    ccdf = CCDF(around=impute, estimate=PseudoInverse(middle=0.5), start=0.5)
    assert ccdf.around is impute and ccdf.spec.start == 0.5
    assert ccdf.spec.around == ReplaceSpec() and ccdf.spec.estimate == PseudoInverseSpec()
    assert VLB(denoiser, GreyLevels(17), steps=5).times().shape == (6,)
    times = LogNormalTimes(process, std=0.5)
    assert Simple(denoiser, times=times, label_dropout=0.1).times is times


def test_a_keyword_that_nobody_takes_is_refused_by_name() -> None:
    denoiser = mixture_denoiser(process_of("vp"))
    with pytest.raises(ValidationError, match="stepz"):
        Heun(denoiser, stepz=18)
    with pytest.raises(ValidationError, match="steps"):
        Heun(denoiser, steps=0)
    # A class without a spec takes its own arguments alone.
    assert spec_of(StaticThreshold) is None
    assert StaticThreshold(denoiser=denoiser).denoiser is denoiser


def test_a_class_of_ones_own_has_the_spec_of_its_base() -> None:
    class Slow(Heun):
        """Without a spec of its own."""

    made = Slow(mixture_denoiser(process_of("vp")), steps=3)
    assert isinstance(made, Slow) and made.spec == HeunSpec(steps=3)
    assert spec_of(Slow) is HeunSpec


# What can be imported.


def test_the_package_is_imported_without_torch() -> None:
    code = (
        "import diffbench.diffusion, sys; dir(diffbench.diffusion);"
        "assert 'torch' not in sys.modules; from diffbench.diffusion import VP;"
        "assert 'torch' in sys.modules and 'diffbench.diffusion.solvers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_name_can_be_imported_and_every_registered_class_is_one() -> None:
    others = [name for names in diffusion.OTHERS.values() for name in names]
    classes = [str(model.implementation).partition(":")[2] for model in registered()]
    assert len({*others, *classes}) == len(others) + len(classes)
    assert {*others, *classes} <= diffusion.modules().keys() <= set(dir(diffusion))
    for name, module in diffusion.modules().items():
        found = getattr(diffusion, name)
        assert found is getattr(importlib.import_module(module), name)
        assert not inspect.isclass(found) or found.__module__ == module
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        diffusion.Nothing  # noqa: B018


# Its rooms.


def test_the_rooms_are_those_of_the_contract_in_its_order() -> None:
    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]
    (layers,) = (
        each["layers"]
        for each in contracts["contracts"]
        if each.get("containers") == ["diffbench.diffusion"]
    )
    named = re.findall(r"^    (\w+)  +\w", diffusion.__doc__, re.MULTILINE)
    assert named == layers[::-1]
    folders = {path.parent.name for path in HERE.glob("*/__init__.py")}
    assert folders == set(named)
    order = [module.partition(".")[0] for module in diffusion.OTHERS]
    assert list(dict.fromkeys(order)) == named
