"""Needs of specs: facts, restricted to keys, rules, those of bases, those of specs inside; every one has a reason."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal, get_args

import pytest
from toys import chosen_process

import diffbench.specs
from diffbench.specs.analyses import AnalysisSpec
from diffbench.specs.base import PositiveInt
from diffbench.specs.denoisers import DenoiserSpec, NetworkDenoiserSpec
from diffbench.specs.likelihoods import LikelihoodSpec
from diffbench.specs.needs import (
    CONTINUOUS,
    GAUSSIAN,
    LEARNED,
    LINEAR,
    WALLS,
    HasNeeds,
    Need,
    Needs,
    Rule,
    inside,
    view,
)
from diffbench.specs.objectives import ObjectiveSpec, TimesSpec
from diffbench.specs.operators import IdentitySpec, JPEGSpec
from diffbench.specs.processes import ProcessSpec, ReflectedSpec, VPSpec
from diffbench.specs.restorers import ReplaceSpec, RestorerSpec
from diffbench.specs.solvers import SolverSpec, TransitionSolverSpec

KINDS = [
    AnalysisSpec,
    DenoiserSpec,
    LikelihoodSpec,
    ObjectiveSpec,
    RestorerSpec,
    SolverSpec,
    TimesSpec,
]
CHAIN = chosen_process("discrete")
PLAIN = NetworkDenoiserSpec(predict="eps")


def few_steps(spec: "Small", process: ProcessSpec) -> str | None:
    return f"steps: {spec.steps} of {process.name} are too many" if spec.steps > 9 else None


class Small(HasNeeds):
    needs: ClassVar[Needs] = (
        GAUSSIAN,
        LEARNED.where("variance", "learned").hinting("or take small"),
        WALLS.where("width"),
        CONTINUOUS.where("odd", False),
        LINEAR,
        Rule(few_steps),
    )

    name: Literal["small"] = "small"
    variance: Literal["small", "learned"] = "small"
    width: float | None = None
    odd: bool = True
    steps: PositiveInt = 1


class Smaller(Small):
    needs: ClassVar[Needs] = (view("x0"),)


class Around(HasNeeds):
    asker: ClassVar[str] = "whatever is around {0.small}"
    needs: ClassVar[Needs] = (CONTINUOUS, inside("small", "process", "denoiser"))

    small: Small | None = Small()


@pytest.mark.parametrize(
    ("spec", "offer", "reason"),
    [
        (Small(), (VPSpec(), PLAIN, IdentitySpec()), None),
        (Small(), (ReflectedSpec(),), "small needs a Gaussian process, and reflected is reflected"),
        (
            Small(variance="learned"),
            (VPSpec(), PLAIN),
            "variance: learned needs denoiser.variance: learned; or take small",
        ),
        (Small(variance="learned"), (VPSpec(),), None),
        (Small(width=2.0), (VPSpec(),), "width: 2 needs walls, and vp has none"),
        (Small(width=2.0), (), None),
        (
            Small(odd=False),
            (CHAIN,),
            "odd: false needs continuous time, and discrete has integer times",
        ),
        (Small(odd=True), (CHAIN,), None),
        (
            Small(),
            (None, None, JPEGSpec()),
            "small needs a linear operator, and jpeg is not linear",
        ),
        (Small(steps=10), (VPSpec(),), "steps: 10 of vp are too many"),
        (Small(steps=10), (None, PLAIN), None),
        (Smaller(), (VPSpec(),), None),
        (
            Smaller(),
            (ReflectedSpec(),),
            "small needs the view x0, and reflected has no x0: Tweedie's formula does not hold "
            "between reflecting walls",
        ),
        (Smaller(steps=10), (VPSpec(),), "steps: 10 of vp are too many"),
        (Around(), (VPSpec(),), None),
        (
            Around(small=None),
            (CHAIN,),
            "whatever is around None needs continuous time, and discrete has integer times",
        ),
        (Around(small=Small(steps=10)), (VPSpec(),), "small.steps: 10 of vp are too many"),
        (
            Around(),
            (ReflectedSpec(),),
            "small: small needs a Gaussian process, and reflected is reflected",
        ),
        (
            Around(small=Small(variance="learned")),
            (VPSpec(), PLAIN),
            "small.variance: learned needs denoiser.variance: learned; or take small",
        ),
        (Around(small=None), (ReflectedSpec(),), None),
    ],
)
def test_the_first_need_that_is_not_met_is_the_reason(spec, offer, reason) -> None:
    """A class's own come before those of its bases; about what is not offered nothing is asked."""
    assert spec.refusal(*offer) == reason


def test_an_extension_may_still_answer_itself(monkeypatch) -> None:
    """Its ``refusal`` is asked where the spec stands inside another, too."""
    monkeypatch.setattr(SolverSpec, "known", dict(SolverSpec.known))

    class Picky(TransitionSolverSpec):
        name: Literal["picky"] = "picky"

        def refusal(self, process=None, denoiser=None, operator=None):
            return "steps: never enough"

    assert ReplaceSpec(solver=Picky(steps=3)).refusal(VPSpec()) == "solver.steps: never enough"


@pytest.mark.parametrize(
    ("kind", "method", "now"),
    [
        (RestorerSpec, "model_refusal", "needs"),
        (RestorerSpec, "operator_refusal", "needs"),
        (SolverSpec, "walls_refusal", "needs"),
        (ProcessSpec, "chain_refusal", "chain_rate"),
    ],
)
def test_an_extension_with_a_method_of_before_is_told_what_is_asked_now(kind, method, now) -> None:
    with pytest.raises(TypeError, match=f"^Old.{method} is not used any more: state {now}$"):
        type("Old", (kind,), {method: lambda self, *offered: "no", "__module__": __name__})


def every_need() -> Iterator[tuple[type[HasNeeds], Need]]:
    for kind in KINDS:
        for spec in kind.known.values():
            for need in spec.all_needs():
                if isinstance(need, Need):
                    yield spec, need


def choices(key: str) -> set[object]:
    """The values that a key of that name may have in any registered spec, where they are a few."""
    fields = (spec.model_fields.get(key) for kind in KINDS for spec in kind.known.values())
    return {each for field in fields if field for each in get_args(field.annotation)}


def test_a_key_that_a_need_is_restricted_to_is_one_of_the_spec() -> None:
    """And so are the values: a misspelled one would never be asked."""
    restricted = [(spec, need) for spec, need in every_need() if need.key]
    assert len(restricted) > 100
    for spec, need in restricted:
        assert need.key in spec.model_fields or hasattr(spec, need.key), (spec, need)
        assert set(need.values) <= choices(need.key) | {False}, (spec, need)


def test_no_spec_of_the_package_answers_in_place_of_its_needs() -> None:
    """``refusal`` is stated once; only restorers, whose model may be missing, hand on less than they are offered.

    Networks, operators, imported models and measures of images are asked about sizes of images, not about what they are
    for.
    """
    stated = {
        (path.stem, node.name)
        for path in Path(diffbench.specs.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
        for each in node.body
        if isinstance(each, ast.FunctionDef) and each.name == "refusal"
    }
    others = {
        each
        for each in stated
        if each[0] not in ("operators", "pretrained", "image_measures", "network")
    }
    assert others == {("needs", "HasNeeds"), ("restorers", "RestorerSpec")}
