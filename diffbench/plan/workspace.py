"""A folder to work in without a checkout: the workflow, its profiles, the configuration and examples.

A built package has them in ``diffbench/laid``; a checkout has them beside the package.  The folder knows the version
that laid it down, because the rules of one version start the stages of the same.
"""

from __future__ import annotations

import shutil
from functools import partial
from importlib.metadata import version
from pathlib import Path

from diffbench.specs.errors import UserError
from diffbench.store import files

#: What is laid down.
FOLDERS = ("workflow", "profiles", "config", "examples")
PARTS = ("Snakefile", "environment.yml", "constraints.txt", *FOLDERS)
#: The file that has the version.
MARK = ".diffbench-version"

PACKAGE = Path(__file__).resolve().parents[1]

#: Content only: files have the modes of new ones.  An extension that was imported leaves compiled files beside it.
copytree = partial(
    shutil.copytree, copy_function=shutil.copyfile, ignore=shutil.ignore_patterns("__pycache__")
)


class WorkspaceError(UserError, ValueError):
    """The error of a folder that cannot be laid down, or that is not of this package."""


def lay(folder: Path) -> list[Path]:
    """Make a folder to work in, and return what is in it.

    Raises:
        WorkspaceError: when the folder has files already; nothing is written then.
    """
    laid = PACKAGE / "laid"
    source = laid if laid.is_dir() else PACKAGE.parent
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise WorkspaceError(f"{folder}: exists and is not an empty folder; name a new one")
    with files.update(folder, ()) as unfinished:
        for name in PARTS:
            copy = copytree if name in FOLDERS else shutil.copyfile
            copy(source / name, unfinished / name)
        environment = unfinished / "environment.yml"
        text = environment.read_text(encoding="utf-8").replace("-e .[", "diffbench[")
        environment.write_text(text, encoding="utf-8")
        (unfinished / MARK).write_text(f"{version('diffbench')}\n", encoding="utf-8")
    return [folder / name for name in PARTS]


def package_of(folder: Path) -> Path:
    """Return the package that a workflow in ``folder`` runs: that of its checkout, or the installed one.

    Raises:
        WorkspaceError: when a checkout found another package than its own, or the installed package has another version
            than the one that laid the folder down.
    """
    own, mark = folder.resolve() / "diffbench", folder / MARK
    if own.is_dir() or not mark.is_file():
        if own != PACKAGE:
            raise WorkspaceError(f"the workflow in {folder} found another package, {PACKAGE}")
        return own
    maker, installed = mark.read_text(encoding="utf-8").strip(), version("diffbench")
    if maker != installed:
        raise WorkspaceError(
            f"{folder} was made by `diffbench init` of version {maker}, and {installed} is installed: "
            "install that version, or make a new folder"
        )
    return PACKAGE
