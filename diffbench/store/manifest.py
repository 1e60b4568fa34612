"""What "identical" means: the SHA-256 of every product, and of nothing else.

Left out are run records (``*.run.json``: times and hosts), hidden files and folders (training
state, unfinished files), ``scores.partial.json`` (what a failed run could still score), logs, and
timings. Tables and figures are made of products; tables hold seconds, which come from run records, and
figures letters, which depend on the machine's fonts: they are left out too.
"""

from __future__ import annotations

from pathlib import Path

from diffbench.store import files

LEFT_OUT_SUFFIXES = (".run.json", ".partial.json", ".log")
LEFT_OUT_FOLDERS = ("logs", "benchmarks", "tables", "figures")


def is_product(relative: Path) -> bool:
    """Say whether a path relative to the results folder is a product or its sidecar."""
    hidden = any(part.startswith(".") for part in relative.parts)
    return not (
        hidden or relative.parts[0] in LEFT_OUT_FOLDERS or relative.name.endswith(LEFT_OUT_SUFFIXES)
    )


def manifest(root: Path) -> dict[str, str]:
    """Return relative path -> SHA-256 of all products below ``root``, sorted by path."""
    found = sorted(path for path in root.rglob("*") if path.is_file())
    relative = [path.relative_to(root) for path in found]
    return {path.as_posix(): files.sha256(root / path) for path in relative if is_product(path)}
