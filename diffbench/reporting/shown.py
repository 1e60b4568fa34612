"""How `snakemake --report` shows what is made of all results: under which category, with which caption and labels.

The captions are in ``workflow/report``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from diffbench.reporting.layout import CLAIMS_TABLE, EXPORT
from diffbench.store import paths


@dataclass(frozen=True)
class Shown:
    """How a file is shown: the name of its caption's file, the words of its category, and its labels."""

    caption: str
    category: str
    labels: Mapping[str, str]


#: What is neither a figure nor a table of the benchmark's own, by its name.
CATEGORIES = {
    CLAIMS_TABLE: ("claims", "Claims"),
    EXPORT: ("numbers", "All numbers"),
    paths.page(Path()).stem: ("page", "The page"),
}


def shown_as(path: Path) -> Shown:
    """Return how a table, a figure, the claims, the export or the page is shown; ``path`` is one of their files."""
    figure = path.parent.name == paths.figure(Path(), "any", "png").parent.name
    usual = ("figure", "Figures") if figure else ("table", "Tables")
    caption, category = usual if figure else CATEGORIES.get(path.stem, usual)
    return Shown(caption, category, {"name": path.stem, "format": path.suffix[1:]})
