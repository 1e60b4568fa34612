"""The table of claims: effect, interval, p values and verdict of each; a grid for each paper, and one for others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from diffbench.plan.jobs import Plan
from diffbench.reporting import context, inference
from diffbench.reporting.cells import text
from diffbench.reporting.claims import Claims, ClaimSpec
from diffbench.reporting.formats import NOTHING, Footnotes, Grid, Source, Table
from diffbench.reporting.layout import CellSpec, Metrics, MetricSpec
from diffbench.reporting.numbers import decimals, plain
from diffbench.reporting.records import Records
from diffbench.reporting.verdicts import VERDICTS, Verdict, judged

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
    "p",
    "p_adjusted",
    "exploratory",
)
HEADS = (
    "claim",
    "metric",
    "better",
    "worse",
    "seeds",
    "effect",
    "95 % interval",
    "p",
    "Holm",
    "verdict",
)
EXPLORATORY = "Exploratory: in no paper, or found in our own numbers"
#: The smallest p value that is shown; a smaller one is shown as "<" this.
SMALLEST_P = 1e-4


@dataclass(frozen=True)
class ClaimLine:
    """A row of the CSV of the claims."""

    verdict: Verdict
    metric: MetricSpec
    source: Source

    def line(self, table: str) -> dict[str, str]:
        """Return the row: every value as text, a dash where there is none."""
        each = self.verdict
        found = (
            each.name,
            each.claim.claim,
            each.claim.source,
            _shown_cells(each.claim.better),
            _shown_cells(each.claim.worse),
            each.better,
            each.worse,
            each.claim.metric,
            self.metric.better,
            each.seeds,
            each.effect,
            each.low,
            each.high,
            each.verdict,
            each.note,
            each.p,
            each.adjusted,
            "yes" if each.claim.exploratory else "no",
        )
        return {column: text(value) for column, value in zip(COLUMNS, found, strict=True)}


def table(results: Records, claims: Claims, metrics: Metrics) -> Table:
    """Return the table of claims: one grid for each paper, and one for the exploratory claims."""
    verdicts = judged(results, claims, metrics)
    footnotes = Footnotes()
    groups: dict[str, list[Verdict]] = {}
    for each in sorted(verdicts, key=lambda each: each.claim.exploratory):
        groups.setdefault(_group(each), []).append(each)
    grids = [_grid(results, name, found, metrics, footnotes) for name, found in groups.items()]
    return Table(
        f"Claims: {results.plan.benchmark.name}",
        [
            ClaimLine(each, metrics[each.claim.metric], _source(results, each.claim.cells))
            for each in verdicts
        ],
        grids,
        _notes(results.plan, verdicts),
        footnotes.lines,
        COLUMNS,
    )


def _group(verdict: Verdict) -> str:
    """Return the heading of a claim's grid: the paper of ``paper, section``, or the one of exploratory claims."""
    return EXPLORATORY if verdict.claim.exploratory else verdict.claim.source.partition(",")[0]


def _grid(
    results: Records,
    caption: str,
    verdicts: Sequence[Verdict],
    metrics: Metrics,
    footnotes: Footnotes,
) -> Grid:
    rows = [_row(each, metrics[each.claim.metric], footnotes) for each in verdicts]
    sources = {
        (i, HEADS.index(head)): _source(results, cells)
        for i, each in enumerate(verdicts)
        for head, cells in _sides(each.claim).items()
    }
    return Grid(HEADS, rows, caption=caption, cells=sources)


def _source(results: Records, cells: Sequence[CellSpec]) -> Source:
    return Source([(cell.variant, results.find(cell)[0]) for cell in cells])


def _sides(claim: ClaimSpec) -> dict[str, Sequence[CellSpec]]:
    """Return the cells that the numbers under each head are made of."""
    whole = dict.fromkeys(("effect", "95 % interval", "p"), claim.cells)
    return {"better": claim.better, "worse": claim.worse, **whole}


def _row(verdict: Verdict, metric: MetricSpec, footnotes: Footnotes) -> list[str]:
    claim = verdict.claim
    sides = f"better {_shown_cells(claim.better)}, worse {_shown_cells(claim.worse)}"
    margin = f", by at least {claim.margin:g}" if claim.margin else ""
    shown = NOTHING if verdict.verdict == "missing" else verdict.verdict
    return [
        f"{claim.claim}{footnotes.mark(f'{verdict.name} ({claim.source}): {sides}{margin}')}",
        f"{metric.head} ({metric.better})",
        *(_number(value, metric) for value in (verdict.better, verdict.worse)),
        str(verdict.seeds),
        _number(verdict.effect, metric),
        _interval(verdict, metric.scale),
        shown_p(verdict.p),
        shown_p(verdict.adjusted),
        f"{shown}{footnotes.mark(verdict.note)}",
    ]


def _number(value: float | None, metric: MetricSpec) -> str:
    return NOTHING if value is None else plain(value * metric.scale, metric.digits)


def shown_p(value: float | None) -> str:
    """Return a p value as text with two digits."""
    if value is None:
        return NOTHING
    return plain(value, 2) if value >= SMALLEST_P else f"<{SMALLEST_P:.4f}"


def _interval(verdict: Verdict, scale: float) -> str:
    if verdict.low is None or verdict.high is None:
        return NOTHING
    low, high = verdict.low * scale, verdict.high * scale
    places = decimals((high - low) / 2 or low, 2)
    return f"{low:z.{places}f} to {high:z.{places}f}"


def _shown_cells(cells: Sequence[CellSpec]) -> str:
    shown = " and ".join(cell.shown for cell in cells)
    return f"mean of {shown}" if len(cells) > 1 else shown


def _notes(plan: Plan, verdicts: Sequence[Verdict]) -> list[str]:
    counts = Counter(each.verdict for each in verdicts)
    summary = ", ".join(f"{each} {counts[each]}" for each in VERDICTS if counts[each])
    family = sum(each.adjusted is not None for each in verdicts)
    against = [
        f"A finding, at this scale: it does not hold that {_lowered(each.claim.claim)} "
        f"({each.claim.source})."
        for each in verdicts
        if each.verdict == "contradicted"
    ]
    cells = [cell for each in verdicts for cell in each.claim.cells]
    named = {cell.variant for cell in cells}
    return [
        *filter(None, [plan.benchmark.note]),
        f"Verdicts: {summary}.",
        *against,
        "Effect: how much better the better side is, paired by seed, and its 95 % interval by Student's t; "
        "runs of one seed share their sampling noise.",
        "p: the two-sided p value of the hypothesis that the effect is 0 (or the claim's margin). Holm: the p "
        f"value adjusted over the {family} claims that could be tested. A claim holds, or is contradicted, when the "
        f"adjusted p value is at most {inference.LEVEL:g}, and is undecided otherwise. Exploratory claims are "
        "judged by their own p values.",
        "Untestable: the data are not what the claim needs, or a cell is at its floor (what as many real images "
        "score).",
        *_tuned(plan),
        context.data_line(plan, ((each.variant, item) for each in cells for item in each.item)),
        *context.budget_lines(plan, named),
    ]


def _tuned(plan: Plan) -> list[str]:
    """Return a sentence for each thing that was tuned, on seeds that no claim uses."""
    return [
        f"Tuned on other seeds than these: {each.shown}." for each in plan.benchmark.tuned.values()
    ]


def _lowered(sentence: str) -> str:
    """Return a sentence as part of another: no full stop, and no capital unless it begins with an abbreviation."""
    plain_word = sentence[1:2].islower()
    return (sentence[:1].lower() + sentence[1:] if plain_word else sentence).rstrip(".")
