"""From outcomes, one a seed, to a cell: mean and spread, status and note.

Over n >= 2 seeds: the mean, sd the sample standard deviation (n - 1), se = sd/sqrt(n).  With one
seed sd does not exist and se is the score's own, over samples or test images.  A cell whose seeds
are not all there has the status ``partial``: its mean is over those there are, and says so.

Some scores have a floor: what as many real images score (`diffbench.metrics.floors`).  A cell is at
its floor when the lower end of its 95 % interval lies under it; the interval is Student's over seeds,
of one seed the normal one of its se, and without an se the number itself.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from diffbench.reporting import inference
from diffbench.reporting.results import Outcome

DASH = "-"
COLUMNS = (
    "table",
    "row",
    "paper",
    "variant",
    "solver",
    "nfe",
    "metric",
    "unit",
    "ours_mean",
    "ours_sd",
    "ours_se",
    "seeds",
    "samples",
    "protocol",
    "published",
    "published_source",
    "difference",
    "seconds",
    "gpu_hours",
    "status",
    "note",
    "floor",
    "at_floor",
)
_WORST = ("failed", "stale", "missing")


@dataclass(frozen=True)
class Cell:
    """One number of ours, or why there is none.

    Attributes:
        status: ok, partial, failed, stale, missing or refused.
        note: one line on anything but ok.
        mean, sd, se: see the module; None where they do not exist.
        seeds: how many the mean is over.
        nfe, images, protocol: as in ``Outcome``; nfe is a mean over seeds.
        seconds, gpu_hours: of training and the job, a mean over seeds.
        floor: what as many real images score, where that is known.
        best: whether it is the best of its column (``ranking``).
    """

    status: str
    note: str = ""
    mean: float | None = None
    sd: float | None = None
    se: float | None = None
    seeds: int = 0
    nfe: float | None = None
    images: int | None = None
    protocol: Mapping[str, Any] | None = None
    seconds: float | None = None
    gpu_hours: float | None = None
    floor: float | None = None
    best: bool = False

    @property
    def at_floor(self) -> bool:
        """Whether real images might have scored it; never where no floor is known."""
        if self.mean is None or self.floor is None:
            return False
        return self.mean - self._half_width < self.floor

    @property
    def _half_width(self) -> float:
        """Half the 95 % interval, as the module says."""
        if self.sd is not None:
            return inference.half_width(self.sd, self.seeds)
        return inference.half_width_of_one(self.se or 0.0)


@dataclass(frozen=True)
class Record:
    """A cell and where it stands: a row of a table's CSV.

    ``protocol`` says how our number was made; ``remark`` joins the cell's note.
    """

    row: str
    paper: str
    variant: str
    solver: str
    metric: str
    unit: str
    cell: Cell
    protocol: str = ""
    published: str = ""
    published_source: str = ""
    difference: float | None = None
    remark: str = ""

    def line(self, table: str) -> dict[str, str]:
        """Return the CSV row: every value as text, a dash where there is none."""
        cell = self.cell
        values = (
            table,
            self.row,
            self.paper,
            self.variant,
            self.solver,
            cell.nfe,
            self.metric,
            self.unit,
            cell.mean,
            cell.sd,
            cell.se,
            cell.seeds,
            cell.images,
            self.protocol,
            self.published,
            self.published_source,
            self.difference,
            cell.seconds,
            cell.gpu_hours,
            cell.status,
            "; ".join(filter(None, [cell.note, self.remark])),
            cell.floor,
            None if cell.floor is None else ("yes" if cell.at_floor else "no"),
        )
        return {c: text(v) for c, v in zip(COLUMNS, values, strict=True)}


def text(value: object) -> str:
    """Return six significant digits of a number, never an exponent where none is needed."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return DASH if value is None or value == "" else str(value)


def cell(outcomes: Mapping[int, Outcome], metric: str) -> Cell:
    """Gather one metric over seeds.

    Args:
        outcomes: one for each seed of the plan.
        metric: its name in the outcomes' scores.
    """
    checked = _checked(outcomes, metric)
    status, note = state(checked)
    good = [outcome for outcome in checked.values() if outcome.status == "ok"]
    return (
        replace(_gathered(good, metric), status=status, note=note) if good else Cell(status, note)
    )


def values(outcomes: Mapping[int, Outcome], metric: str) -> dict[int, float]:
    """Return the metric's value with each seed that has one."""
    return {
        seed: float(outcome.scores[metric]["value"] or 0.0)
        for seed, outcome in _checked(outcomes, metric).items()
        if outcome.status == "ok"
    }


def state(outcomes: Mapping[int, Outcome]) -> tuple[str, str]:
    """Return status and note of all seeds together: ok, partial, or the worst with its reason."""
    bad = {seed: outcome for seed, outcome in outcomes.items() if outcome.status != "ok"}
    if not bad and outcomes:
        return "ok", ""
    if len(bad) < len(outcomes):
        return "partial", _some_seeds(list(outcomes), bad)
    worst = min((each.status for each in bad.values()), key=_WORST.index, default="missing")
    reasons = [each.reason for each in bad.values() if each.status == worst and each.reason]
    return worst, reasons[0] if reasons else ""


def _checked(outcomes: Mapping[int, Outcome], metric: str) -> dict[int, Outcome]:
    return {seed: _with(outcome, metric) for seed, outcome in outcomes.items()}


def _with(outcome: Outcome, metric: str) -> Outcome:
    """Treat scores that lack the metric as missing, and for the reason that stands in the number's place, if any."""
    score = outcome.scores.get(metric, {})
    if outcome.status == "ok" and score.get("value") is None:
        return Outcome("missing", str(score.get("reason") or f"the scores have no {metric}"))
    return outcome


def _gathered(outcomes: Sequence[Outcome], metric: str) -> Cell:
    found = [float(outcome.scores[metric]["value"] or 0.0) for outcome in outcomes]
    first, n = outcomes[0], len(found)
    sd = statistics.stdev(found) if n > 1 else None
    gpu = _mean([outcome.gpu_seconds for outcome in outcomes])
    return Cell(
        "ok",
        mean=statistics.fmean(found),
        sd=sd,
        se=first.scores[metric].get("se") if sd is None else sd / n**0.5,
        seeds=n,
        nfe=_mean([outcome.nfe for outcome in outcomes]),
        images=first.images,
        protocol=first.protocol,
        seconds=_mean([outcome.seconds for outcome in outcomes]),
        gpu_hours=None if gpu is None else gpu / 3600,
        floor=_mean([outcome.floors.get(metric, {}).get("value") for outcome in outcomes]),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None


def _some_seeds(seeds: Sequence[int], bad: Mapping[int, Outcome]) -> str:
    reasons = [
        f"seed {seed} {outcome.status}{f' ({outcome.reason})' if outcome.reason else ''}"
        for seed, outcome in bad.items()
    ]
    return f"{len(seeds) - len(bad)} of {len(seeds)} seeds: {', '.join(reasons)}"
