"""Spec of the feature extractor that a data set without a published one trains for itself."""

from __future__ import annotations

from diffbench.specs.base import Int, NonNegativeFloat, PositiveFloat, PositiveInt, Spec


class ExtractorSpec(Spec):
    """A small seeded classifier: its penultimate features give FID, its class probabilities IS.

    channels: widths of its convolutions; the second halves the resolution.
    noise: standard deviation, in [-1, 1] scale, of the Gaussian noise added to its training images.
    variance: total variance to which its features are scaled, over the training images.
    threads: CPU threads it is trained with; the order of float sums depends on them.
    """

    name: str = "classifier"
    features: PositiveInt = 32
    channels: tuple[PositiveInt, ...] = (24, 48, 96)
    epochs: PositiveInt = 40
    batch: PositiveInt = 100
    lr: PositiveFloat = 3e-3
    noise: NonNegativeFloat = 0.1
    variance: PositiveFloat = 350.0
    seed: Int = 0
    threads: PositiveInt = 1
