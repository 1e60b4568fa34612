r"""Exact denoisers: the posterior mean E[x_0 | x_t] of data for which a formula is known.

    Gaussian N(m, C)       x0 = m + alpha C (alpha^2 C + sigma^2 I)^-1 (x_t - alpha m)
    mixture  sum_k w_k N(m_k, C_k)   the Gaussians' x0, weighted by the components' posterior probabilities,
                           p(k | x_t) proportional to w_k N(x_t; alpha m_k, alpha^2 C_k + sigma^2 I)
    empirical, images x_i  x0 = sum_i softmax_i( -|x_t - alpha x_i|^2 / (2 sigma^2) ) x_i

They are the ground truth of every solver's test.  The empirical denoiser is also a control: it is an exact
minimiser of the training objective, which can only return training images (Karras et al. 2022, appendix B.3).
Each denoiser is made from named tensors in the process's data range, and ``fit`` estimates these from images
(N, C, H, W) and labels (N,).  In the formulas the middle of the range is subtracted from images and means.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor

from diffbench.diffusion.core.condition import Condition
from diffbench.diffusion.core.predictions import Prediction
from diffbench.diffusion.core.process import Process
from diffbench.diffusion.denoisers.denoiser import Denoiser
from diffbench.diffusion.processes.reflected import Reflected
from diffbench.diffusion.processes.reflection import fold, log_density, orientation, scaled_score
from diffbench.specs.denoisers import DenoiserSpec


class ExactDenoiser(Denoiser):
    """Base of denoisers with the posterior mean in closed form, for flattened images (B, D)."""

    def __init__(self, spec: DenoiserSpec, process: Process, tensors: dict[str, Tensor]) -> None:
        super().__init__(process)
        self.spec, self.tensors = spec, tensors

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Prediction:
        """The prediction with the posterior mean as its native quantity."""
        alpha = self.process.alpha(t).reshape(-1, 1).to(x_t)
        sigma = self.process.sigma(t).reshape(-1, 1).to(x_t)
        x0 = self.posterior_mean(self.process.centred(x_t).flatten(1), alpha, sigma)
        return Prediction(self.process, x_t, t, "x0", self.process.placed(x0.reshape(x_t.shape)))

    @abstractmethod
    def posterior_mean(self, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """E[x_0 | x_t], images minus the middle: x_t (B, D); alpha and sigma (1 or B, 1) -> (B, D)."""


class MixtureDenoiser(ExactDenoiser):
    """The exact denoiser of a Gaussian mixture.  Tensors: weights (K,), means (K, D), covariances (K, D, D)."""

    def __init__(self, spec: DenoiserSpec, process: Process, tensors: dict[str, Tensor]) -> None:
        super().__init__(spec, process, tensors)
        self.log_weights, self.means = tensors["weights"].log(), process.centred(tensors["means"])
        variances, self.axes = torch.linalg.eigh(tensors["covariances"])
        self.variances = variances.clamp(min=0)

    @staticmethod
    def fit(images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The tensors of a mixture with one Gaussian for each class."""
        x = images.flatten(1).double()
        groups = [x[labels == label] for label in labels.unique()]
        return {
            "weights": torch.tensor([len(group) / len(x) for group in groups], dtype=torch.float64),
            "means": torch.stack([group.mean(0) for group in groups]),
            "covariances": torch.stack([group.T.cov(correction=0) for group in groups]),
        }

    def posterior_mean(self, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The components' posterior means, weighted by their posterior probabilities."""
        means, axes, variances = (
            each.to(x_t) for each in (self.means[:, None], self.axes, self.variances[:, None])
        )
        along = (x_t - alpha * means) @ axes
        total = alpha**2 * variances + sigma**2
        log_density = -0.5 * (along**2 / total + total.log()).sum(-1)
        weights = (self.log_weights.to(x_t)[:, None] + log_density).softmax(0)[..., None]
        shrunk = (weights * (alpha * variances / total) * along) @ axes.mT
        return (weights * means + shrunk).sum(0)


class GaussianDenoiser(MixtureDenoiser):
    """The exact denoiser of a Gaussian, a mixture of one.  Tensors: mean (D,), covariance (D, D)."""

    def __init__(self, spec: DenoiserSpec, process: Process, tensors: dict[str, Tensor]) -> None:
        mean, covariance = tensors["mean"], tensors["covariance"]
        mixture = {
            "weights": torch.ones(1).to(mean),
            "means": mean[None],
            "covariances": covariance[None],
        }
        super().__init__(spec, process, mixture)
        self.tensors = tensors

    @staticmethod
    def fit(images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The mean and the covariance of the images."""
        x = images.flatten(1).double()
        return {"mean": x.mean(0), "covariance": x.T.cov(correction=0)}


class EmpiricalDenoiser(ExactDenoiser):
    """The exact denoiser of the images themselves.  Tensors: images (N, C, H, W)."""

    @staticmethod
    def fit(images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The images, unchanged."""
        return {"images": images}

    def posterior_mean(self, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The average of the images, weighted by their posterior probabilities."""
        images = self.process.centred(self.tensors["images"].flatten(1).to(x_t))
        # |x - a m|^2 without |x|^2, which the softmax drops; in float64, since small sigmas magnify rounding.
        x, m, a = x_t.double(), images.double(), alpha.double()
        distance = (a * m.square().sum(1) / 2 - x @ m.T) * a
        return (-distance / sigma.double() ** 2).softmax(1).to(x_t) @ images


class ReflectedMixtureDenoiser(Denoiser):
    """The exact denoiser of a mixture of reflected Gaussians, between the walls of a reflected process.

    The density of data is sum_k w_k prod_d p_{b_k}(x_d | m_kd), with p_b(. | m) the kernel of width b around m.  At
    time t the density is the same with widths sqrt(b_k^2 + sigma_t^2).  A kernel of width 0 is a point.  Tensors:
    weights (K,), centres (K, D) between the walls, widths (K,).
    """

    process: Reflected

    def __init__(self, spec: DenoiserSpec, process: Reflected, tensors: dict[str, Tensor]) -> None:
        super().__init__(process)
        self.spec, self.tensors = spec, tensors
        #: The mixture in coordinates in which the cube is [0, 1].
        self.weights = tensors["weights"]
        self.centres = process.to_cube(tensors["centres"])
        self.widths = tensors["widths"] / process.width

    @staticmethod
    def fit(images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The tensors of a mixture with a point at each image."""
        x = images.flatten(1)
        return {
            "weights": torch.full((len(x),), 1 / len(x), dtype=torch.float64),
            "centres": x,
            "widths": torch.zeros(len(x), dtype=torch.float64),
        }

    def pairs(self, x: Tensor, centres: Tensor, total: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One row for each pair of image and component: images and centres (B K, D), widths (B K, 1)."""
        count = len(centres)
        many, each = x.flatten(1).repeat_interleave(count, 0), centres.repeat(len(x), 1)
        return many, each, total.reshape(-1, 1)

    def components(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The components' total widths and log weights + log densities at x in [0, 1], both (B, K)."""
        weights, centres, widths = (
            each.to(x) for each in (self.weights, self.centres, self.widths)
        )
        sigma = self.process.sigma_in_cube(t).to(x).reshape(-1, 1)
        total = (widths**2 + sigma**2).sqrt().expand(len(x), -1)
        shape = len(x), *centres.shape
        logs = log_density(*self.pairs(x, centres, total)).reshape(shape).sum(-1)
        return total, weights.log() + logs

    def log_prob(self, x: Tensor, t: Tensor) -> Tensor:
        """Log density at time t of x (B, C, H, W) between the walls, in nats (B,)."""
        inside = self.components(self.process.to_cube(x), t)[1].logsumexp(1)
        return inside - x[0].numel() * math.log(self.process.width)

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Prediction:
        """The prediction whose score is the average of the components' scores, weighted by posterior probabilities.

        Outside the cube the score is odd about the walls.
        """
        in_cube = self.process.to_cube(x_t)
        inside, centres = fold(in_cube), self.centres.to(x_t)
        total, logs = self.components(inside, t)
        each = scaled_score(*self.pairs(inside, centres, total)).reshape(len(x_t), *centres.shape)
        shares = (logs.softmax(1) / total)[..., None]
        score = (shares * each).sum(1).reshape(x_t.shape)
        sigma = self.process.sigma_in_cube(t).to(x_t)
        return Prediction(self.process, x_t, t, "eps", -sigma * orientation(in_cube) * score)
