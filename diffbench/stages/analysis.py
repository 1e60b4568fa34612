"""The analysis stage: one measurement on a variant, as JSON."""

from __future__ import annotations

from pathlib import Path

from diffbench.plan.registry import build
from diffbench.specs.stages import AnalysisStageSpec
from diffbench.stages import data, machine
from diffbench.store import paths
from diffbench.store.products import write_json_product


def run(spec: AnalysisStageSpec, root: Path, device: str) -> None:
    """Write analysis/{id}.json."""
    place = machine.prepare(device, spec.train.training)
    path = paths.product(root, spec)
    with machine.record(path, place):
        dataset = data.load(root, spec.train.data)
        write_json_product(path, build(spec.analysis, spec.train).measure(dataset, place), spec)
