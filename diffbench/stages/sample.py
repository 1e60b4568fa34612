"""The sample stage: images from a model by a solver, or a control's images, as grey levels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffbench.data.datasets import Dataset, Labels
from diffbench.data.levels import Images
from diffbench.data.pictures import grid_png
from diffbench.diffusion.solvers.loop import sample
from diffbench.diffusion.streams import stream
from diffbench.plan.registry import build
from diffbench.specs.stages import SampleSpec
from diffbench.stages import data, machine, models
from diffbench.stages.progress import Progress
from diffbench.store import files, paths
from diffbench.store.products import write_product


def run(spec: SampleSpec, root: Path, device: str) -> None:
    """Write samples.npz and a picture of a hundred.

    The file has ``levels`` NHWC uint8 and ``nfe``; ``labels``, if any; and of a process between walls ``moved``, the
    fraction of pixels that had to be brought back inside at the end.
    """
    place = machine.prepare(device, spec.train.training if spec.train else None)
    path = paths.product(root, spec)
    with machine.record(path, place):
        dataset = data.load(root, spec.data)
        labels = labels_of(spec, dataset)
        if spec.control is None:
            arrays = draw(spec, root, dataset, labels, place)
        else:
            arrays = draw_control(spec, dataset)
        if labels is not None:
            arrays["labels"] = labels
        levels = arrays["levels"]
        write_product(path, lambda file: np.savez(file, **arrays), spec)
        picture = paths.grid(root, spec.variant, spec.seed, spec.solver_id)
        files.write(picture, grid_png(levels[:100], dataset.levels))


def labels_of(spec: SampleSpec, dataset: Dataset) -> Labels | None:
    """The label of every sample, a function of its index and the seed; None where none is used.

    They are those of the solver in turn, or the training images' in a random order, over and over.

    Raises:
        ValueError: for a label that the data set does not have.
    """
    if spec.train is None or spec.solver is None:
        return None
    if not (spec.train.denoiser.takes_labels or spec.solver.uses_labels):
        return None
    classes = models.known_classes(dataset, f"{spec.solver_id}: sampling by class")
    if spec.solver.labels is None:
        order = torch.randperm(len(dataset.train_labels), generator=stream("labels", spec.seed))
        chosen = dataset.train_labels[order.numpy()]
    else:
        chosen = np.array(spec.solver.labels)
        if chosen.max() >= classes:
            raise ValueError(
                f"labels: {chosen.max()} is no class of {dataset.name}; 0 to {classes - 1} are"
            )
    return np.resize(chosen, spec.samples).astype(np.int64)


def draw_control(spec: SampleSpec, dataset: Dataset) -> dict[str, Any]:
    """A control's images; no function is evaluated."""
    assert spec.control is not None
    generator = np.random.default_rng(stream("control", spec.seed).initial_seed())
    levels: Images = build(spec.control).draw(dataset, spec.samples, generator)
    return {"levels": levels, "nfe": np.array(0)}


def draw(
    spec: SampleSpec,
    root: Path,
    dataset: Dataset,
    labels: Labels | None,
    device: torch.device,
) -> dict[str, Any]:
    """Sample in chunks, each from a stream of its own: levels, the denoiser's calls for an image, what was moved.

    Raises:
        ValueError: when a step's result is not finite, with the step.
    """
    assert spec.train is not None
    assert spec.solver is not None
    loaded = models.load_denoiser(spec.train, root, dataset, device)
    denoiser = models.at_full_precision(loaded, spec.solver.full_precision)
    classifier = models.load_classifier(
        spec.classifier, root, dataset, device, spec.solver.full_precision
    )
    solver = build(spec.solver, denoiser, classifier)
    levels, shape = models.levels_of(dataset, spec.train.process), models.image_shape(dataset)
    progress = Progress(f"sample {spec.variant} {spec.solver_id}", spec.samples, "image")
    images: list[Images] = []
    calls, moved = 0, 0.0
    for chunk, start in enumerate(range(0, spec.samples, spec.chunk)):
        count = min(spec.chunk, spec.samples - start)
        denoiser.calls = 0
        generator = stream("sample", spec.seed, chunk)
        y = None if labels is None else torch.from_numpy(labels[start : start + count]).to(device)
        x = sample(solver, (count, *shape), generator, y, device=device)
        images.append(levels.from_model(x.cpu()))
        calls += denoiser.calls * count
        moved += solver.moved * count / spec.samples
        progress.advance(count)
    progress.close()
    # Step size control gives chunks different numbers; their mean is rounded to a whole one.
    arrays = {"levels": np.concatenate(images), "nfe": np.array(round(calls / spec.samples))}
    return arrays | ({"moved": np.array(moved)} if spec.train.process.bounded else {})
