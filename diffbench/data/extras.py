"""Packages that only one kind of data set needs: extras of diffbench, imported when such a set is read."""

from __future__ import annotations

import importlib
from types import ModuleType


def package(module: str, extra: str, needed_by: str, instead: str = "") -> ModuleType:
    """Return a module of a package that may not be installed.

    Raises:
        ValueError: when it is not installed; the message says how to install it and what could be used instead.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        name = module.partition(".")[0]
        raise ValueError(
            f"{needed_by} needs the package {name}: `pip install 'diffbench[{extra}]'`{instead}"
        ) from None
