"""The likelihood stage: bits per dimension of a split, with a standard error over images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffbench.diffusion.streams import stream
from diffbench.plan.registry import build
from diffbench.specs.stages import LikelihoodStageSpec
from diffbench.stages import data, machine, models
from diffbench.stages.progress import Progress
from diffbench.store import paths
from diffbench.store.products import write_json_product


def run(spec: LikelihoodStageSpec, root: Path, device: str) -> None:
    """Write likelihood/{kind}.json."""
    place = machine.prepare(device, spec.train.running)
    path = paths.product(root, spec)
    with machine.record(path, place):
        write_json_product(path, evaluate(spec, root, place), spec)


def evaluate(spec: LikelihoodStageSpec, root: Path, device: torch.device) -> dict[str, Any]:
    """The whole split, ``batch`` images at a time, each batch with a stream of its own."""
    dataset = data.load(root, spec.train.data)
    denoiser = models.load_denoiser(spec.train, root, dataset, device, spec.precision)
    levels = models.levels_of(dataset, spec.train.process)
    likelihood = build(spec.likelihood, denoiser, levels)
    stored, known = dataset.split(spec.likelihood.split)
    images = levels.to_model(stored).to(device)
    labels = torch.from_numpy(known).to(device) if denoiser.classes else None
    title = f"likelihood {spec.variant} {spec.kind_id}"
    progress = Progress(title, len(images), "image")
    parts: list[dict[str, Tensor]] = []
    batches = models.in_batches(images, labels, likelihood.spec.batch)
    for i, (batch, y) in enumerate(batches):
        parts.append(likelihood(batch, stream("likelihood", spec.seed, i), y))
        progress.advance(len(batch))
    progress.close()
    calls = round(denoiser.calls / len(parts))
    backward = round(getattr(likelihood, "backward", 0) / len(parts))
    return summary(spec, dataset.levels, calls, parts) | {"backward_passes": backward}


def summary(
    spec: LikelihoodStageSpec, levels: int, calls: int, parts: list[dict[str, Tensor]]
) -> dict[str, Any]:
    """Mean and standard error over images, and what else the likelihood says."""
    total = torch.cat([part["total"] for part in parts]).double().cpu()
    error = float(total.std() / len(total) ** 0.5) if len(total) > 1 else None
    return {
        "kind": spec.likelihood.column,
        "bits_per_dim": {"value": float(total.mean()), "se": error},
        **bound_terms(parts),
        "images": len(total),
        "nfe": calls,
        "protocol": {"levels": levels, **spec.likelihood.model_dump(mode="json")},
    }


def bound_terms(parts: list[dict[str, Tensor]]) -> dict[str, Any]:
    """A bound's prior and terms by time, weighted by their images; nothing where it has no terms."""
    if "terms" not in parts[0]:
        return {}
    counts = torch.tensor([len(part["total"]) for part in parts], dtype=torch.float64)
    terms = torch.stack([part["terms"].double().cpu() for part in parts])
    return {
        "prior": float(torch.cat([part["prior"] for part in parts]).double().mean()),
        "times": parts[0]["times"].tolist(),
        "terms": ((counts[:, None] * terms).sum(0) / counts.sum()).tolist(),
    }
