"""From the rows of a number, one a seed, to a cell: mean and spread, status and note.

Over n >= 2 seeds: the mean, sd the sample standard deviation (n - 1), se = sd/sqrt(n).  With one
seed sd does not exist and se is the score's own, over samples or test images.  A cell whose seeds
are not all there has the status ``partial``: its mean is over those there are, and says so.

Some scores have a floor: what as many real images score (`diffbench.metrics.floors`).  A cell is at
its floor when the lower end of its 95 % interval lies under it; the interval is Student's over seeds,
of one seed the normal one of its se, and without an se the number itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from diffbench.reporting import inference

if TYPE_CHECKING:
    import pandas as pd

#: The variant, stage, item and metric of a number.
Key = tuple[str, str, str, str]
#: The columns of the long table that name an item.
ITEM = ["variant", "stage", "item"]
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
        seeds: the number of seeds that the mean is over.
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
        """Whether the cell is at its floor: real images might have scored it.  False where no floor is known."""
        if self.mean is None or self.floor is None:
            return False
        return self.mean - self.half_width < self.floor

    @property
    def half_width(self) -> float:
        """Half the width of the 95 % interval that the module describes."""
        if self.sd is not None:
            return inference.half_width(self.sd, self.seeds)
        return inference.half_width_of_one(self.se or 0.0)


@dataclass(frozen=True)
class Record:
    """A cell with its table, row and column: a row of a table's CSV.

    ``protocol`` says how our number was made; ``remark`` is added to the cell's note.
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
    """Return a value as text: a number with six significant digits, a dash for nothing."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return DASH if value is None or value == "" else str(value)


def cells_of(frame: pd.DataFrame) -> dict[Key, Cell]:
    """Return the cells of the long table of ``records``, over seeds: (variant, stage, item, metric) -> cell."""
    keys = [*ITEM, "metric"]
    good = frame[frame["status"] == "ok"].groupby(keys, sort=False)
    table = good.agg(
        mean=("value", "mean"),
        sd=("value", "std"),
        se=("se", "first"),
        seeds=("seed", "size"),
        images=("samples", "first"),
        protocol=("protocol", "first"),
    )
    for name in ("nfe", "seconds", "gpu_seconds", "floor"):
        # The mean of only some seeds' values would be of other seeds than the number's.
        table[name] = good[name].mean().where(good[name].count() == table["seeds"])
    spread = table["sd"] / table["seeds"] ** 0.5
    table["se"] = spread.where(table["seeds"] > 1, table["se"])
    table["gpu_hours"] = table.pop("gpu_seconds") / 3600
    table["images"] = table["images"].astype("Int64")
    known = table.astype(object).where(table.notna(), None)
    numbers = dict(zip(known.index, known.to_dict("records"), strict=True))
    bad = (frame["status"] != "ok").groupby([frame[key] for key in keys], sort=False)
    states: dict[Any, tuple[str, str]] = {
        key: state({seed: _Row(*rest) for seed, *rest in rows.to_numpy().tolist()})
        for key, rows in frame[bad.transform("any")].groupby(keys, sort=False)[
            ["seed", "status", "reason"]
        ]
    }
    names: Iterable[Any] = frame.groupby(keys, sort=False).indices
    return {key: Cell(*states.get(key, ("ok", "")), **numbers.get(key, {})) for key in names}


class _Row(NamedTuple):
    """The status and the reason of one seed."""

    status: str
    reason: str


class Judged(Protocol):
    """Anything with a status and a reason for one seed."""

    @property
    def status(self) -> str:
        """The status, as in ``results``."""
        ...

    @property
    def reason(self) -> str:
        """The reason in one line; empty where there is none."""
        ...


def state(outcomes: Mapping[int, Judged]) -> tuple[str, str]:
    """Return the status and the note of all seeds together: ok, partial, or the worst status with its reason."""
    bad = {seed: outcome for seed, outcome in outcomes.items() if outcome.status != "ok"}
    if not bad and outcomes:
        return "ok", ""
    if len(bad) < len(outcomes):
        return "partial", _some_seeds(list(outcomes), bad)
    worst = min((each.status for each in bad.values()), key=_WORST.index, default="missing")
    reasons = [each.reason for each in bad.values() if each.status == worst and each.reason]
    return worst, reasons[0] if reasons else ""


def _some_seeds(seeds: Sequence[int], bad: Mapping[int, Judged]) -> str:
    reasons = [
        f"seed {seed} {outcome.status}{f' ({outcome.reason})' if outcome.reason else ''}"
        for seed, outcome in bad.items()
    ]
    return f"{len(seeds) - len(bad)} of {len(seeds)} seeds: {', '.join(reasons)}"
