"""Progress: plain lines where there is no terminal, by a clock that the tests hold."""

import re

import pytest
import torch

from diffbench.metrics.neighbours import nearest_distances, precision_recall
from diffbench.store import progress as module
from diffbench.store.progress import PERIOD, Progress, Step, spelled


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until a test moves it."""

    class Clock:
        seconds = 100.0

        def __call__(self):
            return self.seconds

    held = Clock()
    monkeypatch.setattr(module, "now", held)
    return held


def lines(capsys):
    return capsys.readouterr().err.splitlines()


def test_work_is_named_when_it_begins(clock, capsys):
    Progress("features", 50_000, "image")
    assert lines(capsys) == ["features: image 0/50000"]


def test_lines_are_at_most_one_a_period_and_the_last(clock, capsys):
    progress = Progress("train x", total=1000, unit="step")
    shown = []
    for step in range(1000):
        clock.seconds += 0.125
        progress.advance(loss=step)
        shown += [(clock.seconds, line) for line in lines(capsys)]
    # 125 seconds: a line when it begins, twelve after ten seconds each, and one at the end.
    assert [seconds for seconds, _ in shown[1:]] == [*range(110, 221, 10), 225]
    assert shown[1][1] == "train x: step 80/1000, loss 79, 8 step/s, 115 s left"
    assert shown[-1][1] == "train x: step 1000/1000, loss 999, 8 step/s, 0 s left"


def test_a_step_ends_silently_unless_it_was_long(clock, capsys):
    with Step("floors", 2, "redraw") as step:
        assert list(step.over("ab")) == ["a", "b"]
    assert lines(capsys) == ["floors: redraw 0/2"]
    with Step("floors", 2, "redraw") as step:
        for _ in step.over("ab"):
            clock.seconds += PERIOD
    assert lines(capsys) == [
        "floors: redraw 0/2",
        "floors: redraw 1/2, 0.1 redraw/s, 10 s left",
        "floors: redraw 2/2, 0.1 redraw/s, 0 s left",
    ]


def test_calls_of_the_network_are_shown_inside_a_batch(clock, capsys):
    progress = Progress("sample", 1000, "image")
    for _ in range(30):
        clock.seconds += 1
        progress.call()
    assert lines(capsys)[1:] == [
        "sample: image 0/1000, 10 network calls since",
        "sample: image 0/1000, 20 network calls since",
        "sample: image 0/1000, 30 network calls since",
    ]
    progress.advance(500)
    clock.seconds += 10
    progress.call()
    assert lines(capsys) == [
        "sample: image 500/1000, 1 network calls since, 12.5 image/s, 40 s left"
    ]


def test_the_rate_counts_this_attempt_only(clock):
    progress = Progress("x", total=100, unit="step", done=90)
    clock.seconds += 10
    progress.done = 95
    assert "0.5 step/s, 10 s left" in progress.line()


def test_values_are_read_only_when_they_are_shown(clock):
    class Costly:
        def __float__(self):
            raise AssertionError("read although nothing is shown")

    Progress("x", total=1000, unit="step").advance(loss=Costly())


def test_a_terminal_gets_a_bar(clock, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with Progress("train x", total=4, unit="step") as progress:
        progress.call()
        clock.seconds += 1
        progress.advance(2, loss=0.5)
        assert progress.bar.n == 2
        assert "loss=0.5" in progress.bar.postfix
    assert "train x" in capsys.readouterr().err


def test_distances_are_counted_to_the_last(monkeypatch):
    ended = {}
    monkeypatch.setattr(Step, "close", lambda self: ended.update({self.title: self}))
    z = torch.randn(30, 4, dtype=torch.float64).numpy()
    precision_recall(z, z[:20])
    images = torch.randint(0, 17, (25, 2, 2, 1), dtype=torch.uint8).numpy()
    nearest_distances(images, images[:10], numbers=16)
    assert {title: (each.done, each.total) for title, each in ended.items()} == {
        "precision and recall": (1900, 1900),
        "distances to the nearest images": (250, 250),
    }


def test_durations_have_two_units_at_most():
    seconds = (0, 0.4, 119, 120, 725, 3599.4, 3600, 12_000, 172_799, 172_800, 4 * 86_400)
    assert [spelled(each) for each in seconds] == [
        *("0 s", "0 s", "119 s", "2 min 00 s", "12 min 05 s", "59 min 59 s"),
        *("1 h 00 min", "3 h 20 min", "47 h 59 min", "2 d 0 h", "4 d 0 h"),
    ]
    assert all(re.fullmatch(r"\d+ \w+( \d+ \w+)?", spelled(each)) for each in seconds)
