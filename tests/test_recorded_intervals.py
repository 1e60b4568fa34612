"""The table of recorded means over seeds, against the lines of the record itself."""

import csv
from pathlib import Path

import pytest
from scipy import stats

from diffbench.plan.loading import load_plan
from diffbench.reporting import layout
from diffbench.reporting.recorded_intervals import RecordedIntervals
from diffbench.reporting.records import Records

REPOSITORY = Path(__file__).parents[1]
RUN = "digits-churn"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """No results of the digits: the table needs none."""
    plan = load_plan([], {}, REPOSITORY)
    return Records(plan, tmp_path_factory.mktemp("empty"))


def made(results, **keys):
    known = layout.read_tables(REPOSITORY).metrics
    spec = layout.RecordedSpec(title="Means", columns=["fid_test"], **keys)
    return RecordedIntervals(spec).make(results, known, None)


def test_rows_are_those_that_the_benchmark_has_with_their_interval(results):
    table = made(results, runs=[RUN])
    with (REPOSITORY / layout.RECORDS / RUN / "cells.csv").open() as file:
        lines = {
            (line["variant"], line["item"]): line
            for line in csv.DictReader(file)
            if line["metric"] == "fid_test" and line["stage"] == "sample"
        }
    planned = {(job.variant, job.item) for job in results.plan.of("sample")}
    expected = [
        named for named, line in lines.items() if named in planned and int(line["seeds"]) >= 3
    ]
    rows = table.grids[0].rows
    assert [tuple(row[:2]) for row in rows] == expected
    assert ("vp", "heun-18") in expected
    for variant, item, run, seeds, shown in rows:
        line = lines[variant, item]
        assert (run, seeds) == (RUN, line["seeds"])
        mean, sd, n = float(line["mean"]), float(line["sd"]), int(seeds)
        half = stats.t.ppf(0.975, n - 1) * sd / n**0.5
        numbers = shown.rstrip("†").replace("(", "").replace(")", "").replace("to", "").split()
        # Shown with at least one decimal.
        assert [float(each) for each in numbers] == pytest.approx(
            [mean, mean - half, mean + half], abs=0.05
        )
    # A number opens its row of the record.
    for i, (variant, item, *_) in enumerate(rows):
        source = table.grids[0].cells[i, 4].recorded
        assert source["file"] == f"{layout.RECORDS}/{RUN}/cells.csv"
        line = {key: value for key, value in lines[variant, item].items() if value != "-"}
        assert {**source, **line} == source
        assert source["spec"]
        assert source["commit"]
    assert any(f"{RUN} (" in note and "1500 steps" in note for note in table.notes)
    assert [record.variant for record in table.records] == [variant for variant, _ in expected]


def test_a_run_without_a_record_is_named(results):
    table = made(results, runs=["no-such-run"])
    assert table.grids[0].rows == []
    assert "no-such-run: nothing is recorded in docs/records/no-such-run." in table.notes


def test_more_seeds_than_there_are_leave_no_row(results):
    assert made(results, runs=[RUN], seeds=6).grids[0].rows == []
