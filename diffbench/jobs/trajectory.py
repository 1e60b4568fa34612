"""The trajectory stage: states on the way from noise to image, of a solver's first images.

States lie in the process's data range.  Noise levels are for data in [-1, 1]: alpha_t and sigma_t of x_t = alpha_t x_0
+ sigma_t eps, with alpha_t of the lowest and of the highest frequency where blur makes it depend on the frequency.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffbench.data.datasets import Dataset
from diffbench.diffusion.core.process import Process
from diffbench.diffusion.solvers.loop import Solver, Watch
from diffbench.estimate.costs import Cost
from diffbench.estimate.timings import Timings
from diffbench.jobs import data, sample
from diffbench.jobs.schedule import scales
from diffbench.specs.jobs import TrajectorySpec
from diffbench.store import paths
from diffbench.store.products import write_product
from diffbench.store.progress import Progress
from diffbench.training import machine

#: Bytes of a number of a state.
FLOAT = 4


def run(spec: TrajectorySpec, root: Path, device_name: str) -> None:
    """Write states.npz: see ``drawn``."""
    train, product = spec.sample.train, paths.product(root, spec)
    device = machine.prepare(device_name, train.running if train else None)
    with machine.record(product, device):
        arrays = drawn(spec, root, data.load(root, spec.sample.data), device)
        write_product(product, lambda file: np.savez(file, **arrays), spec)


def cost(spec: TrajectorySpec, timings: Timings) -> Cost:
    """Return the cost of one chunk of the samples, which is the most that it can be."""
    size = FLOAT * spec.states * spec.images * timings.dataset.train[0].size
    return replace(sample.cost(spec.drawn, timings), size=size)


def drawn(
    spec: TrajectorySpec, root: Path, dataset: Dataset, device: torch.device
) -> dict[str, Any]:
    """Return the kept states of the samples' first images.

    Only these are drawn, and then the whole chunk if they are not the samples: a corrector uses averages over a chunk,
    and step size control the largest error in it.

    Returns:
        states: float32 (S, N, H, W, C), from the start to the images before they are put on grey levels; steps: int
        (S,), how many steps of the solver were taken; times, alpha, alpha_highest and sigma: float64 (S,).
    """
    title = f"trajectory {spec.variant} {spec.solver_id}"
    samples = sample.levels(spec.sample, root)[: spec.images]
    with Progress(title, spec.images, "image") as seen:
        for first in (spec.images, None):
            kept = Kept(spec.states, spec.images)
            draw = sample.drawing(
                spec.sample, root, dataset, device, seen.call, kept.watching, first
            )
            if np.array_equal(draw(0).images[: spec.images], samples):
                break
        else:
            print(f"{title}: not the same images as the samples'", file=sys.stderr)
        seen.advance(spec.images)
    return kept.arrays()


class Kept:
    """The states of some images that are kept: ``count`` of them, evenly spaced over a solver's steps."""

    def __init__(self, count: int, images: int) -> None:
        self.count, self.images = count, images
        self.seen = 0
        self.states: list[Tensor] = []

    def watching(self, solver: Solver) -> Watch:
        """Return the function that is shown the states of the solver."""
        self.process: Process = solver.process
        self.times = solver.times()
        self.steps = evenly(len(self.times) - 1, self.count)
        return self.see

    def see(self, t: Tensor, x: Tensor) -> None:
        """Keep a copy of the state x (B, C, H, W), if it is one of those that are kept."""
        if self.seen in self.steps:
            self.states.append(x[: self.images].float().to("cpu", copy=True))
        self.seen += 1

    def arrays(self) -> dict[str, Any]:
        """Return what is kept, as ``drawn`` does."""
        times = self.times[self.steps]
        alpha, highest, sigma = scales(self.process, times)
        states = torch.stack(self.states).permute(0, 1, 3, 4, 2).contiguous()
        arrays = {"states": states, "times": times}
        arrays |= {"alpha": alpha, "alpha_highest": highest, "sigma": sigma}
        return {name: array.numpy() for name, array in arrays.items()} | {
            "steps": np.array(self.steps)
        }


def evenly(steps: int, count: int) -> list[int]:
    """Return ``count`` numbers of steps, evenly spaced from 0 to ``steps``; all of them where they are fewer."""
    count = min(count, steps + 1)
    return [round(steps * i / (count - 1)) for i in range(count)]
