"""``diffbench new``: what it writes works at once, and it writes nothing over a file."""

import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import REPOSITORY, forget

from diffbench.cli import main
from diffbench.cli.new import KINDS, begun
from diffbench.plan.loading import load_plan
from diffbench.reporting import layout
from diffbench.specs.registry import build

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty working directory; what extensions in it registered is forgotten at the end."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for path in tmp_path.glob("*.py"):
        forget(path)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_obeys_the_laws_and_plans(kind, folder):
    assert main(["new", kind, "fresh-one"]) == 0
    assert {each.name for each in folder.iterdir()} == {
        "fresh_one.py",
        "fresh_one.yaml",
        "test_fresh_one.py",
    }
    assert len((folder / "fresh_one.py").read_text().splitlines()) <= 40
    runpy.run_path(str(folder / "test_fresh_one.py"))["test_it_obeys_the_laws"]()
    plan = load_plan([folder / "fresh_one.yaml"], {}, REPOSITORY)
    using = {job.stage for job in plan.jobs if job.spec.extensions}
    assert using, "no job of the benchmark uses the extension"
    beside = {job.stage for job in plan.jobs if not job.spec.extensions}
    assert beside or kind == "data", "nothing stands beside it"
    assert layout.of_plan(plan).tables


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_clean(kind, folder):
    for name, text in begun(kind, "fresh-one").items():
        (folder / name).write_text(text)
    checked = ("ruff", "format", "--check", "--line-length", "100", ".")
    found = subprocess.run([sys.executable, "-m", *checked], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("there", ["mine.py", "mine.yaml", "test_mine.py"])
def test_nothing_is_overwritten(there, folder, capsys):
    Path(there).write_text("kept")
    assert main(["new", "solver", "mine"]) == 1
    assert capsys.readouterr().err == (
        f"diffbench new: {there} is there already: choose another name, or move it\n"
    )
    assert [each.name for each in folder.iterdir()] == [there]
    assert Path(there).read_text() == "kept"


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("solver", "Mine", "'Mine' cannot be a name: take small letters and digits"),
        ("solver", "../mine", "'../mine' cannot be a name: take small letters and digits"),
        (
            "process",
            "random",
            "'random' is a name of Python's own: take another, such as my-random",
        ),
        ("network", "class", "'class' is a name of Python's own"),
        ("solver", "heun", "'heun' is a solver of the package: take another, such as my-heun"),
        ("metric", "authenticity", "'authenticity' is a metric of the package"),
    ],
)
def test_a_name_that_cannot_be_one_is_refused(kind, name, said, folder, capsys):
    assert main(["new", kind, name]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"diffbench new: {said}")
    assert not list(folder.iterdir())


def test_a_new_metric_has_a_column_with_its_direction(folder):
    """Beside those of the overview, and in no other listing than those of samples."""
    main(["new", "metric", "fresh"])
    wanted = {"tables": ["overview", "restorations"]}
    found = layout.of_plan(load_plan([folder / "fresh.yaml"], wanted, REPOSITORY))
    assert found.metrics["fresh"].better == "lower" and found.metrics["fresh"].head == "fresh"
    assert found.tables["overview"].columns[-1] == "fresh"
    assert "fresh" in found.tables["overview"].where_known
    assert "fresh" not in found.tables["restorations"].columns
    mine = {"metrics": {"fresh": {"head": "F", "better": "lower"}}}
    again = layout.of_plan(load_plan([folder / "fresh.yaml"], wanted | mine, REPOSITORY))
    assert again.metrics["fresh"].head == "F"
    own = {"layout": "listing", "title": "T", "stage": "sample", "columns": ["fresh"]}
    table = {"tables": ["overview", {"own": own}]}
    assert "fresh" not in (
        layout.of_plan(load_plan([folder / "fresh.yaml"], table, REPOSITORY))
        .tables["overview"]
        .columns
    )


LAYOUT = """
from typing import ClassVar, Literal
from diffbench.reporting.formats import Grid, Table
from diffbench.reporting.layout.table import TableSpec

class Counts:
    def __init__(self, spec):
        self.spec = spec

    def make(self, results, metrics, published):
        rows = [[name, str(len(each.solvers))] for name, each in results.plan.variants.items()]
        return Table(self.spec.title, [], [Grid(["variant", "solvers"], rows, labels=1)])

class CountsSpec(TableSpec):
    layout: Literal["counts"] = "counts"
    implementation: ClassVar[str | type] = Counts
"""


def test_a_benchmark_brings_a_layout_of_tables(folder):
    """Beside a metric, a data set and the others: nothing of the package is edited."""
    main(["new", "solver", "fresh"])
    (folder / "layouts.py").write_text(LAYOUT)
    change = {
        "extensions": ["fresh.py", "layouts.py"],
        "tables": ["overview", {"counts": {"layout": "counts", "title": "Counted"}}],
    }
    plan = load_plan([folder / "fresh.yaml"], change, REPOSITORY)
    table = layout.of_plan(plan).tables["counts"]
    made = build(table).make(SimpleNamespace(plan=plan), {}, None)
    assert made.grids[0].rows == [["vp", str(len(plan.variants["vp"].solvers))]]
