r"""Floors: what real images score in the samples' place; an FID below its floor says nothing about a model.

FID is biased upward for finite sets: even real images do not have 0.  From the FIDs f_1, ..., f_R of R sets of real
images, each with as many images as were scored,

    floor = mean f + 2 sd f                                       sd with R - 1

    of an FID to the training split      N training images, redrawn, to all of them
    of an FID to the test split          the same N training images, to the test split
    of restorations of n test images     n test images, redrawn, K of each as there are K restorations, to the training
                                         split

Training images are redrawn with replacement: all of them, once each, would be the reference itself.  Test images, and
images of a split whose features are kept only in part (``reference``), are redrawn without replacement while there are
enough of them: a set with repeated images is a smaller set, whose FID is larger.  The bias is the subject of Chong &
Forsyth, "Effectively Unbiased FID and Inception Score and Where to Find Them", 2020, https://arxiv.org/abs/1911.07023.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from diffbench.diffusion.core.streams import stream
from diffbench.metrics.distances import Fitted, FrechetTo, fitted
from diffbench.metrics.reference_statistics import Reference
from diffbench.specs.floors import FloorSpec
from diffbench.store.progress import Step

#: A metric -> ``mean`` and ``sd`` of real images' scores, and their floor as ``value``.
Floors = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Redraws:
    """Random sets of images, given by the images' numbers.

    Args:
        spec: how many sets, and their seed.
        purpose: the name of the random stream.
        images: how many there are to draw from.
        replace: whether sets are drawn with replacement always; else only where there are too few images.
    """

    spec: FloorSpec
    purpose: str
    images: int
    replace: bool

    def rows(self, count: int) -> Iterator[NDArray[np.int64]]:
        """Yield the images' numbers (count,) of each set."""
        for index in range(self.spec.redraws):
            generator = stream(self.purpose, self.spec.seed, count, index)
            if self.replace or count > self.images:
                drawn = torch.randint(self.images, (count,), generator=generator)
            else:
                drawn = torch.randperm(self.images, generator=generator)[:count]
            yield drawn.numpy()


class RealImages:
    """Floors against the reference of a data set, measured once for each number of images."""

    def __init__(self, reference: Reference, spec: FloorSpec) -> None:
        self.reference, self.spec = reference, spec
        self.of_samples: Callable[[int], Floors] = cache(self._of_samples)
        self.of_restorations: Callable[[int, int], Floors] = cache(self._of_restorations)

    def _of_samples(self, count: int) -> Floors:
        """Floors of ``fid``, ``fid_test`` and the FIDs of further extractors, for ``count`` samples."""
        reference = self.reference
        sets = [
            (reference.features, {"fid": "train", "fid_test": "test"}),
            *((features, {name: name}) for name, features in reference.opinion_features.items()),
        ]
        whole = len(reference.features) == reference.counts["train"]
        redraws = Redraws(self.spec, "floor", len(reference.features), replace=whole)
        floors: Floors = {}
        for features, targets in sets:
            known = {metric: reference.distances[name] for metric, name in targets.items()}
            drawn = (fitted(features, rows) for rows in redraws.rows(count))
            with Step(f"floors of {', '.join(known)}", self.spec.redraws, "redraw") as step:
                floors |= _floors(known, step.over(drawn))
        return floors

    def _of_restorations(self, images: int, draws: int) -> Floors:
        """Floors of ``fid`` of ``draws`` restorations of each of ``images`` test images."""
        features = self.reference.test_features
        redraws = Redraws(self.spec, "floor of restorations", len(features), replace=False)
        sets = (fitted(features, rows.repeat(draws)) for rows in redraws.rows(images))
        with Step("floor of the restorations' FID", self.spec.redraws, "redraw") as step:
            return _floors({"fid": self.reference.distances["train"]}, step.over(sets))


def _floors(distances: Mapping[str, FrechetTo], sets: Iterator[Fitted]) -> Floors:
    """Floors of the metrics with these distances, from the sets' Gaussians; empty without sets."""
    found: dict[str, list[float]] = {metric: [] for metric in distances}
    for drawn in sets:
        for metric, distance in distances.items():
            found[metric].append(distance(drawn))
    return {metric: _floor(values) for metric, values in found.items() if values}


def _floor(values: list[float]) -> dict[str, float]:
    mean, sd = float(np.mean(values)), float(np.std(values, ddof=1))
    return {"mean": mean, "sd": sd, "value": mean + 2 * sd}
