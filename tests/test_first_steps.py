"""The tutorial and the how-to of one's own methods, tried as a new user would: block by block, in a fresh folder.

Titled blocks are files, blocks of Python are run by Python, those of bash by bash.  Each of a solver, a process, a
metric, a restorer and a foreign model then has its row or column beside the baselines.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from blocks import Block, page
from commands import REPOSITORY, environment

pytestmark = pytest.mark.slow

FIRST, METHOD = page("docs/tutorial/first-table.md"), page("docs/tutorial/first-method.md")
OTHERS = page("docs/howto/own-method.md")
BIN = Path(sys.executable).parent


@dataclass
class Shell:
    """A shell in which a reader types what the pages say; ``folder`` is where it is, ``said`` what was printed."""

    home: Path
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder = self.home
        # Where the last block ended.
        self.place = self.home / ".place"

    def follow(self, blocks: Sequence[Block]) -> None:
        """Do what the blocks say; blocks of other languages than these are only read."""
        for block in blocks:
            if block.title:
                (self.folder / block.title).write_text(block.text)
            elif block.language == "bash":
                self.run(["bash", "-euo", "pipefail", "-c", f'{block.text}pwd > "{self.place}"'])
                self.folder = Path(self.place.read_text().strip())
            elif block.language == "python":
                self.run([sys.executable, "-c", block.text])

    def run(self, command: Sequence[str]) -> None:
        """Run a command as a terminal with the set-up's environment would."""
        variables = environment(PATH=f"{BIN}:/usr/bin:/bin", HOME=str(self.home), BROWSER="true")
        done = subprocess.run(
            command, cwd=self.folder, env=variables, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command[-1]}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        self.said.append(done.stdout)

    def rows(self, table: str) -> dict[tuple[str, ...], dict[str, str]]:
        """The rows of a Markdown table of the results: the cells of its labels -> head -> cell."""
        text = (self.folder / "results" / table).read_text()
        lines = [line for line in text.partition("\n\n## ")[0].splitlines() if line[:1] == "|"]
        heads, _, *rows = ([each.strip() for each in line.split("|")[1:-1]] for line in lines)
        labels = heads.index("NFE")
        return {tuple(row[:labels]): dict(zip(heads, row, strict=True)) for row in rows}

    def lines(self, file: str) -> int:
        """The number of lines of a file."""
        return len((self.folder / file).read_text().splitlines())


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory) -> Shell:
    """Both pages of the tutorial, one after the other."""
    shell = Shell(tmp_path_factory.mktemp("tutorial"))
    shell.follow(FIRST.blocks)
    shell.follow(METHOD.blocks)
    return shell


@pytest.fixture(scope="module")
def others(tmp_path_factory) -> Shell:
    """The how-to of other kinds, in a folder made as the tutorial says."""
    shell = Shell(tmp_path_factory.mktemp("others"))
    shell.follow(FIRST.blocks[1:2])
    shell.follow(OTHERS.blocks)
    return shell


def number(cell: str) -> float:
    """The number of a cell, without spread and marks."""
    found = re.match(r"-?[\d.]+", cell)
    assert found, cell
    return float(found[0])


def test_the_first_table_has_every_variant(tutorial: Shell) -> None:
    variants = {variant for variant, _ in tutorial.rows("tiny/tables/overview.md")}
    assert {"ddpm-cosine", "iddpm-hybrid", "edm", "ve", "ihdm", "reflected"} <= variants


def test_what_the_pages_python_prints(tutorial: Shell) -> None:
    printed = "".join(tutorial.said)
    assert "(16, 8, 8, 1) uint8" in printed
    mean, std, calls = re.search(r"^(\S+) (\S+) after (\d+) evaluations$", printed, re.M).groups()
    # 2,000 draws of N(0.3, 0.2^2): five standard errors are 0.022 for the mean and 0.016 for the deviation.
    assert abs(float(mean) - 0.3) < 0.03 and abs(float(std) - 0.2) < 0.03
    assert int(calls) == 2 * 50 - 1


def test_the_verdict_that_the_tutorial_shows_is_the_one_that_is_printed(tutorial: Shell) -> None:
    (shown,) = [each.text for each in METHOD.blocks if each.language == "text"]
    correct = (tutorial.folder / "midpoint.py").read_text()
    wrong = correct.replace("eps = self.denoiser(x_u, u, condition).eps", "eps = told.eps")
    assert wrong != correct
    (tutorial.folder / "wrong.py").write_text(wrong.replace('"midpoint"', '"wrong"'))
    command = [str(BIN / "diffbench"), "conform", "wrong.py"]
    done = subprocess.run(
        command, cwd=tutorial.folder, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 1
    (failed,) = [line for line in done.stdout.splitlines() if line.lstrip().startswith("failed")]
    assert " ".join(failed.split()).startswith(" ".join(shown.split()))


def test_the_solver_has_its_row_beside_the_baselines(tutorial: Shell) -> None:
    rows = tutorial.rows("midpoint/tables/overview.md")
    assert {("vp", each) for each in ("midpoint-18", "heun-18", "ddim-18", "em-100")} <= set(rows)
    assert rows["vp", "midpoint-18"]["NFE"] == rows["vp", "heun-18"]["NFE"] == "35"
    assert number(rows["vp", "midpoint-18"]["FID"]) > 0
    assert tutorial.lines("midpoint.py") <= 40


def test_the_process_has_its_rows_beside_the_baseline(others: Shell) -> None:
    rows = others.rows("cosine-angle/tables/overview.md")
    assert number(rows["cosine-angle", "heun-18"]["FID"]) > 0 and ("vp", "heun-18") in rows
    assert others.lines("cosine_angle.py") <= 40


def test_the_metric_has_its_column(others: Shell) -> None:
    rows = others.rows("feature-gap/tables/overview.md")
    found = {key: number(row["feature gap"]) for key, row in rows.items()}
    assert found["control-test", "draw"] < found["vp", "heun-18"]
    assert others.lines("feature_gap.py") <= 40


def test_the_restorer_has_its_row_beside_the_baseline(others: Shell) -> None:
    rows = others.rows("nearest/tables/restorations.md")
    methods = {
        method: number(row["PSNR"]) for (_, _, method), row in rows.items() if row["PSNR"] != "–"
    }
    assert {"nearest", "replace-20"} <= set(methods)
    assert others.lines("nearest.py") <= 40


def test_the_foreign_model_has_its_row_beside_the_baseline(others: Shell) -> None:
    rows = others.rows("foreign-model/tables/overview.md")
    assert number(rows["theirs-scratch", "ddim-25"]["FID"]) > 0
    assert ("ddpm-linear", "ddim-25") in rows
    text = (REPOSITORY / "examples" / "foreign_model.py").read_text()
    # The wrapper alone, without the module that stands for theirs.
    assert len(text[text.index("class Wrapped") :].strip().splitlines()) <= 15
