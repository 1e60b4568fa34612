"""What a user's file is told that imports a name from where it no longer is."""

import importlib
import importlib.util

import pytest

from diffbench.specs.errors import PlanError
from diffbench.specs.extensions import source
from diffbench.specs.moved import MOVED, moved_imports


def exists(name):
    """Whether a module, or something in one, has that name inside diffbench."""
    try:
        return importlib.util.find_spec(f"diffbench.{name}") is not None
    except ModuleNotFoundError:
        return False


def found(name):
    if exists(name):
        return importlib.import_module(f"diffbench.{name}")
    module, _, inside = name.rpartition(".")
    return getattr(importlib.import_module(f"diffbench.{module}"), inside)


@pytest.mark.parametrize(("old", "new"), MOVED.items())
def test_what_moved_is_where_the_table_says(old, new):
    assert found(new) is not None and old != new
    # An old name that exists again is a folder now, with the new one in it.
    assert not exists(old) or hasattr(found(old), "__path__")


@pytest.mark.parametrize(
    ("line", "old", "new"),
    [
        ("from diffbench.data.levels import Images", "data.levels", "data.grey_levels"),
        ("from diffbench.data.levels import Levels", "data.levels.Levels", "data.grey_levels.GreyLevels"),
        ("import diffbench.stages.trainer", "stages.trainer", "training.trainer"),
        ("from diffbench.stages import trainer as t", "stages.trainer", "training.trainer"),
        ("from diffbench.plan.registry import build", "plan.registry", "specs.registry"),
        ("from diffbench.plan import registry", "plan.registry", "specs.registry"),
        ("from diffbench.specs.solver import SolverSpec", "specs.solver", "specs.solvers"),
        (
            "from diffbench.diffusion.denoisers import NetworkDenoiser",
            "diffusion.denoisers",
            "diffusion.denoisers.network",
        ),
    ],
)  # fmt: skip
def test_a_file_that_imports_an_old_name_is_told_the_new_one(tmp_path, line, old, new):
    path = tmp_path / "mine.py"
    path.write_text(f"{line}\n")
    with pytest.raises(PlanError, match="mine.py imports what has moved") as error:
        source(path).load()
    assert str(error.value).endswith(f"moved: diffbench.{old} is now diffbench.{new}")


def test_a_name_that_moved_out_of_a_module_is_said(monkeypatch):
    source = "from diffbench.plan.reading import PlanError, read"
    monkeypatch.delattr("diffbench.plan.reading.PlanError")
    assert (
        moved_imports(source)["diffbench.plan.reading.PlanError"]
        == "diffbench.specs.errors.PlanError"
    )


def test_all_that_moved_is_said_at_once_and_nothing_else():
    source = (
        "import os\nfrom diffbench.stages import sample, score\nfrom diffbench.diffusion import denoisers\n"
        "from diffbench.diffusion.denoisers import network\nfrom diffbench.specs.base import Spec\n"
    )
    assert moved_imports(source) == {
        "diffbench.stages.sample": "diffbench.jobs.sample",
        "diffbench.stages.score": "diffbench.jobs.score",
    }


def test_an_import_that_fails_for_another_reason_is_said_as_it_is(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("import nothing_of_that_name\n")
    with pytest.raises(PlanError, match="cannot be imported: ModuleNotFoundError: No module named"):
        source(path).load()
