"""Progress: plain lines where there is no terminal."""

from diffbench.training.progress import Progress


def test_the_last_unit_is_always_reported_with_rate_and_time_left(capsys):
    progress = Progress("train x", total=3, unit="step", done=1)
    progress.advance(loss=0.25)
    progress.advance(loss=0.125)
    progress.close()
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("train x: step 3/3, loss 0.125, ")
    assert lines[-1].endswith(" step/s, 0 s left")


def test_the_rate_counts_this_attempt_only():
    progress = Progress("x", total=100, unit="step", done=90)
    progress.start -= 10.0  # ten seconds ago
    progress.done = 95
    assert "0.5 step/s, 10 s left" in progress.line()


def test_values_are_read_only_when_they_are_shown(capsys):
    class Costly:
        def __float__(self):
            raise AssertionError("read although nothing is shown")

    Progress("x", total=1000, unit="step").advance(loss=Costly())
    assert capsys.readouterr().err == ""
