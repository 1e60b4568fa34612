"""The analysis stage: one measurement on a variant, as JSON.

An analysis may save intermediate results in the job's state folder, and continues from them when called again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from diffbench.analyses.bench import Bench
from diffbench.estimate.costs import Cost
from diffbench.estimate.timings import Timings
from diffbench.jobs import data
from diffbench.specs.jobs import AnalysisStageSpec
from diffbench.specs.registry import build
from diffbench.store import paths
from diffbench.store.products import write_json_product
from diffbench.store.state import StateStore
from diffbench.training import machine


def cost(spec: AnalysisStageSpec, timings: Timings) -> Cost:
    """Return the cost of an analysis; one that does not know it (``cost(timings)``) is not estimated."""
    analysis = build(spec.analysis, spec.train) if spec.train else build(spec.analysis)
    own: Callable[[Timings], Cost] | None = getattr(analysis, "cost", None)
    return Cost(None) if own is None else own(timings)


def run(spec: AnalysisStageSpec, root: Path, device_name: str) -> None:
    """Write analysis/{id}.json, and its picture if it has one."""
    train = spec.train
    device = machine.prepare(device_name, train.running if train else None)
    path = paths.product(root, spec)
    state = StateStore(paths.state(root, spec), spec)
    with state.lock(), machine.record(path, device):
        dataset = data.load(root, train.data) if train else None
        analysis = build(spec.analysis, train) if train else build(spec.analysis)
        content, picture = analysis.measure(
            Bench(dataset, device, state, root, spec.seed, spec.precision)
        )
        beside = {} if picture is None else {path.with_suffix(".png"): picture}
        write_json_product(path, content, spec, beside)
