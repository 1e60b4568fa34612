"""Two sides compared, cell by cell: two variants of a benchmark, or the same cells of two results.

    effect     how much better B is than A; of a metric without a direction, B - A
    paired     over the seeds that both sides have: the mean of the differences, with Student's interval and p value
    unpaired   where the sides have no seed in common: the difference of the means, by Welch's t test
    Holm       the p values of all cells, adjusted (``inference``); the verdict is by these

    better, worse       the adjusted p value is at most 5 %: of B
    different           the same, where no direction is better
    no difference seen  it is larger; this does not show that there is none
    the same            all differences are 0, as in a repeated run
    too few             fewer than three pairs, or than three seeds on a side: an effect, but no p value
    not compared        a side failed, has no number, or was made otherwise: another N or protocol

Welch, "The Generalization of Student's Problem when Several Different Population Variances Are Involved", 1947.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from diffbench.reporting import inference
from diffbench.reporting.cells import DASH, text
from diffbench.reporting.claims_table import shown_p
from diffbench.reporting.exports import lines
from diffbench.reporting.formats import NOTHING, Footnotes, Grid, Table
from diffbench.reporting.numbers import decimals, plain
from diffbench.reporting.untrusted import neutral
from diffbench.store import products

if TYPE_CHECKING:
    import pandas as pd

Verdict = Literal[
    "better", "worse", "different", "no difference seen", "the same", "too few", "not compared"
]
#: A cell without its variant: what both sides must have in common where variants are compared.
CELL = ("stage", "item", "at", "metric")
#: The fewest pairs, or seeds of a side, with which a difference is tested.
FEWEST = 3
COLUMNS = (
    "variant", "stage", "item", "at", "metric", "seeds", "paired", "a", "b", "effect", "low", "high", "p", "p_adjusted",
    "verdict", "note",
)  # fmt: skip
DIFFERS = " differs: "
EXPLAINED = (
    "An effect is how much better B is than A; of a metric without a direction, B - A.",
    "p: Student's t test over pairs of one seed, or Welch's where no seed is common (u). Holm: adjusted for "
    "all cells of this table; the verdict is by it.",
)
#: Metrics that are times: compared only where they are asked for, since machines differ.
TIMES = "_seconds"


@dataclass(frozen=True)
class Compared:
    """One cell of two sides.

    Attributes:
        key: variant (empty where two are compared), stage, item, step of the weights, metric.
        verdict: see the module.
        note: why there is no p value, or no comparison.
        paired: whether the sides are compared seed by seed.
        seeds: how many pairs; of unpaired sides the fewer seeds of the two.
        a, b: the sides' means.
        effect, low, high: the effect and its 95 % interval.
        p, adjusted: the p value, and the one adjusted by Holm's method.
    """

    key: tuple[str, ...]
    verdict: Verdict
    note: str = ""
    paired: bool = True
    seeds: int = 0
    a: float | None = None
    b: float | None = None
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    adjusted: float | None = None

    @property
    def unlike(self) -> bool:
        """Whether both sides have the cell, and made it otherwise."""
        return self.verdict == "not compared" and DIFFERS in self.note

    def line(self, table: str) -> dict[str, str]:
        """Return the row of the CSV."""
        paired = "yes" if self.paired else "no"
        numbers = (self.a, self.b, self.effect, self.low, self.high, self.p, self.adjusted)
        values = (*self.key, self.seeds, paired, *numbers, self.verdict, self.note)
        fields = [neutral(each) if isinstance(each, str) else text(each) for each in values]
        return {name: each or DASH for name, each in zip(COLUMNS, fields, strict=True)}


@dataclass(frozen=True)
class Comparison:
    """Two sides, their names, every cell that both or one of them has, and what differs in how they were made."""

    a: str
    b: str
    cells: Sequence[Compared]
    differences: Sequence[str] = field(default_factory=tuple)

    def of(self, *verdicts: Verdict) -> list[Compared]:
        """Return the cells with one of these verdicts."""
        return [each for each in self.cells if each.verdict in verdicts]

    @property
    def compared(self) -> list[Compared]:
        """The cells that were compared."""
        return [each for each in self.cells if each.verdict != "not compared"]

    @property
    def status(self) -> int:
        """1 where a cell is worse, else 2 where a cell could not be tested, else 0."""
        if self.of("worse"):
            return 1
        return 2 if self.of("too few", "not compared") or not self.cells else 0


def compare(
    a: pd.DataFrame,
    b: pd.DataFrame,
    better: Mapping[str, str | None],
    *,
    names: tuple[str, str],
    metrics: Iterable[str] = (),
    by_variant: bool = True,
    differences: Sequence[str] = (),
) -> Comparison:
    """Compare two sides.

    Args:
        a: the rows of one side, of the columns of an export (``exports.COLUMNS``).
        b: those of the other side.
        better: metric -> ``lower`` or ``higher``; no direction for others.
        names: what the sides are called.
        metrics: the metrics to compare; by default all that are no times.
        by_variant: whether cells of the same variant are compared; else each side is one variant.
        differences: what differs in how the sides were made.
    """
    wanted = set(metrics)
    keys = ["variant", *CELL] if by_variant else list(CELL)
    sides = [_cells(side, keys, wanted) for side in (a, b)]
    found = []
    for key in dict.fromkeys(each for side in sides for each in side):
        rows = [side.get(key, {}) for side in sides]
        shown = key if by_variant else ("", *key)
        sign = {"lower": -1, "higher": 1}.get(better.get(key[-1]) or "", 0)
        found.append(_compared(shown, rows[0], rows[1], sign))
    return Comparison(*names, _judged(found, better), differences)


def _cells(
    frame: pd.DataFrame, keys: Sequence[str], wanted: set[str]
) -> dict[tuple[str, ...], dict[int, dict[str, Any]]]:
    """Return the rows of each cell by seed."""
    cells: dict[tuple[str, ...], dict[int, dict[str, Any]]] = {}
    for row in lines(frame):
        metric = row["metric"]
        if metric in wanted if wanted else not metric.endswith(TIMES):
            at = "" if math.isnan(row["at"]) else str(int(row["at"]))
            key = tuple(str({**row, "at": at}[name]) for name in keys)
            cells.setdefault(key, {})[int(row["seed"])] = row
    return cells


def _compared(
    key: tuple[str, ...],
    a: Mapping[int, Mapping[str, Any]],
    b: Mapping[int, Mapping[str, Any]],
    sign: int,
) -> Compared:
    """Return a cell without its verdict on the p value, which all cells have a part in."""
    if note := _unlike(a, b):
        return Compared(key, "not compared", note)
    left, right = ({seed: float(row["value"]) for seed, row in side.items()} for side in (a, b))
    means = {"a": _mean(left.values()), "b": _mean(right.values())}
    common = sorted(left.keys() & right.keys())
    direction = sign or 1
    if common:
        effects = [direction * (right[seed] - left[seed]) for seed in common]
        means = {"a": _mean(left[s] for s in common), "b": _mean(right[s] for s in common)}
        found = Compared(key, "too few", "", True, len(common), **means, effect=_mean(effects))
        if not any(effects):
            return replace(found, verdict="the same")
        if len(common) < FEWEST:
            return replace(found, note=f"{counted(len(common), 'pair')}: no p value below {FEWEST}")
        low, high = inference.interval(effects)
        p = inference.p_value(effects, 0.0)
        return replace(found, low=low, high=high, p=p, verdict="no difference seen")
    fewer = min(len(left), len(right))
    found = Compared(
        key, "too few", "", False, fewer, **means, effect=direction * (means["b"] - means["a"])
    )
    if fewer < FEWEST:
        note = (
            f"no seed in common, and {counted(fewer, 'seed')} on a side: no p value below {FEWEST}"
        )
        return replace(found, note=note)
    test = inference.welch(
        [direction * v for v in left.values()], [direction * v for v in right.values()]
    )
    return replace(
        found,
        low=test.low,
        high=test.high,
        p=test.p,
        verdict="no difference seen",
        note="no seed in common: unpaired",
    )


def _unlike(a: Mapping[int, Mapping[str, Any]], b: Mapping[int, Mapping[str, Any]]) -> str:
    """Return why the rows of two sides cannot be compared; empty where they can."""
    for name, side in (("A", a), ("B", b)):
        if not side:
            return f"{name} has no such cell"
        for seed, row in side.items():
            if row["status"] != "ok":
                return f"{name}, seed {seed}: {row['status']}{': ' if row['reason'] else ''}{row['reason']}"
            if not math.isfinite(row["value"]):
                return f"{name}, seed {seed}: the value is {row['value']}"
    for column, what in (("samples", "N"), ("protocol", "protocol")):
        found = [{_shown(row[column]) for row in side.values()} for side in (a, b)]
        if found[0] != found[1] or len(found[0]) > 1:
            left, right = (" and ".join(sorted(each)) for each in found)
            return f"{what}{DIFFERS}{left} in A, {right} in B"
    return ""


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return "unknown" if math.isnan(value) else f"{value:g}"
    return str(value) or "none"


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return math.fsum(found) / len(found)


def counted(count: int, noun: str) -> str:
    """Return a count with its noun: ``1 pair``, ``3 pairs``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _judged(cells: Sequence[Compared], better: Mapping[str, str | None]) -> list[Compared]:
    """Return the cells with their adjusted p values and verdicts."""
    adjusted = inference.holm({i: each.p for i, each in enumerate(cells) if each.p is not None})
    found = []
    for i, each in enumerate(cells):
        if i in adjusted:
            each = replace(each, adjusted=adjusted[i], verdict=_verdict(each, adjusted[i], better))
        found.append(each)
    return found


def _verdict(cell: Compared, adjusted: float, better: Mapping[str, str | None]) -> Verdict:
    if adjusted > inference.LEVEL:
        return "no difference seen"
    assert cell.effect is not None
    if better.get(cell.key[-1]) is None:
        return "different"
    return "better" if cell.effect > 0 else "worse"


def spec_differences(a: Any, b: Any) -> list[str]:
    """Return a line for each key in which two specs differ: ``training.steps: 1500 in A, 1000 in B``."""
    return [
        f"{keys}: {_brief(one)} in A, {_brief(other)} in B"
        for keys, one, other in products.differences(a, b)
    ]


def _brief(value: Any) -> str:
    shown = "nothing" if value is None or value in ({}, []) else str(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


def about_differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Return what differs in two exports: settings, specs of variants that both have, environment."""
    lines = spec_differences(a["settings"], b["settings"])
    for name in sorted(a["variants"].keys() & b["variants"].keys()):
        lines += [
            f"{name}: {line}" for line in spec_differences(a["variants"][name], b["variants"][name])
        ]
    return lines + [
        f"environment: {line}" for line in spec_differences(a["environment"], b["environment"])
    ]


def table(found: Comparison) -> Table:
    """Return a comparison as a table: the cells that were compared first, then those that were not."""
    tested, footnotes = found.compared, Footnotes()
    heads = ["cell", "metric", "seeds", "A", "B", "effect (95 % interval)", "p", "Holm", "verdict"]
    grids = [Grid(heads, [_row(each, footnotes) for each in tested], labels=2)] if tested else []
    rest: dict[tuple[str, str], list[str]] = {}
    for each in found.of("not compared"):
        rest.setdefault((_named(each), each.note), []).append(each.key[-1])
    if rest:
        lines = [[cell, ", ".join(metrics), why] for (cell, why), metrics in rest.items()]
        grids.append(Grid(["cell", "metrics", "why"], lines, labels=3, caption="Not compared"))
    return Table(
        title=f"A: {found.a}, B: {found.b}",
        records=found.cells,
        grids=grids,
        notes=[*(f"Differs: {line}" for line in found.differences), *EXPLAINED],
        footnotes=footnotes.lines,
        columns=COLUMNS,
    )


def _named(cell: Compared) -> str:
    variant, stage, item, at, _ = cell.key
    named = [variant, item or stage]
    return " ".join(each for each in named if each) + (f" at {at}" if at else "")


def _row(cell: Compared, footnotes: Footnotes) -> list[str]:
    def shown(value: float | None) -> str:
        return NOTHING if value is None else plain(value, 4)

    effect = shown(cell.effect)
    if cell.effect is not None and cell.low is not None and cell.high is not None:
        places = decimals((cell.high - cell.low) / 2, 2)
        effect = " ".join(
            [f"{cell.effect:z.{places}f}", f"({cell.low:z.{places}f} to {cell.high:z.{places}f})"]
        )
    ps = [NOTHING if p is None else shown_p(p) for p in (cell.p, cell.adjusted)]
    seeds = f"{cell.seeds}{'' if cell.paired else ' u'}"
    verdict = f"{cell.verdict}{footnotes.mark(cell.note) if cell.verdict == 'too few' else ''}"
    return [_named(cell), cell.key[-1], seeds, shown(cell.a), shown(cell.b), effect, *ps, verdict]
