"""Statistics and features of a data set by an extractor, computed once; samples are compared with them.

Mean and covariance of a split are of all its images.  Features are computed in parts, whose moments are joined.
The features themselves are kept for at most ``neighbours`` images of a split, evenly spaced: KID, precision and recall
need those of the training split, and floors (``floors``) draw from both splits.

A published reference (`diffbench.metrics.batch`) replaces the training split's statistics, and its images, if
it has any, replace that split's features.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from diffbench.data.grey_levels import Images
from diffbench.metrics.batch import Batch
from diffbench.metrics.distances import FrechetTo, Statistics, joined
from diffbench.metrics.extractor import PART, Features, features_in_parts
from diffbench.metrics.neighbours import nearest_distances, radii
from diffbench.store.products import reading
from diffbench.store.progress import Step

#: The number of neighbours whose distances are computed at once: density and coverage ask for five.
USUAL = 5
SPLITS = ("train", "test")


@dataclass(frozen=True)
class Reference:
    """The reference of one data set and extractor.

    statistics: split, "train" or "test" -> ``mu`` (d,) and ``sigma`` (d, d).
    opinions: metric -> statistics of the training split by another extractor.
    features: features (M, d) of training images.
    test_features: features of test images.
    opinion_features: metric -> features of the same training images by another extractor.
    counts: number of images of each split.
    nearest_of_test: mean distance, in grey levels, of a test image to its nearest training image.
    near: squared distances (M, K) of the features of each training image to those of its K nearest others, the nearest
        first; None where they are not known yet.
    """

    statistics: Mapping[str, Statistics]
    opinions: Mapping[str, Statistics]
    features: Features
    test_features: Features
    opinion_features: Mapping[str, Features]
    counts: Mapping[str, int]
    nearest_of_test: float
    near: NDArray[np.float64] | None = None
    #: The squared distances that ``radii`` has given, by device.
    known: dict[str, Tensor] = field(default_factory=dict, repr=False, compare=False)

    def radii(self, k: int, device: torch.device | str = "cpu") -> Tensor:
        """Squared distance (M,) of the features of each training image to their k-th nearest others, computed once."""
        found = self.known.get(str(device))
        if found is None and self.near is not None:
            found = torch.from_numpy(self.near).to(device)
        if found is None or found.shape[1] < k:
            found = radii(self.features, max(k, USUAL), device)
        self.known[str(device)] = found
        return found[:, k - 1]

    @cached_property
    def distances(self) -> Mapping[str, FrechetTo]:
        """Frechet distances: to a split, "train" or "test", or for a metric to the training split by its extractor."""
        both = {**self.statistics, **self.opinions}
        return {name: FrechetTo(each) for name, each in both.items()}

    def save(self, file: Path) -> None:
        """Write the reference as npz, with features as float32, the precision of extractors."""
        kept = {"": self.features, "test_": self.test_features}
        kept |= {f"{name}_": each for name, each in self.opinion_features.items()}
        arrays: dict[str, Any] = {
            f"{name}features": each.astype(np.float32) for name, each in kept.items()
        }
        for name, each in {**self.statistics, **self.opinions}.items():
            arrays |= {f"{name}_{key}": each[key] for key in ("mu", "sigma")}
        if self.near is not None:
            arrays["near"] = self.near
        facts = {
            "counts": dict(self.counts),
            "nearest_of_test": self.nearest_of_test,
            "opinions": list(self.opinions),
        }
        np.savez(file, facts=np.array(json.dumps(facts)), **arrays)


def load(file: Path) -> Reference:
    """Read a reference that `Reference.save` wrote."""
    with reading(file), np.load(file) as archive:
        facts = json.loads(str(archive["facts"]))
        both = {
            name: {key: archive[f"{name}_{key}"] for key in ("mu", "sigma")}
            for name in (*SPLITS, *facts["opinions"])
        }
        features, of_test, *others = (
            archive[f"{name}features"]
            for name in ("", "test_", *(f"{name}_" for name in facts["opinions"]))
        )
        # References of before have none: they are computed when they are needed.
        near = archive.get("near")
    return Reference(
        {split: both[split] for split in SPLITS},
        {name: both[name] for name in facts["opinions"]},
        features,
        of_test,
        dict(zip(facts["opinions"], others, strict=True)),
        facts["counts"],
        facts["nearest_of_test"],
        near,
    )


def measure(
    module: nn.Module,
    splits: Mapping[str, Images],
    *,
    neighbours: int = 50_000,
    opinions: Mapping[str, nn.Module] | None = None,
    published: Batch | None = None,
    batch: int | None = None,
    part: int = PART,
    seen: Callable[[int], None] | None = None,
) -> Reference:
    """Measure the splits "train" and "test", uint8 (N, H, W, C); ``published`` replaces the statistics of "train".

    ``seen`` is called with the number of images of each pass through an extractor; by default progress is shown.

    Raises:
        ValueError: when a feature is not finite, or a split has fewer than four images.
    """
    train, test = (splits[name] for name in SPLITS)
    known_images = images_of(train, published)

    def known(extractor: nn.Module, images: Images) -> tuple[Statistics, Features]:
        parts = features_in_parts(extractor, images, part, batch, seen)
        return _known(parts, len(images), neighbours)

    both = {name: known(module, each) for name, each in (("train", known_images), ("test", test))}
    others = {name: known(opinion, train) for name, opinion in (opinions or {}).items()}
    device = next(module.parameters()).device
    return Reference(
        {name: statistics for name, (statistics, _) in both.items()}
        | ({} if published is None else {"train": published.statistics}),
        {name: statistics for name, (statistics, _) in others.items()}
        | ({} if published is None else dict(published.opinions)),
        both["train"][1],
        both["test"][1],
        {name: features for name, (_, features) in others.items()},
        {name: len(splits[name]) for name in SPLITS},
        float(nearest_distances(test, train, device=device).mean()),
        _near(both["train"][1], device),
    )


def _near(features: Features, device: torch.device) -> NDArray[np.float64]:
    """Squared distances (M, USUAL) of features (M, d) to their nearest others."""
    with Step("distances of the data set's features", len(features) ** 2, "distance") as step:
        found: NDArray[np.float64] = radii(features, USUAL, device, seen=step.advance).cpu().numpy()
    return found


def images_of(train: Images, published: Batch | None) -> Images:
    """Return the images that stand for the training split: those of a published reference, where it has any."""
    return train if published is None or published.images is None else published.images


def _known(parts: Iterator[Features], images: int, neighbours: int) -> tuple[Statistics, Features]:
    """Statistics of all features, and the features of at most ``neighbours`` images, evenly spaced."""
    rows = np.linspace(0, images - 1, min(images, neighbours)).round().astype(int)
    kept: list[Features] = []

    def passed() -> Iterator[Features]:
        start = 0
        for z in parts:
            kept.append(z[rows[(rows >= start) & (rows < start + len(z))] - start])
            start += len(z)
            yield z

    # What is measured of the features is of those that are kept.
    return joined(passed()), np.concatenate(kept).astype(np.float32, copy=False)
