"""A folder that `diffbench init` lays down from an installed wheel, outside of any checkout."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import fast_yaml
import pytest
from commands import REPOSITORY, environment

import diffbench
from diffbench.plan import workspace

COPIED = ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", *workspace.PARTS)
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def ran(*command: str | Path, at: Path, **more: str) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=at,
        env=environment(**more),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """A folder with the package of the wheel that is built of this checkout."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "laid")
    for name in ("diffbench", *COPIED):
        copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copyfile
        more = {"ignore": ignored} if copy is shutil.copytree else {}
        copy(REPOSITORY / name, source / name, **more)
    pip = ("-m", "pip", "--quiet", "--no-input", "--disable-pip-version-check")
    ran(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", ".", ".", at=source)
    (wheel,) = source.glob("*.whl")
    ran(*pip, "install", "--no-deps", "--target", folder, wheel, at=source)
    return folder


@pytest.fixture
def folder(site, tmp_path):
    """A folder that the installed package laid down."""
    ran("-m", "diffbench", "init", "mine", at=tmp_path, PYTHONPATH=str(site))
    return tmp_path / "mine"


@pytest.mark.slow
def test_a_folder_has_all_that_the_workflow_needs(site, folder):
    for name in workspace.PARTS:
        given = REPOSITORY / name
        for path in [given] if given.is_file() else given.rglob("*.*"):
            if path.suffix == ".pyc":
                assert not (folder / path.relative_to(REPOSITORY)).exists()
                continue
            laid = (folder / path.relative_to(REPOSITORY)).read_text()
            assert laid.replace("diffbench[lsun", "-e .[lsun") == path.read_text()
    said = ran(
        "-m", "diffbench", "check-config", "examples/tiny.yaml", at=folder, PYTHONPATH=str(site)
    )
    assert "8 variants" in said
    said = ran(
        "-m",
        "snakemake",
        "-n",
        "--configfile",
        "examples/tiny.yaml",
        at=folder,
        PYTHONPATH=str(site),
    )
    assert "train" in said and str(REPOSITORY / "workflow") not in said


@pytest.mark.slow
def test_the_tiny_benchmark_runs_in_it(site, folder):
    command = ("-m", "snakemake", "--cores", "2", "--configfile", "examples/tiny.yaml")
    ran(*command, "--config", "only=edm", at=folder, PYTHONPATH=str(site))
    assert (folder / "results" / "tiny" / "index.html").is_file()
    record = (folder / "results/tiny/runs/edm/seed0/model.run.json").read_text()
    assert diffbench.__version__ in record
    doctor = ("-m", "diffbench", "doctor", "--config", "examples/tiny.yaml", "--set", "only=edm")
    assert "0 missing, 0 wrong" in ran(*doctor, at=folder, PYTHONPATH=str(site))


def test_a_folder_with_files_is_refused(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").touch()
    with pytest.raises(workspace.WorkspaceError, match="not an empty folder"):
        workspace.lay(tmp_path / "mine")
    assert os.listdir(tmp_path) == ["mine"]
    assert os.listdir(tmp_path / "mine") == ["notes"]


def test_an_empty_folder_is_taken_and_another_version_is_refused(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    assert workspace.lay(folder) == [folder / name for name in workspace.PARTS]
    assert workspace.package_of(folder) == Path(diffbench.__file__).parent
    (folder / workspace.MARK).write_text("0.0.1\n")
    with pytest.raises(workspace.WorkspaceError, match="of version 0.0.1, and"):
        workspace.package_of(folder)


def test_a_checkout_that_found_another_package_is_refused(tmp_path):
    assert workspace.package_of(REPOSITORY) == REPOSITORY / "diffbench"
    (tmp_path / "diffbench").mkdir()
    with pytest.raises(workspace.WorkspaceError, match="found another package"):
        workspace.package_of(tmp_path)


def test_version_citation_and_changelog_agree():
    version = PROJECT["version"]
    assert fast_yaml.load((REPOSITORY / "CITATION.cff").read_text())["version"] == version
    headings = [
        line.removeprefix("## ")
        for line in (REPOSITORY / "CHANGELOG.md").read_text().splitlines()
        if line.startswith("## ")
    ]
    wanted = "[Unreleased]" if "dev" in version else f"[{version}]"
    assert headings[0].startswith(wanted)
    tag = subprocess.run(
        ["git", "tag", "--points-at", "HEAD", "--list", "v*"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split()
    assert tag in ([], [f"v{version}"])
