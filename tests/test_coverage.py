"""Every published number of the data sets covered is filled by a cell of ours, or has a reason."""

import shutil
from pathlib import Path

import fast_yaml
import pytest
from commands import REPOSITORY

from diffbench.reporting.coverage import COVERAGE, coverage
from diffbench.reporting.formats import to_markdown
from diffbench.specs.errors import PlanError


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of what coverage is read from."""
    shutil.copytree(REPOSITORY / "config", tmp_path / "config")
    return tmp_path


def change(repository: Path, file: Path, **keys: object) -> None:
    path = repository / file
    path.write_text(fast_yaml.dump(fast_yaml.load(path.read_text()) | keys, sort_keys=False))


def reasons(repository: Path) -> list[dict]:
    return fast_yaml.load((repository / COVERAGE).read_text())["reasons"]


def test_the_page_in_docs_says_what_the_plans_can_fill() -> None:
    made = to_markdown(coverage(REPOSITORY))
    page = (REPOSITORY / "docs" / "coverage.md").read_text()
    assert page == made, "run: diffbench coverage --write docs/coverage.md"


def test_a_number_without_cell_and_reason_is_an_error(repository: Path) -> None:
    change(repository, COVERAGE, reasons=reasons(repository)[1:])
    with pytest.raises(PlanError, match="neither filled nor has a reason"):
        coverage(repository)


def test_a_reason_for_a_filled_number_is_an_error(repository: Path) -> None:
    extra = {"published": {"paper": ["ddim"], "nfe": ["10"]}, "why": "too hard"}
    change(repository, COVERAGE, reasons=[*reasons(repository), extra])
    with pytest.raises(PlanError, match=r"ddim, Table 1, .* is filled and has a reason"):
        coverage(repository)


def test_a_reason_for_nothing_is_an_error(repository: Path) -> None:
    extra = {"published": {"paper": ["nobody"]}, "why": "never published"}
    change(repository, COVERAGE, reasons=[*reasons(repository), extra])
    with pytest.raises(PlanError, match=r"reasons\.\d+ names no value: never published"):
        coverage(repository)


def test_a_row_that_the_benchmark_cannot_fill_is_an_error(repository: Path) -> None:
    file = Path("config") / "cifar10.yaml"
    benchmark = fast_yaml.load((repository / file).read_text())
    kept = [each for each in benchmark["variants"] if each != "vp-deep"]
    change(repository, file, variants=kept)
    with pytest.raises(PlanError, match="the benchmark has no rk45 of vp-deep"):
        coverage(repository)
