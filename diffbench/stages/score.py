"""The score stage: all samples of one run, by one extractor, in one file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

from diffbench.metrics.extractor import build_extractor
from diffbench.metrics.fidelity import Fidelity
from diffbench.specs.stages import DataStageSpec, SampleSpec, ScoreSpec
from diffbench.stages import data, machine
from diffbench.store import files, paths
from diffbench.store.products import StoreError, read_product, write_json_product


def run(spec: ScoreSpec, root: Path, device: str, *, partial: bool = False) -> None:
    """Write scores.json; with ``partial`` score what there is, into scores.partial.json."""
    place = machine.prepare("cpu")
    path, leftover = paths.product(root, spec), paths.partial_scores(root, spec.variant, spec.seed)
    if partial:
        # Not a declared output, so without a sidecar: the spec lies inside.
        content = score_all(spec, root, skip=True) | {"spec": spec.model_dump(mode="json")}
        files.write_json(leftover, content)
        return
    with machine.record(path, place):
        write_json_product(path, score_all(spec, root, skip=False), spec)
    leftover.unlink(missing_ok=True)


def score_all(spec: ScoreSpec, root: Path, *, skip: bool) -> dict[str, Any]:
    """Scores by solver, and their protocol; ``skip`` leaves out what cannot be scored."""
    fidelity = load_fidelity(spec.data, root)
    solvers = {}
    for name, sample in spec.samples.items():
        try:
            solvers[name] = score(fidelity, sample, root)
        except (StoreError, ValueError) as error:
            if not skip:
                raise
            print(f"score {spec.variant} {name}: {error}", file=sys.stderr)
    return {"solvers": solvers, "protocol": fidelity.protocol}


def load_fidelity(spec: DataStageSpec, root: Path) -> Fidelity:
    """The extractor and its reference features."""
    dataset = data.load(root, spec.data)
    extractor = build_extractor(spec.extractor, dataset)
    extractor.load_state_dict(load_file(read_product(paths.extractor(root), spec)))
    extractor.eval().requires_grad_(False)
    splits = {"train": dataset.train, "test": dataset.test}
    return Fidelity(
        extractor,
        splits,
        inception_score=dataset.inception_score,
        grey_levels=dataset.levels,
    )


def score(fidelity: Fidelity, spec: SampleSpec, root: Path) -> dict[str, Any]:
    """Metrics, NFE and count of one solver's samples."""
    with np.load(read_product(paths.product(root, spec), spec)) as archive:
        levels, nfe = archive["levels"], int(archive["nfe"])
        labels = archive.get("labels")
        moved = archive.get("moved")
    metrics = fidelity.score(levels, labels)
    if moved is not None:
        metrics["moved"] = {"value": float(moved), "se": None}
    return {"metrics": metrics, "nfe": nfe, "samples": len(levels)}
