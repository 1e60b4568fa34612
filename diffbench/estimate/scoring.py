"""What scoring costs: counts of images, distances, kernels and FIDs, times the seconds of each.

Each is timed on a few images or features of noise, by the function that scores use.  With N samples, M reference images
whose features are kept, T training images, d features and K redraws of a bootstrap:

    features              N passes through each extractor
    precision, recall     (N + M)^2 distances of features
    nearest_ratio         N T distances of pixels
    KID                   20 x 3 S^2 kernels, S the size of its subsets
    FID                   1 + K times: N d^2 for mean and covariance, d^3 for the distance; to each split
    IS                    1 + K times N logits
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch

from diffbench.estimate.costs import Cost, Known
from diffbench.estimate.timings import Timings
from diffbench.metrics.distances import (
    KID_OPTIONS,
    FrechetTo,
    fid_statistics,
    fitted,
    inception_score,
    kernel_distance,
    kid_subset_size,
)
from diffbench.metrics.extractor import Extractor, Features
from diffbench.metrics.neighbours import nearest_distances, precision_recall
from diffbench.specs.floors import FloorSpec
from diffbench.specs.jobs import ReferenceSpec
from diffbench.specs.registry import build

#: The numbers of images that are assumed where a data set does not give them.
ASSUMED = {"train": 50_000, "test": 10_000}
#: The number of images whose features are timed together.
FEW = 500
#: The number of images in a batch of an extractor that does not say it.
BATCH = 1000
#: FIDs are timed with at most this many features.
NARROW = 256
#: Seconds in which a job reads the data set, the reference and the extractor: a guess.
OPENING = 0.2


class Scoring:
    """The seconds of scores against one reference, from timings that are made when they are first asked for."""

    def __init__(self, spec: ReferenceSpec, timings: Timings) -> None:
        self.spec, self.timings, self.extractor = spec, timings, spec.extractor
        counts = ASSUMED | dict(spec.data.known_counts)
        self.train, self.test = counts["train"], counts["test"]
        self.kept = min(self.train, spec.neighbours)
        self.width = spec.extractor.width or 0
        self.others = spec.extractor.others
        on_gpu = spec.uses_gpu and timings.device.type == "cuda"
        self.device = timings.device if on_gpu else torch.device("cpu")

    def cost(self, seconds: Callable[[], float]) -> Cost:
        """Return the cost of that many seconds of scoring; None hours where nothing is known of the extractor."""
        if self.image is None or not self.width:
            return Cost(None)
        notes = tuple(
            f"{ASSUMED[split]:,} {split} images are assumed"
            for split in ASSUMED
            if split not in self.spec.data.known_counts
        )
        timed = self.extractor.operations is None
        known = Known.TIMED if timed else Known.COUNTED
        return Cost(seconds() / 3600, notes=notes, known=known)

    def reference(self) -> float:
        """Return the seconds of the reference stage, the extractor's training and validation among them."""
        images = self.train * (1 + self.others) + self.test + self.extractor.passes(self.train)
        return self.features(images) + self.test * self.train * self.pixels

    def samples(self, count: int) -> float:
        """Return the seconds of all scores of so many samples."""
        kernels: int = KID_OPTIONS["kid_subsets"] * 3 * kid_subset_size(count, self.kept) ** 2
        times = 1 + self.extractor.resamples
        return (
            self.features(count * (1 + self.others))
            + (count + self.kept) ** 2 * self.distance
            + count * self.train * self.pixels
            + kernels * self.kernel
            + times * self.fids(count)
            + times * count * self.logits
        )

    def floors(self, count: int, spec: FloorSpec) -> float:
        """Return the seconds of the floors of so many samples."""
        return spec.redraws * self.fids(count)

    def fids(self, count: int) -> float:
        """Return the seconds of FIDs to both splits and by other extractors, each once."""
        return (1 + self.others) * count * self.row + (2 + self.others) * self.frechet

    def one_fid(self, count: int) -> float:
        """Return the seconds of one FID of so many images, without its bootstrap."""
        return count * self.row + self.frechet

    def features(self, images: int) -> float:
        """Return the seconds of so many images' pass through the extractor."""
        return images * (self.image or 0.0)

    @cached_property
    def image(self) -> float | None:
        """Seconds of an image's features; None where they cannot be timed or counted."""
        operations = self.extractor.operations
        if operations is not None:
            return operations * self.timings.operation(self.device)
        built: Extractor = build(self.extractor)
        network = built.untrained(self.timings.dataset)
        if network is None:
            return None
        network = network.to(self.device).eval().requires_grad_(False)
        pixels = self.timings.dataset.train[:1].transpose(0, 3, 1, 2)

        def make(count: int) -> Callable[[], object]:
            images = torch.from_numpy(np.repeat(pixels, count, 0)).to(self.device)
            return lambda: network(images)

        what = f"features: {self.extractor.name}"
        batch = int(getattr(network, "batch", BATCH))
        timed = self.timings.once(
            ("features", self.extractor, self.spec.data.name),
            lambda: self.timings.stopwatch.of_batch(what, batch, make),
        )
        return float(timed.seconds) / batch

    @cached_property
    def distance(self) -> float:
        """Seconds of one distance of features."""
        z = self.noise(self.width, FEW)
        return self.each("distance", 4 * FEW**2, lambda: precision_recall(z, z, self.device))

    @cached_property
    def kernel(self) -> float:
        """Seconds of one value of KID's kernel."""
        z, kernels = self.noise(self.width, FEW), KID_OPTIONS["kid_subsets"] * 3 * (FEW // 2) ** 2
        return self.each("kernel", kernels, lambda: kernel_distance(z, z, 1 / self.width))

    @cached_property
    def pixels(self) -> float:
        """Seconds of one distance of images."""
        images = np.repeat(
            self.timings.dataset.train, -(-FEW // len(self.timings.dataset.train)), 0
        )
        count = len(images) ** 2
        return self.each("pixels", count, lambda: nearest_distances(images, images, self.device))

    @cached_property
    def row(self) -> float:
        """Seconds of one image's share in mean and covariance."""
        width = min(self.width, NARROW)
        z = self.noise(width, max(FEW, width))
        return self.each("rows", len(z), lambda: fitted(z)) * (self.width / width) ** 2

    @cached_property
    def frechet(self) -> float:
        """Seconds of one Frechet distance."""
        width = min(self.width, NARROW)
        z = self.noise(width, max(FEW, width))
        distance, other = FrechetTo(fid_statistics(z)), fitted(z)
        return self.each("frechet", 1, lambda: distance(other)) * (self.width / width) ** 3

    @cached_property
    def logits(self) -> float:
        """Seconds of one sample's share in the Inception score."""
        z = self.noise(len(self.timings.dataset.classes), 4 * FEW)
        return self.each("logits", len(z), lambda: inception_score(z))

    def noise(self, width: int, rows: int) -> Features:
        """Return features of noise (rows, width)."""
        found: Features = np.random.default_rng(0).standard_normal((rows, width))
        return found

    def each(self, what: str, count: int, call: Callable[[], object]) -> float:
        """Return the seconds of one of ``count`` things that a call computes."""
        key = ("scoring", what, self.width, self.device.type)
        seconds = self.timings.once(key, lambda: self.timings.stopwatch.seconds(call))
        return float(seconds) / count
