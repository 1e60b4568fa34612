"""Which row of a column is the best: decided in one place, so that all tables rank alike.

A metric is ranked where ``config/tables.yaml`` says which of its values are better, and does not turn ranking off.
Only models that were trained or imported are ranked: controls and exact denoisers know the data.  A cell at its
floor (``cells``) is never ranked, nor is one with missing seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from diffbench.plan.jobs import Plan
from diffbench.reporting.cells import Record
from diffbench.reporting.layout import MetricSpec

R = TypeVar("R")
#: Rows by key, each a mapping of column -> record.
Rows = Mapping[R, Mapping[str, Record]]


def ranked(
    plan: Plan, rows: Rows[R], columns: Mapping[str, MetricSpec]
) -> dict[R, dict[str, Record]]:
    """Return rows with the best cell marked in each column whose metric is ranked.

    Args:
        plan: the benchmark.
        rows: the table's rows.
        columns: the metric of each column.
    """
    marked = {key: dict(row) for key, row in rows.items()}
    for column, metric in columns.items():
        able = {key: row[column] for key, row in marked.items() if _competes(plan, row.get(column))}
        if metric.ranks and metric.better and len(able) > 1:
            first = min(able, key=lambda key: metric.sign * (able[key].cell.mean or 0.0))
            winner = able[first]
            marked[first][column] = replace(winner, cell=replace(winner.cell, best=True))
    return marked


def _competes(plan: Plan, record: Record | None) -> bool:
    if record is None or record.cell.status != "ok" or record.cell.at_floor:
        return False
    return record.variant in plan.variants and plan.variants[record.variant].trained
