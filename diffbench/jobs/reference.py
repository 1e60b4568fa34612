"""The reference stage: the extractor, and its statistics and features of the data set; scores use both."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file

from diffbench.data.datasets import Dataset
from diffbench.estimate.costs import Cost
from diffbench.estimate.scoring import Scoring
from diffbench.estimate.timings import Timings
from diffbench.jobs import data
from diffbench.metrics import reference_statistics
from diffbench.metrics.distances import torch_fidelity
from diffbench.metrics.extractor import Extractor
from diffbench.metrics.fidelity import Fidelity
from diffbench.specs.floors import FloorSpec
from diffbench.specs.jobs import ReferenceSpec
from diffbench.specs.measures import MeasureSpec
from diffbench.specs.registry import build
from diffbench.store import paths
from diffbench.store.products import read_product, write_product
from diffbench.store.progress import Progress
from diffbench.training import machine


def run(spec: ReferenceSpec, root: Path, device_name: str) -> None:
    """Write statistics.npz and, for an extractor that is trained here, its validated weights."""
    check_library(spec)
    path, device = paths.product(root, spec), prepare(spec, device_name)
    with machine.record(path, device) as record:
        dataset = data.load(root, spec.data)
        extractor: Extractor = build(spec.extractor)
        module = extractor.make(dataset).to(device)
        record.note(extractor=extractor.validate(module, dataset))
        if spec.extractor.stored:
            tensors = {name: each.contiguous() for name, each in module.state_dict().items()}
            write_product(root / spec.weights, partial(save_file, tensors), spec)
        opinions, published = extractor.opinions(module), extractor.reference(dataset)
        known = reference_statistics.images_of(dataset.train, published)
        images = len(known) + len(dataset.test) + len(opinions) * len(dataset.train)
        progress = Progress("reference: features of the data set", images, "image")
        measured = reference_statistics.measure(
            module,
            {"train": dataset.train, "test": dataset.test},
            neighbours=spec.neighbours,
            opinions=opinions,
            published=published,
            seen=progress.advance,
        )
        progress.close()
        write_product(path, measured.save, spec)


def cost(spec: ReferenceSpec, timings: Timings) -> Cost:
    """Return the cost of making and validating the extractor, and of measuring both splits."""
    scoring = Scoring(spec, timings)
    return scoring.cost(scoring.reference)


def prepare(spec: ReferenceSpec, device_name: str) -> torch.device:
    """Return the device for features: a GPU for a large network, the CPU for all others."""
    wanted = spec.uses_gpu and device_name.startswith("cuda")
    return machine.prepare(device_name if wanted else "cpu")


def check_library(spec: ReferenceSpec) -> None:
    """Refuse a library other than the one that the plan was made for.

    Raises:
        ValueError: naming both.
    """
    found = f"torch-fidelity {torch_fidelity().__version__}"
    if found != spec.library:
        raise ValueError(f"the plan is for {spec.library}, and {found} is installed: plan again")


def load_fidelity(
    spec: ReferenceSpec,
    root: Path,
    dataset: Dataset,
    device: torch.device,
    floors: FloorSpec,
    measures: Sequence[MeasureSpec] = (),
) -> Fidelity:
    """Return the scoring of samples of a data set, with further measures and the floors of real images.

    Raises:
        StoreError: when the reference or the weights are missing, altered, or of another spec.
    """
    check_library(spec)
    measured = reference_statistics.load(read_product(paths.product(root, spec), spec))
    extractor: Extractor = build(spec.extractor)
    weights = read_product(root / spec.weights, spec) if spec.extractor.stored else None
    module = extractor.load(dataset, weights).to(device)
    return Fidelity(
        module,
        measured,
        dataset.train,
        sha256=extractor.sha256(module),
        opinions=extractor.opinions(module),
        resamples=spec.extractor.resamples,
        inception_score=dataset.inception_score and spec.extractor.has_logits,
        class_accuracy=spec.extractor.tells_classes,
        grey_levels=dataset.levels,
        conversion=spec.conversion,
        floors=floors,
        measures=measures,
        published=spec.extractor.reference_sha256,
    )
