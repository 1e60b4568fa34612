"""The view of a run: what it makes of Snakemake's records, on a terminal and in a log."""

import io
import json
import logging
import re
import sys
import time

import pytest
from snakemake.logging import ColorizingTextHandler, DefaultFilter, DefaultFormatter

from diffbench.server import client
from diffbench.watch import view as module
from diffbench.watch.calibration import Calibration


class Stream(io.StringIO):
    live = False

    def isatty(self):
        return self.live


def logger_of(stream, **settings):
    """A logger with Snakemake's own handler, as Snakemake sets it up."""
    handler = ColorizingTextHandler(nocolor=True, stream=stream)
    said = {"quiet": set(), "debug_dag": False, "verbose": False, "dryrun": False}
    handler.addFilter(DefaultFilter(**(said | {"printshellcmds": False} | settings)))
    handler.setFormatter(DefaultFormatter(None, False))
    handler.name = module.DEFAULT
    logger = logging.Logger("snakemake")
    logger.addHandler(handler)
    return logger


@pytest.fixture
def began(tmp_path, monkeypatch):
    """A function that begins the view of three jobs."""
    monkeypatch.delenv(module.VARIABLE, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(module.progress, "now", lambda: 0.0)
    jobs = [[str(tmp_path / f"{name}.log")] for name in ("data", "train/vp/seed0", "tables")]
    views = []

    def begin(live=False, **settings):
        stream = Stream()
        stream.live = live
        logger = logger_of(stream, **settings)
        view = module.begin(logger, "digits", tmp_path, [*jobs, []], 2, None)
        views.append((view, logger))
        return view, logger, stream

    yield begin
    for view, logger in views:
        if view is not None:
            view.end(logger)


def start(logger, number, log):
    logger.info("x", extra={"event": "job_info", "jobid": number, "log": [str(log)]})


def finish(logger, number):
    logger.info("Finished", extra={"event": "job_finished", "job_id": number})


def error(logger, number, log):
    """A record as Snakemake makes it of a job that failed."""
    extra = {"rule_name": "train", "rule_msg": None, "jobid": number, "input": [], "output": []}
    extra |= {"log": [str(log)], "conda_env": None, "shellcmd": "false", "aux": {}}
    logger.error("", extra={"event": "job_error", **extra})


def test_a_log_gets_a_line_a_job_and_errors_in_full(began, tmp_path):
    view, logger, stream = began()
    logger.info("Select jobs to execute...")
    start(logger, 1, tmp_path / "data.log")
    logger.info("", extra={"event": "shellcmd", "cmd": "diffbench data"})
    finish(logger, 1)
    log = tmp_path / "train" / "vp" / "seed0.log"
    start(logger, 2, log)
    log.parent.mkdir(parents=True)
    log.write_text("diffbench train: the loss is inf\n")
    error(logger, 2, log)
    logger.warning("something is odd")
    # A target has no log, and is no job.
    logger.info("x", extra={"event": "job_info", "jobid": 9, "log": []})
    finish(logger, 9)
    view.end(logger)
    shown = stream.getvalue().splitlines()
    assert shown[0] == "1 of 3 jobs done: data, 0 s"
    assert "Error in rule train:" in shown
    assert "failed: train/vp/seed0: diffbench train: the loss is inf" in shown
    assert shown[-2:] == ["something is odd", "digits: 1 of 3 jobs done, 1 waiting, 1 failed; 0 s"]
    assert "\x1b" not in stream.getvalue() and "diffbench data" not in stream.getvalue()
    assert [each.name for each in logger.handlers] == [module.DEFAULT]


def screen(text):
    """What a terminal shows in the end: lines, of which the last n are removed by `up n, erase below`."""
    rows = [""]
    for part in re.split(r"(\x1b\[\d+A\x1b\[J|\n)", text):
        if part == "\n":
            rows.append("")
        elif up := re.fullmatch(r"\x1b\[(\d+)A\x1b\[J", part):
            rows[-1 - int(up[1]) :] = [""]
        else:
            rows[-1] += part
    return rows[:-1]


def test_a_terminal_gets_a_block_below_what_was_said(began, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("LINES", "20")
    view, logger, stream = began(live=True)
    start(logger, 1, tmp_path / "data.log")
    assert screen(stream.getvalue()) == [
        "digits: 0 of 3 jobs done, 1 running, 2 ",
        "  data  0 s",
    ]
    logger.warning("something is odd")
    finish(logger, 1)
    assert screen(stream.getvalue()) == [
        "something is odd",
        "digits: 1 of 3 jobs done, 2 waiting; 0 s"[:39],
    ]
    view.end(logger)
    assert screen(stream.getvalue())[0] == "something is odd"
    logger.info("Complete log(s): x")
    assert screen(stream.getvalue())[-1] == "Complete log(s): x"


def test_a_mistake_in_the_view_does_not_end_the_run(began, tmp_path, monkeypatch, capsys):
    _, logger, _ = began(live=True)
    monkeypatch.setattr(module.lines, "summary", None)
    start(logger, 1, tmp_path / "data.log")
    assert "TypeError" in capsys.readouterr().err
    monkeypatch.undo()


def test_a_dumb_terminal_is_a_log(began, tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    _, logger, stream = began(live=True)
    start(logger, 1, tmp_path / "data.log")
    finish(logger, 1)
    assert stream.getvalue() == "1 of 3 jobs done: data, 0 s\n"


def test_snakemakes_lines_stay_where_they_are_asked_for(began, monkeypatch):
    for settings in ({"verbose": True}, {"printshellcmds": True}, {"quiet": {"rules"}}):
        assert began(**settings)[0] is None
    monkeypatch.setenv(module.VARIABLE, "")
    assert began()[0] is None


def waited(calibration):
    """The estimate, once its process has ended."""
    end = time.monotonic() + 60
    while not calibration.over and time.monotonic() < end:
        if (found := calibration.seconds()) is not None:
            return found
        time.sleep(0.02)
    return None


@pytest.fixture
def estimate(monkeypatch, tmp_path):
    """A function that makes `diffbench estimate` a small program, since the real one imports torch."""
    monkeypatch.delenv(client.VARIABLE, raising=False)
    interpreter = sys.executable

    def says(text):
        program = tmp_path / "program"
        program.write_text(f"#!{interpreter}\n{text}\n")
        program.chmod(0o755)
        monkeypatch.setattr("diffbench.watch.calibration.sys.executable", str(program))

    return says


def test_an_estimate_is_made_beside_the_run(estimate, monkeypatch, tmp_path):
    jobs = {"data": {"seconds": 2.0}, "train/vp/seed0": {"seconds": 5.0}, "x": {"seconds": None}}
    estimate(f"print('''{json.dumps({'jobs': jobs})}''')")
    calibration = Calibration(["a.yaml"])
    assert waited(calibration) == {"data": 2.0, "train/vp/seed0": 5.0}
    assert calibration.seconds() is None
    # While the job server is still to come, it waits.
    monkeypatch.setenv(client.VARIABLE, str(tmp_path / "socket"))
    later = Calibration(["a.yaml"])
    assert later.seconds() is None and later.process is None
    (tmp_path / "socket").touch()
    assert waited(later) == {"data": 2.0, "train/vp/seed0": 5.0}


def test_a_run_goes_on_without_an_estimate(estimate):
    estimate("raise SystemExit(1)")
    assert waited(Calibration(["a.yaml"])) is None
    estimate("import time; time.sleep(60)")
    endless = Calibration(["a.yaml"])
    endless.seconds()
    endless.stop()
    assert endless.process.returncode is not None and endless.seconds() is None
