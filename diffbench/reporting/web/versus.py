"""The page of a comparison: what differs in how the sides were made, cells with intervals, and what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from diffbench.reporting.compare import EXPLAINED, Compared, Comparison, counted, table
from diffbench.reporting.numbers import plain
from diffbench.reporting.web.page import Effect, scaled
from diffbench.reporting.web.templates import render

#: The column after which the chart of an interval stands.
CHART = 6
ENVIRONMENT = "environment: "


def versus(found: Comparison) -> str:
    """Return the page as HTML."""
    made = table(found)
    grids = list(made.grids)
    cells = grids.pop(0) if found.compared else None
    heads = list(cells.heads) if cells else []
    return render(
        "versus.html",
        ("tables.js", "listing.js"),
        found=found,
        counts=Counter(each.verdict for each in found.cells).most_common(),
        differences=_differences(found),
        table=made,
        names=[*heads[:CHART], "chart", *heads[CHART:]],
        chart=CHART,
        rows=_rows(found.compared, cells.rows if cells else []),
        rest=grids[0] if grids else None,
        explained=EXPLAINED,
    )


def _differences(found: Comparison) -> dict[str, list[str]]:
    """Return what differs in specs, in protocols (of cells that were left out for it) and in the environment."""
    environment = [line for line in found.differences if line.startswith(ENVIRONMENT)]
    unlike = Counter(each.note for each in found.of("not compared") if each.unlike)
    return {
        "Settings and variants": [line for line in found.differences if line not in environment],
        "Protocol": [f"{note} ({counted(count, 'cell')})" for note, count in unlike.most_common()],
        "Environment": [line.removeprefix(ENVIRONMENT) for line in environment],
    }


def _rows(
    cells: Sequence[Compared], rows: Sequence[Sequence[str]]
) -> list[tuple[Sequence[str], Effect | None, str]]:
    """Return each row with its effect on a scale of its own, where it has an interval, and its verdict."""
    return [(row, _effect(cell), cell.verdict) for cell, row in zip(cells, rows, strict=True)]


def _effect(cell: Compared) -> Effect | None:
    if cell.effect is None or cell.low is None or cell.high is None:
        return None
    words = f"{plain(cell.effect)} ({plain(cell.low)} to {plain(cell.high)})"
    return Effect("", "", cell.verdict, words, *scaled((cell.effect, cell.low, cell.high)))
