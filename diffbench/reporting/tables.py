"""Make a benchmark's tables and figures from its plan and the results that exist.

Each number is looked up for every seed of the plan (``results``), gathered over seeds (``cells``),
laid out (``listing``, ``paper``, ``comparison``) and written in three formats (``formats``).
The layouts and the published numbers come from ``config/tables.yaml`` and ``config/published.csv``.  Claims
(``config/claims.yaml``) become a table of verdicts (``claims_table``), and figures (``figures``) a picture
and its numbers (``charts``, of images ``galleries``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from diffbench.plan.jobs import Plan
from diffbench.reporting import citations, claims_table, comparability, exports, layout
from diffbench.reporting.charts import Drawing
from diffbench.reporting.claims import Claims, check_planned, of_plan
from diffbench.reporting.formats import Table, to_csv, to_latex, to_markdown
from diffbench.reporting.layout import TablesSpec
from diffbench.reporting.published import PublishedValues
from diffbench.reporting.records import Records
from diffbench.reporting.web.page import page
from diffbench.specs.benchmark import names
from diffbench.specs.errors import PlanError
from diffbench.specs.registry import build
from diffbench.store import files, paths
from diffbench.store.progress import announce
from diffbench.store.seals import sealed

#: Increased when the same results are to be shown differently.
VERSION = 8


def make(plan: Plan, root: Path) -> list[Path]:
    """Write every table and figure that the plan wants, the export and the page, each whole or not at all.

    Args:
        plan: the benchmark; tables.yaml and claims.yaml are read from the folder of its Snakefile.
        root: the results folder.

    Returns:
        The files, as ``outputs`` has them.

    Raises:
        PlanError: when tables.yaml or claims.yaml is wrong or lacks what the benchmark names;
            nothing is written then.
    """
    announce(f"tables: reading the results of {len(plan.jobs):,} jobs")
    known, results = _known(plan), Records(plan, root)
    made_tables, made_charts = _tables(known, results), _charts(known, results)
    announce(f"tables: drawing {len(made_charts)} figures")
    made = {
        paths.table(root, name, suffix): content.encode()
        for name, table in made_tables.items()
        for suffix, content in texts(name, table).items()
    }
    drawn = {name: (chart.png(), chart.csv(name)) for name, chart in made_charts.items()}
    for name, (picture, numbers) in drawn.items():
        made[paths.figure(root, name, "png")] = picture
        made[paths.figure(root, name, "csv")] = numbers.encode()
    announce("tables: writing the export and the page")
    exported = exports.contents(results, known.metrics)
    for suffix, content in exported.items():
        made[paths.table(root, exports.NAME, suffix)] = content
    export = exports.held(root, exported)
    whole = page(results, export, made_tables, made_charts, drawn)
    made[paths.page(root)] = whole.encode()
    digests = {
        path.relative_to(root).as_posix(): files.write(path, content)
        for path, content in made.items()
    }
    files.write_json(paths.tables_record(root), sealed({"sha256": digests}))
    return list(made)


def outputs(plan: Plan, root: Path) -> list[Path]:
    """Return the files that ``make`` writes.

    They are CSV, Markdown and LaTeX for tables, PNG and CSV for figures, CSV and JSON for the export, and the page.
    """
    benchmark = plan.benchmark
    wanted = [*names(benchmark.tables), *([layout.CLAIMS_TABLE] if benchmark.claims else [])]
    return [
        *(paths.table(root, name, suffix) for name in wanted for suffix in paths.TABLE_SUFFIXES),
        *(
            paths.figure(root, name, suffix)
            for name in names(benchmark.figures)
            for suffix in paths.FIGURE_SUFFIXES
        ),
        *(paths.table(root, exports.NAME, suffix) for suffix in exports.SUFFIXES),
        paths.page(root),
    ]


def tables(plan: Plan, root: Path) -> dict[str, Table]:
    """Return the plan's tables by name, the claims' table last, each with the remarks on the data set."""
    return _tables(_known(plan), Records(plan, root))


def charts(plan: Plan, root: Path) -> dict[str, Drawing]:
    """Return the plan's figures by name."""
    return _charts(_known(plan), Records(plan, root))


def _tables(known: TablesSpec, results: Records) -> dict[str, Table]:
    plan = results.plan
    published = PublishedValues(plan.repository / layout.PUBLISHED)
    made = {
        name: build(spec).make(results, known.metrics, published)
        for name, spec in known.tables.items()
    }
    if plan.benchmark.claims:
        made[layout.CLAIMS_TABLE] = claims_table.table(results, _claims(plan, known), known.metrics)
    data = plan.benchmark.data
    return {name: table.remarked(data.title, data.remark) for name, table in made.items()}


def _charts(known: TablesSpec, results: Records) -> dict[str, Drawing]:
    return {name: build(spec).make(results, known.metrics) for name, spec in known.figures.items()}


def _known(plan: Plan) -> TablesSpec:
    """Return the tables and figures that the benchmark wants, and all metrics."""
    known = layout.of_plan(plan)
    _check_steps(plan, "table", known.tables)
    _check_steps(plan, "figure", known.figures)
    comparability.check_layouts(plan, known)
    return known


class Stepped(Protocol):
    """A table or figure that may name weights along training."""

    @property
    def steps(self) -> layout.Steps:
        """The variants and the steps of the weights."""
        ...


def _check_steps(plan: Plan, what: str, named: Mapping[str, Stepped]) -> None:
    """Refuse a cell whose ``at`` is a step of which its variant keeps no weights."""
    for name, spec in named.items():
        for variant, at in spec.steps:
            training = plan.variants[variant].training if variant in plan.variants else None
            if at is not None and training and (reason := training.at_refusal(at)):
                raise PlanError(f"{plan.config}: {what} {name}: {variant}: {reason}")


def _claims(plan: Plan, known: TablesSpec) -> Claims:
    """Return the claims that the benchmark tests; the claims' file is read only if there are any."""
    if not plan.benchmark.claims:
        return {}
    claims = of_plan(plan, known.metrics)
    _check_steps(plan, "claim", claims)
    comparability.check_claims(plan, claims)
    return claims


def texts(name: str, table: Table) -> dict[str, str]:
    """Return a table in all formats, by suffix."""
    return {"csv": to_csv(name, table), "md": to_markdown(table), "tex": to_latex(name, table)}


def table_params(plan: Plan) -> dict[str, str | int]:
    """Return what tables depend on besides results, for Snakemake to compare; comments do not count.

    Raises:
        PlanError: as ``make``, so that a wrong tables.yaml is found before any job runs; also for a table, a figure or
            a claim with nothing in the plan.
    """
    known = _known(plan)
    claims = _claims(plan, known)
    layout.check_planned(plan, known)
    check_planned(plan, claims)
    asked = " ".join(f"{name}={claim.digest()}" for name, claim in claims.items())
    params: dict[str, str | int] = {
        "version": VERSION,
        "plan": plan.digest(),
        "note": plan.benchmark.note,
        "tables": known.digest(),
        "published": files.sha256(plan.repository / layout.PUBLISHED),
    }
    if (plan.repository / citations.PAPERS).is_file():
        params["papers"] = files.sha256(plan.repository / citations.PAPERS)
    recorded = [plan.repository / file for each in known.tables.values() for file in each.files]
    if recorded:
        params["recorded"] = " ".join(files.sha256(each) for each in recorded if each.is_file())
    tuned = " ".join(f"{name}={each.digest()}" for name, each in plan.benchmark.tuned.items())
    return params | ({"claims": f"{asked} {tuned}".strip()} if asked else {})
