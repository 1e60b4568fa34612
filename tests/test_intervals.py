"""Means over seeds with their intervals: the numbers are scipy's, and the table says which run they are of."""

import statistics

from layouts import FIDS, configured, fill, grid_row, rows_of
from scipy import stats

from diffbench.reporting.cells import Cell
from diffbench.reporting.formats import with_interval
from diffbench.reporting.layout import MetricSpec
from diffbench.reporting.tables import make
from diffbench.store import paths

TABLE = {"layout": "intervals", "title": "Sure", "columns": ["fid"]}


def test_a_mean_stands_with_students_interval_over_seeds():
    values = [2.0, 3.0, 4.5]
    sd = statistics.stdev(values)
    low, high = stats.t.interval(0.95, 2, statistics.fmean(values), sd / 3**0.5)
    cell = Cell("ok", mean=statistics.fmean(values), sd=sd, se=sd / 3**0.5, seeds=3)
    # Two digits of the half width, 3.1.
    assert with_interval(cell, MetricSpec(head="FID")) == f"3.2 ({low:.1f} to {high:.1f})"
    assert with_interval(Cell("failed", "why"), MetricSpec(head="FID")) == "failed"
    one = Cell("ok", mean=2.0, se=0.1, seeds=1)
    assert with_interval(one, MetricSpec(head="FID", spread=True)) == "2.00 (0.10)"


def test_what_has_three_seeds_is_a_row_with_its_run(tmp_path):
    plan = configured(tmp_path, {"sure": TABLE})
    fill(plan, tmp_path)
    make(plan, tmp_path)
    text = paths.table(tmp_path, "sure", "md").read_text()
    cells = grid_row(text, "edm")
    values = FIDS["heun-3"]
    low, high = stats.t.interval(0.95, 2, statistics.fmean(values), stats.sem(values))
    assert cells == ["edm", "heun-3", "3", "10", f"{3.2:.1f} ({low:.1f} to {high:.1f})"]
    assert "Run: tiny, commit unknown." in text
    assert "4 steps of 16 images" in text
    rows = rows_of(paths.table(tmp_path, "sure", "csv"))
    assert {row["seeds"] for row in rows} == {"3"} and len(rows) > 3
    # Each row opens where its numbers are from.
    assert 'data-jobs="' in paths.page(tmp_path).read_text().partition("table-sure")[2]


def test_fewer_seeds_are_no_row(tmp_path):
    plan = configured(tmp_path, {"sure": TABLE}, seeds=[0, 1])
    fill(plan, tmp_path)
    make(plan, tmp_path)
    assert rows_of(paths.table(tmp_path, "sure", "csv")) == []
