r"""Restorers without a model: what a measurement says by itself, and beside the data's mean and covariance.

    pseudo-inverse   x = m + H^+ (y - H m),   m the middle of the data range

    posterior mean   x ~ N(m, C),  y = H x + std n:

        E[x | y]   = m + G (y - H m)         G = C H^T (H C H^T + std^2 I)^+
        Cov[x | y] = C - G H C

m and C are those of the training images, so the second is the best linear restorer on average over them (Wiener's
filter), and the truth that a restorer with the exact denoiser of that Gaussian is held to (``GaussianDenoiser``).

It is computed in float64 in the coordinates u = V^T x.  Those with s = 0 are not measured and leave H C H^T, which is
S V^T C V S = Q diag(l) Q^T of the others.  Where l is no more than ``ROUNDING`` of the largest the data do not vary
and there is nothing to learn: its inverse is 0, and so all is right for std = 0 too.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffbench.diffusion.denoisers.exact import GaussianDenoiser
from diffbench.diffusion.inverse.operators.operator import Operator
from diffbench.diffusion.inverse.restorers.restorer import Measurement, Restorer
from diffbench.specs.restorers import PosteriorMeanSpec, PseudoInverseSpec

#: A float32 measurement is known to about 1e-7 of itself; a variance is a square, times room for D pixels.
ROUNDING = 1e-10


class PseudoInverse(Restorer):
    """What agrees with y and is otherwise the ``middle`` of the data range, of any operator."""

    def __init__(self, spec: PseudoInverseSpec, middle: float = 0.0) -> None:
        self.spec, self.middle = spec, middle

    def restore(self, measurement: Measurement, generator: torch.Generator) -> Tensor:
        """M + H^+ (y - H m), or H^+ y where the operator is not linear; nothing is drawn."""
        operator = measurement.operator
        x = operator.pseudo_inverse(measurement.centred(self.middle).y)
        return self.middle + x if isinstance(operator, Operator) else x


class PosteriorMean(Restorer):
    """The mean given y of a Gaussian with the images' mean and covariance.

    Args:
        spec: without parameters.
        images: the training images (N, C, H, W), in the range in which images are degraded.
    """

    def __init__(self, spec: PosteriorMeanSpec, images: Tensor) -> None:
        self.spec, self.image_shape = spec, images.shape[1:]
        fitted = GaussianDenoiser.fit(images, torch.zeros(len(images)))
        self.mean, self.prior = fitted["mean"], fitted["covariance"]

    def restore(self, measurement: Measurement, generator: torch.Generator) -> Tensor:
        """E[x | y], in y's precision; nothing is drawn.

        Raises:
            TypeError: when the operator is not linear.
        """
        operator, y = _linear(measurement), measurement.y
        mean = self.mean.to(y.device).reshape(1, *self.image_shape)
        crossing, gain = self._gain(operator, measurement.std)
        offset = operator.spectral(y.double()) - operator.gains(mean) * operator.coordinates(mean)
        measured = offset[:, operator.s > 0]
        x = mean.flatten(1) + measured @ gain.to(y.device) @ crossing.to(y.device).T
        return x.reshape(-1, *self.image_shape).to(y)

    def covariance(self, operator: Operator, std: float) -> Tensor:
        """Cov[x | y], float64 (D, D); it does not depend on y."""
        crossing, gain = self._gain(operator, std)
        return self.prior - crossing @ gain @ crossing.T

    def _gain(self, operator: Operator, std: float) -> tuple[Tensor, Tensor]:
        """C H^T U (D, K) of the K measured coordinates, and (U^T H C H^T U + std^2 I)^+ (K, K)."""
        measured = operator.s > 0
        s = operator.s[measured].to(self.prior)
        crossing = s * self._coordinates(operator, self.prior)[:, measured]
        variances, axes = torch.linalg.eigh(
            s * self._coordinates(operator, crossing.T)[:, measured]
        )
        varying = variances > ROUNDING * variances.max()
        inverse = torch.where(varying, 1 / (variances + std**2), 0.0)
        return crossing, axes * inverse @ axes.T

    def _coordinates(self, operator: Operator, rows: Tensor) -> Tensor:
        """V^T of each row, an image (R, D)."""
        return operator.coordinates(rows.reshape(-1, *self.image_shape))


def _linear(measurement: Measurement) -> Operator:
    operator = measurement.operator
    if not isinstance(operator, Operator):
        raise TypeError(f"a posterior mean needs a linear operator, not {operator.spec.name}")
    return operator
