"""Commands that hand results on: a site of several benchmarks, and what to cite."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from diffbench.cli.command import SET, WRITE, argument, command, deliver, load, repository

if TYPE_CHECKING:
    from diffbench.reporting.citations import Used


@command(
    "compare",
    "publish results/digits results/patches theirs.csv --output site",
    argument(
        "sources",
        type=Path,
        nargs="+",
        metavar="FOLDER",
        help="a results folder, which is yours; or another's export (CSV or Parquet, its JSON file beside it)",
    ),
    argument(
        "--output",
        type=Path,
        required=True,
        metavar="SITE",
        help="the site's folder; what an earlier publish wrote there is replaced, other files stay",
    ),
)
def publish(options: argparse.Namespace) -> int:
    """Make a site of benchmarks: an overview and a page of each, to be served anywhere."""
    from diffbench.reporting import publishing

    for address in publishing.publish(options.sources, options.output):
        print(options.output / address)
    return 0


@command(
    "compare",
    "cite results/digits --table overview",
    argument(
        "file",
        type=Path,
        nargs="?",
        metavar="SOURCE",
        help="a benchmark file, a results folder or an export (default: config/digits.yaml)",
    ),
    argument(
        "--table", metavar="NAME", help="only what this table of the benchmark or the results uses"
    ),
    argument(
        "--variant",
        action="append",
        default=[],
        help="only what this variant uses; may be given several times",
    ),
    WRITE,
    SET,
)
def cite(options: argparse.Namespace) -> int:
    """Print the BibTeX of what a benchmark, its results or a table of them build on."""
    from diffbench.reporting import citations

    source: Path | None = options.file
    of_results = source is not None and (source.is_dir() or source.suffix in (".csv", ".parquet"))
    used = (_of_results if of_results else _of_plan)(options).of_variants(
        options.variant, source or "config/digits.yaml"
    )
    return deliver(citations.bibtex(used, repository()), options.write)


def _of_results(options: argparse.Namespace) -> Used:
    from diffbench.reporting import citations, exports

    rows = citations.rows_of(options.file, options.table)
    used = citations.of_export(exports.read(options.file), rows)
    return used.of_table(rows) if options.table else used


def _of_plan(options: argparse.Namespace) -> Used:
    from diffbench.reporting import citations, tables

    plan = load(options, needs_files=False)
    used = citations.of_plan(plan)
    if not options.table:
        return used
    made = tables.tables(plan, plan.root)
    return used.of_table(citations.rows_in(options.table, made, plan.config))
