r"""Processes that blur images as heat spreads, with growing or with constant noise.

With u = B x the cosine transform of an image and lambda its eigenvalues (``bases``), a blur of width b pixels is
u exp(-lambda b^2/2).

blurring   alpha = cos(a) d,  sigma = sin(a),  a as in vp-cosine,
           d = (1 - d_min) exp(-lambda b(t)^2/2) + d_min,  b(t) = sigma_max sin^2(pi t/2)  or  sigma_max sin(pi t/2)
           (Hoogeboom & Salimans 2023, "Blurring Diffusion Models", https://arxiv.org/abs/2209.05557, sections 3-4)

ihdm       q(u_k | u_0) = N(exp(-lambda b_k^2/2) u_0, sigma^2),  k = 1 .. K, with the b_k given and one sigma for all;
           q(u_{k-1} | u_k, u_0) = q(u_{k-1} | u_0): the noises of different levels are independent
           (Rissanen, Heinonen & Solin 2023, "Generative Modelling with Inverse Heat Dissipation",
           https://arxiv.org/abs/2206.13397, section 3.  The paper's k is time k - 1 here, as on DDPM's chain.)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffbench.diffusion.core.bases import DCT
from diffbench.diffusion.core.process import cast
from diffbench.diffusion.processes.continuous import VPCosine
from diffbench.diffusion.processes.gaussian import GaussianProcess
from diffbench.specs.processes import BlurringSpec, IHDMSpec

#: The shape (C, H, W) of an image.
Shape = tuple[int, int, int]


def sin2(t: Tensor) -> tuple[Tensor, Tensor]:
    """The ramp, the squared sine of pi t/2, and its derivative."""
    return (math.pi / 2 * t).sin() ** 2, math.pi / 2 * (math.pi * t).sin()


def sin(t: Tensor) -> tuple[Tensor, Tensor]:
    """The ramp, the sine of pi t/2, and its derivative."""
    angle = math.pi / 2 * t
    return angle.sin(), math.pi / 2 * angle.cos()


RAMPS = {"sin2": sin2, "sin": sin}


class Blurring(VPCosine):
    """Blurring diffusion of images of one shape; ``ratio`` and all that depends on it leave out the blur d."""

    basis: DCT

    def __init__(self, spec: BlurringSpec, image_shape: Shape) -> None:
        super().__init__(spec)
        self.basis = DCT(*image_shape[1:])
        self.ramp, self.sigma_max, self.d_min = RAMPS[spec.schedule], spec.sigma_max, spec.d_min

    def ratio(self, t: Tensor) -> Tensor:
        """Noise-to-signal ratio sigma/cos(a) without the blur, of t's shape."""
        return self.sigma(t) / self.signal(t)

    def heat(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The heat time tau = b^2/2 and its derivative; 0 before t = 0, where there is noise but no blur."""
        ramp, rate = self.ramp(t.clamp(min=0))
        return (self.sigma_max * ramp) ** 2 / 2, self.sigma_max**2 * ramp * rate

    def faded(self, tau: Tensor) -> Tensor:
        """The factor exp(-lambda tau) of each coordinate, (H, W) or (B, 1, H, W)."""
        return (-self.basis.eigenvalues.to(tau.device) * tau).exp()

    def alpha(self, t: Tensor) -> Tensor:
        """Signal scale cos(a) d, with one value for each coordinate."""
        tau, _ = self.heat(t)
        return self.signal(t) * ((1 - self.d_min) * self.faded(tau) + self.d_min)

    def f(self, t: Tensor) -> Tensor:
        """Drift coefficient: that of the signal cos(a), plus d'/d."""
        tau, rate = self.heat(t)
        faded = (1 - self.d_min) * self.faded(tau)
        lost = self.basis.eigenvalues.to(tau.device) * rate * faded / (faded + self.d_min)
        return super().f(t) - lost


class IHDM(GaussianProcess):
    """Inverse heat dissipation of images of one shape.

    Its SDE would have no noise, and its transitions do not form a chain.  Of the Gaussian family it has ``diffuse``,
    the posterior, and a prior that is made of training images.
    """

    basis: DCT
    data_time = -1.0

    def __init__(self, spec: IHDMSpec, image_shape: Shape, images: Tensor) -> None:
        super().__init__(spec)
        self.basis = DCT(*image_shape[1:])
        self.noise_std = spec.sigma
        low, high, count = spec.blur_min, spec.blur_max, spec.levels
        widths = torch.linspace(low, high, count, dtype=torch.float64)
        if spec.spacing == "geometric":
            ends = math.log(low), math.log(high)
            widths = torch.linspace(*ends, count, dtype=torch.float64).exp()
        #: Widths of the blur at times -1, 0, .., K-1: entry t + 1 belongs to time t.
        self.widths = torch.cat([torch.zeros(1, dtype=torch.float64), widths])
        self.images = images

    def width(self, t: Tensor) -> Tensor:
        """The blur's width b at each time, in pixels."""
        return self.widths.to(t.device)[t.long() + 1]

    def noise_level(self, t: Tensor) -> Tensor:
        """The noise level that a network is told: the logarithm of the blur's width, since sigma is constant."""
        return self.width(t).log()

    def alpha(self, t: Tensor) -> Tensor:
        """Signal scale exp(-lambda b^2/2)."""
        return (-self.basis.eigenvalues.to(t.device) * self.width(t) ** 2 / 2).exp()

    def sigma(self, t: Tensor) -> Tensor:
        """Noise scale: constant, but 0 at the data's time."""
        return torch.full_like(t, self.noise_std) * (t != self.data_time)

    def posterior_mean(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients of x_t and x_0 in the mean of x_s given both: 0 and alpha_s."""
        return torch.zeros_like(t), self.alpha(s)

    def posterior_variance(self, t: Tensor, s: Tensor) -> Tensor:
        """Variance of x_s given x_t and x_0: sigma_s^2, whatever x_t is."""
        return self.sigma(s) ** 2

    def diffuse(self, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """A draw of x_t: x0, blurred, plus sigma_t eps; all of shape (B, C, H, W)."""
        return self.blurred(x0, t) + cast(self.sigma(t), x0) * eps

    def blurred(self, x0: Tensor, t: Tensor) -> Tensor:
        """The images x0 blurred as at time t, without noise."""
        return self.basis.heat(x0, self.width(t) ** 2 / 2)

    def prior_means(self, x: Tensor) -> Tensor:
        """The training images (N, C, H, W) blurred as at the last level, without noise; of x's type and device."""
        last_time = torch.tensor(self.t_max, dtype=torch.float64)
        return self.blurred(self.images.to(x), last_time)
