r"""Restorers without a model: from the measurement alone, or with the data's mean and covariance.

    pseudo-inverse   x = m + H^+ (y - H m),   m the middle of the data range

    posterior mean   x ~ N(m, C),  y = H x + std n:

        E[x | y]   = m + G (y - H m)         G = C H^T (H C H^T + std^2 I)^+
        Cov[x | y] = C - G H C

In the posterior mean, m and C are the mean and covariance of the training images.  It is the best linear restorer on
average over them (Wiener's filter), and the exact answer for a restorer with the exact denoiser of that Gaussian
(``GaussianDenoiser``).

It is computed in float64 in the coordinates u = V^T x.  Coordinates with s = 0 are not measured and are left out.  For
the others H C H^T is S V^T C V S = Q diag(l) Q^T.  Where l is at most ``ROUNDING`` times the largest l, the data do not
vary: the inverse is set to 0, so that std = 0 is allowed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffbench.diffusion.denoisers.exact import GaussianDenoiser
from diffbench.diffusion.inverse.operators.operator import Operator
from diffbench.diffusion.inverse.restorers.restorer import Measurement, Restorer
from diffbench.specs.restorers import PosteriorMeanSpec, PseudoInverseSpec

#: The relative error of a float32 measurement is about 1e-7, of a variance its square; the rest is room for D pixels.
ROUNDING = 1e-10


class PseudoInverse(Restorer):
    """The image that agrees with y and otherwise is the ``middle`` of the data range; for any operator."""

    def __init__(self, spec: PseudoInverseSpec, middle: float = 0.0) -> None:
        self.spec, self.middle = spec, middle

    def restore(self, measurement: Measurement, generator: torch.Generator) -> Tensor:
        """The images m + H^+ (y - H m), or H^+ y where the operator is not linear; nothing is drawn."""
        operator = measurement.operator
        x = operator.pseudo_inverse(measurement.centred(self.middle).y)
        return self.middle + x if isinstance(operator, Operator) else x


class PosteriorMean(Restorer):
    """The posterior mean of x given y, where x is Gaussian with the images' mean and covariance.

    Args:
        spec: the restorer's spec, which has no parameters.
        images: the training images (N, C, H, W), in the range in which images are degraded.
    """

    def __init__(self, spec: PosteriorMeanSpec, images: Tensor) -> None:
        self.spec, self.image_shape = spec, images.shape[1:]
        fitted = GaussianDenoiser.fit(images, torch.zeros(len(images)))
        self.mean, self.prior = fitted["mean"], fitted["covariance"]

    def restore(self, measurement: Measurement, generator: torch.Generator) -> Tensor:
        """The mean E[x | y], in y's precision; nothing is drawn.

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
        """The covariance Cov[x | y], float64 (D, D); it does not depend on y."""
        crossing, gain = self._gain(operator, std)
        return self.prior - crossing @ gain @ crossing.T

    def _gain(self, operator: Operator, std: float) -> tuple[Tensor, Tensor]:
        """The matrices C H^T U (D, K) for the K measured coordinates, and (U^T H C H^T U + std^2 I)^+ (K, K)."""
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
        """The coordinates V^T x (R, D) of each row x, a flattened image."""
        return operator.coordinates(rows.reshape(-1, *self.image_shape))


def _linear(measurement: Measurement) -> Operator:
    operator = measurement.operator
    if not isinstance(operator, Operator):
        raise TypeError(f"a posterior mean needs a linear operator, not {operator.spec.name}")
    return operator
