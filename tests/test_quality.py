"""Concerns about numbers: each is found where it was planted, and nowhere else."""

import numpy as np
import pandas as pd
import pytest
from layouts import configured, fill
from scipy import stats
from test_compare import frame

from diffbench import cli
from diffbench.reporting import inference, quality
from diffbench.reporting.exports import Export
from diffbench.reporting.tables import make
from diffbench.store import paths

METRICS = {
    "fid": {"better": "lower", "ranks": True},
    "saturated": {"better": "lower", "ranks": False},
}
CONTROLS = {
    "noise": {"control": {"name": "noise"}},
    "train": {"control": {"name": "split"}},
    "mine": {"control": {"name": "images"}},
}


def found(*frames, variants=None):
    """The concerns about these rows, as (severity, cell, message)."""
    about = {"metrics": METRICS, "variants": variants or {}}
    whole = pd.concat(frames, ignore_index=True)
    return [(e.severity, e.cell, e.message) for e in quality.concerns(Export(None, whole, about))]


def test_good_numbers_are_of_no_concern():
    assert found(frame([3.0, 3.1, 2.9, 3.2], nfe="35")) == []


def test_jobs_without_numbers_are_counted_and_named():
    lost = frame([1.0, 2.0], first_seed=2, status="failed", reason="out of memory", metric="")
    gone = frame([1.0], variant="ve", status="missing", metric="")
    assert found(frame([3.0, 3.1]), lost, gone) == [
        ("error", "vp heun", "failed, seed 2, 3: out of memory"),
        ("warning", "ve heun", "missing, seed 0"),
        ("note", "all", "3 of 5 jobs have no numbers"),
    ]


def test_scores_beyond_the_controls():
    """Images that were made elsewhere are no measure; a metric that does not rank is none either."""
    rows = [
        frame([400.0], variant="noise"),
        frame([1.0], variant="train"),
        frame([900.0], variant="mine"),
        frame([500.0, 520.0], variant="worse"),
        frame([0.5], variant="better"),
        frame([3.0], variant="fine"),
        *(
            frame([v], "saturated", variant=n)
            for n, v in (("noise", 0.1), ("train", 0.5), ("worse", 0.9))
        ),
    ]
    assert found(*rows, variants=CONTROLS) == [
        ("warning", "worse heun fid", "510 is worse than noise, 400"),
        ("note", "better heun fid", "0.500 is better than real images, 1.00"),
    ]


def test_an_evaluation_that_took_ten_times_as_long():
    rows = []
    for variant, seconds in (("a", 10), ("b", 11), ("c", 9), ("d", 100)):
        rows += [
            frame([3.0], variant=variant, nfe="50"),
            frame([seconds], "sample_seconds", variant=variant),
        ]
    trained = {name: {"network": {"name": "unet"}} for name in "abcd"}
    assert found(*rows, variants=trained) == [
        ("warning", "d heun", "an evaluation took 9.5 times the median of all samples")
    ]
    assert found(*rows[:6], variants=trained) == []
    assert found(*rows, variants=trained | {"d": {"denoiser": {"name": "exact"}}}) == []


def test_calls_that_differ_between_seeds():
    rows = frame([3.0], nfe="35"), frame([3.0], first_seed=1, nfe="90")
    assert found(*rows) == [("note", "vp heun", "35 to 90 calls of the network, by seed")]


def test_a_seed_unlike_the_others_is_named():
    cell = frame([3.0, 3.1, 2.9, 9.0, 3.0])
    assert found(cell) == [
        ("warning", "vp heun fid", "seed 3 has 9.00, the others 3.00, 3.10, 2.90, 3.00")
    ]
    assert found(cell[cell["seed"].isin([0, 3, 4])]) == []


def test_true_seeds_are_rarely_said_to_be_unlike():
    """Adjusted over all seeds of all cells, at 5 %: in 200 tables of ten cells of five seeds 10 are expected, with a
    standard deviation of 3.1; Holm's bound is not reached where tests depend on one another."""
    random = np.random.RandomState(0)
    alarms = 0
    for table in random.standard_normal((200, 10, 5)):
        tests = {
            (i, j): inference.outlier(row[j], np.delete(row, j))
            for i, row in enumerate(table)
            for j in range(5)
        }
        alarms += min(inference.holm(tests).values()) <= 0.05
    assert alarms <= 10 + 3 * 3.1


def test_an_outlier_is_judged_by_the_prediction_interval():
    others = [1.0, 2.0, 4.0, 3.5]
    low, high = stats.t.interval(
        0.95, 3, np.mean(others), np.std(others, ddof=1) * (1 + 1 / 4) ** 0.5
    )
    assert inference.outlier(high, others) == pytest.approx(0.05)
    assert inference.outlier(low, others) == pytest.approx(0.05)
    assert (inference.outlier(1, [1, 1]), inference.outlier(2, [1, 1])) == (1.0, 0.0)


def test_cells_at_their_floor_are_one_note():
    rows = [frame([1.0, 1.1], variant=name, floor="1.5") for name in ("a", "b")]
    said = (
        "at the floor, 1.50, so that they say nothing about quality: a heun (1.05), b heun (1.05)"
    )
    assert found(*rows, frame([9.0, 9.1], variant="c", floor="1.5")) == [("note", "fid", said)]


def test_two_protocols_or_numbers_of_samples_in_one_column():
    rows = frame([1.0]), frame([1.0], variant="ve", protocol="q")
    assert found(*rows) == [("warning", "fid", "2 protocols in one column: vp heun: p; ve heun: q")]
    assert found(*rows, variants={"ve": {"control": {"name": "images"}}}) == []
    rows = frame([1.0]), frame([1.0], variant="ve", samples="50")
    assert found(*rows) == [
        ("warning", "fid", "2 numbers of samples in one column: vp heun: 100; ve heun: 50")
    ]


def test_the_command_fails_where_a_job_did(tmp_path, capsys):
    plan = configured(tmp_path)
    fill(plan, tmp_path)
    make(plan, tmp_path)
    assert cli.main(["check", str(tmp_path)]) == 0
    assert "0 errors" in capsys.readouterr().out
    product = paths.product(tmp_path, plan.job("train", "edm", 1).spec)
    product.write_bytes(b"damaged")
    plan.job("score", "edm", 1)
    paths.product(tmp_path, plan.job("score", "edm", 1).spec).unlink()
    make(plan, tmp_path)
    assert cli.main(["check", str(tmp_path)]) == 1
    assert "| error" in capsys.readouterr().out
