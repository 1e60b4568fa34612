"""Make torchvision importable beside a torch without its compiled operators.

torch-fidelity imports torchvision, whose wheel from the package index is built for CUDA.  Beside a
CPU-only torch its extension does not load, and the import stops at ``operator torchvision::nms does
not exist``: it registers a shape rule for two operators that nobody has declared.  Declaring their
schemas is enough; neither operator (box suppression, for detectors) is ever called here.
"""

from __future__ import annotations

import importlib

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[torch.library.Library] = []


def ensure_importable() -> None:
    """Import torchvision, declaring the operators it misses if that is why its import fails.

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
    # A library's declarations vanish when it is collected.
    _declared.append(library)
