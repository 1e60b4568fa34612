"""Concerns about numbers: each is found where it was planted, and nowhere else."""

import csv
import html

import numpy as np
import pandas as pd
import pytest
from layouts import configured, fill
from scipy import stats
from test_compare import frame

from diffbench import cli
from diffbench.reporting import inference, layout, quality
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
        ("note", "all", "3 of 5 jobs have no numbers (60 %)"),
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


def test_a_training_that_took_ten_times_as_long_an_image():
    """The time is that of an image: twice the steps, or a larger batch, is no concern."""
    budgets = {"a": (100, 8), "b": (200, 8), "c": (100, 64), "d": (100, 8)}
    trained = {n: {"training": {"steps": s, "batch": b}} for n, (s, b) in budgets.items()}
    rows = [
        frame([k * s * b], "train_seconds", variant=name, stage="train", item="")
        for (name, (s, b)), k in zip(budgets.items(), (1.0, 1.1, 0.9, 10.0), strict=True)
    ]
    assert found(*rows, variants=trained) == [
        ("warning", "d train", "an image took 9.5 times the median of all trainings")
    ]
    assert found(*rows[:3], variants=trained) == []


def test_a_model_that_is_asked_more_often_than_others_with_its_solver():
    calls = {"a": "35", "b": "35", "c": "70", "d": "350"}
    rows = [frame([3.0], variant=name, nfe=each) for name, each in calls.items()]
    # The median of 35, 35, 70 and 350 is 52.5.
    said = "6.7 times as many calls of the network as the median of heun"
    assert found(*rows) == [("warning", "d heun", said)]
    assert found(*rows[:3]) == []


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
    others = frame([9.0, 9.1], variant="c", floor="1.5"), frame([1.0], variant="mine", floor="1.5")
    assert found(*rows, *others, variants=CONTROLS) == [("note", "fid", said)]


def test_two_protocols_or_numbers_of_samples_in_one_column():
    rows = frame([1.0]), frame([1.0], variant="ve", protocol="q")
    assert found(*rows) == [("warning", "fid", "2 protocols in one column: vp heun: p; ve heun: q")]
    assert found(*rows, variants={"ve": {"control": {"name": "images"}}}) == []
    rows = frame([1.0]), frame([1.0], variant="ve", samples="50")
    assert found(*rows) == [
        ("warning", "fid", "2 numbers of samples in one column: vp heun: 100; ve heun: 50")
    ]


def test_restorations_are_compared_within_their_task_and_likelihoods_within_their_kind():
    kinds = [("restore", "ct/ddrm"), ("restore", "ct/impute"), ("restore", "mri/ddrm")]
    kinds += [("likelihood", "ode"), ("likelihood", "vlb")]
    rows = [
        frame([1.0], "psnr", stage=stage, item=item, samples=count)
        for (stage, item), count in zip(kinds, ("10", "20", "30", "40", "50"), strict=True)
    ]
    said = "2 numbers of samples in one column: vp ct/ddrm: 10; vp ct/impute: 20"
    assert found(*rows) == [("warning", "ct psnr", said)]


def test_a_score_within_its_error_of_the_controls_is_of_no_concern():
    """The interval of a difference of 1 with two errors of 0.4 is 1.11 to each side, with 0.3 it is 0.83."""
    rows = [frame([400.0], variant="noise", se="0"), frame([2.0], variant="train", se="0.4")]
    wide, narrow = (frame([1.0], se=se) for se in ("0.4", "0.3"))
    assert found(*rows, wide, variants=CONTROLS) == []
    rows[1] = frame([2.0], variant="train", se="0.3")
    assert found(*rows, narrow, variants=CONTROLS) == [
        ("note", "vp heun fid", "1.00 is better than real images, 2.00")
    ]


def test_published_values_that_are_not_the_packaged_ones_are_named(tmp_path, capsys):
    """What was typed over, dropped or added in ``published.csv`` is named by ``check`` and on the page."""
    plan = configured(tmp_path)
    path = tmp_path / layout.PUBLISHED
    lines = path.read_text().splitlines()
    start = "ddpm,Table 1,CIFAR-10,DDPM,L_simple,ancestral,1000,FID"
    (typed,) = [line for line in lines if line.startswith(start)]
    gone = lines[-1]
    mine = "mine,Table 1,CIFAR-10,ours,,,,FID,2.5,,arXiv:2601.00001,paper,,,"
    kept = [line.replace("3.17", "3.71") if line == typed else line for line in lines[:-1]]
    path.write_text("\n".join([*kept, mine]) + "\n")
    fill(plan, tmp_path)
    make(plan, tmp_path)
    assert cli.main(["check", str(tmp_path)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    page = html.unescape(paths.page(tmp_path).read_text())
    for said in (
        "changed: value is '3.71', packaged '3.17'",
        f"missing: the packaged value is {next(csv.DictReader([lines[0], gone]))['value']}",
        "published.csv: mine, Table 1, CIFAR-10, ours, FID",
        "added: not one of the packaged values",
    ):
        assert said in printed and said in page
    assert f"published.csv: {start.replace(',', ', ')}" in printed


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
