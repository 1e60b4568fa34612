"""Import torch-fidelity, and torchvision beside a torch without its compiled operators.

torch-fidelity imports torchvision, whose wheel from the package index is built for CUDA.  With a
CPU-only torch its extension does not load, and the import fails with ``operator torchvision::nms does
not exist``: it registers a shape rule for two operators that are not declared.  It is enough to declare
their schemas; neither operator (box suppression, for detectors) is ever called here.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[torch.library.Library] = []


def ensure_importable() -> None:
    """Import torchvision; declare the operators that it lacks if its import fails because of them.

    Raises:
        ImportError: when torchvision is not installed.
        RuntimeError: when its import fails for any other reason.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        _declare()
        importlib.import_module("torchvision")


def _declare() -> None:
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}{_SCHEMA}")
    # The declarations end when the library object is collected.
    _declared.append(library)


def torch_fidelity() -> Any:
    """The package torch-fidelity, imported at the first call because that takes seconds."""
    ensure_importable()
    import torch_fidelity as package

    return package
