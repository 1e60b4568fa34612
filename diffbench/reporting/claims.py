"""What a paper claims, as data: ``config/claims.yaml``.

A claim says that one cell of the benchmark is better than another; the metric says whether lower or higher is better.
It also says what the numbers must be like to decide.  ``verdicts`` says how it is tested.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, TypeAdapter, model_validator

from diffbench.plan import reading
from diffbench.plan.document import Keys
from diffbench.plan.jobs import Plan
from diffbench.plan.reading import Tree
from diffbench.reporting.layout import (
    TABLES,
    Asking,
    CellSpec,
    Column,
    Facets,
    Metrics,
    check_shown,
    listed,
    place,
    refuse_known,
    written,
)
from diffbench.reporting.spelling import refuse_old
from diffbench.specs.base import Fraction, NonNegativeFloat, PositiveInt, Spec
from diffbench.specs.benchmark import Id, names, own
from diffbench.specs.errors import PlanError

CLAIMS = Path("config") / "claims.yaml"


Cells = Annotated[list[CellSpec], BeforeValidator(listed), Field(min_length=1)]


class DataNeedSpec(Spec):
    """What a claim needs of the data set to be decided: a measure below or above a number.

    data: ``saturated``, the share of the training images' numbers at the first or last grey level.
    """

    data: Literal["saturated"]
    below: Fraction | None = None
    above: Fraction | None = None

    @model_validator(mode="after")
    def _has_one_bound(self) -> Self:
        if (self.below is None) == (self.above is None):
            raise ValueError("give exactly one of below and above")
        return self

    def lacking(self, value: float | None) -> str:
        """Return why data with this measure (None: not measured) cannot decide the claim; empty where they can."""
        if value is None:
            return f"the manifest of the data set does not say how many pixels are {self.data}"
        low, high = self.above, self.below
        if (high is None or value < high) and (low is None or value > low):
            return ""
        wanted = f"below {high:g}" if high is not None else f"above {low:g}"
        return f"{value:.3g} of the data's pixels are {self.data}, and the claim needs {wanted}"


class ClaimSpec(Asking, Spec):
    """A paper's sentence as two cells and a direction.

    claim: the sentence.
    source: paper, section, table or figure.
    better, worse: a cell, or several whose values are averaged with each seed.
    seeds: with fewer the claim stays undecided.
    margin: the least difference by which it must be better.
    about: the facets in which the sides differ: in all of these, and in no other; any facets when not given.
    exploratory: it was found in our own numbers, or no paper says it; it is judged outside the family of the others.
    needs: what the data must be like.
    floor: ``above``, the cells must lie above their floors where these are known; ``any``, they may lie anywhere.
    """

    claim: str
    source: str
    better: Cells
    worse: Cells
    seeds: Annotated[PositiveInt, Field(ge=2)] = 3
    margin: NonNegativeFloat = 0.0
    about: Facets = []
    exploratory: bool = False
    needs: list[DataNeedSpec] = []
    floor: Literal["above", "any"] = "above"

    @property
    def cells(self) -> list[CellSpec]:
        """The cells of both sides."""
        return [*self.better, *self.worse]

    @property
    def asked(self) -> dict[str, Column]:
        """The cells, which are of one metric."""
        return {self.metric: Column(self.metric, [n for cell in self.cells for n in cell.named])}

    @property
    def metric(self) -> str:
        """The one metric of all cells."""
        return self.better[0].metric

    @model_validator(mode="after")
    def _has_one_metric(self) -> Self:
        named = sorted({cell.metric for cell in self.cells})
        if len(named) > 1:
            raise ValueError(f"a claim must be about one metric, not about {' and '.join(named)}")
        return self


Claims = dict[Id, ClaimSpec]


def read_claims(repository: Path, metrics: Metrics) -> Claims:
    """Return the claims of ``config/claims.yaml`` beside the Snakefile.

    Args:
        repository: the folder of the Snakefile.
        metrics: the metrics that ``config/tables.yaml`` defines.

    Raises:
        PlanError: for the first mistake, with file, line and key.
    """
    return _validated(reading.read(repository / CLAIMS), CLAIMS, metrics)


def of_plan(plan: Plan, metrics: Metrics) -> Claims:
    """Return the claims that a benchmark tests, in its order, with those that its own file defines.

    Args:
        plan: the benchmark.
        metrics: the metrics that it knows.

    Raises:
        PlanError: for the first mistake, or when a pattern chooses none.
    """
    wanted = plan.benchmark.claims
    tree = Tree({"claims": own(wanted)}, written(plan)).part("claims")
    tree = Tree(tree.value, {(): str(plan.config)} | tree.origins)
    mine = _validated(tree, plan.config, metrics, ("claims",))
    shared = read_claims(plan.repository, metrics) if set(names(wanted)) - set(mine) else {}
    refuse_known(plan, "claims", mine, shared, CLAIMS)
    return chosen({**shared, **mine}, names(wanted), place(plan, "claims"))


def _validated(tree: Tree, file: Path, metrics: Metrics, prefix: Keys = ()) -> Claims:
    """Return the claims of a file; each must be about a metric that exists and has a better direction.

    Raises:
        PlanError: for the first mistake, with file, line and key.
    """
    refuse_old(tree, file)
    known = reading.validated(TypeAdapter(Claims).validate_python, Claims, tree, prefix)
    for name, claim in known.items():
        origin = f"{tree.where((name, 'better'))}: {name}"
        if claim.metric not in metrics:
            near = reading.nearest(claim.metric, metrics)
            raise PlanError(f"{origin}: no metric {claim.metric!r}{near}")
        if metrics[claim.metric].better is None:
            raise PlanError(
                f"{origin}: the metric {claim.metric!r} does not say which of its values are better: "
                f"give it `better: lower` or `better: higher` in {TABLES}"
            )
    return known


def chosen(known: Claims, patterns: list[str], origin: str = "config") -> Claims:
    """Return the claims that a benchmark tests, in its order.

    Raises:
        PlanError: when a pattern chooses none.
    """
    found: Claims = {}
    for pattern in patterns:
        matches = _matching(known, pattern)
        if not matches:
            near = reading.nearest(pattern.strip("*"), known)
            raise PlanError(f"{origin}: claims: no claim {pattern!r} in {CLAIMS}{near}")
        found |= matches
    return found


def _matching(claims: Claims, pattern: str) -> Claims:
    return {
        name: claim
        for name, claim in claims.items()
        if name == pattern or fnmatchcase(name, pattern)
    }


def check_planned(plan: Plan, claims: Claims) -> None:
    """Refuse a claim, or a pattern of claims, with nothing in the plan that it is about.

    Raises:
        PlanError: naming the claim and its cells.
    """
    for index, pattern in enumerate(names(plan.benchmark.claims)):
        check_shown(plan, ("claims", index), pattern, list(_matching(claims, pattern).values()))
