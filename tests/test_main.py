"""The workflow runs its own package by its path, wherever the checkout lies and whatever else is installed."""

import shutil
import subprocess
import sys
from pathlib import Path

from commands import REPOSITORY, environment, said


def test_a_package_run_by_its_path_is_that_one(tmp_path):
    """No list of paths can name a folder with a colon, and another diffbench is found first by its name."""
    package = tmp_path / "a:b" / "diffbench"
    shutil.copytree(REPOSITORY / "diffbench", package, ignore=shutil.ignore_patterns("__pycache__"))
    with (package / "cli" / "__init__.py").open("a") as file:
        file.write("\nprint('the copy')\n")
    (tmp_path / "diffbench").mkdir()
    (tmp_path / "diffbench" / "__init__.py").write_text("raise SystemExit('the working folder')")
    done = subprocess.run(
        [sys.executable, package, "--version"],
        cwd=tmp_path,
        env=environment(PYTHONPATH=str(REPOSITORY), DIFFBENCH_SERVER=""),
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[0] == "the copy", said(done)


def test_a_checkout_that_snakemake_cannot_run_is_refused_in_one_line(tmp_path):
    checkout = tmp_path / "c{d}"
    for name in ("diffbench", "workflow", "config"):
        shutil.copytree(REPOSITORY / name, checkout / name)
    shutil.copy(REPOSITORY / "Snakefile", checkout)
    command = [Path(sys.executable).with_name("snakemake"), "-n", "-s", checkout / "Snakefile"]
    done = subprocess.run(
        [*map(str, command)], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 1
    assert said(done).splitlines()[-1].startswith(f"diffbench: {checkout}: Snakemake cannot run")
    assert "Traceback" not in said(done)
