"""The shard stage: some of the chunks of a sample job; the sample stage gathers those of all shards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from diffbench.estimate.costs import Cost
from diffbench.estimate.timings import Timings
from diffbench.jobs.sample import cost as sample_cost
from diffbench.jobs.sample import drawn_chunks
from diffbench.specs.jobs import ShardSpec
from diffbench.store import paths
from diffbench.store.chunks import share
from diffbench.store.products import write_product


def cost(spec: ShardSpec, timings: Timings) -> Cost:
    """Return the shard's share of the cost of the samples."""
    whole = sample_cost(spec.sample, timings)
    return replace(whole, hours=whole.hours and whole.hours / spec.shards)


def run(spec: ShardSpec, root: Path, device_name: str) -> None:
    """Write chunks.npz: ``levels`` NHWC uint8 of the shard's chunks, in order, and ``calls`` and ``moved`` of each."""
    sample, product = spec.sample, paths.product(root, spec)
    wanted = share(sample.samples, sample.chunk, spec.shard, spec.shards)
    with drawn_chunks(sample, root, device_name, wanted, product) as (_, chunks):
        arrays: dict[str, Any] = {
            "levels": np.concatenate([chunk.images for chunk in chunks]),
            "calls": np.array([chunk.calls for chunk in chunks]),
            "moved": np.array([chunk.moved for chunk in chunks]),
        }
        write_product(product, lambda file: np.savez(file, **arrays), spec)
