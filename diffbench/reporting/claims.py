"""What a paper claims, as data: ``config/claims.yaml``.

A claim says that one cell of the benchmark is better than another, by what the metric says is better, and what the
numbers must be like to tell.
How it is tested stands in ``verdicts``.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, TypeAdapter, model_validator

from diffbench.plan import reading
from diffbench.plan.jobs import Plan
from diffbench.plan.reading import Keys, Tree
from diffbench.reporting.layout import (
    TABLES,
    CellSpec,
    Facets,
    Metrics,
    Steps,
    listed,
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
    """What a claim asks of the data set, without which its cells cannot tell: a measure below or above a number.

    data: ``saturated``, the share of the training images' numbers at the first or last grey level.
    """

    data: Literal["saturated"]
    below: Fraction | None = None
    above: Fraction | None = None

    @model_validator(mode="after")
    def _has_one_bound(self) -> Self:
        if (self.below is None) == (self.above is None):
            raise ValueError("give either below or above: on which side of which number")
        return self

    def lacking(self, value: float | None) -> str:
        """Return why data with this measure cannot tell, or with none; nothing where they can."""
        if value is None:
            return f"the manifest of the data set does not say how many pixels are {self.data}"
        low, high = self.above, self.below
        if (high is None or value < high) and (low is None or value > low):
            return ""
        wanted = f"below {high:g}" if high is not None else f"above {low:g}"
        return f"{value:.3g} of the data's pixels are {self.data}, and {wanted} is needed"


class ClaimSpec(Spec):
    """A claim.

    claim: the sentence.
    source: paper, section, table or figure.
    better, worse: a cell, or several whose values are averaged with each seed.
    seeds: with fewer the claim stays undecided.
    margin: by how much better it must be at least.
    about: in which facets the sides differ, and in no other; anything when not given.
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
        """Those of both sides."""
        return [*self.better, *self.worse]

    @property
    def steps(self) -> Steps:
        """The weights along training that its cells name."""
        return [(cell.variant, cell.at) for cell in self.cells]

    @property
    def metric(self) -> str:
        """The one metric of all its cells."""
        return self.better[0].metric

    @model_validator(mode="after")
    def _has_one_metric(self) -> Self:
        named = sorted({cell.metric for cell in self.cells})
        if len(named) > 1:
            raise ValueError(f"a claim is about one metric, not about {' and '.join(named)}")
        return self


Claims = dict[Id, ClaimSpec]


def read_claims(repository: Path, metrics: Metrics) -> Claims:
    """Read ``config/claims.yaml`` beside the Snakefile.

    Args:
        repository: the folder of the Snakefile.
        metrics: those that ``config/tables.yaml`` knows.

    Raises:
        PlanError: for the first mistake, with file, line and key.
    """
    return _validated(reading.read(repository / CLAIMS), CLAIMS, metrics)


def of_plan(plan: Plan, metrics: Metrics) -> Claims:
    """Return the claims that a benchmark tests, in its order, its own among them.

    Args:
        plan: the benchmark.
        metrics: those that it knows.

    Raises:
        PlanError: for the first mistake, or when a pattern chooses none.
    """
    wanted = plan.benchmark.claims
    tree = Tree({"claims": own(wanted)}, written(plan)).at("claims")
    tree = Tree(tree.value, {(): str(plan.config)} | tree.origins)
    mine = _validated(tree, plan.config, metrics, ("claims",))
    shared = read_claims(plan.repository, metrics) if set(names(wanted)) - set(mine) else {}
    refuse_known(plan, "claims", mine, shared, CLAIMS)
    return chosen({**shared, **mine}, names(wanted))


def _validated(tree: Tree, file: Path, metrics: Metrics, prefix: Keys = ()) -> Claims:
    """Return claims that are about metrics that there are, and of which some values are better.

    Raises:
        PlanError: for the first mistake, with file, line and key.
    """
    refuse_old(tree, file)
    known = reading.validated(TypeAdapter(Claims).validate_python, Claims, tree, prefix)
    for name, claim in known.items():
        place = f"{tree.where((name, 'better'))}: {name}"
        if claim.metric not in metrics:
            near = reading.nearest(claim.metric, metrics)
            raise PlanError(f"{place}: no metric {claim.metric!r}{near}")
        if metrics[claim.metric].better is None:
            raise PlanError(
                f"{place}: the metric {claim.metric!r} does not say which of its values are better: "
                f"give it `better: lower` or `better: higher` in {TABLES}"
            )
    return known


def chosen(known: Claims, patterns: list[str]) -> Claims:
    """Return the claims that a benchmark tests, in its order.

    Raises:
        PlanError: when a pattern chooses none.
    """
    found: Claims = {}
    for pattern in patterns:
        matches = _matching(known, pattern)
        if not matches:
            near = reading.nearest(pattern.strip("*"), known)
            raise PlanError(f"claims: no claim {pattern!r} in {CLAIMS}{near}")
        found |= matches
    return found


def _matching(claims: Claims, pattern: str) -> Claims:
    return {
        name: claim
        for name, claim in claims.items()
        if name == pattern or fnmatchcase(name, pattern)
    }
