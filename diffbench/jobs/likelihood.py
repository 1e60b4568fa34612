"""The likelihood stage: bits per dimension of a split, with a standard error over images, or why there is no number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffbench.diffusion.core.condition import Condition
from diffbench.diffusion.core.streams import stream
from diffbench.diffusion.denoisers.denoiser import Counted
from diffbench.estimate import counting
from diffbench.estimate.costs import Cost
from diffbench.estimate.timings import Timings
from diffbench.jobs import data
from diffbench.metrics.scores import mean_of
from diffbench.specs.jobs import LikelihoodStageSpec
from diffbench.specs.registry import build
from diffbench.store import paths
from diffbench.store.products import write_json_product
from diffbench.store.progress import Progress
from diffbench.training import machine, models

#: The number of images, where a data set does not give it.
ASSUMED_IMAGES = 10_000


def run(spec: LikelihoodStageSpec, root: Path, device_name: str) -> None:
    """Write likelihood/{kind}.json."""
    device = machine.prepare(device_name, spec.train.running)
    path = paths.product(root, spec)
    with machine.record(path, device):
        write_json_product(path, evaluate(spec, root, device), spec)


def cost(spec: LikelihoodStageSpec, timings: Timings) -> Cost:
    """Return the cost of the likelihood of the whole split."""
    train, likelihood = spec.train, spec.likelihood
    if train.network is None:
        return Cost(None)
    key = ("likelihood", likelihood.plain, train.process, train.denoiser)
    calls, notes = timings.calls(
        key, likelihood.adaptive, lambda: counting.of_likelihood(train, likelihood, timings.small)
    )
    images = train.data.known_counts.get(likelihood.split)
    if images is None:
        notes += (f"{ASSUMED_IMAGES:,} {likelihood.split} images are assumed",)
    count = images or ASSUMED_IMAGES
    batch = min(getattr(likelihood, "batch", count), count)
    seconds = calls.network * evaluation(spec, batch, timings)
    return Cost(seconds * count / batch / 3600, notes=notes)


def evaluation(spec: LikelihoodStageSpec, batch: int, timings: Timings) -> float:
    """Return the seconds of one evaluation with its backward passes."""
    asked = spec.train, batch, spec.precision, spec.train.denoiser.takes_labels
    forward = timings.call(*asked)
    passes = spec.likelihood.backward_passes(timings.dataset.train[0].size)
    if passes == 0:
        return forward.seconds
    both = timings.call(*asked, backward=True)
    return both.seconds + (passes - 1) * max(both.seconds - forward.seconds, 0.0)


def evaluate(spec: LikelihoodStageSpec, root: Path, device: torch.device) -> dict[str, Any]:
    """Return the likelihood of the whole split; each batch of ``batch`` images has a random stream of its own."""
    dataset = data.load(root, spec.train.data)
    model = models.load_denoiser(spec.train, root, dataset, device, spec.precision, spec.likelihood)
    title = f"likelihood {spec.variant} {spec.kind_id}"
    progress = Progress(title, len(dataset.split(spec.likelihood.split)[0]), "image")
    denoiser = Counted(model, progress.call)
    grey = models.grey_levels_of(dataset, spec.train.process)
    likelihood = build(spec.likelihood, denoiser, grey)
    stored, known = dataset.split(spec.likelihood.split)
    images = grey.to_model(stored).to(device)
    labels = torch.from_numpy(known).to(device) if denoiser.classes else None
    parts: list[dict[str, Tensor]] = []
    batches = models.in_batches(images, labels, likelihood.spec.batch)
    for i, (batch, y) in enumerate(batches):
        parts.append(likelihood(batch, stream("likelihood", spec.seed, i), Condition(y)))
        progress.advance(len(batch))
    progress.close()
    calls = round(denoiser.calls / len(parts))
    backward = round(getattr(likelihood, "backward", 0) / len(parts))
    return summary(spec, dataset.levels, calls, parts) | {"backward_passes": backward}


def summary(
    spec: LikelihoodStageSpec, levels: int, calls: int, parts: list[dict[str, Tensor]]
) -> dict[str, Any]:
    """Return mean and standard error over images, and the likelihood's other results."""
    bits: dict[str, Any] = {**mean_of(joined(parts, "total"))}
    outside = support(parts) if spec.train.process.bounded else {}
    if outside.get("images"):
        bits = {"value": None, "se": None, "reason": no_density(outside)}
    return {
        "kind": spec.likelihood.column,
        "bits_per_dim": bits,
        **bound_terms(parts),
        **({"outside": outside} if outside else {}),
        "images": sum(len(part["total"]) for part in parts),
        "nfe": calls,
        "protocol": {"levels": levels, **spec.likelihood.model_dump(mode="json")},
    }


def joined(parts: list[dict[str, Tensor]], name: str) -> Tensor:
    """Return one value of a likelihood for each image, float64 (N,)."""
    return torch.cat([part[name] for part in parts]).double().cpu()


def support(parts: list[dict[str, Tensor]]) -> dict[str, Any]:
    """Return the shares of images and of pixels whose latents lie outside the prior's support, and ``bits_if_inside``.

    ``bits_if_inside``: the mean under a prior whose density continues outside, as in the official code of reflected
    diffusion.  It is no likelihood.
    """
    pixels = joined(parts, "outside")
    return {
        "images": float((pixels > 0).double().mean()),
        "pixels": float(pixels.mean()),
        "bits_if_inside": float(joined(parts, "unbounded").mean()),
    }


def no_density(outside: dict[str, Any]) -> str:
    """Return in one line why the average over images is not a number."""
    return (
        f"no density: the latents of {100 * outside['images']:.3g} % of the images, "
        f"{100 * outside['pixels']:.2g} % of the pixels, end outside the cube, where the prior has none; "
        f"were it 1 there too, as in the official code, they had {outside['bits_if_inside']:.3f} bits/dim, "
        "which is no likelihood; close the walls by gate or bump, or take shorter steps"
    )


def bound_terms(parts: list[dict[str, Tensor]]) -> dict[str, Any]:
    """Return a bound's prior term and its terms by time, averaged over images; empty where there are no terms."""
    if "terms" not in parts[0]:
        return {}
    counts = torch.tensor([len(part["total"]) for part in parts], dtype=torch.float64)
    terms = torch.stack([part["terms"].double().cpu() for part in parts])
    return {
        "prior": float(torch.cat([part["prior"] for part in parts]).double().mean()),
        "times": parts[0]["times"].tolist(),
        "terms": ((counts[:, None] * terms).sum(0) / counts.sum()).tolist(),
    }
