"""Commands that compare results with the papers' numbers and settings, and with other runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from diffbench.cli.command import WRITE, argument, command, repository

if TYPE_CHECKING:
    from diffbench.reporting.formats import Table


@command("compare", "coverage --write docs/coverage.md", WRITE)
def coverage(options: argparse.Namespace) -> int:
    """Say which published number which cell fills, or why none does."""
    from diffbench.reporting.coverage import coverage

    return _page(coverage(repository()), options.write)


@command("compare", "settings --write docs/settings.md", WRITE)
def settings(options: argparse.Namespace) -> int:
    """Show the papers' settings beside those of their benchmarks."""
    from diffbench.reporting.settings import settings

    return _page(settings(repository()), options.write)


def _page(table: Table, path: Path | None) -> int:
    from diffbench.reporting.formats import to_markdown
    from diffbench.store import files

    text = to_markdown(table)
    if path:
        files.write(path, text.encode())
    else:
        print(text, end="")
    return 0


@command("compare", "manifest results/digits", argument("root", type=Path))
def manifest(options: argparse.Namespace) -> int:
    """Print the SHA-256 of every product."""
    from diffbench.store.manifest import manifest

    if not options.root.is_dir():
        raise ValueError(f"{options.root}: there is no such results folder")
    for path, digest in manifest(options.root).items():
        print(f"{digest}  {path}")
    return 0
