r"""Whether claims hold at a benchmark's scale.

With each seed that both sides have, the effect is how much better the better side is,

    d = worse - better   where lower values are better,   better - worse   where higher ones are,

so that what one seed's runs share (initial weights, data order, sampling noise) cancels.  Over n seeds
with mean m and standard deviation s of d, the 95 % interval is m +- t_{n-1, 0.975} s / sqrt(n) (Student),
and the verdict

    holds         the interval lies above the claim's margin (0 unless it says otherwise)
    contradicted  it lies below
    undecided     neither, or fewer seeds than the claim asks for
    missing       a side has no value
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from diffbench.plan import treatments
from diffbench.plan.jobs import Plan
from diffbench.reporting import context
from diffbench.reporting.cells import cell as gathered
from diffbench.reporting.cells import text, values
from diffbench.reporting.claims import ClaimCellSpec, Claims, ClaimSpec
from diffbench.reporting.formats import NOTHING, Footnotes, Grid, Table
from diffbench.reporting.layout import Metrics, MetricSpec
from diffbench.reporting.numbers import decimals, plain
from diffbench.reporting.ours import absent, outcomes
from diffbench.reporting.results import Results

COLUMNS = (
    "id",
    "claim",
    "source",
    "better",
    "worse",
    "better_mean",
    "worse_mean",
    "metric",
    "direction",
    "seeds",
    "effect",
    "low",
    "high",
    "verdict",
    "note",
)
HEADS = ("claim", "metric", "better", "worse", "seeds", "effect", "95 % interval", "verdict")
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Verdict:
    """A claim, and what became of it.

    Attributes:
        name, claim: its id and itself.
        verdict: holds, contradicted, undecided or missing.
        note: what keeps it from more: seeds that are not there, why a side has no value, what its sides share.
        seeds: how many the effect is over.
        better, worse: the sides' means over those seeds.
        effect, low, high: see the module; no interval with one seed.
    """

    name: str
    claim: ClaimSpec
    verdict: str
    note: str = ""
    seeds: int = 0
    better: float | None = None
    worse: float | None = None
    effect: float | None = None
    low: float | None = None
    high: float | None = None

    def line(self, table: str) -> dict[str, str]:
        """Return the CSV row: every value as text, a dash where there is none."""
        found = (
            self.name,
            self.claim.claim,
            self.claim.source,
            _shown_cells(self.claim.better),
            _shown_cells(self.claim.worse),
            self.better,
            self.worse,
            self.claim.metric,
            self.claim.direction,
            self.seeds,
            self.effect,
            self.low,
            self.high,
            self.verdict,
            self.note,
        )
        return {column: text(value) for column, value in zip(COLUMNS, found, strict=True)}


def interval(effects: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of the mean of at least two effects (see the module)."""
    from scipy.stats import t as student

    n = len(effects)
    quantile = float(student.ppf((1 + CONFIDENCE) / 2, n - 1))
    half = quantile * statistics.stdev(effects) / n**0.5
    mean = statistics.fmean(effects)
    return mean - half, mean + half


def judged(results: Results, name: str, claim: ClaimSpec) -> Verdict:
    """Return a claim's verdict from whatever results exist."""
    sides = [_Side.of(results, cells) for cells in (claim.better, claim.worse)]
    notes = list(dict.fromkeys(note for side in sides for note in side.notes))
    notes += _identities(results.plan, claim)
    seeds = sorted(set(sides[0].values) & set(sides[1].values))
    if not seeds:
        return Verdict(name, claim, "missing", "; ".join(notes) or "no seed has both sides")
    better, worse = ([side.values[seed] for seed in seeds] for side in sides)
    sign = 1 if claim.direction == "lower" else -1
    effects = [sign * (w - b) for b, w in zip(better, worse, strict=True)]
    bounds = interval(effects) if len(seeds) > 1 else (None, None)
    verdict = "undecided"
    if len(seeds) < claim.seeds:
        notes.insert(0, f"{len(seeds)} of at least {claim.seeds} seeds")
    elif bounds[0] is not None:
        verdict = _verdict(bounds[0], bounds[1], claim.margin)
    return Verdict(
        name,
        claim,
        verdict,
        "; ".join(notes),
        len(seeds),
        statistics.fmean(better),
        statistics.fmean(worse),
        statistics.fmean(effects),
        *bounds,
    )


def _identities(plan: Plan, claim: ClaimSpec) -> list[str]:
    """Say where the sides' models are one function of the network, so that the claim is not about what they predict."""
    named = dict.fromkeys(cell.variant for cell in _cells(claim))
    models = {name: plan.variants[name] for name in named if name in plan.variants}
    return [each.rstrip(".") for each in treatments.remarks(models)]


def _verdict(low: float, high: float, margin: float) -> str:
    if low > margin:
        return "holds"
    return "contradicted" if high < margin else "undecided"


@dataclass(frozen=True)
class _Side:
    """One side's value with each seed that all its cells have, and what the cells lack."""

    values: Mapping[int, float]
    notes: Sequence[str]

    @classmethod
    def of(cls, results: Results, cells: Sequence[ClaimCellSpec]) -> _Side:
        found = [_values(results, cell) for cell in cells]
        seeds = set.intersection(*(set(each) for each, _ in found))
        averaged = {s: statistics.fmean(each[s] for each, _ in found) for s in seeds}
        return cls(averaged, [note for _, note in found if note])


def _values(results: Results, cell: ClaimCellSpec) -> tuple[dict[int, float], str]:
    """Return a cell's value with each seed, and a note unless all are there."""
    item = results.plan.item_at(cell.variant, cell.item, cell.at)
    read = outcomes(results, cell.variant, item, cell.metric)
    if not read:
        reason = absent(results.plan, cell.variant, [item]).note
        return {}, f"{cell.shown}: {reason}"
    found = values(read, cell.metric)
    if len(found) == len(read):
        return found, ""
    whole = gathered(read, cell.metric)
    parts = [whole.note] if whole.status == "partial" else [whole.status, whole.note]
    return found, f"{cell.shown}: {': '.join(filter(None, parts))}"


def table(results: Results, claims: Claims, metrics: Metrics) -> Table:
    """Make the table of claims: one grid for each paper."""
    verdicts = [judged(results, name, claim) for name, claim in claims.items()]
    footnotes = Footnotes()
    papers = dict.fromkeys(_paper(each) for each in verdicts)
    grids = [
        _grid(paper, [each for each in verdicts if _paper(each) == paper], metrics, footnotes)
        for paper in papers
    ]
    return Table(
        f"Claims: {results.plan.benchmark.name}",
        verdicts,
        grids,
        _notes(results.plan, verdicts),
        footnotes.lines,
        COLUMNS,
    )


def _paper(verdict: Verdict) -> str:
    """Return the paper of ``paper, section``."""
    return verdict.claim.source.partition(",")[0]


def _grid(paper: str, verdicts: Iterable[Verdict], metrics: Metrics, footnotes: Footnotes) -> Grid:
    rows = [_row(each, metrics[each.claim.metric], footnotes) for each in verdicts]
    return Grid(HEADS, rows, caption=paper)


def _row(verdict: Verdict, metric: MetricSpec, footnotes: Footnotes) -> list[str]:
    claim = verdict.claim
    sides = f"better {_shown_cells(claim.better)}, worse {_shown_cells(claim.worse)}"
    margin = f", by at least {claim.margin:g}" if claim.margin else ""
    shown = NOTHING if verdict.verdict == "missing" else verdict.verdict
    return [
        f"{claim.claim}{footnotes.mark(f'{verdict.name} ({claim.source}): {sides}{margin}')}",
        f"{metric.head} ({claim.direction})",
        *(_number(value, metric) for value in (verdict.better, verdict.worse)),
        str(verdict.seeds),
        _number(verdict.effect, metric),
        _interval(verdict, metric.scale),
        f"{shown}{footnotes.mark(verdict.note)}",
    ]


def _number(value: float | None, metric: MetricSpec) -> str:
    return NOTHING if value is None else plain(value * metric.scale, metric.digits)


def _interval(verdict: Verdict, scale: float) -> str:
    if verdict.low is None or verdict.high is None:
        return NOTHING
    low, high = verdict.low * scale, verdict.high * scale
    places = decimals((high - low) / 2 or low, 2)
    return f"{low:z.{places}f} to {high:z.{places}f}"


def _shown_cells(cells: Sequence[ClaimCellSpec]) -> str:
    shown = " and ".join(cell.shown for cell in cells)
    return f"mean of {shown}" if len(cells) > 1 else shown


def _notes(plan: Plan, verdicts: Sequence[Verdict]) -> list[str]:
    counts = Counter(each.verdict for each in verdicts)
    order = ("holds", "contradicted", "undecided", "missing")
    summary = ", ".join(f"{each} {counts[each]}" for each in order if counts[each])
    against = [
        f"A finding, at this scale: it does not hold that {_lowered(each.claim.claim)} "
        f"({each.claim.source})."
        for each in verdicts
        if each.verdict == "contradicted"
    ]
    cells = [cell for each in verdicts for cell in _cells(each.claim)]
    named = {cell.variant for cell in cells}
    return [
        *filter(None, [plan.benchmark.note]),
        f"Verdicts: {summary}.",
        *against,
        "Effect: how much better the better side is, paired by seed, and its 95 % interval by Student's t; "
        "runs of one seed share their sampling noise. A claim holds when the interval lies above 0 "
        "(or its margin), is contradicted when it lies below, and undecided otherwise.",
        context.data_line(plan, ((each.variant, each.item) for each in cells)),
        *context.budget_lines(plan, named),
    ]


def _cells(claim: ClaimSpec) -> list[ClaimCellSpec]:
    return [*claim.better, *claim.worse]


def _lowered(sentence: str) -> str:
    """Return a sentence as part of another: abbreviations keep their capitals."""
    plain_word = sentence[1:2].islower()
    return (sentence[:1].lower() + sentence[1:] if plain_word else sentence).rstrip(".")
