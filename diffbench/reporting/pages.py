"""README and the pages of docs, written from their templates and from what is recorded (``recorded``).

A template (``docs/templates/*.md``) is the page with expressions in place of measured numbers; ``diffbench pages
--write`` makes the pages.  In a template

    {% set full = benchmark("digits-full") %}
    {% if full.recorded %} ... {% else %}{{ full.missing }}{% endif %}     a part that needs a finished benchmark
    {{ full.number("ddpm-linear", "ancestral-25", "fid") }}               one number, with its spread
    {{ full.comparison("iddpm-variance") }}                               a comparison of config/tables.yaml
    {{ full.grid("t0", {"PSNR": "task/method psnr"}, {"row": "vp"}) }}     any other grid of numbers
    {{ full.restorations("psnr", {"2x": "super-resolution"}, {"DDRM": "vp ddrm-20"}) }}   restorations of tasks
    {{ full.verdict("iddpm-vlb-bits", "holds") }}                          the verdict: an error when it is another
    {{ full.effect("iddpm-vlb-bits") }}                                    its effect and the 95 % interval
    {{ full.claims("iddpm-*") }}                                           a table of claims
    {{ over_seeds(["digits-churn"], ["fid"], "digits") }}                  mean, 95 % interval and seeds of these runs
    {{ trials.table("diffusers") }}                                        a table of what was measured by hand
    {% if trials.recorded("gpu") %} ... {% endif %}                        a part that needs one
    {{ setting(0.35) }}                                                    a number that was chosen, not measured

A number whose benchmark file has been changed since it was recorded bears a double dagger; the page says what that
means.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

from diffbench.plan.jobs import Plan
from diffbench.reporting import layout
from diffbench.reporting.cells import DASH, Key
from diffbench.reporting.claims_table import shown_p
from diffbench.reporting.formats import (
    AT_FLOOR,
    NOTHING,
    Grid,
    number,
    pipes,
    shown,
    with_interval,
)
from diffbench.reporting.layout import CellSpec, ComparisonSpec, MetricSpec, TablesSpec
from diffbench.reporting.numbers import count, decimals
from diffbench.reporting.recorded import FOLDER, Entry, Recorded, fresh
from diffbench.reporting.records import first_planned, items_of
from diffbench.specs.errors import PlanError

TEMPLATES = Path("docs") / "templates"
TRIALS = FOLDER / "trials"
OLD = "‡"
OLD_NOTE = (
    f"{OLD} measured before the benchmark file or the code that this number depends on was changed; "
    "not yet run again."
)
FLOOR_NOTE = (
    f"{AT_FLOOR} at the floor: the lower end of its 95 % interval lies under what as many real images score; it "
    "says nothing about quality and is not ranked."
)
#: The comment at the top of each page's source.
ORIGIN = (
    "<!-- Made by `diffbench pages --write` from {template} and {records}: edit the template. -->\n"
)


@dataclass
class RecordedBenchmark:
    """One benchmark, as a template asks for it.

    Attributes:
        name: the name of the benchmark file, without its suffix.
        repository: the folder of the Snakefile.
        known: the metrics and tables of ``config/tables.yaml``.
    """

    name: str
    repository: Path
    known: TablesSpec

    @cached_property
    def _records(self) -> Recorded | None:
        return Recorded.read(self.repository, self.name)

    @cached_property
    def plan(self) -> Plan:
        """The plan of the benchmark file as it is now."""
        from diffbench.plan.loading import load_plan

        file = self.repository / "config" / f"{self.name}.yaml"
        return load_plan([file], {}, self.repository, needs_files=False)

    @cached_property
    def _fresh(self) -> set[Key]:
        return fresh(self.plan, self.record)

    @property
    def record(self) -> Recorded:
        """What is recorded."""
        if self._records is None:
            raise PlanError(f"{FOLDER / self.name}: nothing is recorded; ask `recorded` first")
        return self._records

    @property
    def recorded(self) -> bool:
        """Whether the benchmark has been run to its end and recorded."""
        return self._records is not None

    @property
    def missing(self) -> str:
        """The sentence that replaces numbers which do not exist."""
        return (
            f"*`config/{self.name}.yaml` has not been run since its definitions were changed: "
            "no numbers stand here until it has.*"
        )

    @property
    def verdicts(self) -> Mapping[str, int]:
        """The number of claims with each verdict."""
        found: dict[str, int] = {}
        for line in self.record.claims.values():
            found[line["verdict"]] = found.get(line["verdict"], 0) + 1
        return found

    def _entry(self, variant: str, item: str, metric: str) -> Entry:
        entry = self.record.find(variant, item, metric)
        if entry is None:
            raise PlanError(f"{FOLDER / self.name}: no {metric} of {variant} {item} is recorded")
        return entry

    def _marked(self, text: str, key: Key) -> str:
        if key in self._fresh or text == NOTHING:
            return text
        return f"{text}{OLD}"

    def number(self, variant: str, item: str, metric: str, spread: bool = True) -> str:
        """Return a number as tables show it, with its spread over seeds or its standard error."""
        entry, shape = self._entry(variant, item, metric), self._metric(metric)
        if entry.cell.mean is None:
            raise PlanError(
                f"{FOLDER / self.name}: {metric} of {variant} {item}: {entry.cell.status}"
            )
        return self._marked(number(entry.cell, _spread(shape, spread)), entry.key)

    def _metric(self, name: str) -> MetricSpec:
        return self.known.metrics.get(name) or MetricSpec(head=name)

    def head(self, metric: str) -> str:
        """Return the head of a metric's column."""
        return self._metric(metric).head

    def _cell(self, variant: str, item: str, metric: str, spread: bool) -> str:
        entry = self.record.find(variant, item, metric)
        if entry is None:
            return NOTHING
        return self._marked(shown(entry.cell, _spread(self._metric(metric), spread)), entry.key)

    def comparison(self, table: str, spread: bool = True) -> str:
        """Return a comparison of ``config/tables.yaml`` as Markdown."""
        spec = self.known.tables.get(table)
        if not isinstance(spec, ComparisonSpec):
            raise PlanError(f"{layout.TABLES}: {table!r} is not a table with the layout comparison")
        rows = [
            [
                row.row,
                *(self._chosen(row.cells.get(head), spread) for head in spec.columns),
            ]
            for row in spec.rows
        ]
        return pipes(Grid(["", *spec.columns], rows))

    def _chosen(self, cell: CellSpec | None, spread: bool) -> str:
        if cell is None:
            return NOTHING
        items = items_of(self.plan, cell)
        item = first_planned(self.plan, cell.variant, items) or items[0]
        return self._cell(cell.variant, item, cell.metric, spread)

    def grid(
        self,
        corner: str,
        columns: Mapping[str, str],
        rows: Mapping[str, str | Mapping[str, str]],
        spread: bool = True,
    ) -> str:
        """Return a grid of numbers as Markdown.

        Args:
            corner: the head of the rows' words.
            columns: head -> ``item metric``.
            rows: the row's words -> variant, or its ``variant`` and, by head, its own ``item metric`` (or ``none``).
            spread: whether spreads are shown.
        """
        lines = [
            [words, *(self._of_row(row, head, cell, spread) for head, cell in columns.items())]
            for words, row in rows.items()
        ]
        return pipes(Grid([corner, *columns], lines))

    def _of_row(self, row: str | Mapping[str, str], head: str, usual: str, spread: bool) -> str:
        own: Mapping[str, str] = {"variant": row} if isinstance(row, str) else row
        chosen = own.get(head, usual)
        if chosen == "none":
            return NOTHING
        item, _, metric = chosen.partition(" ")
        return self._cell(own["variant"], item, metric, spread)

    def restorations(
        self, metric: str, tasks: Mapping[str, str], rows: Mapping[str, str], spread: bool = False
    ) -> str:
        """Return one metric of restorations as Markdown.

        Args:
            metric: the metric's name.
            tasks: head -> task.
            rows: the row's words -> ``variant restorer``.
            spread: whether spreads are shown.
        """
        lines = [
            [words, *(self._restored(row, task, metric, spread) for task in tasks.values())]
            for words, row in rows.items()
        ]
        return pipes(Grid([self._metric(metric).head, *tasks], lines))

    def _restored(self, row: str, task: str, metric: str, spread: bool) -> str:
        variant, _, restorer = row.partition(" ")
        return self._cell(variant, f"{task}/{restorer}", metric, spread)

    def overview(
        self, metrics: Sequence[str], spreads: Sequence[str] = (), only: Sequence[str] = ()
    ) -> str:
        """Return variants with their solvers, with ``metrics`` as columns and without bits per dimension.

        Args:
            metrics: the names of the metrics.
            spreads: those that are shown with their spread.
            only: the rows, as ``variant solver``, in their order; every row by default.
        """
        rows = [tuple(row.split()) for row in only] or self.record.samples()
        lines = [
            [variant, item, count(self._entry(variant, item, metrics[0]).cell.nfe)]
            + [self._cell(variant, item, name, name in spreads) for name in metrics]
            for variant, item in rows
        ]
        heads = [self._metric(name).head for name in metrics]
        return pipes(Grid(["variant", "solver", "NFE", *heads], lines, labels=2))

    def bits(self, head: str, items: Sequence[str]) -> str:
        """Return the bits per dimension of all variants with one of these likelihoods, which must be of one kind."""
        keys = self.record.entries
        found = [key for key in keys if key[1] == "likelihood" and key[2] in items]
        lines = [
            [variant, *(self._cell(variant, item, layout.BITS, True) for item in items)]
            for variant in dict.fromkeys(variant for variant, *_ in found)
        ]
        return pipes(Grid([head, *items], lines))

    def _claim(self, name: str) -> Mapping[str, str]:
        if name not in self.record.claims:
            raise PlanError(f"{FOLDER / self.name}: no claim {name!r} is recorded")
        return self.record.claims[name]

    def verdict(self, claim: str, expected: str) -> str:
        """Return a claim's verdict, which must be the one that the sentence around it expects.

        Raises:
            PlanError: when it is another: the sentence must be written anew.
        """
        found = self._claim(claim)["verdict"]
        if found != expected:
            raise PlanError(
                f"{FOLDER / self.name}: {claim} is {found}, and the template says {expected}: write the sentence "
                "again"
            )
        return found

    def effect(self, claim: str) -> str:
        """Return a claim's effect and its 95 % interval: ``0.022 (0.020 to 0.024)``."""
        line = self._claim(claim)
        scale = self._metric(line["metric"]).scale
        effect, low, high = (float(line[name]) * scale for name in ("effect", "low", "high"))
        places = decimals((high - low) / 2 or effect, 2)
        return f"{effect:z.{places}f} ({low:z.{places}f} to {high:z.{places}f})"

    def claims(self, *patterns: str) -> str:
        """Return the claims of these ids or patterns as Markdown: effect with its interval, p values and verdict."""
        lines = [
            [line["claim"], *self._judged(name), line["verdict"]]
            for name, line in self.record.claims.items()
            if any(fnmatchcase(name, pattern) for pattern in patterns)
        ]
        if not lines:
            raise PlanError(f"{FOLDER / self.name}: no claim {' or '.join(patterns)} is recorded")
        heads = ["claim", "metric", "seeds", "effect (95 % interval)", "p", "Holm", "verdict"]
        return pipes(Grid(heads, lines))

    def _judged(self, name: str) -> list[str]:
        """Return metric, seeds, effect and p values of a claim; a dash for each that it lacks."""
        line = self._claim(name)
        effect = NOTHING if DASH in (line["effect"], line["low"]) else self.effect(name)
        ps = [
            shown_p(None if line[column] == DASH else float(line[column]))
            for column in ("p", "p_adjusted")
        ]
        return [self._metric(line["metric"]).head, line["seeds"], effect, *ps]

    def seeds(self, variant: str, item: str, metric: str) -> int:
        """Return the number of seeds that a number is over."""
        return self._entry(variant, item, metric).cell.seeds

    def over_seeds(self, variant: str, item: str, metric: str) -> str:
        """Return a number with its 95 % interval over seeds; a dash where it is not recorded."""
        entry = self.record.find(variant, item, metric)
        if entry is None:
            return NOTHING
        return self._marked(with_interval(entry.cell, self._metric(metric)), entry.key)


def over_seeds(
    runs: Sequence[RecordedBenchmark],
    metrics: Sequence[str],
    like: RecordedBenchmark | None = None,
    least: int = 3,
) -> str:
    """Return the samples of recorded runs that have several seeds as Markdown, and below it what each run was.

    Args:
        runs: the benchmarks.
        metrics: the columns: mean and 95 % interval, by Student's t over seeds.
        like: only the variants and solvers that this benchmark has recorded too.
        least: the fewest seeds of a row.
    """
    wanted = None if like is None else set(like.record.repeated(1))
    found = {
        run.name: [each for each in run.record.repeated(least) if wanted is None or each in wanted]
        for run in runs
    }
    if not any(found.values()):
        raise PlanError(f"nothing in {', '.join(found)} has {least} seeds or more")
    lines = [
        [variant, item, run.name, str(run.seeds(variant, item, metrics[0]))]
        + [run.over_seeds(variant, item, name) for name in metrics]
        for run in runs
        for variant, item in found[run.name]
    ]
    heads = [runs[0].head(name) for name in metrics]
    table = pipes(Grid(["variant", "solver", "run", "seeds", *heads], lines, labels=3))
    told = [f"- {line}" for run in runs for line in run.record.run_of(found[run.name])]
    return "\n".join([table, "", *told])


def _spread(metric: MetricSpec, spread: bool) -> MetricSpec:
    return metric.model_copy(update={"spread": spread})


@dataclass(frozen=True)
class Trials:
    """Small tables of measurements by hand, outside any benchmark file: ``docs/records/trials/{name}.csv``.

    Their last two columns are the command and the commit of the code.
    """

    repository: Path

    def recorded(self, name: str) -> bool:
        """Return whether there is a trial of that name."""
        return (self.repository / TRIALS / f"{name}.csv").is_file()

    def lines(self, name: str) -> list[dict[str, str]]:
        """Return the rows of a trial.

        Raises:
            PlanError: when there is no trial of that name.
        """
        if not self.recorded(name):
            raise PlanError(f"{TRIALS}: no trial {name!r}")
        path = self.repository / TRIALS / f"{name}.csv"
        return list(csv.DictReader(path.open(encoding="utf-8")))

    def table(self, name: str) -> str:
        """Return a trial as Markdown, without command and commit."""
        lines = self.lines(name)
        heads = [head for head in lines[0] if head not in ("command", "commit")]
        return pipes(Grid(heads, [[line[head] for head in heads] for line in lines]))

    def number(self, name: str, row: str, column: str) -> str:
        """Return one value of a trial; ``row`` is the value in its first column."""
        found = [line for line in self.lines(name) if next(iter(line.values())) == row]
        if not found or column not in found[0]:
            raise PlanError(f"{TRIALS / name}.csv: no {column!r} of {row!r}")
        return found[0][column]


def setting(value: float | str) -> str:
    """Return a number that was chosen, published or computed, not measured; the call marks it for reviewers."""
    return value if isinstance(value, str) else f"{value:g}"


def pages(repository: Path) -> dict[Path, str]:
    """Return the pages that the templates make: path in the repository -> text.

    Raises:
        PlanError: naming the template, when it asks for what is not recorded or states what is not true.
    """
    known = layout.read_tables(repository)
    folder = repository / TEMPLATES
    return {
        _page_path(path.relative_to(folder)): page(repository, path, known)
        for path in sorted(folder.rglob("*.md"))
    }


def _page_path(template: Path) -> Path:
    return template if template.name == "README.md" else Path("docs") / template


def page(repository: Path, template: Path, known: TablesSpec) -> str:
    """Return the page that one template makes."""
    import jinja2

    asked: dict[str, RecordedBenchmark] = {}

    def benchmark(name: str) -> RecordedBenchmark:
        return asked.setdefault(name, RecordedBenchmark(name, repository, known))

    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )

    def of_runs(
        names: Sequence[str], metrics: Sequence[str], like: str = "", least: int = 3
    ) -> str:
        alike = benchmark(like) if like else None
        return over_seeds([benchmark(name) for name in names], metrics, alike, least)

    environment.globals.update(
        benchmark=benchmark, over_seeds=of_runs, setting=setting, trials=Trials(repository)
    )
    relative = template.relative_to(repository)
    try:
        text = environment.from_string(template.read_text(encoding="utf-8")).render()
    except (jinja2.TemplateError, PlanError, TypeError) as error:
        line = getattr(error, "lineno", None)
        raise PlanError(f"{relative}{f':{line}' if line else ''}: {error}") from error
    notes = [(AT_FLOOR, FLOOR_NOTE), (OLD, OLD_NOTE)]
    noted = "".join(f"\n{note}\n" for mark, note in notes if mark in text)
    return ORIGIN.format(template=relative, records=FOLDER) + text + noted
