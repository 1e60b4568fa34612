"""The page of a benchmark: its tables, figures, claims and concerns, and where each number came from, in one file.

It needs no network: pictures, style and scripts are inside (``templates``).
"""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from diffbench.reporting import citations, quality
from diffbench.reporting.cells import DASH
from diffbench.reporting.charts import Drawing
from diffbench.reporting.claims_table import ClaimLine
from diffbench.reporting.exports import Export, lines
from diffbench.reporting.formats import AT_FLOOR, BEST, Table
from diffbench.reporting.layout import CLAIMS_TABLE
from diffbench.reporting.numbers import plain
from diffbench.reporting.provenance import provenance
from diffbench.reporting.records import TIMED, Records
from diffbench.reporting.web.templates import embedded, render, url
from diffbench.store import paths

#: The bytes of pictures of samples that the page holds; it links to further ones.
GALLERY_BYTES = 3_000_000
SCRIPTS = ("tables.js", "page.js")
#: The columns of the long table that the page shows, each with its head.
SHOWN = {
    "variant": "variant",
    "seed": "seed",
    "item": "item",
    "metric": "metric",
    "value": "value",
    "se": "SE",
    "floor": "floor",
    "samples": "N",
    "nfe": "NFE",
    "seconds": "seconds",
    "status": "status",
    "reason": "reason",
}
#: Words in a cell of a table that say why there is no number.
STATES = ("failed", "stale")
#: The marks of a number, and the classes of their cells.
MARKS = {AT_FLOOR: "floor", BEST: "best"}


@dataclass(frozen=True)
class Figure:
    """A figure on the page: its picture as a data URL, what it shows, and its numbers as heads and rows."""

    name: str
    title: str
    note: str
    picture: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Effect:
    """A claim's effect on a scale of its own, from -1 to 1 with 0 in the middle: its point and its interval.

    ``jobs`` are the variant and the item of each of its cells.
    """

    name: str
    claim: str
    verdict: str
    words: str
    point: float
    low: float
    high: float
    jobs: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Samples:
    """A picture of samples: whose they are, and a data URL or, where the page would grow too large, its file."""

    variant: str
    item: str
    picture: str


def page(
    records: Records,
    export: Export,
    tables: Mapping[str, Table],
    charts: Mapping[str, Drawing],
    drawn: Mapping[str, tuple[bytes, str]],
) -> str:
    """Return the page as HTML.

    Args:
        records: the results.
        export: the same results as an export, whose concerns the page lists.
        tables: the benchmark's tables by name.
        charts: the benchmark's figures by name.
        drawn: the figures drawn, as PNG, and their numbers as CSV.
    """
    benchmark = records.plan.benchmark
    plots = {name: plot for name, chart in charts.items() if (plot := chart.plot())}
    data = {**_data(records, export), "plots": plots}
    return render(
        "page.html",
        SCRIPTS + (("plots.js",) if plots else ()),
        plots=bool(plots),
        benchmark=benchmark,
        config=records.plan.config.name,
        commits=[each[:12] for each in export.about["environment"]["commits"]],
        devices=export.about["environment"]["devices"],
        statuses=_statuses(export),
        tables=tables,
        figures=[_figure(name, chart, *drawn[name]) for name, chart in charts.items()],
        claims_table=CLAIMS_TABLE,
        effects=list(_effects(tables, export)),
        gallery=list(_gallery(records)),
        concerns=quality.concerns(export),
        shown=list(SHOWN.values()),
        data=embedded(data),
        jobs_of=_finder(data["jobs"]),
        digest=export.about["sha256"],
        cite=_cited(records, export, tables),
        state=_state,
    )


def _cited(records: Records, export: Export, tables: Mapping[str, Table]) -> str:
    """Return the BibTeX of what the page's numbers build on."""
    rows = [record.line(name) for name, table in tables.items() for record in table.records]
    return citations.bibtex(citations.of_export(export, rows), records.plan.repository)


def _statuses(export: Export) -> list[tuple[str, int]]:
    """Return how many jobs with numbers there are of each status, the most frequent first."""
    jobs = quality.jobs(lines(export.frame)).values()
    return Counter(row["status"] for row in jobs).most_common()


def _state(text: str) -> str:
    """Return the class of a table's cell: its marks, or why there is no number; empty for a plain number."""
    word = text.partition(" [")[0]
    if word in STATES:
        return word
    marks = word[len(word.rstrip(AT_FLOOR + BEST)) :]
    return " ".join(name for mark, name in MARKS.items() if mark in marks)


def _figure(name: str, chart: Drawing, png: bytes, numbers: str) -> Figure:
    heads, *rows = csv.reader(io.StringIO(numbers))
    picture = url("image/png", png)
    return Figure(name, chart.title, chart.note, picture, heads[1:], [row[1:] for row in rows])


def _effects(tables: Mapping[str, Table], export: Export) -> Iterator[Effect]:
    """Yield the effects of the claims that have one."""
    metrics = export.about["metrics"]
    lines = tables[CLAIMS_TABLE].records if CLAIMS_TABLE in tables else ()
    for line in cast("Sequence[ClaimLine]", lines):
        found = line.line(CLAIMS_TABLE)
        if DASH in (found["effect"], found["low"], found["high"]):
            continue
        values = [float(found[name]) for name in ("effect", "low", "high")]
        words = f"{plain(values[0])} ({plain(values[1])} to {plain(values[2])}) in {metrics[found['metric']]['head']}"
        yield Effect(
            found["id"], found["claim"], found["verdict"], words, *scaled(values), line.source.jobs
        )


def scaled(values: Sequence[float]) -> tuple[float, float, float]:
    """Return a point and the ends of its interval on a scale of their own, as ``Effect`` has them."""
    point, low, high = (value / (max(map(abs, values)) or 1) for value in values)
    return point, low, high


def _gallery(records: Records) -> Iterator[Samples]:
    """Yield the samples of each variant's first solver, all with the variant's first seed."""
    left, shown = GALLERY_BYTES, set()
    for job in records.plan.of("sample"):
        picture = next(iter(paths.extras(records.root, job.spec)), None)
        if job.variant in shown or picture is None or not picture.is_file():
            continue
        shown.add(job.variant)
        left -= (size := picture.stat().st_size)
        if left < 0:
            left += size
            yield Samples(job.variant, job.item, picture.relative_to(records.root).as_posix())
        else:
            yield Samples(job.variant, job.item, url("image/png", picture.read_bytes()))


def _data(records: Records, export: Export) -> dict[str, Any]:
    """Return what the scripts show: all numbers, and where each came from.

    Keys: ``numbers``, rows of ``SHOWN`` and then the index of the job; ``jobs``, the provenance of each; ``products``,
    of which many jobs share one.
    """
    places: dict[tuple[str, str, str, int], int] = {}
    indices: dict[str, int] = {}
    products: list[dict[str, Any]] = []
    jobs: list[dict[str, Any]] = []
    for job in records.plan.jobs:
        if not job.spec.numbers and job.stage not in TIMED:
            continue
        places[job.variant, job.stage, job.item, job.seed] = len(jobs)
        found = provenance(records.files, job)
        found.pop("numbers", None)
        for made in found["made of"]:
            if made["file"] not in indices:
                indices[made["file"]] = len(products)
                products.append(made)
        found["made of"] = [indices[made["file"]] for made in found["made of"]]
        name = f"{job.variant} {job.item or job.stage} seed {job.seed}"
        jobs.append({"variant": job.variant, "item": job.item, "name": name, **found})
    numbers = [
        [
            *(_plain(row[name]) for name in SHOWN),
            places.get((row["variant"], row["stage"], row["item"], row["seed"])),
        ]
        for row in lines(export.frame)
    ]
    return {"numbers": numbers, "jobs": jobs, "products": products}


def _finder(jobs: Sequence[Mapping[str, Any]]) -> Callable[[Sequence[tuple[str, str]]], str]:
    """Return the function from (variant, item) pairs to the indices of their jobs, as words; no item means all."""
    places: dict[tuple[str, str], list[str]] = defaultdict(list)
    for index, job in enumerate(jobs):
        for item in {job["item"], ""}:
            places[job["variant"], item].append(str(index))
    return lambda named: " ".join(index for each in named for index in places.get(each, ()))


def _plain(value: Any) -> Any:
    """Return a field as JSON has it: nothing for NaN, whole numbers as such, six digits of others."""
    if value is None or value != value:
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else float(f"{value:.6g}")
    return value
