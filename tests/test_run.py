"""The state of a run and its time left, by a clock that the tests hold."""

from pathlib import Path

import pytest

from diffbench.watch import lines
from diffbench.watch.run import WEIGHT, Run

NAMES = ["data", "train/vp/seed0", "train/ve/seed0", "sample/vp/seed0/heun-18", "tables"]
EXPECTED = {"data": 2.0, "train/vp/seed0": 100.0, "train/ve/seed0": 100.0} | {
    "sample/vp/seed0/heun-18": 30.0
}


class Clock:
    seconds = 0.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def run():
    return Run("digits", NAMES, slots=2, now=Clock())


def do(run, name, seconds, number=1, log=Path("no.log")):
    """One job from its start to its end."""
    run.started(number, name, log)
    run.now.seconds += seconds
    return run.finished(number)


def test_jobs_go_from_waiting_to_done_or_failed(run):
    assert (run.total, len(run.waiting), run.done) == (5, 5, 0)
    took = do(run, "data", 3.0)
    assert (took.stage, took.seconds, took.expected) == ("data", 3.0, None)
    run.started(2, "train/vp/seed0", Path("no.log"))
    run.fail(2)
    assert (run.done, len(run.waiting), list(run.failed)) == (1, 3, ["train/vp/seed0"])
    # A job that is tried again has not failed; one that was never started is not done.
    run.started(3, "train/vp/seed0", Path("no.log"))
    assert (len(run.running), len(run.failed)) == (1, 0)
    assert run.finished(77) is None and run.done == 1


def test_time_left_by_the_estimate_is_shared_by_the_slots(run):
    assert run.left() is None
    run.expected = EXPECTED
    # The tables are in no estimate and count as nothing.
    assert run.left() == (2 + 100 + 100 + 30) / 2
    run.slots = 100
    assert run.left() == 100.0
    run.started(1, "train/vp/seed0", Path("no.log"))
    run.now.seconds += 90
    run.slots = 1
    assert run.left() == 2 + 10 + 100 + 30
    # A job that takes longer than expected has nothing left, not less.
    run.now.seconds += 90
    assert run.left() == 2 + 0 + 100 + 30


def test_finished_jobs_correct_the_estimate(run):
    run.expected = EXPECTED
    do(run, "train/vp/seed0", 200.0)
    # Of all jobs F = (60 + 200)/(60 + 100); of trainings (60 F + 200)/160; of stages without finished jobs F.
    whole = (WEIGHT + 200) / (WEIGHT + 100)
    assert run.factor("sample") == pytest.approx(whole)
    assert run.expect("train/ve/seed0") == pytest.approx(100 * (WEIGHT * whole + 200) / 160)
    # 172 s of the longest job are more than half of all.
    assert run.left() == pytest.approx(run.expect("train/ve/seed0")) == pytest.approx(185.9375)


def test_a_short_job_that_started_slowly_changes_little(run):
    run.expected = EXPECTED
    before = run.left()
    do(run, "data", 8.0)
    # 8 s in place of 2 s: (60 + 8)/(60 + 2) of what is left.
    assert run.left() == pytest.approx((before - 1) * 68 / 62)


def test_many_jobs_of_known_ratio_are_forecast(run):
    """Twenty jobs that take three times their estimate: the forecast is right after a few of them."""
    names = [f"train/v{i}/seed0" for i in range(20)]
    run = Run("x", names, slots=1, now=Clock(), expected=dict.fromkeys(names, 100.0))
    for name in names[:5]:
        do(run, name, 300.0)
    # W = 60 s of weight against 500 expected ones: within a tenth.
    assert run.left() == pytest.approx(15 * 300, rel=0.1)


def test_without_an_estimate_jobs_take_the_mean_of_their_stage():
    names = ["data", "train/a/seed0", "train/b/seed0", "train/c/seed0"]
    run = Run("x", names, slots=1, now=Clock())
    do(run, "data", 1.0)
    do(run, "train/a/seed0", 10.0)
    assert run.left() == 20.0
    do(run, "train/b/seed0", 20.0)
    assert run.left() == 15.0


def test_lines_of_a_run(run, tmp_path):
    log = tmp_path / "vp.log"
    log.write_text("of an earlier run\n")
    run.expected = EXPECTED
    do(run, "data", 2.0)
    run.started(2, "train/vp/seed0", log)
    run.now.seconds += 65
    (row,) = lines.rows(run, 5)
    assert row == "  train/vp/seed0  65 s of about 100 s"
    log.write_bytes(b"first\ntrain vp: step 5/10, \x1b[31m2 step/s\n\n")
    run.running[2] = run.running[2].__class__("train/vp/seed0", log, 2.0, earlier=1)
    (row,) = lines.rows(run, 5)
    assert row.endswith("of about 100 s  train vp: step 5/10, [31m2 step/s")
    assert lines.summary(run) == (
        "digits: 1 of 5 jobs done, 1 running, 3 waiting; 67 s, about 100 s left"
    )
    for number in range(3, 8):
        run.started(number, f"sample/vp/seed0/s{number}", log)
    assert list(lines.rows(run, 4))[-1] == "  and 2 more"
    run.running.clear(), run.waiting.clear()
    run.failed["train/vp/seed0"] = None
    assert lines.summary(run) == "digits: 1 of 5 jobs done, 1 failed; 67 s"
