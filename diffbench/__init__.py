"""A benchmark and reproducibility harness for diffusion models."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffbench.notebook import Run

__all__ = ["__version__", "load"]


def load(
    path: str | Path,
    device: str = "cpu",
    extensions: Iterable[str | Path] = (),
    at: int | float | None = None,
    ema_std: float | None = None,
) -> Run:
    """Return the run in a folder such as ``results/digits/runs/vp/seed0`` (``notebook``)."""
    from diffbench.notebook import load

    return load(path, device, extensions, at, ema_std)


def __getattr__(name: str) -> Any:
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import metadata

    try:
        return metadata.version("diffbench")
    except metadata.PackageNotFoundError:
        return "0+uninstalled"
