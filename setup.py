"""Build the package with what `diffbench init` lays down: workflow, profiles, configuration and examples."""

import shutil
from functools import partial
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

#: Of the checkout; in the built package below ``diffbench/laid``.
LAID = (
    *("Snakefile", "environment.yml", "constraints.txt"),
    *("workflow", "profiles", "config", "examples"),
)


copytree = partial(shutil.copytree, ignore=shutil.ignore_patterns("__pycache__"))


class BuildWithWorkflow(build_py):
    """The build of the package's modules, with copies of these files and folders."""

    def run(self) -> None:
        """Build; an editable install uses the checkout's own files instead."""
        super().run()
        if self.editable_mode:
            return
        laid = Path(self.build_lib) / "diffbench" / "laid"
        shutil.rmtree(laid, ignore_errors=True)
        laid.mkdir(parents=True)
        for name in LAID:
            copy = copytree if Path(name).is_dir() else shutil.copyfile
            copy(name, laid / name)


setup(cmdclass={"build_py": BuildWithWorkflow})
