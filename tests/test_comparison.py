"""Comparisons: the right number in each column, and what is said where there is none."""

from dataclasses import replace

import pytest
from layouts import configured, fill, grid_row, rows_of
from test_plan import COUNTING
from test_reporting import fail, plan_of, record, remove

from diffbench.plan.jobs import Refusal
from diffbench.reporting.cells import COLUMNS
from diffbench.reporting.tables import make
from diffbench.specs.errors import PlanError
from diffbench.store import paths
from diffbench.store.products import remove_product, write_json_product


def table(**changes):
    rows = [
        {
            "row": "discrete",
            "variant": "ddpm-cosine",
            "cells": {"FID 10": "ancestral-10", "FID 5": "ddim-5", "bits": "vlb-small"},
        },
        {"row": "continuous", "variant": "edm", "item": "heun-3", "note": "another process"},
        {"row": "absent", "variant": "vp", "item": "heun-3"},
        {
            "row": "mixed",
            "variant": "ddpm-cosine",
            "item": "ancestral-10",
            "cells": {"FID 5": "ddim-7"},
        },
    ]
    columns = {"FID 10": "fid", "FID 5": "fid", "bits": "bits_per_dim"}
    spec = {"layout": "comparison", "title": "Side by side", "columns": columns, "rows": rows}
    return {"side": spec | changes}


@pytest.fixture
def plan(tmp_path):
    return configured(tmp_path, table())


def written(plan, root):
    make(plan, root)
    found = rows_of(paths.table(root, "side", "csv"))
    return found, paths.table(root, "side", "md").read_text()


def of(found, row, solver, metric="fid"):
    rows = [
        each
        for each in found
        if (each["row"], each["solver"], each["metric"]) == (row, solver, metric)
    ]
    return rows[0]


def test_each_column_has_its_own_solver(plan, tmp_path):
    fill(plan, tmp_path)
    found, text = written(plan, tmp_path)
    assert list(found[0]) == list(COLUMNS)
    ancestral = of(found, "discrete", "ancestral-10")
    assert (ancestral["ours_mean"], ancestral["ours_sd"], ancestral["seeds"]) == ("3", "1", "3")
    ddim = of(found, "discrete", "ddim-5")
    assert float(ddim["ours_mean"]) == pytest.approx(39.5 / 3, abs=1e-4)
    assert float(ddim["ours_sd"]) == pytest.approx((13 / 12) ** 0.5, abs=1e-5)
    bits = of(found, "discrete", "vlb-small", "bits_per_dim")
    assert (bits["ours_mean"], bits["ours_sd"]) == ("2.5", "0.5")
    assert bits["protocol"] == "levels 17, split test, precision fp32"
    shown = ["discrete", "ddpm-cosine", "3.0 ± 1.0", "13.2 ± 1.0", "2.5 ± 0.5"]
    assert grid_row(text, "discrete") == shown
    assert text.startswith("# Side by side: tiny\n")


def test_the_item_of_a_row_serves_its_score_columns_alone(plan, tmp_path):
    fill(plan, tmp_path)
    found, text = written(plan, tmp_path)
    assert [each["metric"] for each in found if each["row"] == "continuous"] == ["fid", "fid"]
    assert grid_row(text, "continuous")[2:] == ["3 ± 2", "3 ± 2", "–"]
    assert "continuous: another process." in text


def test_a_cell_is_its_row_under_its_column_under_its_own_keys(tmp_path):
    columns = {"few": {"metric": "fid", "item": "ddim-5"}, "fid": {}, "bits": "bits_per_dim"}
    rows = [
        {"row": "own", "item": "ddim-5", "cells": {"few": {"item": "ancestral-10"}}},
        {"row": "shared", "cells": {"bits": {"item": "vlb-small"}}},
    ]
    each = {"variant": "ddpm-cosine", "item": ["ddim-7", "ancestral-10"]}
    plan = configured(tmp_path, table(columns=columns, rows=rows, each=each))
    fill(plan, tmp_path)
    found, text = written(plan, tmp_path)
    assert [(row["row"], row["solver"], row["metric"]) for row in found] == [
        ("own", "ancestral-10", "fid"),
        ("own", "ddim-5", "fid"),
        ("shared", "ddim-5", "fid"),
        ("shared", "ancestral-10", "fid"),
        ("shared", "vlb-small", "bits_per_dim"),
    ]
    assert grid_row(text, "own")[1] == "ddpm-cosine" and grid_row(text, "own")[4] == "–"


def test_what_the_benchmark_lacks_is_a_dash_with_a_note(plan, tmp_path):
    fill(plan, tmp_path)
    found, text = written(plan, tmp_path)
    absent = of(found, "absent", "heun-3")
    assert (absent["status"], absent["ours_mean"]) == ("missing", "-")
    assert absent["note"] == "this benchmark has no such variant"
    assert of(found, "mixed", "ddim-7")["note"] == "this benchmark has no such ddim-7"
    assert of(found, "mixed", "ancestral-10")["status"] == "ok"
    assert grid_row(text, "absent") == ["absent", "vp", "– [1]", "–", "–"]
    assert grid_row(text, "mixed")[2:] == ["3.0 ± 1.0", "– [2]", "–"]


@pytest.fixture
def analysed(tmp_path):
    """A variant with an analysis that has metrics, whose id a solver and a likelihood have too."""
    cell = {"FID": "vlb-small", "bits": "vlb-small", "closed form": "vlb-small"}
    rows = [
        {"row": "all", "variant": "ddpm-cosine", "cells": cell},
        {"row": "analysis", "variant": "ddpm-cosine", "item": "vlb-small"},
    ]
    columns = {"FID": "fid", "bits": "bits_per_dim", "closed form": "simplex_exact_nats"}
    mine = {
        "solvers": {"vlb-small": {"name": "ddim", "steps": 5}},
        "analyses": {"vlb-small": {"name": "gradient-noise", "draws": 2}},
        "denoiser": {"variance": "learned"},
        "objective": {"name": "hybrid"},
    }
    spec = table(rows=rows, columns=columns)
    return configured(tmp_path, spec, overrides={"ddpm-cosine": mine}, variants=["ddpm-cosine"])


def write_analyses(plan, root, **content):
    for run in plan.of("analysis"):
        path = paths.product(root, run.spec)
        metrics = {"simplex_exact_nats": {"value": -1.5 - run.seed, "se": 0.25}}
        write_json_product(path, {"metrics": metrics} | content, run.spec)
        record(path)


def test_an_item_is_found_in_the_stage_that_has_the_metric(analysed, tmp_path):
    fill(analysed, tmp_path)
    write_analyses(analysed, tmp_path, nfe=[1, 2], images=3)
    found, text = written(analysed, tmp_path)
    assert grid_row(text, "all")[2:] == ["1.0 ± 1.0", "2.5 ± 0.5", "-2.5 ± 1.0"]
    record = of(found, "all", "vlb-small", "simplex_exact_nats")
    assert (record["ours_mean"], record["ours_sd"], record["unit"]) == ("-2.5", "1", "nats/dim")
    assert (record["status"], record["nfe"], record["seconds"]) == ("ok", "-", "1.5")
    assert grid_row(text, "analysis")[2:] == ["1.0 ± 1.0", "–", "-2.5 ± 1.0"]


def test_a_stage_that_may_yet_have_the_metric_comes_before_one_that_has_not(analysed, tmp_path):
    fill(analysed, tmp_path)
    for run in analysed.of("analysis"):
        remove_product(paths.product(tmp_path, run.spec))
    found, _ = written(analysed, tmp_path)
    absent = of(found, "all", "vlb-small", "simplex_exact_nats")
    assert (absent["status"], absent["note"]) == ("missing", "-")
    write_analyses(analysed, tmp_path, metrics={})
    found, _ = written(analysed, tmp_path)
    absent = of(found, "all", "vlb-small", "simplex_exact_nats")
    assert absent["note"] == "the scores have no simplex_exact_nats"


def test_an_analysis_alone_has_a_row_and_its_own_seconds(tmp_path):
    """No data stage, no training: its seconds are its own.  The overview has no row of it."""
    (tmp_path / "counting.py").write_text(COUNTING)
    rows = [{"row": "mine", "variant": "alone", "item": "count"}]
    spec = table(rows=rows, columns={"closed form": "simplex_exact_nats"})
    spec["overview"] = {"layout": "listing", "title": "x", "stage": "sample", "columns": ["fid"]}
    plan = configured(
        tmp_path,
        spec,
        methods={"alone": {"paper": "mine", "analyses": {"count": {"name": "counting"}}}},
        extensions=[str(tmp_path / "counting.py")],
        variants=["alone", "edm"],
    )
    fill(plan, tmp_path)
    write_analyses(plan, tmp_path)
    found, text = written(plan, tmp_path)
    assert grid_row(text, "mine") == ["mine", "alone", "-2.5 ± 1.0"]
    assert (found[0]["paper"], found[0]["seconds"], found[0]["gpu_hours"]) == ("mine", "1.5", "0")
    overview = rows_of(paths.table(tmp_path, "overview", "csv"))
    assert {each["variant"] for each in overview} == {"edm"}


def test_a_refusal_is_quoted(tmp_path):
    refusal = Refusal("ddpm-cosine", "sample", "ddim-7", "too few")
    found, _ = written(replace(configured(tmp_path, table()), refusals=(refusal,)), tmp_path)
    refused = of(found, "mixed", "ddim-7")
    assert (refused["status"], refused["note"]) == ("refused", "too few")


def test_failed_and_missing_seeds_are_said(plan, tmp_path):
    fill(plan, tmp_path)
    remove(plan_of(seeds=[0]), tmp_path, "train", "sample", "score")
    fail(plan, tmp_path, "train", "diverged")
    found, _ = written(plan, tmp_path)
    part = of(found, "discrete", "ancestral-10")
    assert (part["status"], part["ours_mean"], part["seeds"]) == ("partial", "3.5", "2")
    assert part["note"] == "2 of 3 seeds: seed 0 failed (train: diverged)"


def test_stale_results_have_no_number(tmp_path):
    fill(configured(tmp_path, table()), tmp_path)
    plan = configured(tmp_path, table(), training={"lr": 0.5})
    found, text = written(plan, tmp_path)
    assert of(found, "discrete", "ancestral-10")["status"] == "stale"
    assert grid_row(text, "discrete")[2].startswith("stale [")


def test_an_altered_likelihood_is_failed(plan, tmp_path):
    fill(plan, tmp_path)
    for seed in range(3):
        path = paths.product(
            tmp_path, plan.job("likelihood", "ddpm-cosine", seed, "vlb-small").spec
        )
        path.write_text(path.read_text().replace("2", "3"))
    found, text = written(plan, tmp_path)
    assert of(found, "discrete", "vlb-small", "bits_per_dim")["status"] == "failed"
    assert grid_row(text, "discrete")[4].startswith("failed [")


def test_notes_are_about_the_rows_variants(plan, tmp_path):
    fill(plan, tmp_path)
    _, text = written(plan, tmp_path)
    assert "extractor classifier sha256 01234567" in text
    assert "Data: digits" in text and "seeds 0, 1, 2" in text
    assert "Training: 4 steps of 16 images (all models)." in text
    only = table(rows=[{"row": "x", "variant": "edm", "item": "heun-3"}])
    _, text = written(configured(tmp_path, only), tmp_path)
    assert "Predicted: edm (all models)." in text


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        (
            [{"row": "x", "variant": "edm", "cells": {"FID": "heun-3"}}],
            "the row 'x' names the column 'FID'; did you mean 'FID 5'?",
        ),
        ([{"row": "x", "variant": "edm"}], "the row 'x' names no solver, likelihood or analysis"),
        ([{"row": "x", "varaint": "edm"}], "did you mean 'variant'"),
        (
            [{"row": "x", "variant": "edm", "cells": {"FID 5": {"item": "a", "metric": "is"}}}],
            "the row 'x': a cell has the metric of its column",
        ),
        ([], "rows"),
    ],
)
def test_a_wrong_comparison_is_one_line(tmp_path, rows, named):
    plan = configured(tmp_path, table(rows=rows))
    with pytest.raises(PlanError, match=r"^[^\n]*$") as error:
        make(plan, tmp_path / "results")
    assert named in str(error.value) and "tables.yaml" in str(error.value)
    assert not (tmp_path / "results").exists()


def test_a_metric_that_there_is_not_is_one_line(tmp_path):
    plan = configured(tmp_path, table(columns={"FID 10": "fidd", "FID 5": "fid", "bits": "kid"}))
    with pytest.raises(PlanError, match="did you mean 'fid'"):
        make(plan, tmp_path / "results")
