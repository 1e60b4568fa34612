"""README and docs are what their templates make of the records, and templates hold no measured number themselves."""

import re
import shutil
from pathlib import Path

import pytest
from commands import REPOSITORY

from diffbench.reporting import layout, pages
from diffbench.reporting.cells import Cell
from diffbench.reporting.formats import csv_of
from diffbench.reporting.recorded import COLUMNS, FOLDER, Entry, digest, jobs_of
from diffbench.specs.errors import PlanError

MADE = pages.pages(REPOSITORY)
#: What is no number of a page: expressions and their blocks, code, links, comments, and where papers are cited.
NO_PROSE = re.compile(
    r"\{%.*?%\}|\{\{.*?\}\}|\{#.*?#\}|```.*?```|`[^`]*`|<!--.*?-->|\]\([^)]*\)|https?://\S+"
    r"|(?:section|table|equation|appendix|chapter|version)s? [\d.]+|Python [\d.]+(?:(?:, | or )[\d.]+)*",
    re.DOTALL | re.IGNORECASE,
)
#: A number that looks measured: with decimals, with a spread, or with the unit of something that is measured here.
MEASURED = re.compile(r"(?<![\w.])\d+\.\d+|\d ?± ?\d|(?<![\w.])\d+ (?:%|dB|bits)")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with the digits' benchmark and two recorded numbers, one of which is old."""
    shutil.copytree(REPOSITORY / "config", tmp_path / "config")
    plan = pages.RecordedBenchmark("digits", tmp_path, layout.read_tables(tmp_path)).plan
    spec = digest(plan, jobs_of(plan)["vp", "sample", "em-100"])
    good = Cell("ok", mean=3.25, sd=0.125, se=0.1, seeds=3, images=2000, nfe=100)
    old = Cell("ok", mean=4.5, se=0.5, seeds=1, images=2000, nfe=99)
    entries = [
        Entry(("vp", "sample", "em-100", "fid"), good, "how", spec, "0123456789ab"),
        Entry(("vp", "sample", "pc-50", "fid"), old, "how", "0" * 12, "0123456789ab"),
    ]
    folder = tmp_path / FOLDER / "digits"
    folder.mkdir(parents=True)
    (folder / "cells.csv").write_text(csv_of([each.line() for each in entries], COLUMNS))
    (folder / "claims.csv").write_text(
        "id,metric,effect,low,high,verdict\nbetter,fid,1.25,0.5,2,holds\n"
    )
    (tmp_path / pages.TEMPLATES).mkdir(parents=True)
    return tmp_path


def made(repository: Path, text: str) -> str:
    """The page of a template, without its first line."""
    (repository / pages.TEMPLATES / "try.md").write_text(text)
    return pages.pages(repository)[Path("docs") / "try.md"].partition("\n")[2]


DIGITS = '{% set digits = benchmark("digits") %}\n'


@pytest.mark.parametrize("place", MADE, ids=str)
def test_each_page_is_what_its_template_makes_of_the_records(place: Path) -> None:
    assert (REPOSITORY / place).read_text() == MADE[place], "run: diffbench pages --write"


@pytest.mark.parametrize("template", sorted((REPOSITORY / pages.TEMPLATES).rglob("*.md")), ids=str)
def test_a_template_holds_no_measured_number_of_its_own(template: Path) -> None:
    prose = NO_PROSE.sub(" ", template.read_text())
    strays = [line.strip() for line in prose.splitlines() if MEASURED.search(line)]
    assert not strays, "say where the number comes from: an expression, or setting(...)"


def test_the_check_finds_a_number_that_was_typed() -> None:
    assert MEASURED.search(NO_PROSE.sub(" ", "FID is 3.2 at `steps: 2.5` (section 4.1)"))
    assert not MEASURED.search(NO_PROSE.sub(" ", "{{ b.number('vp') }} of 1,500 (section 4.1)"))


def test_a_number_stands_with_its_spread(repository: Path) -> None:
    text = made(repository, DIGITS + 'FID {{ digits.number("vp", "em-100", "fid") }}.\n')
    assert text == "FID 3.25 ± 0.12.\n"


def test_a_number_that_is_not_fresh_bears_a_mark_and_the_page_says_what_it_means(
    repository: Path,
) -> None:
    text = made(repository, DIGITS + 'FID {{ digits.number("vp", "pc-50", "fid") }}.\n')
    assert text == f"FID 4.5 (0.5)‡.\n\n{pages.OLD_NOTE}\n"


def test_a_grid_has_a_dash_for_what_is_not_recorded(repository: Path) -> None:
    columns = '{"100": "em-100 fid", "50": "pc-50 fid", "IS": "em-100 is"}'
    rows = '{"VP": "vp", "other": {"variant": "vp", "50": "none"}}'
    text = made(repository, DIGITS + f'{{{{ digits.grid("steps", {columns}, {rows}, False) }}}}\n')
    lines = [line.replace(" ", "") for line in text.splitlines()]
    assert lines[2:4] == ["|VP|3.25|4.50‡|–|", "|other|3.25|–|–|"]


def test_what_has_several_seeds_stands_with_its_interval_and_its_run(repository: Path) -> None:
    folder = repository / FOLDER / "digits"
    with pytest.raises(PlanError, match=r"digits: no budgets\.csv: record the benchmark again"):
        made(repository, '{{ over_seeds(["digits"], ["fid", "is"]) }}')
    (folder / "budgets.csv").write_text('variant,budget\nvp,"7 steps of 8 images, unet"\n')
    text = made(repository, '{{ over_seeds(["digits"], ["fid", "is"]) }}')
    lines = [" ".join(line.split()) for line in text.splitlines()]
    # Student's t of two degrees of freedom is 4.303 at 97.5 %: 4.303 * 0.125 / sqrt(3) is 0.31.
    assert lines[2] == "| vp | em-100 | digits | 3 | 3.25 (2.94 to 3.56) | – |"
    assert lines[3:] == [
        "",
        "- digits (vp): 7 steps of 8 images, unet; N = 2000; commit 0123456789ab.",
    ]
    with pytest.raises(PlanError, match="nothing in digits has 4 seeds or more"):
        made(repository, '{{ over_seeds(["digits"], ["fid"], least=4) }}')
    few = made(repository, '{{ over_seeds(["digits"], ["fid"], least=1) }}')
    assert "| vp | pc-50 | digits | 1 | 4.5 (0.5)‡ |" in " ".join(few.split())


def test_a_sentence_whose_verdict_changed_must_be_written_anew(repository: Path) -> None:
    holds = '{{ digits.verdict("better", "holds") }} by {{ digits.effect("better") }}'
    assert made(repository, DIGITS + holds) == "holds by 1.25 (0.50 to 2.00)"
    with pytest.raises(PlanError, match="better is holds, and the template says contradicted"):
        made(repository, DIGITS + '{{ digits.verdict("better", "contradicted") }}')


def test_a_benchmark_without_records_says_so(repository: Path) -> None:
    text = made(repository, '{{ benchmark("patches").missing }}')
    assert text.startswith("*`config/patches.yaml` has not been run since")
    with pytest.raises(
        PlanError, match=r"docs/templates/try\.md: docs/records/patches: nothing is"
    ):
        made(repository, '{{ benchmark("patches").number("vp", "em-100", "fid") }}')


def test_what_is_not_recorded_cannot_be_quoted(repository: Path) -> None:
    with pytest.raises(PlanError, match="no recall of vp em-100 is recorded"):
        made(repository, DIGITS + '{{ digits.number("vp", "em-100", "recall") }}')


def test_a_setting_is_printed_as_it_is(repository: Path) -> None:
    assert made(repository, "{{ setting(0.35) }}, {{ setting(1e-3) }}") == "0.35, 0.001"
