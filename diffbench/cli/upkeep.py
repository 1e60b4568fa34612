"""Commands that maintain results and documents."""

from __future__ import annotations

import argparse
from pathlib import Path

from diffbench.cli.command import CONFIG, FILE, SET, argument, command, load, repository


@command(
    "look after",
    "doctor --config config/digits.yaml",
    argument("--fix", action="store_true", help="remove stale, corrupt and torn files"),
    CONFIG,
    SET,
)
def doctor(options: argparse.Namespace) -> int:
    """Verify every file of the results: products, states, records and tables.

    Status 1 when something is wrong and stays so.
    """
    from diffbench.plan.findings import examine, strays

    plan = load(options, needs_files=False)
    found = list(examine(plan))
    wrong = [finding for finding in found if finding.wrong]
    for finding in wrong:
        print(finding.line())
        if options.fix:
            finding.mend()
    if plan.benchmark.only:
        options.set.append({"only": []})
    for finding in strays(load(options, needs_files=False) if plan.benchmark.only else plan):
        print(finding.line())
    every = {path for job in plan.jobs for path in job.products}
    whole = every - {finding.path for finding in found}
    missing = sum(not finding.wrong for finding in found)
    action = "removed: run snakemake to make them again" if options.fix else "wrong"
    print(f"{plan.root}: {len(whole)} products whole, {missing} missing, {len(wrong)} {action}")
    return int(bool(wrong) and not options.fix)


@command(
    "look after",
    "merge other/results/digits --config config/digits.yaml",
    argument(
        "folders",
        type=Path,
        nargs="*",
        metavar="FOLDER",
        help="results of the same benchmark, made elsewhere; none to use those that were copied into results/",
    ),
    CONFIG,
    SET,
)
def merge(options: argparse.Namespace) -> int:
    """Gather results of several machines or people, and let copied results count.

    Status 1 when two folders have other bytes of one product; nothing is written then.
    """
    from diffbench.plan.merging import merge

    plan = load(options, needs_files=False)
    found = merge(plan, options.folders)
    for line in found.left_out:
        print(f"left out: {line}")
    print(
        f"{plan.root}: {found.copied} jobs copied, {found.present} were there, {found.missing} missing: "
        "run snakemake for these and for the tables"
    )
    return 0


@command(
    "look after",
    "clean --dry-run --config config/digits.yaml",
    argument(
        "--dry-run", action="store_true", help="print what would be removed, and remove nothing"
    ),
    argument(
        "--strays",
        action="store_true",
        help="remove products of jobs that the benchmark no longer has, too",
    ),
    CONFIG,
    SET,
)
def clean(options: argparse.Namespace) -> int:
    """Remove training states that no variant needs, and unfinished files."""
    from diffbench.plan.findings import are_of_jobs, strays, unneeded
    from diffbench.store import files

    options.set.append({"only": []})
    plan = load(options, needs_files=False)
    gone = [each.path for each in strays(plan) if are_of_jobs(each, plan.root)]
    for path in [*unneeded(plan), *(gone if options.strays else [])]:
        print(path)
        if not options.dry_run:
            files.remove(path)
    return 0


@command("look after", "record config/digits-full.yaml", FILE, SET)
def record(options: argparse.Namespace) -> int:
    """Keep a finished benchmark's numbers in docs/records, for the docs."""
    from diffbench.reporting import recorded

    plan = load(options, needs_files=False)
    for path in recorded.write(plan, plan.root, repository()):
        print(path)
    return 0


@command(
    "look after",
    "pages --write",
    argument("--write", action="store_true", help="write the pages from docs/templates"),
)
def pages(options: argparse.Namespace) -> int:
    """Check that README and docs say what docs/records has.

    Status 1 when one is not what its template makes, unless it is written.
    """
    from diffbench.reporting.pages import pages
    from diffbench.store import files

    wrong = []
    for page, text in pages(repository()).items():
        path = repository() / page
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        wrong.append(page)
        if options.write:
            files.write(path, text.encode())
    for page in wrong:
        print(f"{page}: {'written' if options.write else 'is not what its template makes'}")
    return int(bool(wrong) and not options.write)


@command(
    "look after",
    "migrate my.yaml",
    argument("files", type=Path, nargs="+", metavar="FILE"),
)
def migrate(options: argparse.Namespace) -> int:
    """Rewrite files of tables and claims from earlier spellings, and say what was changed."""
    from diffbench.reporting.migrate import migrate

    for file in options.files:
        made = migrate(file, repository())
        changes = ", ".join(f"{what} ({count})" for what, count in made.items())
        print(f"{file}: {changes or 'nothing to change'}")
    return 0
