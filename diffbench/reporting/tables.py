"""Make a benchmark's tables from its plan and whatever results exist.

Each number is looked up for every seed of the plan (``results``), gathered over seeds (``cells``),
laid out (``overview``, ``paper``) and written in three formats (``formats``).  What the tables say
beside the results comes from ``config/tables.yaml`` and ``config/published.csv``.
"""

from __future__ import annotations

from pathlib import Path

from diffbench.plan.registry import build
from diffbench.plan.runs import Plan
from diffbench.reporting import layout
from diffbench.reporting.formats import Table, to_csv, to_latex, to_markdown
from diffbench.reporting.published import PublishedValues
from diffbench.reporting.results import Results
from diffbench.store import files, paths

#: Raised when the same results are to be shown differently.
VERSION = 1
WIDTH = 150


def make(plan: Plan, root: Path) -> list[Path]:
    """Write every table that the plan wants, each whole or not at all.

    Args:
        plan: the benchmark; tables.yaml is taken from beside its Snakefile.
        root: the results folder.

    Returns:
        The files: of each table its CSV, Markdown and LaTeX.

    Raises:
        PlanError: when tables.yaml is wrong or has no such table; nothing is written then.
    """
    made = {
        name: text for name, table in tables(plan, root).items() for text in [texts(name, table)]
    }
    written = []
    for name, formats in made.items():
        for suffix in paths.TABLE_SUFFIXES:
            path = paths.table(root, name, suffix)
            files.write(path, formats[suffix].encode())
            written.append(path)
    return written


def tables(plan: Plan, root: Path) -> dict[str, Table]:
    """Return the plan's tables by name."""
    known = layout.read_tables(plan.repository)
    published = PublishedValues(plan.repository / layout.PUBLISHED)
    results = Results(plan, root)
    return {
        name: build(spec).make(results, known.metrics, published)
        for name, spec in layout.chosen(known, plan.benchmark.tables).items()
    }


def texts(name: str, table: Table) -> dict[str, str]:
    """Return a table in all formats, by suffix."""
    return {"csv": to_csv(name, table), "md": to_markdown(table), "tex": to_latex(name, table)}


def table_params(plan: Plan) -> dict[str, str | int]:
    """Return what tables depend on beyond results, for Snakemake to compare; comments do not count.

    Raises:
        PlanError: as ``make``, so that a wrong tables.yaml is found before any job runs.
    """
    known = layout.read_tables(plan.repository)
    layout.chosen(known, plan.benchmark.tables)
    return {
        "version": VERSION,
        "plan": plan.digest(),
        "note": plan.benchmark.note,
        "tables": known.digest(),
        "published": files.sha256(plan.repository / layout.PUBLISHED),
    }
