"""Progressive coding of test images: rate and distortion after a number of levels of the chain."""

from __future__ import annotations

from typing import Any

import torch

from diffbench.analyses.bench import Bench
from diffbench.diffusion.core.condition import Condition
from diffbench.diffusion.core.streams import stream
from diffbench.diffusion.denoisers.denoiser import Counted
from diffbench.diffusion.likelihoods.progressive import coded
from diffbench.diffusion.likelihoods.vlb import VLB
from diffbench.estimate.costs import Cost
from diffbench.estimate.timings import Timings
from diffbench.specs.analyses import ProgressiveCodingSpec
from diffbench.specs.jobs import TrainSpec
from diffbench.store.progress import Progress
from diffbench.training import models


class ProgressiveCoding:
    """The measurement of ``spec`` on a trained variant."""

    def __init__(self, spec: ProgressiveCodingSpec, train: TrainSpec) -> None:
        self.spec, self.train = spec, train

    def cost(self, timings: Timings) -> Cost:
        """Return the cost of one call of the network for each level and batch."""
        if self.train.network is None:
            return Cost(None)
        batch = min(self.spec.bound.batch, self.spec.images)
        labelled = self.train.denoiser.takes_labels
        call = timings.call(self.train, batch, "fp32", labelled)
        return Cost(self.spec.steps * call.seconds * self.spec.images / batch / 3600)

    def measure(self, bench: Bench) -> tuple[dict[str, Any], None]:
        """Code the first test images.

        Returns:
            metrics: rate, bits/dim, and distortion, the root mean square error in grey levels, each with its standard
            error over images; images, their number; nfe, evaluations an image.
        """
        dataset = bench.dataset
        denoiser = bench.denoiser(self.train)
        grey = models.grey_levels_of(dataset, self.train.process)
        x = grey.to_model(dataset.test[: self.spec.images]).to(bench.device)
        known = dataset.test_labels[: len(x)]
        labels = torch.from_numpy(known).to(bench.device) if denoiser.classes else None
        title = f"analysis {self.train.variant}"
        progress, parts = Progress(title, len(x), "image"), []
        bound = VLB(self.spec.bound, Counted(denoiser, progress.call), grey)
        for i, (batch, y) in enumerate(models.in_batches(x, labels, self.spec.bound.batch)):
            draws = stream("progressive coding", bench.seed, i)
            parts.append(coded(bound, batch, self.spec.steps, draws, Condition(y)))
            progress.advance(len(batch))
        progress.close()
        rate, squared = (torch.cat(part).double().cpu() for part in zip(*parts, strict=True))
        step = (grey.count - 1) / (grey.high - grey.low)
        distortion = float(squared.mean()) ** 0.5 * step
        count = len(x) ** 0.5
        # By the derivative of the root: d sqrt(m) = dm/(2 sqrt(m)).
        se = float(squared.std()) / count * step**2 / (2 * distortion)
        return {
            "metrics": {
                "rate": {"value": float(rate.mean()), "se": float(rate.std()) / count},
                "distortion": {"value": distortion, "se": se},
            },
            "images": len(x),
            "nfe": self.spec.steps,
        }, None
