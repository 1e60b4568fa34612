"""Thresholds: wrappers that bring the predicted x0 into the data range; all other views follow from the new x0."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from diffbench.diffusion.core.condition import Condition
from diffbench.diffusion.core.predictions import Prediction
from diffbench.diffusion.denoisers.denoiser import Denoiser, Wrapper
from diffbench.specs.solvers import Threshold


class StaticThreshold(Wrapper):
    """A wrapper that clips the predicted x0 to the data range [low, high] (Ho et al. 2020, official code)."""

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Prediction:
        prediction = self.denoiser(x_t, t, condition)
        return prediction.with_x0(
            prediction.x0.clamp(self.process.spec.low, self.process.spec.high)
        )


class DynamicThreshold(Wrapper):
    """A wrapper that scales the predicted x0 into the data range, so that few pixels saturate.

    Measured from the middle of the range, in units of half its width, x0 <- clip(x0, -q, q)/q, where q is the
    ``percentile`` of |x0| of each image, at least 1 (Saharia et al. 2022, "Imagen",
    https://arxiv.org/abs/2205.11487, section 2.3).
    """

    def __init__(self, denoiser: Denoiser, percentile: float) -> None:
        super().__init__(denoiser)
        self.percentile = percentile

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Prediction:
        prediction, process = self.denoiser(x_t, t, condition), self.process
        half = process.spec.half_range
        x = process.centred(prediction.x0) / half
        q = x.flatten(1).abs().quantile(self.percentile, dim=1).clamp(min=1)[:, None, None, None]
        return prediction.with_x0(process.placed(half * x.clamp(-q, q) / q))


THRESHOLDS: dict[str, Callable[[Denoiser, float], Denoiser]] = {
    "none": lambda denoiser, percentile: denoiser,
    "static": lambda denoiser, percentile: StaticThreshold(denoiser),
    "dynamic": DynamicThreshold,
}


def thresholded(denoiser: Denoiser, kind: Threshold, percentile: float = 0.995) -> Denoiser:
    """The denoiser with this threshold on its x0."""
    return THRESHOLDS[kind](denoiser, percentile)
