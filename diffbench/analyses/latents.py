r"""Latents of test images: how well images are recovered from them, and the images between two of them.

The error is the mean over pixels of (decoded - image)^2 for data scaled to [0, 1] (Song, Meng & Ermon 2021,
https://arxiv.org/abs/2010.02502, table 2); it is computed before rounding to grey levels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffbench.analyses.bench import Bench
from diffbench.data.grey_levels import GreyLevels, Images
from diffbench.data.pictures import grid_png
from diffbench.diffusion.core.condition import Condition
from diffbench.diffusion.denoisers.denoiser import Counted, Denoiser
from diffbench.diffusion.solvers.encoding import encode, slerp
from diffbench.diffusion.solvers.loop import Solver, solve
from diffbench.estimate import counting
from diffbench.estimate.costs import Cost
from diffbench.estimate.timings import Timings
from diffbench.specs.analyses import LatentsSpec
from diffbench.specs.jobs import TrainSpec
from diffbench.specs.registry import build
from diffbench.store.progress import Progress
from diffbench.training import models

#: The number of images in a batch of the network.
TOGETHER = 500


class Latents:
    """The measurement of ``spec`` on a trained variant."""

    def __init__(self, spec: LatentsSpec, train: TrainSpec) -> None:
        self.spec, self.train = spec, train

    def cost(self, timings: Timings) -> Cost:
        """Return the cost of encoding and decoding with each number of steps, and of the picture."""
        if self.train.network is None:
            return Cost(None)
        calls = [self.calls(steps, timings) for steps in self.spec.steps]
        batch = min(TOGETHER, self.spec.images)
        call = timings.call(self.train, batch, "fp32", self.train.denoiser.takes_labels)
        drawn = min(self.spec.pairs, self.spec.images // 2) * self.spec.between
        images = 2 * self.spec.images * sum(calls) + drawn * calls[-1]
        return Cost(images * call.seconds / batch / 3600)

    def calls(self, steps: int, timings: Timings) -> int:
        """Return the calls of the network for a batch in one direction."""
        solver = self.spec.with_steps(steps)
        key = ("latents", solver, self.train.process, self.train.denoiser)
        count = partial(counting.of_solver, self.train, solver, timings.small)
        return timings.calls(key, solver.adaptive, count)[0].network

    def measure(self, bench: Bench) -> tuple[dict[str, Any], bytes]:
        """Encode and decode test images.

        Returns:
            steps; nfe, of one direction; error and se, over images; all by number of steps.  metrics: the error with
            the last number of steps.  The second value is the picture.
        """
        dataset = bench.dataset
        denoiser = bench.denoiser(self.train)
        grey = models.grey_levels_of(dataset, self.train.process)
        images = dataset.test[: self.spec.images]
        x = grey.to_model(images).to(bench.device)
        y = self.labels(bench, denoiser)
        rows, solver, z = [], None, x
        progress = Progress(f"analysis {self.train.variant}", len(self.spec.steps), "solver")
        for steps in self.spec.steps:
            counted = Counted(denoiser, progress.call)
            solver = build(self.spec.with_steps(steps), counted)
            z = in_parts(partial(encode, solver), x, y)
            calls = counted.calls // len(x.split(TOGETHER))
            back = in_parts(partial(decode, solver), z, y)
            rows.append((steps, calls, *error_of(back, x, grey)))
            progress.advance(1)
        progress.close()
        assert solver is not None
        names = ("steps", "nfe", "error", "se")
        content: dict[str, Any] = {
            name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)
        }
        reconstruction: dict[str, Any] = {"value": content["error"][-1]}
        if content["se"][-1] is not None:
            reconstruction["se"] = content["se"][-1]
        content |= {
            "metrics": {"reconstruction": reconstruction},
            "images": len(x),
            "solver": self.spec.solver.model_dump(mode="json"),
        }
        return content, self.picture(solver, images, z, y, grey)

    def labels(self, bench: Bench, denoiser: Denoiser) -> Tensor | None:
        """Return the images' own labels for a conditional model, else None."""
        if not denoiser.classes:
            return None
        return torch.from_numpy(bench.dataset.test_labels[: self.spec.images]).to(bench.device)

    def picture(
        self, solver: Solver, images: Images, z: Tensor, y: Tensor | None, grey: GreyLevels
    ) -> bytes:
        """Return a picture with a row a pair: an image, the way from its latent to the other's, the other image."""
        pairs = min(self.spec.pairs, len(images) // 2)
        ends = slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)
        kept = None if y is None else y[ends[0]]
        mean = solver.process.prior_mean
        first, second = (z[end] - mean for end in ends)
        columns = [images[ends[0]]]
        for share in np.linspace(0, 1, self.spec.between):
            between = mean + slerp(first, second, float(share))
            columns.append(grey.from_model(decode(solver, between, Condition(kept))))
        columns.append(images[ends[1]])
        grid = np.stack(columns, axis=1)
        return grid_png(grid.reshape(-1, *grid.shape[2:]), grey.count, columns=len(columns))


def in_parts(way: Callable[[Tensor, Condition], Tensor], x: Tensor, y: Tensor | None) -> Tensor:
    """Return ``way`` of images or latents x (B, C, H, W) with labels y (B,), if any, computed in parts."""
    parts = models.in_batches(x, y, TOGETHER)
    return torch.cat([way(part, Condition(label)) for part, label in parts])


def decode(solver: Solver, z: Tensor, condition: Condition) -> Tensor:
    """Return the images of latents; no noise is drawn."""
    with torch.no_grad():
        return solve(solver, z, condition, torch.zeros_like)


def error_of(got: Tensor, want: Tensor, grey: GreyLevels) -> tuple[float, float | None]:
    """Return the mean squared error a pixel in [0, 1], and its standard error over images."""
    scaled = (got - want) / (grey.high - grey.low)
    each = scaled.double().square().flatten(1).mean(1)
    se = float(each.std() / len(each) ** 0.5) if len(each) > 1 else None
    return float(each.mean()), se
