"""Floors in tables: which cells are at theirs, which one of a column is the best, and what is said of it."""

import fast_yaml
import pytest
from layouts import FIDS, REPOSITORY, configured, fill, grid_row, rows_of
from test_reporting import plan_of

from diffbench.reporting import layout
from diffbench.reporting.cells import Cell
from diffbench.reporting.formats import shown
from diffbench.reporting.layout import MetricSpec
from diffbench.reporting.tables import make
from diffbench.store import paths

COLUMNS = {"FID": "fid", "FID test": "fid_test"}
TABLE = {
    "layout": "comparison",
    "title": "Ranked",
    "columns": COLUMNS,
    "rows": [
        {"row": row, "variant": variant, "item": item}
        for row, variant, item in (
            ("ancestral", "ddpm-cosine", "ancestral-10"),
            ("ddim", "ddpm-cosine", "ddim-5"),
            ("heun", "edm", "heun-3"),
            ("control", "control-test", "draw"),
        )
    ],
}


def table(tmp_path, values, floor):
    plan = configured(tmp_path, {"ranked": TABLE}, seeds=[0])
    fill(plan, tmp_path, fids={name: [value] for name, value in values.items()}, floor=floor)
    make(plan, tmp_path)
    rows = rows_of(paths.table(tmp_path, "ranked", "csv"))
    return rows, paths.table(tmp_path, "ranked", "md").read_text()


@pytest.mark.parametrize(
    ("cell", "at_floor"),
    [
        # One seed: 1.96 standard errors.
        (Cell("ok", mean=2.0, se=0.5, seeds=1, floor=1.01), False),
        (Cell("ok", mean=2.0, se=0.5, seeds=1, floor=1.03), True),
        # Three seeds: 4.303 sd/sqrt(3).
        (Cell("ok", mean=2.0, sd=0.4, se=0.23, seeds=3, floor=1.0), False),
        (Cell("ok", mean=2.0, sd=0.4, se=0.23, seeds=3, floor=1.02), True),
        (Cell("ok", mean=2.0, se=None, seeds=1, floor=1.9), False),
        (Cell("ok", mean=2.0, se=None, seeds=1, floor=2.1), True),
        (Cell("ok", mean=2.0, se=5.0, seeds=1), False),
        (Cell("missing"), False),
    ],
)
def test_a_cell_is_at_its_floor_when_its_interval_reaches_under_it(cell, at_floor):
    """The quantiles are a printed table's."""
    assert cell.at_floor is at_floor
    assert shown(cell, MetricSpec(head="FID")).endswith("†") is at_floor


VALUES = {"ancestral-10": 3.0, "ddim-5": 4.0, "heun-3": 1.1, "draw": 2.0}


def test_what_is_at_the_floor_is_marked_and_never_ranked_nor_is_a_control(tmp_path):
    rows, text = table(tmp_path, VALUES, floor=1.0)
    found = {(row["row"], row["metric"]): (row["floor"], row["at_floor"]) for row in rows}
    assert found["heun", "fid_test"] == found["heun", "fid"] == ("1", "yes")
    assert found["ddim", "fid_test"] == ("1", "no")
    assert grid_row(text, "heun")[2:] == ["1.10 (0.10)†", "1.10 (0.10)†"]
    # FID to the training split ranks nothing.
    assert grid_row(text, "ancestral")[2:] == ["3.00 (0.10)", "3.00 (0.10)*"]
    assert grid_row(text, "control")[2:] == ["2.00 (0.10)", "2.00 (0.10)"]
    assert "FID 1.00 (N = 64, several redraws), FID test 1.00 (N = 64, several redraws)" in text
    assert "- † at the floor" in text and "- * the best of its column" in text


def test_above_the_floor_the_best_is_ranked(tmp_path):
    rows, text = table(tmp_path, VALUES, floor=0.5)
    assert {row["at_floor"] for row in rows} == {"no"}
    assert grid_row(text, "heun")[2:] == ["1.10 (0.10)", "1.10 (0.10)*"]
    assert "†" not in text


def test_without_floors_nothing_is_said_of_them(tmp_path):
    plan = configured(tmp_path, {"ranked": TABLE})
    fill(plan, tmp_path, fids=FIDS)
    make(plan, tmp_path)
    assert {row["floor"] for row in rows_of(paths.table(tmp_path, "ranked", "csv"))} == {"-"}
    text = paths.table(tmp_path, "ranked", "md").read_text()
    assert "Floors" not in text and "†" not in text


def test_latex_sets_the_mark(tmp_path):
    table(tmp_path, VALUES, floor=1.0)
    assert r"1.10 (0.10)\ensuremath{\dagger}" in paths.table(tmp_path, "ranked", "tex").read_text()


def test_the_shipped_tables_rank_by_fid_to_the_test_split():
    known = layout.read_tables(REPOSITORY)
    fids = {name: known.metrics[name] for name in ("fid", "fid_test", "clean_fid", "kid")}
    assert {each.better for each in fids.values()} == {"lower"}
    assert [name for name, each in fids.items() if each.ranks] == ["fid_test"]


def test_floors_are_a_key_of_a_benchmark_and_part_of_its_scores_alone():
    usual, fewer = plan_of(), plan_of(floors={"redraws": 5})
    for one, other in zip(usual.jobs, fewer.jobs, strict=True):
        assert (one.spec != other.spec) is (one.stage == "score")
    assert fewer.job("score", "edm").spec.floors.redraws == 5
    assert fast_yaml.load(fewer.job("score", "edm").spec.canonical())["floors"] == {
        "redraws": 5,
        "seed": 0,
    }
