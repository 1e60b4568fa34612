"""The SHA-256 of every product, and of nothing else: two runs are identical when these are equal.

Left out are run records (``*.run.json``: times and hosts), hidden files and folders (training
states, unfinished files), ``scores.partial.json`` (the scores of a run that failed), logs, and
timings.  Tables, figures and the page, which are made of products, are left out too: tables and the page have
seconds from run records, and the letters in figures depend on the machine's fonts.
"""

from __future__ import annotations

from pathlib import Path

from diffbench.store import files

LEFT_OUT_SUFFIXES = (".run.json", ".partial.json", ".log")
#: Folders at the top of the results with what nobody reads back.
LOGS = ("logs", "benchmarks")
#: Files and folders at the top of the results.
LEFT_OUT = (*LOGS, "tables", "figures", "index.html")


def is_product(relative: Path) -> bool:
    """Say whether a path relative to the results folder is a product or its sidecar."""
    hidden = any(part.startswith(".") for part in relative.parts)
    return not (
        hidden or relative.parts[0] in LEFT_OUT or relative.name.endswith(LEFT_OUT_SUFFIXES)
    )


def manifest(root: Path) -> dict[str, str]:
    """Return relative path -> SHA-256 of all products below ``root``, sorted by path."""
    found = sorted(path for path in root.rglob("*") if path.is_file())
    relative = [path.relative_to(root) for path in found]
    return {path.as_posix(): files.sha256(root / path) for path in relative if is_product(path)}
