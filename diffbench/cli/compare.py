"""Commands that compare results with the papers' numbers and settings, and with other runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from diffbench.cli.command import CONFIG, SET, WRITE, argument, command, deliver, load, repository
from diffbench.specs.errors import PlanError

if TYPE_CHECKING:
    from diffbench.reporting.compare import Comparison


@command("compare", "coverage --write docs/coverage.md", WRITE)
def coverage(options: argparse.Namespace) -> int:
    """Say which published number which cell fills, or why none does."""
    from diffbench.reporting.coverage import coverage
    from diffbench.reporting.formats import to_markdown

    return deliver(to_markdown(coverage(repository())), options.write)


@command("compare", "settings --write docs/settings.md", WRITE)
def settings(options: argparse.Namespace) -> int:
    """Show the papers' settings beside those of their benchmarks."""
    from diffbench.reporting.formats import to_markdown
    from diffbench.reporting.settings import settings

    return deliver(to_markdown(settings(repository())), options.write)


@command(
    "compare",
    "compare results/before results/after --metric fid_test",
    argument("a", metavar="A", help="a results folder or an export (CSV, Parquet); or a variant"),
    argument("b", metavar="B", help="what is compared with A, of the same kind"),
    argument(
        "--metric",
        action="append",
        default=[],
        help="a metric to compare (default: all but times); may be given several times",
    ),
    argument(
        "--fail-if-worse",
        action="store_true",
        help="status 1 when a cell of B is worse than that of A, 2 when a cell could not be tested",
    ),
    argument("--write", type=Path, metavar="FILE", help="also write the cells to this CSV file"),
    argument("--page", type=Path, metavar="FILE", help="also write a page, HTML, to this file"),
    CONFIG,
    SET,
)
def compare(options: argparse.Namespace) -> int:
    """Compare two results, or two variants of one benchmark, cell by cell."""
    from diffbench.reporting import compare
    from diffbench.reporting.formats import to_csv, to_markdown
    from diffbench.store import files

    found = _of_exports(options) if _are_paths(options) else _of_variants(options)
    if options.metric and not found.cells:
        raise PlanError(f"neither side has the metric {' or '.join(options.metric)}")
    table = compare.table(found)
    print(to_markdown(table), end="")
    if options.write:
        files.write(options.write, to_csv("compare", table).encode())
    if options.page:
        from diffbench.reporting.web.versus import versus

        files.write(options.page, versus(found).encode())
    return found.status if options.fail_if_worse else 0


def _are_paths(options: argparse.Namespace) -> bool:
    """Return whether the sides are results; variants otherwise."""
    exist = [Path(each).exists() for each in (options.a, options.b)]
    if any(exist) and not all(exist):
        lacking = (options.a, options.b)[exist.index(False)]
        raise PlanError(f"{lacking}: there is no such results folder or export")
    return all(exist)


def _of_exports(options: argparse.Namespace) -> Comparison:
    from diffbench.reporting import compare, exports

    a, b = (exports.read(Path(each)) for each in (options.a, options.b))
    known = {**b.about["metrics"], **a.about["metrics"]}
    return compare.compare(
        a.frame,
        b.frame,
        {name: each["better"] for name, each in known.items()},
        names=(options.a, options.b),
        metrics=options.metric,
        differences=compare.about_differences(a.about, b.about),
    )


def _of_variants(options: argparse.Namespace) -> Comparison:
    from diffbench.plan.reading import nearest
    from diffbench.reporting import compare, exports, layout
    from diffbench.reporting.records import Records

    plan = load(options, needs_files=False)
    for name in (options.a, options.b):
        if name not in plan.variants:
            hint = nearest(name, plan.variants)
            raise PlanError(f"{name}: no such file, and no variant of {plan.config}{hint}")
    metrics = layout.of_plan(plan).metrics
    export = exports.of(Records(plan, plan.root), metrics)
    frame, specs = export.frame, export.about["variants"]
    return compare.compare(
        frame[frame["variant"] == options.a],
        frame[frame["variant"] == options.b],
        {name: each.better for name, each in metrics.items()},
        names=(options.a, options.b),
        metrics=options.metric,
        by_variant=False,
        differences=compare.spec_differences(specs[options.a], specs[options.b]),
    )


@command(
    "compare",
    "export --config config/digits.yaml --write digits.csv",
    argument(
        "--write",
        type=Path,
        metavar="FILE",
        help="the file, .csv or .parquet (default: tables/records.csv of the results)",
    ),
    argument(
        "--schema", action="store_true", help="print the JSON schema of a row, and write nothing"
    ),
    argument(
        "--origin",
        default="",
        metavar="TEXT",
        help="who made the results: a site of several people's exports (publish) shows it",
    ),
    CONFIG,
    SET,
)
def export(options: argparse.Namespace) -> int:
    """Write all numbers of a benchmark as one long table, with a JSON file that describes it."""
    from diffbench.reporting import exports, layout
    from diffbench.reporting.records import Records
    from diffbench.store import files, paths

    if options.schema:
        print(files.json_bytes(exports.schema()).decode(), end="")
        return 0
    plan = load(options, needs_files=False)
    path = options.write or paths.table(plan.root, exports.NAME, "csv")
    metrics = layout.of_plan(plan).metrics
    for each in exports.write(Records(plan, plan.root), metrics, path, options.origin):
        print(each)
    return 0


@command(
    "look after",
    "check results/digits",
    argument("results", type=Path, help="a results folder, or an export (records.csv)"),
)
def check(options: argparse.Namespace) -> int:
    """Say which numbers of a benchmark someone should look at before they believe them.

    Status 1 when a job failed.
    """
    from diffbench.reporting import exports, quality
    from diffbench.reporting.formats import pipes

    export = exports.read(options.results)
    found = quality.concerns(export)
    if found:
        print(pipes(quality.grid(found)))
    count = {
        name: sum(each.severity == name for each in found) for name in ("error", "warning", "note")
    }
    said = ", ".join(
        f"{number} {name}{'' if number == 1 else 's'}" for name, number in count.items()
    )
    print(f"{options.results}: {len(export.frame)} numbers, {said}")
    return int(count["error"] > 0)


@command("compare", "manifest results/digits", argument("root", type=Path))
def manifest(options: argparse.Namespace) -> int:
    """Print the SHA-256 of every product."""
    from diffbench.store.manifest import manifest

    if not options.root.is_dir():
        raise ValueError(f"{options.root}: there is no such results folder")
    for path, digest in manifest(options.root).items():
        print(f"{digest}  {path}")
    return 0
