"""The reference stage: the extractor, and its statistics and features of the data set; scores use both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import metadata
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from diffbench.data.datasets import Dataset
from diffbench.estimate.costs import Cost
from diffbench.estimate.scoring import Scoring
from diffbench.estimate.timings import Timings
from diffbench.jobs import data
from diffbench.metrics import reference_statistics
from diffbench.metrics.extractor import Extractor
from diffbench.metrics.fidelity import Fidelity
from diffbench.specs.errors import Stopped
from diffbench.specs.floors import FloorSpec
from diffbench.specs.jobs import ReferenceSpec
from diffbench.specs.measures import MeasureSpec
from diffbench.specs.registry import build
from diffbench.store import paths, stopping
from diffbench.store.products import read_product, write_product
from diffbench.store.progress import Progress
from diffbench.store.run_record import RunRecord
from diffbench.store.state import StateStore
from diffbench.training import loop, machine
from diffbench.training.meter import Meter


def run(spec: ReferenceSpec, root: Path, device_name: str) -> None:
    """Write statistics.npz and, for an extractor that is trained here, its validated weights."""
    check_library(spec)
    path, device = paths.product(root, spec), prepare(spec, device_name)
    dataset = data.load(root, spec.data)
    extractor: Extractor = build(spec.extractor)
    with made(spec, root, extractor, dataset, device) as (module, record):
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


@contextmanager
def made(
    spec: ReferenceSpec, root: Path, extractor: Extractor, dataset: Dataset, device: torch.device
) -> Iterator[tuple[nn.Module, RunRecord]]:
    """Make the extractor, or train it from where it was stopped; yield it, and the run's record, open in the block.

    Raises:
        Stopped: when asked to stop in a training, after saving its state.
    """
    learner, path = extractor.training(dataset, device), paths.product(root, spec)
    if learner is None:
        with machine.record(path, device) as record:
            yield extractor.make(dataset).to(device), record
        return
    state = StateStore(paths.state(root, spec), spec, learner.parts)
    with state.lock():
        torch.set_num_threads(learner.threads)
        earlier = loop.resume(learner, state)
        with machine.record(path, device, earlier) as record:
            with stopping.noted():
                meter = Meter(learner.batch, learner.step, operations=0, peak=None)
                loop.train(learner, state, earlier, meter)
                if number := stopping.asked():
                    raise Stopped(number, f"{learner.title}: done, state saved: run it again")
            module = learner.finished()
            torch.set_num_threads(1)
            yield module, record


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
    found = f"torch-fidelity {metadata.version('torch-fidelity')}"
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
