"""The facets in which two models of a plan differ, which are what a comparison of them compares.

Two models are alike in a facet when they are so by algebra (``specs.forms``), whatever their keys say: with EDM's skip
inside, eps, x0, v and the mean are one prediction.  A comparison says in ``about`` in which facets its sides differ:

    process, prediction, input, loss, scale, times, network, training, data, conditioning, variance, solver

``loss`` is the weight of each time, ``scale`` the factor before it, ``input`` what the network sees and is told of the
noise, ``data`` what is done to training images, ``solver`` what makes the number from the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations, product
from typing import Literal

from diffbench.plan.jobs import Plan
from diffbench.specs.benchmark import VariantSpec
from diffbench.specs.errors import PlanError
from diffbench.specs.forms import Form, LossForm

Facet = Literal[
    "process",
    "prediction",
    "input",
    "loss",
    "scale",
    "times",
    "network",
    "training",
    "data",
    "conditioning",
    "variance",
    "solver",
]
#: A number of the plan: its variant, and its solver, likelihood, restoration or analysis.
Cell = tuple[str, str]
#: Fields of a job's spec that do not say how the number is made from the model.
_AROUND = {"variant", "seed", "train", "extensions", "version"}


def form_of(variant: VariantSpec) -> Form | None:
    """Return a model as a function of its network; None where there is no model."""
    if variant.process is None or variant.denoiser is None:
        return None
    return variant.denoiser.form(variant.process)


def loss_of(variant: VariantSpec) -> LossForm | None:
    """Return the loss of a model; None where nothing is minimised."""
    if variant.process is None or variant.denoiser is None or variant.objective is None:
        return None
    return variant.objective.loss(variant.process, variant.denoiser)


def _prediction(variant: VariantSpec) -> object:
    form = form_of(variant)
    return form and form.output


def _input(variant: VariantSpec) -> object:
    form = form_of(variant)
    return form and form.input


def _loss(variant: VariantSpec) -> object:
    loss = loss_of(variant)
    return loss and (loss.weight and loss.weight.powers, loss.beside)


def _scale(variant: VariantSpec) -> object:
    loss = loss_of(variant)
    # Rounded: the same number may come from the two sides by different roundings.
    return loss and loss.weight and f"{loss.weight.scale:.12g}"


def _conditioning(variant: VariantSpec) -> object:
    denoiser, objective = variant.denoiser, variant.objective
    dropout = objective and objective.label_dropout
    return denoiser and (denoiser.takes_labels, denoiser.takes_masks, dropout)


def _data(variant: VariantSpec) -> object:
    return variant.dequantise, variant.objective and variant.objective.augmentation


FACETS: Mapping[Facet, Callable[[VariantSpec], object]] = {
    "process": lambda variant: variant.process,
    "prediction": _prediction,
    "input": _input,
    "loss": _loss,
    "scale": _scale,
    "times": lambda variant: variant.objective and variant.objective.times,
    "network": lambda variant: variant.network,
    "training": lambda variant: (variant.training, variant.pretrained),
    "data": _data,
    "conditioning": _conditioning,
    "variance": lambda variant: (
        variant.denoiser and (variant.denoiser.learns_variance, variant.denoiser.variance_of_levels)
    ),
}


def differing(one: VariantSpec, other: VariantSpec) -> list[Facet]:
    """Return the facets in which two models differ; none where they are the same training with two names."""
    found = [facet for facet, of in FACETS.items() if of(one) != of(other)]
    # Weights that are different functions of time have no common scale.
    return [facet for facet in found if facet != "scale" or "loss" not in found]


def one_function(one: VariantSpec, other: VariantSpec) -> bool:
    """Say whether two models are one function of their network's output on one process."""
    named = form_of(one), form_of(other)
    return None not in named and not {"process", "prediction"} & set(differing(one, other))


def between(plan: Plan, one: Cell, other: Cell) -> list[Facet] | None:
    """Return the facets in which two numbers are made differently; None where the plan lacks one of them."""
    makers = _maker(plan, one), _maker(plan, other)
    if None in makers:
        return None
    models = differing(plan.variants[one[0]], plan.variants[other[0]])
    return models if makers[0] == makers[1] else [*models, "solver"]


def _maker(plan: Plan, cell: Cell) -> dict[str, object] | None:
    """Return the settings that a number is made with, besides the model, the seed and names."""
    job = plan.find(*cell)
    if job is None:
        return None
    spec = job.spec.model_dump(mode="json", exclude=_AROUND)
    return {key: value for key, value in spec.items() if not key.endswith("_id")}


def check(plan: Plan, where: str, one: Cell, other: Cell, about: Iterable[Facet]) -> None:
    """Refuse a comparison of two numbers that differ in no facet, or in other facets than it says.

    Args:
        plan: the benchmark; numbers that it lacks are not compared.
        where: the comparison, as users wrote it.
        one: a number.
        other: another.
        about: the facets that the comparison says it is about; empty where it says none.

    Raises:
        PlanError: with both numbers, the facets in which they differ, and what would be right.
    """
    found, wanted = between(plan, one, other), ordered(about)
    if found is None or found and (not wanted or found == wanted):
        return
    said = f".about: {', '.join(wanted)}, but" if wanted else ":"
    raise PlanError(f"{where}{said} {_apart(plan, one, other, found)}")


def check_rows(plan: Plan, where: str, cells: Iterable[Cell], about: Iterable[Facet]) -> None:
    """Refuse a column in which the numbers of two variants differ in no facet, or in other facets than it says.

    Rows may differ in any of the facets in ``about``, or in any facet where it is empty.  Where the prediction is in
    ``about``, rows whose predictions have different names must differ in it.

    Raises:
        PlanError: as ``check``.
    """
    wanted, chosen = ordered(about), list(dict.fromkeys(cells))
    variants = [name for name in dict.fromkeys(name for name, _ in chosen) if name in plan.variants]
    for pair in combinations(variants, 2):
        found = differing(*(plan.variants[name] for name in pair))
        if found and not _strays(plan, pair, found, wanted):
            continue
        sides = [[cell for cell in chosen if cell[0] == name] for name in pair]
        for one, other in product(*sides):
            check(plan, where, one, other, found and wanted)


def _strays(
    plan: Plan, pair: tuple[str, str], found: Sequence[Facet], wanted: Sequence[Facet]
) -> bool:
    """Say whether two models differ in what a table is not about, or not in the prediction that it is about."""
    if not wanted:
        return False
    named = {_predicts(plan.variants[name]) for name in pair}
    same = "prediction" in wanted and "prediction" not in found and len(named) > 1
    return same or not set(found) <= set(wanted)


def ordered(facets: Iterable[Facet]) -> list[Facet]:
    """Return facets in the order of the module, each once."""
    asked = set(facets)
    return [facet for facet in (*FACETS, "solver") if facet in asked]


def _predicts(variant: VariantSpec) -> str:
    return variant.denoiser.predicts if variant.denoiser else ""


def _apart(plan: Plan, one: Cell, other: Cell, found: Sequence[Facet]) -> str:
    """Return in what two numbers differ and, where only the names of predictions do, what would be right."""
    said = f"{' '.join(one)} and {' '.join(other)} differ in {', '.join(found) or 'nothing'}"
    models = [plan.variants[name] for name, _ in (one, other)]
    names = list(map(_predicts, models))
    if names[0] == names[1] or not one_function(*models):
        return said
    return (
        f"{said}: with the same skip, predict {names[0]} and {names[1]} are one function of the network; to compare "
        "them, set denoiser.skip: none"
    )


def remarks(variants: Mapping[str, VariantSpec]) -> list[str]:
    """Return remarks on models that are one function of their network under different names of the prediction."""
    groups: list[dict[str, VariantSpec]] = []
    for name, variant in variants.items():
        for group in groups:
            if one_function(next(iter(group.values())), variant):
                group[name] = variant
                break
        else:
            groups.append({name: variant})
    return [_remark(each) for each in groups if len(set(map(_predicts, each.values()))) > 1]


def _remark(group: Mapping[str, VariantSpec]) -> str:
    shown = ", ".join(f"{name} ({_predicts(variant)})" for name, variant in group.items())
    found = ordered(facet for pair in combinations(group.values(), 2) for facet in differing(*pair))
    return (
        f"One function of the network under several names of the prediction: {shown}; they differ in "
        f"{', '.join(found) or 'nothing'}."
    )
