"""The three files of a table: CSV for programs, Markdown for people, LaTeX for papers.

A table is first made as plain text: grids of strings, notes below.  Markdown and LaTeX differ only
in how that text is formatted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from diffbench.reporting.cells import COLUMNS, DASH, Cell
from diffbench.reporting.layout import MetricSpec
from diffbench.reporting.numbers import decimals, plain, with_error

NOTHING = "–"
NOTE = "note"
AT_FLOOR, BEST = "†", "*"


@dataclass(frozen=True)
class Source:
    """Where a number is from: jobs of ours, each a variant and an item, or a row of what is published or recorded."""

    jobs: Sequence[tuple[str, str]] = ()
    published: Mapping[str, str] = field(default_factory=dict)
    recorded: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Grid:
    """Rows of text under column heads; the first ``labels`` columns are words, the others numbers.

    ``sources``, where there are any, has the variant and the item that each row's numbers are of, and ``cells`` the
    sources of single cells, by row and column from 0.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    labels: int = 1
    caption: str = ""
    sources: Sequence[tuple[str, str]] = ()
    cells: Mapping[tuple[int, int], Source] = field(default_factory=dict)


class CSVRow(Protocol):
    """Anything that is a row of a table's CSV."""

    def line(self, table: str) -> dict[str, str]:
        """Return the row as column -> text."""
        ...


@dataclass(frozen=True)
class Table:
    """A whole table: the records for the CSV, with ``columns`` as its columns, and the grids and notes for people.

    ``remark`` holds for the whole table: it is added to the title and to each row of the CSV.
    """

    title: str
    records: Sequence[CSVRow]
    grids: Sequence[Grid]
    notes: Sequence[str] = ()
    footnotes: Sequence[str] = ()
    columns: Sequence[str] = COLUMNS
    remark: str = ""

    def remarked(self, name: str, remark: str) -> Table:
        """Return the table with a remark on the data set of that name; the table as it is where there is no remark."""
        if not remark:
            return self
        title, notes = f"{self.title} [{name}]", [f"{name}: {remark}.", *self.notes]
        return replace(self, title=title, notes=notes, remark=remark)


@dataclass
class Footnotes:
    """Numbered reasons; a reason has the same number wherever it is used."""

    lines: list[str] = field(default_factory=list)

    def mark(self, reason: str) -> str:
        """Return the mark of a reason, ``" [2]"``; empty without a reason."""
        if not reason:
            return ""
        if reason not in self.lines:
            self.lines.append(reason)
        return f" [{self.lines.index(reason) + 1}]"

    def shown(self, cells: Sequence[tuple[Cell, MetricSpec]]) -> list[str]:
        """Return the text of a row's cells: the number or its status; each reason is marked once."""
        notes = [cell.note for cell, _ in cells]
        first = [note not in notes[:index] for index, note in enumerate(notes)]
        return [
            shown(cell, metric) + (self.mark(cell.note) if new else "")
            for (cell, metric), new in zip(cells, first, strict=True)
        ]


def shown(cell: Cell, metric: MetricSpec) -> str:
    """Return a cell's text, never blank, with a mark where it is at its floor or the best of its column."""
    if cell.mean is not None:
        return (
            f"{number(cell, metric)}{AT_FLOOR if cell.at_floor else ''}{BEST if cell.best else ''}"
        )
    return cell.status if cell.status in ("failed", "stale") else NOTHING


def number(cell: Cell, metric: MetricSpec) -> str:
    """Return a cell's number, with its error where the metric shows it."""
    assert cell.mean is not None
    value, error = cell.mean * metric.scale, cell.se if cell.sd is None else cell.sd
    if not metric.spread:
        return plain(value, metric.digits)
    scaled = None if error is None else error * metric.scale
    return with_error(value, scaled, cell.sd is not None, metric.digits)


def with_interval(cell: Cell, metric: MetricSpec) -> str:
    """Return a cell's mean and 95 % interval over seeds, ``2.31 (2.20 to 2.42)``; with one seed what is shown else."""
    if cell.mean is None or cell.sd is None:
        return shown(cell, metric)
    mean, half = (value * metric.scale for value in (cell.mean, cell.half_width))
    places = decimals(half or mean, 2)
    low, high = (f"{value:z.{places}f}" for value in (mean - half, mean + half))
    return f"{mean:z.{places}f} ({low} to {high}){AT_FLOOR if cell.at_floor else ''}"


def to_csv(name: str, table: Table) -> str:
    """Return the records as CSV: one row a number, a dash for what does not exist."""
    lines = [record.line(name) for record in table.records]
    return csv_of([_remarked(line, table.remark) for line in lines], table.columns)


def _remarked(line: dict[str, str], remark: str) -> dict[str, str]:
    """Return a row of the CSV with a remark added to its note."""
    notes = [each for each in (line.get(NOTE, DASH), remark) if each not in (DASH, "")]
    return line | ({NOTE: "; ".join(notes)} if remark else {})


def csv_of(lines: Sequence[Mapping[str, str]], columns: Sequence[str]) -> str:
    """Return rows of text as CSV."""
    import pandas as pd

    return str(pd.DataFrame(lines, columns=list(columns)).to_csv(index=False))


def to_markdown(table: Table) -> str:
    """Return the table as Markdown, readable as plain text too."""
    parts = [f"# {table.title}"]
    for grid in table.grids:
        parts += [f"## {grid.caption}"] if grid.caption else []
        parts.append(pipes(grid))
    parts.append("\n".join(f"- {note}" for note in table.notes))
    parts.append("\n".join(f"- [{i}] {line}" for i, line in enumerate(table.footnotes, 1)))
    return "\n\n".join(part for part in parts if part) + "\n"


def pipes(grid: Grid) -> str:
    """Return a grid as a Markdown table."""
    from tabulate import tabulate

    rows = [[_piped(text) for text in row] for row in grid.rows]
    return tabulate(
        rows,
        headers=[_piped(head) for head in grid.heads],
        tablefmt="pipe",
        colalign=_alignment(grid, "left", "right"),
        disable_numparse=True,
    )


def _piped(text: str) -> str:
    return text.replace("|", "\\|")


def _alignment(grid: Grid, word: str, figure: str) -> list[str]:
    return [word] * grid.labels + [figure] * (len(grid.heads) - grid.labels)


_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\ensuremath{<}",
    ">": r"\ensuremath{>}",
    "|": r"\ensuremath{|}",
    "[": "{[}",
    "]": "{]}",
    "±": r"\ensuremath{\pm}",
    "≤": r"\ensuremath{\le}",
    "×": r"\ensuremath{\times}",
    "–": "--",
    "†": r"\ensuremath{\dagger}",
    **{each: f"\\{each}" for each in "&%$#_{}"},
}
_ESCAPED = re.compile("|".join(map(re.escape, _ESCAPES)))


def escaped(text: str) -> str:
    """Return text escaped for LaTeX; brackets are braced, since after the end of a row they would be arguments."""
    return _ESCAPED.sub(lambda match: _ESCAPES[match[0]], text)


def to_latex(name: str, table: Table) -> str:
    """Return a LaTeX table; it needs the package booktabs."""
    captioned = [rf"\caption{{{escaped(table.title)}}}", rf"\label{{tab:{name}}}"]
    footnotes = [f"[{i}] {line}" for i, line in enumerate(table.footnotes, 1)]
    notes = [rf"{escaped(line)}\par" for line in [*table.notes, *footnotes]]
    small = [r"\begin{minipage}{\linewidth}\footnotesize", *notes, r"\end{minipage}"]
    lines = [
        r"% \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        *captioned,
        r"\footnotesize\setlength{\tabcolsep}{3pt}",
        *_joined(_tabular, table.grids),
        *(small if notes else []),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _joined(make: Callable[[Grid], list[str]], grids: Iterable[Grid]) -> list[str]:
    return [line for grid in grids for line in make(grid)]


def _tabular(grid: Grid) -> list[str]:
    columns = "".join(_alignment(grid, "l", "r"))
    return [
        *([rf"\par\medskip {escaped(grid.caption)}\par"] if grid.caption else []),
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        _latex_row(grid.heads),
        r"\midrule",
        *map(_latex_row, grid.rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\par\medskip",
    ]


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(escaped(cell) for cell in cells) + r" \\"
