"""The sample stage: images from a model by a solver, or a control's images, as grey levels."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffbench.data.datasets import Dataset, Labels
from diffbench.data.grey_levels import Images
from diffbench.data.pictures import grid_png
from diffbench.diffusion.core.condition import Condition
from diffbench.diffusion.core.streams import stream
from diffbench.diffusion.denoisers.denoiser import Counted
from diffbench.diffusion.solvers.loop import Solver, Watch, sample, unwatched
from diffbench.estimate import counting
from diffbench.estimate.costs import Cost
from diffbench.estimate.timings import Timings
from diffbench.jobs import data
from diffbench.specs.errors import Stopped
from diffbench.specs.jobs import SampleSpec, ShardSpec
from diffbench.specs.registry import build
from diffbench.store import paths, run_record
from diffbench.store.chunks import Chunk, ChunkStore, indices, share
from diffbench.store.contents import contents
from diffbench.store.products import read_product, reading, write_product
from diffbench.store.progress import Progress
from diffbench.training import machine, models

#: The seconds after which finished chunks are saved on disk.
KEEP_AFTER = 10.0


def run(spec: SampleSpec, root: Path, device_name: str, *, shards: int = 1) -> None:
    """Write samples.npz and a picture of a hundred samples.

    The file has ``levels`` NHWC uint8 and ``nfe``; ``labels``, if any; and for a process between walls ``moved``, the
    fraction of pixels that had to be moved back inside at the end.

    Args:
        spec: the job.
        root: the results folder.
        device_name: ``cpu``, ``cuda`` or ``mps``.
        shards: with more than one, their chunks are gathered; a control has none.
    """
    if spec.control is not None:
        _run_control(spec, root, device_name)
    elif shards > 1:
        gather(spec, root, shards)
    else:
        _run_solver(spec, root, device_name)


def cost(spec: SampleSpec, timings: Timings) -> Cost:
    """Return the cost of drawing all chunks; a control's images cost nothing."""
    size = spec.samples * timings.dataset.train[0].size
    train, solver = spec.train, spec.solver
    if train is None or train.network is None or solver is None:
        return Cost(0.0 if train is None else None, size)
    key = ("sample", solver.plain, train.process, train.denoiser)
    calls, notes = timings.calls(
        key, solver.adaptive, lambda: counting.of_solver(train, solver, timings.small)
    )
    chunk = min(spec.chunk, spec.samples)
    call = timings.call(train, chunk, spec.precision, train.denoiser.takes_labels)
    seconds = calls.network * call.seconds
    if spec.classifier is not None:
        gradient = timings.gradient(spec.classifier, chunk, spec.precision)
        seconds += calls.classifier * gradient.seconds
    return Cost(seconds * spec.samples / chunk / 3600, size, notes)


def _run_control(spec: SampleSpec, root: Path, device_name: str) -> None:
    with machine.record(paths.product(root, spec), machine.prepare(device_name)):
        dataset = data.load(root, spec.data)
        write(spec, root, dataset, draw_control(spec, dataset))


def _run_solver(spec: SampleSpec, root: Path, device_name: str) -> None:
    every = indices(spec.samples, spec.chunk)
    with drawn_chunks(spec, root, device_name, every, paths.product(root, spec)) as (
        dataset,
        chunks,
    ):
        write(spec, root, dataset, assemble(spec, chunks))


@contextmanager
def drawn_chunks(
    spec: SampleSpec, root: Path, device_name: str, wanted: Sequence[int], product: Path
) -> Iterator[tuple[Dataset, list[Chunk]]]:
    """Draw chunks for the block, which writes them to a product.

    The product's record includes the time of earlier attempts.  Chunks that were saved on disk are removed after the
    block.

    Args:
        spec: the spec of the samples.
        root: the results folder.
        device_name: ``cpu``, ``cuda`` or ``mps``.
        wanted: the chunks' numbers.
        product: the file that the block writes.
    """
    device = machine.prepare(device_name, spec.train.running if spec.train else None)
    kept = ChunkStore(paths.state(root, spec))
    drawn = kept.load(wanted)
    with machine.record(product, device, sum(chunk.seconds for chunk in drawn.values())):
        dataset = data.load(root, spec.data)
        draw(spec, root, dataset, device, wanted, drawn, kept)
        yield dataset, [drawn[index] for index in wanted]
    kept.remove(wanted)


def gather(spec: SampleSpec, root: Path, shards: int) -> None:
    """Write the samples from the chunks of all shards; the record has the sum of their times.

    Raises:
        StoreError: when a shard's product is missing, altered or of another spec.
    """
    machine.prepare("cpu")
    parts = ShardSpec.every(spec, shards)
    chunks = [chunk for part in parts for chunk in read_shard(part, root)]
    records = [run_record.known(paths.product(root, part)) for part in parts]
    memory = [each["device_memory_mib"] for each in records if each.get("device_memory_mib")]
    seconds = [each.get("seconds") for each in records]
    with run_record.RunRecord(
        paths.product(root, spec),
        next((each["device"] for each in records if "device" in each), "unknown"),
        (lambda: max(memory)) if memory else None,
        None if None in seconds else sum(filter(None, seconds)),
    ) as record:
        record.note(shards=shards)
        write(spec, root, data.load(root, spec.data), assemble(spec, chunks))
    ChunkStore(paths.state(root, spec)).remove(indices(spec.samples, spec.chunk))


def levels(spec: SampleSpec, root: Path) -> Images:
    """Return the samples as grey levels, from the verified product."""
    path = read_product(paths.product(root, spec), spec)
    with reading(path), np.load(path) as archive:
        found: Images = archive["levels"]
    return found


def read_shard(spec: ShardSpec, root: Path) -> list[Chunk]:
    """Return the chunks of one shard, from its verified product."""
    sample = spec.sample
    numbers = share(sample.samples, sample.chunk, spec.shard, spec.shards)
    path = read_product(paths.product(root, spec), spec)
    with reading(path), np.load(path) as archive:
        images, calls, moved = archive["levels"], archive["calls"], archive["moved"]
    parts = np.split(images, np.arange(1, len(numbers)) * sample.chunk)
    return [
        Chunk(part, int(count), float(fraction))
        for part, count, fraction in zip(parts, calls, moved, strict=True)
    ]


def write(spec: SampleSpec, root: Path, dataset: Dataset, arrays: dict[str, Any]) -> None:
    """Write the product and its picture."""
    labels = labels_of(spec, dataset)
    if labels is not None:
        arrays["labels"] = labels
    (picture,) = paths.extras(root, spec)
    beside = {picture: grid_png(arrays["levels"][:100], dataset.levels)}
    write_product(paths.product(root, spec), lambda file: np.savez(file, **arrays), spec, beside)


def labels_of(spec: SampleSpec, dataset: Dataset) -> Labels | None:
    """Return the label of every sample, a function of its index and the seed; None where none is used.

    They are the solver's labels in turn, or the training images' labels in a random order, repeated as needed.

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
                f"labels: {chosen.max()} is not a class of {dataset.name}; its classes are 0 to {classes - 1}"
            )
    return np.resize(chosen, spec.samples).astype(np.int64)


def draw_control(spec: SampleSpec, dataset: Dataset) -> dict[str, Any]:
    """Return a control's images; no function is evaluated."""
    assert spec.control is not None
    control, planned = spec.control, spec.control.planned_contents
    if planned is not None:
        control = control.at(data.told().get(planned), planned)
    generator = np.random.default_rng(stream("control", spec.seed).initial_seed())
    images: Images = build(control).draw(dataset, spec.samples, generator)
    if planned is not None:
        found = contents({"path": Path(*control.sources)}, control.listing)
        data.as_planned("control.path", planned, found)
    return {"levels": images, "nfe": np.array(0)}


def draw(
    spec: SampleSpec,
    root: Path,
    dataset: Dataset,
    device: torch.device,
    wanted: Sequence[int],
    drawn: dict[int, Chunk],
    kept: ChunkStore,
) -> None:
    """Draw the wanted chunks that are missing in ``drawn``, each from a stream of its own, and add them to it.

    Chunks that take longer than a few seconds are also saved on disk, and all of them where the job is asked to stop:
    it continues from them.

    Raises:
        ValueError: when a step's result is not finite.
        Stopped: when asked to stop.
    """
    missing = [index for index in wanted if index not in drawn]
    if not missing:
        return
    title = f"sample {spec.variant} {spec.solver_id}"
    sizes = {index: min(spec.chunk, spec.samples - index * spec.chunk) for index in wanted}
    done = sum(sizes[index] for index in wanted if index in drawn)
    progress = Progress(title, sum(sizes.values()), "image", done)
    one = drawing(spec, root, dataset, device, progress.call)
    unsaved: list[int] = []

    def save() -> None:
        for each in unsaved:
            kept.save(each, drawn[each])
        unsaved.clear()

    saved_at = time.monotonic()
    try:
        for index in missing:
            drawn[index] = one(index)
            unsaved.append(index)
            if time.monotonic() - saved_at > KEEP_AFTER:
                save()
                saved_at = time.monotonic()
            progress.advance(sizes[index])
    except Stopped as stopped:
        save()
        done = sum(sizes[index] for index in drawn)
        kept_so_far = f"stopped after {done} of {progress.total} images, which are kept"
        line = f"{title}: {kept_so_far}: run the command again to go on"
        raise Stopped(stopped.number, line) from None
    progress.close()


def drawing(
    spec: SampleSpec,
    root: Path,
    dataset: Dataset,
    device: torch.device,
    seen: Callable[[], None] = lambda: None,
    watching: Callable[[Solver], Watch] = lambda solver: unwatched,
    first: int | None = None,
) -> Callable[[int], Chunk]:
    """Return the function that draws a chunk, given its number, or only its ``first`` images.

    ``seen`` is called at each call of the network; ``watching`` gives what is shown a solver's states.
    """
    assert spec.train is not None
    assert spec.solver is not None
    process, chosen = spec.train.process, spec.solver
    denoiser = models.load_denoiser(spec.train, root, dataset, device, spec.precision, chosen)
    classifier = models.load_classifier(spec.classifier, root, dataset, device, spec.precision)
    grey, shape = models.grey_levels_of(dataset, process), models.image_shape(dataset)
    labels = labels_of(spec, dataset)

    def one(index: int) -> Chunk:
        begin, start = time.monotonic(), index * spec.chunk
        count = min(spec.chunk, spec.samples - start)
        counted = Counted(denoiser, seen)
        solver = build(chosen, counted, classifier)
        generator = stream("sample", spec.seed, index)
        y = None if labels is None else torch.from_numpy(labels[start : start + count][:first])
        watch, condition = watching(solver), Condition(None if y is None else y.to(device))
        x = sample(solver, (count, *shape), generator, condition, device, watch=watch, first=first)
        images = grey.from_model(x.cpu())
        moved = solver.moved if process.bounded else 0.0
        return Chunk(images, counted.calls, moved, time.monotonic() - begin)

    return one


def assemble(spec: SampleSpec, chunks: Sequence[Chunk]) -> dict[str, Any]:
    """Return all images in order, the denoiser's calls for an image, and the fraction of pixels moved."""
    calls, moved = 0, 0.0
    for chunk in chunks:
        calls += chunk.calls * len(chunk.images)
        # Not by `sum`, which rounds differently from Python 3.12 on.
        moved += chunk.moved * len(chunk.images) / spec.samples
    # With step size control the calls differ between chunks; their mean is rounded to an integer.
    arrays = {
        "levels": np.concatenate([chunk.images for chunk in chunks]),
        "nfe": np.array(round(calls / spec.samples)),
    }
    assert spec.train is not None
    return arrays | ({"moved": np.array(moved)} if spec.train.process.bounded else {})
