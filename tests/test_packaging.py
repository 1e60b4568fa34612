"""What is declared beside the code: dependencies and extras, pinned versions, make's targets, the catalog's facts."""

import re
import subprocess
import sys
import tomllib

import yaml
from commands import REPOSITORY

from diffbench import __version__

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
MAKEFILE = (REPOSITORY / "Makefile").read_text()


def names(requirements):
    """The packages, without versions; of the project's own extras, what is in them."""
    found = set()
    for each in requirements:
        name, extras = re.match(r"([\w-]+)(?:\[([\w,]+)\])?", each).groups()
        found |= names([r for e in extras.split(",") for r in EXTRAS[e]]) if extras else {name}
    return found


def plain(name):
    """A package's name as registries compare it."""
    return name.lower().replace("_", "-")


def test_every_dependency_is_pinned_at_one_version():
    pinned = re.findall(r"^([\w-]+)==\S+$", (REPOSITORY / "constraints.txt").read_text(), re.M)
    assert len(pinned) == len(set(pinned))
    wanted = names(PROJECT["dependencies"]).union(*map(names, EXTRAS.values()))
    assert set(map(plain, wanted)) <= set(map(plain, pinned))


def test_users_get_no_tool_of_developers():
    users = names(PROJECT["dependencies"]) | names(
        EXTRAS["parquet"] + EXTRAS["lsun"] + EXTRAS["slurm"]
    )
    developers = {"pytest", "pytest-xdist", "ruff", "mypy", "import-linter", "snakefmt", "mpmath"}
    assert not users & developers
    assert developers <= names(EXTRAS["test"]) | names(EXTRAS["lint"])
    assert not names(PROJECT["dependencies"]) & names(EXTRAS["test"] + EXTRAS["lint"])


def test_make_and_conda_name_extras_that_exist():
    conda = (REPOSITORY / "environment.yml").read_text()
    for extras in re.findall(r"(?:diffbench|-e \.)\[([\w,]+)\]", MAKEFILE + conda):
        assert set(extras.split(",")) <= set(EXTRAS)
    assert "-e ." in conda and "-c constraints.txt" in conda


ALONE = """
import importlib, pkgutil, sys
for name in {missing!r}:
    sys.modules[name] = None
import diffbench
for module in pkgutil.walk_packages(diffbench.__path__, "diffbench."):
    if module.name != "diffbench.__main__":
        importlib.import_module(module.name)
print(len(sys.modules))
"""


def test_every_module_is_imported_without_any_extra():
    packages = set().union(*map(names, EXTRAS.values())) - {"filelock"}
    modules = {each.replace("-", "_").lower() for each in packages} | {
        "xdist",
        "importlinter",
        "_pytest",
    }
    code = ALONE.format(missing=sorted(modules - {"types_pyyaml"}))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 500


def test_the_citation_says_what_is_so():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"] == __version__
    assert citation["license"] == PROJECT["license"]
    assert citation["authors"] == PROJECT["authors"]
    assert citation["title"].startswith(f"{PROJECT['name']}: ")
    (named,) = re.findall(r"\((\S+) names them\)", citation["message"])
    methods = (REPOSITORY / named).read_text()
    # Above the first variant of a paper stands the paper, with its address.
    for paper in set(re.findall(r"^  paper: (\S+)", methods, re.M)):
        before = methods[: methods.index(f"  paper: {paper}\n")]
        heading = [
            block for block in before.split("\n\n") if re.search(r"^# .*https://", block, re.M)
        ]
        assert heading, paper


def test_the_catalog_says_what_is_so():
    text = (REPOSITORY / ".snakemake-workflow-catalog.yml").read_text()
    usage = yaml.safe_load(text)["usage"]
    assert set(usage) <= {"mandatory-flags", "software-stack-deployment", "report"}
    targets = re.findall(r"`make ([\w-]+)`", text)
    assert targets and all(re.search(rf"^{each}:", MAKEFILE, re.M) for each in targets)
    shown = subprocess.run(
        [sys.executable, "-m", "snakemake", "--help"], capture_output=True, text=True, check=True
    )
    flags = re.findall(r" (--[\w-]+)", text)
    assert flags and all(re.search(rf"{each}\b", shown.stdout) for each in flags)
    rules = "".join(path.read_text() for path in (REPOSITORY / "workflow").rglob("*.smk"))
    assert usage["report"] == ("report(" in rules)
    deployment = usage["software-stack-deployment"]
    assert set(deployment) <= {"conda", "apptainer", "apptainer+conda", "report"}
    assert deployment["report"] == usage["report"]
    assert (
        not any(deployment[each] for each in ("apptainer", "apptainer+conda"))
        or "container:" in rules
    )
