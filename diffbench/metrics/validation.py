"""Whether an extractor can be used for measurements: visible damage must raise FID far more than chance.

All FIDs are to the training split, and all but the first are given relative to it:

    floor          of the test split: the FID of images as good as the data
    dropped_class  of the training images without one class; the mean over classes (and the least)
    blur           of the training images under a Gaussian blur of a sixteenth of their height
    noise_s        of the training images with N(0, s^2) added in [-1, 1] scale

Damaged images are rounded to grey levels again.  A data set states the limits that its extractor has to meet; for
one that states none only accuracy and floor are reported.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, from_numpy, nn

from diffbench.data.datasets import Dataset
from diffbench.data.grey_levels import GreyLevels, Images
from diffbench.metrics.distances import FrechetTo, fid_statistics, fitted
from diffbench.metrics.extractor import Features, features_and_logits
from diffbench.store.progress import announce

NOISES = (0.05, 0.1, 0.2, 0.4)
BLUR = 1 / 16


def validate_extractor(module: nn.Module, dataset: Dataset) -> dict[str, float]:
    """Measure an extractor on the data set it was trained on.

    Returns accuracy (where there are classes) and floor; with ``dataset.limits`` also
    dropped_class, dropped_class_least, blur and noise_{s}, relative to the floor.

    Raises:
        ValueError: when a number is outside its limits, naming it.
    """
    # Each pass through the extractor has a progress of its own.
    announce("extractor: validation on the data set and its damaged images")
    reference, _ = features_and_logits(module, dataset.train)
    z, logits = features_and_logits(module, dataset.test)
    distance = FrechetTo(fid_statistics(reference))
    report = {"floor": distance(fitted(z))}
    if len(dataset.classes) > 1:
        report["accuracy"] = float((logits.argmax(1) == dataset.test_labels).mean())
    if dataset.limits:
        report |= _damage(module, dataset, reference, distance, report["floor"])
        check_limits(report, dataset.limits)
    return report


def check_limits(report: Mapping[str, float], limits: Mapping[str, tuple[float, float]]) -> None:
    """Refuse a report with a number outside its limits, or an FID that does not grow with the noise.

    Raises:
        ValueError: naming the number and its limits.
    """
    for name, (least, greatest) in limits.items():
        if not least <= report[name] <= greatest:
            raise ValueError(
                f"the extractor's {name} is {report[name]:.3g}, outside {least:g} to {greatest:g}: "
                "it does not measure well; change its spec"
            )
    noises = [report[f"noise_{s}"] for s in NOISES]
    if any(a >= b for a, b in zip(noises, noises[1:], strict=False)):
        raise ValueError(f"the extractor's FID does not grow with noise: {noises} at {NOISES}")


def gaussian_blur(dataset: Dataset, sigma: float) -> Images:
    """Blur the training images by sigma pixels, and round them to grey levels."""
    from scipy.ndimage import gaussian_filter

    grey, x = _in_model_scale(dataset)
    blurred = gaussian_filter(x.double().numpy(), (0, 0, sigma, sigma), mode="nearest")
    return grey.from_model(from_numpy(blurred))


def gaussian_noise(dataset: Dataset, sigma: float) -> Images:
    """Add noise of sigma in [-1, 1] scale to the training images, the same at each sigma, and round them."""
    grey, x = _in_model_scale(dataset)
    noise: NDArray[np.float64] = np.random.RandomState(0).standard_normal(tuple(x.shape))
    return grey.from_model(x + sigma * from_numpy(noise))


def _in_model_scale(dataset: Dataset) -> tuple[GreyLevels, Tensor]:
    grey = GreyLevels(dataset.levels)
    return grey, grey.to_model(dataset.train)


def _damage(
    module: nn.Module, dataset: Dataset, reference: Features, distance: FrechetTo, floor: float
) -> dict[str, float]:
    def relative(features: Features) -> float:
        return distance(fitted(features)) / floor

    def of(images: Images) -> float:
        return relative(features_and_logits(module, images)[0])

    dropped = [relative(reference[dataset.train_labels != c]) for c in range(len(dataset.classes))]
    return {
        "dropped_class": float(np.mean(dropped)),
        "dropped_class_least": min(dropped),
        "blur": of(gaussian_blur(dataset, BLUR * dataset.shape[0])),
        **{f"noise_{sigma}": of(gaussian_noise(dataset, sigma)) for sigma in NOISES},
    }
