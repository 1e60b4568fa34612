"""What an analysis works with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from diffbench.data.datasets import Dataset
from diffbench.store.state import StateStore


@dataclass(frozen=True)
class Bench:
    """The data set, the device, where to keep what it has so far, and the benchmark's results."""

    dataset: Dataset
    device: torch.device
    state: StateStore
    root: Path
