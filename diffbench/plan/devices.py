"""Which device ``device: auto`` means on this machine, found without torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path

NVIDIA = Path("/dev/nvidia0")


def resolved(device: str) -> str:
    """Return ``cpu`` or ``cuda`` for ``auto``; any other device is returned as it is.

    ``auto`` never means ``mps``, which lacks float64: exact denoisers and bounds need it.
    """
    if device != "auto":
        return device
    return "cuda" if has_cuda() else "cpu"


def remark(device: str) -> str | None:
    """Return a remark on a device that a benchmark names and this machine lacks: it may plan for another machine."""
    here: Mapping[str, Callable[[], bool]] = {
        "cuda": has_cuda,
        "mps": lambda: sys.platform == "darwin",
    }
    if device not in here or here[device]():
        return None
    return (
        f"device: {device}: this machine has none, and jobs that need it would refuse to run here"
    )


def has_cuda() -> bool:
    """Say whether a GPU is visible and torch was built to use one."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1", "NoDevFiles"):
        return False
    return not _torch_is_cpu_only() and bool(NVIDIA.exists() or visible)


def _torch_is_cpu_only() -> bool:
    try:
        return metadata.version("torch").endswith("+cpu")
    except metadata.PackageNotFoundError:
        return False
