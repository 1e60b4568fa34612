r"""Whether claims hold at a benchmark's scale.

With each seed that both sides have, the effect d is how much better the better side is,

    d = worse - better   where lower values are better,   better - worse   where higher ones are,

so that what one seed's runs share (initial weights, data order, sampling noise) cancels.  Over n seeds d has a mean, a
95 % interval, and a two-sided p value of the hypothesis that the mean is the claim's margin (``inference``).  The
claims that a benchmark tests are a family: their p values are adjusted by Holm's method, so that with a probability of
95 % none is decided by chance.  Exploratory claims are not part of it, and are judged by their own p values.

    holds         p, adjusted, is at most 0.05, and the mean lies above the margin (0 by default)
    contradicted  p, adjusted, is at most 0.05, and the mean lies below the margin
    undecided     p, adjusted, is larger, or there are fewer seeds than the claim asks for
    untestable    the data are not what the claim needs, or a cell is at its floor (``cells``)
    missing       a side has no value

What is untestable, missing or has too few seeds is not tested, and does not count in the family.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from diffbench.plan import treatments
from diffbench.plan.jobs import Plan
from diffbench.reporting import inference
from diffbench.reporting.cells import Cell
from diffbench.reporting.claims import Claims, ClaimSpec
from diffbench.reporting.layout import CellSpec, Metrics
from diffbench.reporting.numbers import plain
from diffbench.reporting.records import Records, first_planned, items_of

#: All verdicts, in the order in which they are counted.
VERDICTS = ("holds", "contradicted", "undecided", "untestable", "missing")


@dataclass(frozen=True)
class Verdict:
    """A claim with its verdict and the numbers behind it.

    Attributes:
        name, claim: its id and the claim itself.
        verdict: one of VERDICTS; empty until the whole family is known.
        note: missing seeds, why a side has no value, why the claim cannot be decided, what its sides share.
        seeds: the number of seeds that the effect is over.
        better, worse: the sides' means over those seeds.
        effect, low, high: see the module; no interval with one seed.
        p, adjusted: the p value and, for a claim of the family, the adjusted one.
    """

    name: str
    claim: ClaimSpec
    verdict: str = ""
    note: str = ""
    seeds: int = 0
    better: float | None = None
    worse: float | None = None
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    adjusted: float | None = None


def judged(results: Records, claims: Claims, metrics: Metrics) -> list[Verdict]:
    """Return the verdicts on a family of claims from whatever results exist."""
    measured = [
        _measured(results, name, claim, metrics[claim.metric].sign)
        for name, claim in claims.items()
    ]
    family = {
        each.name: each.p
        for each in measured
        if not each.verdict and not each.claim.exploratory and each.p is not None
    }
    adjusted = inference.holm(family)
    return [each if each.verdict else _decided(each, adjusted.get(each.name)) for each in measured]


def _measured(results: Records, name: str, claim: ClaimSpec, sign: int) -> Verdict:
    """Return a claim's effect, and its verdict where it cannot be tested; ``sign`` is the metric's."""
    sides = [_Side.of(results, cells) for cells in (claim.better, claim.worse)]
    notes = list(dict.fromkeys(note for side in sides for note in side.notes))
    notes += _identities(results.plan, claim)
    seeds = sorted(set(sides[0].values) & set(sides[1].values))
    if not seeds:
        note = "; ".join(notes) or "no seed has both sides"
        return Verdict(name, claim, "missing", note)
    better, worse = ([side.values[seed] for seed in seeds] for side in sides)
    effects = [sign * (w - b) for b, w in zip(better, worse, strict=True)]
    several = len(effects) > 1
    low, high = inference.interval(effects) if several else (None, None)
    verdict = ""
    if reasons := [*_unfit(results, claim), *_at_floor(claim, sides)]:
        verdict, notes = "untestable", [*reasons, *notes]
    elif len(seeds) < claim.seeds:
        verdict, notes = (
            "undecided",
            [f"it needs at least {claim.seeds} seeds, and has {len(seeds)}", *notes],
        )
    return Verdict(
        name,
        claim,
        verdict,
        "; ".join(dict.fromkeys(notes)),
        len(seeds),
        statistics.fmean(better),
        statistics.fmean(worse),
        statistics.fmean(effects),
        low,
        high,
        inference.p_value(effects, claim.margin) if several else None,
    )


def _identities(plan: Plan, claim: ClaimSpec) -> list[str]:
    """Return where the sides' models are one function of the network: then the claim is not about what they predict."""
    named = dict.fromkeys(cell.variant for cell in claim.cells)
    models = {name: plan.variants[name] for name in named if name in plan.variants}
    return [each.rstrip(".") for each in treatments.remarks(models)]


def _decided(measured: Verdict, adjusted: float | None) -> Verdict:
    """Return a tested claim with its verdict, from the adjusted p value where it has one."""
    p = measured.p if adjusted is None else adjusted
    assert p is not None and measured.effect is not None
    verdict = "undecided"
    if p <= inference.LEVEL:
        verdict = "holds" if measured.effect > measured.claim.margin else "contradicted"
    return replace(measured, verdict=verdict, adjusted=adjusted)


def _at_floor(claim: ClaimSpec, sides: Sequence[_Side]) -> list[str]:
    """Return the cells that are at their floors, where the claim forbids that."""
    return [each for side in sides for each in side.at_floor] if claim.floor == "above" else []


def _unfit(results: Records, claim: ClaimSpec) -> list[str]:
    """Return the reasons why the data are not what the claim needs."""
    return [reason for need in claim.needs if (reason := need.lacking(results.measure(need.data)))]


@dataclass(frozen=True)
class _Side:
    """One side's value for each seed that all its cells have, what the cells lack, and which are at their floor."""

    values: Mapping[int, float]
    notes: Sequence[str]
    at_floor: Sequence[str]

    @classmethod
    def of(cls, results: Records, cells: Sequence[CellSpec]) -> _Side:
        """Return the side that these cells make."""
        found = [_values(results, cell) for cell in cells]
        seeds = set.intersection(*(set(each) for each, _ in found))
        averaged = {s: statistics.fmean(each[s] for each, _ in found) for s in seeds}
        pairs = [(named, whole) for named, (_, whole) in zip(cells, found, strict=True)]
        return cls(
            averaged,
            [note for named, whole in pairs if (note := _lacking(named, whole))],
            [note for named, whole in pairs if (note := _low(named, whole))],
        )


def _values(results: Records, cell: CellSpec) -> tuple[dict[int, float], Cell]:
    """Return a cell's value for each seed that has one, and the cell that a table shows."""
    _, whole = results.find(cell)
    planned = first_planned(results.plan, cell.variant, items_of(results.plan, cell))
    return results.values(cell), whole if planned else replace(whole, status="")


def _lacking(named: CellSpec, whole: Cell) -> str:
    if whole.status == "ok":
        return ""
    parts = [whole.note] if whole.status == "partial" else [whole.status, whole.note]
    return f"{named.shown}: {': '.join(filter(None, parts))}"


def _low(named: CellSpec, whole: Cell) -> str:
    if not whole.at_floor:
        return ""
    assert whole.mean is not None and whole.floor is not None
    return f"{named.shown} is at its floor ({plain(whole.mean)}, real images {plain(whole.floor)})"
