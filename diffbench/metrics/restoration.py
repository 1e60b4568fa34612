r"""Scores of restorations: K draws for each of N images, x (N, K, C, H, W), against the truth (N, C, H, W).

Of draws clipped to [0, 1] and not rounded:

    psnr, ssim   of each draw (``image``); means over draws and images
    psnr_mean    PSNR of the mean over draws, in which the detail of single draws is averaged away
    spread       root mean square over images and pixels of the standard deviation over draws

Of draws that are not clipped:

    residual     root mean square of (y - H x)/span, span the width of the range: compared with the task's noise it
                 says whether the measurement was met, overfitted or ignored
    bias         root mean square of (mean over draws - posterior mean), in units of [0, 1]
    sd_ratio     root mean square standard deviation over draws, over that of the posterior

The last two need the true posterior N(m, C), which is known for a Gaussian.  The mean of K draws differs from its
expectation by a variance of var/K, which is subtracted from bias^2; a value below 0 becomes 0.  Variances over draws
divide by K - 1.

An `ImageMeasure` is a further distance of each draw to the truth; its score is the mean over draws and images.

Standard errors are over images; that of a root follows from that of the mean square, se/(2 root).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from diffbench.metrics.image import psnr, ssim
from diffbench.metrics.scores import Score, mean_of

#: A posterior variance, in units of [0, 1], that is no more than rounding.
ROUNDING = 1e-10


class ImageMeasure(ABC):
    """A distance of restorations to the truth by a network, one number for each draw."""

    @abstractmethod
    def __call__(self, truth: Tensor, drawn: Tensor) -> Tensor:
        """Distances (N, K), float64, of draws (N, K, C, H, W) to the truth (N, C, H, W), both on [0, 1]."""


def measured(measure: ImageMeasure, truth: Tensor, drawn: Tensor) -> Score:
    """The mean distance of draws (N, K, C, H, W) to the truth, on [0, 1]; draws are clipped here."""
    return mean_of(measure(truth, drawn.clamp(0, 1)).mean(1))


def of_pictures(truth: Tensor, drawn: Tensor) -> dict[str, Score]:
    """psnr, ssim, psnr_mean and spread of draws (N, K, C, H, W) and the truth, on [0, 1]; draws are clipped here."""
    clipped = drawn.double().clamp(0, 1)
    repeated = truth.repeat_interleave(clipped.shape[1], 0)
    each = {"psnr": psnr, "ssim": ssim}
    scores = {
        name: mean_of(of(clipped.flatten(0, 1), repeated).reshape(clipped.shape[:2]).mean(1))
        for name, of in each.items()
    }
    scores["psnr_mean"] = mean_of(psnr(clipped.mean(1), truth))
    scores["spread"] = _root(_over_pixels(clipped.var(1)))
    return scores


def residual(y: Tensor, again: Tensor, span: float) -> Score:
    """Residual between measurements (N, ...) and those of the draws (N, K, ...)."""
    error = (y[:, None].double() - again.double()) / span
    return _root(error.square().flatten(1).mean(1))


def against_posterior(drawn: Tensor, mean: Tensor, variances: Tensor) -> dict[str, Score]:
    """The scores bias and sd_ratio of draws (N, K, C, H, W), posterior means (N, C, H, W), variances (D,), on [0, 1].

    There is no ratio where the posterior is a point.
    """
    drawn = drawn.double()
    spread = _over_pixels(drawn.var(1))
    error = _over_pixels((drawn.mean(1) - mean.double()).square())
    scores = {"bias": _root(error - spread / drawn.shape[1])}
    expected = float(variances.mean())
    if expected > ROUNDING:
        scores["sd_ratio"] = _root(spread / expected)
    return scores


def _over_pixels(values: Tensor) -> Tensor:
    return values.flatten(1).mean(1)


def _root(squares: Tensor) -> Score:
    """Root of the mean over images of one square an image, and its standard error."""
    found = mean_of(squares)
    if found["value"] is None:
        return found
    value, error = max(found["value"], 0.0) ** 0.5, found["se"]
    return {"value": value, "se": error / (2 * value) if error is not None and value else None}
