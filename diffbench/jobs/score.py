"""The score stage: all samples of one run, by one extractor, in one file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffbench.estimate.costs import Cost
from diffbench.estimate.scoring import OPENING, Scoring
from diffbench.estimate.timings import Timings
from diffbench.jobs import data
from diffbench.jobs.reference import load_fidelity, prepare
from diffbench.metrics.fidelity import Fidelity
from diffbench.specs.jobs import SampleSpec, ScoreSpec
from diffbench.store import files, paths
from diffbench.store.products import StoreError, read_product, reading, write_json_product
from diffbench.store.progress import Progress
from diffbench.store.seals import sealed
from diffbench.training import machine


def run(spec: ScoreSpec, root: Path, device_name: str, *, partial: bool = False) -> None:
    """Write scores.json; with ``partial`` score the samples that exist, into scores.partial.json."""
    device = prepare(spec.reference, device_name)
    path, leftover = paths.product(root, spec), paths.partial_scores(root, spec.variant, spec.seed)
    if partial:
        # Not a declared output, so without a sidecar: spec and seal are inside.
        content = score_all(spec, root, device, skip=True) | {"spec": spec.model_dump(mode="json")}
        files.write_json(leftover, sealed(content))
        return
    with machine.record(path, device):
        write_json_product(path, score_all(spec, root, device, skip=False), spec)
    leftover.unlink(missing_ok=True)


def cost(spec: ScoreSpec, timings: Timings) -> Cost:
    """Return the cost of scoring all samples, and of the floors for each number of them."""
    scoring = Scoring(spec.reference, timings)
    counts = [sample.samples for sample in spec.samples.values()]

    def seconds() -> float:
        floors = sum(scoring.floors(count, spec.floors) for count in set(counts))
        return OPENING + sum(map(scoring.samples, counts)) + floors

    return scoring.cost(seconds)


def score_all(spec: ScoreSpec, root: Path, device: torch.device, *, skip: bool) -> dict[str, Any]:
    """Return scores by solver, and their protocol; with ``skip`` solvers that cannot be scored are left out."""
    dataset = data.load(root, spec.reference.data)
    fidelity = load_fidelity(spec.reference, root, dataset, device, spec.floors, spec.measures)
    solvers, progress = {}, Progress(f"score {spec.variant}", len(spec.samples), "solver")
    for name, sample in spec.samples.items():
        try:
            solvers[name] = score(fidelity, sample, root)
        except (StoreError, ValueError) as error:
            if not skip:
                raise
            print(f"score {spec.variant} {name}: {error}", file=sys.stderr)
        progress.advance()
    progress.close()
    return {"solvers": solvers, "protocol": fidelity.protocol}


def score(fidelity: Fidelity, spec: SampleSpec, root: Path) -> dict[str, Any]:
    """Return metrics, their floors, NFE and count of one solver's samples, and the curves of metrics that have any."""
    path = read_product(paths.product(root, spec), spec)
    with reading(path), np.load(path) as archive:
        images, nfe = archive["levels"], int(archive["nfe"])
        labels = archive.get("labels")
        moved = archive.get("moved")
    measured = fidelity.measured(images, labels)
    metrics = dict(measured.scores)
    if moved is not None:
        metrics["moved"] = {"value": float(moved), "se": None}
    floors = fidelity.real_images.of_samples(len(images))
    found = {"metrics": metrics, "floors": floors, "nfe": nfe, "samples": len(images)}
    return found | ({"curves": dict(measured.curves)} if measured.curves else {})
