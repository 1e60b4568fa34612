"""The shard stage: some of the chunks of a sample job; the sample stage gathers those of all shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from diffbench.specs.stages import ShardSpec
from diffbench.stages import data, machine
from diffbench.stages.sample import draw, seconds_of
from diffbench.store import paths
from diffbench.store.chunks import ChunkStore, share
from diffbench.store.products import write_product


def run(spec: ShardSpec, root: Path, device: str) -> None:
    """Write chunks.npz: ``levels`` NHWC uint8 of the shard's chunks, in order, and ``calls`` and ``moved`` of each."""
    sample = spec.sample
    place = machine.prepare(device, sample.train.running if sample.train else None)
    wanted = share(sample.samples, sample.chunk, spec.shard, spec.shards)
    kept = ChunkStore(paths.state(root, sample))
    drawn = kept.load(wanted)
    with machine.record(paths.product(root, spec), place, seconds_of(drawn)):
        dataset = data.load(root, sample.data)
        draw(sample, root, dataset, place, wanted, drawn, kept)
        chunks = [drawn[index] for index in wanted]
        arrays: dict[str, Any] = {
            "levels": np.concatenate([chunk.levels for chunk in chunks]),
            "calls": np.array([chunk.calls for chunk in chunks]),
            "moved": np.array([chunk.moved for chunk in chunks]),
        }
        write_product(paths.product(root, spec), lambda file: np.savez(file, **arrays), spec)
    kept.remove(wanted)
