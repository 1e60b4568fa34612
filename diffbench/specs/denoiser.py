"""Specs of the denoisers: what turns (x_t, t) into a prediction."""

from __future__ import annotations

from typing import ClassVar, Literal

from diffbench.specs.base import PositiveFloat, Registered


class DenoiserSpec(Registered):
    """A denoiser of any kind; a network's when no name is given."""

    kind: ClassVar[str] = "denoiser"
    default_name: ClassVar[str | None] = "network"
    trained: ClassVar[bool] = False

    name: str


class NetworkDenoiserSpec(DenoiserSpec):
    """A network F inside native = c_skip x + c_out F(c_in x; c_noise).

    ``predict`` is the native quantity.  ``skip: edm`` puts EDM's skip connection (Karras et al. 2022,
    table 1) inside whatever is predicted: the objective is unchanged, the network need not copy the
    noise.  ``predict: edm`` is EDM's own: x0 with that skip.  ``data_std`` is the data's standard
    deviation when data span [-1, 1] (EDM's sigma_data).
    """

    name: Literal["network"] = "network"
    implementation: ClassVar[str] = "diffbench.diffusion.denoisers:NetworkDenoiser"
    trained: ClassVar[bool] = True

    predict: Literal["eps", "x0", "v", "score", "edm"]
    skip: Literal["none", "edm"] = "none"
    data_std: PositiveFloat = 0.5


class GaussianSpec(DenoiserSpec):
    """The exact denoiser of a Gaussian with the training set's mean and covariance."""

    name: Literal["gaussian"] = "gaussian"
    implementation: ClassVar[str] = "diffbench.diffusion.analytic:GaussianDenoiser"


class MixtureSpec(DenoiserSpec):
    """The exact denoiser of a mixture: one Gaussian a class, fitted to the training set."""

    name: Literal["mixture"] = "mixture"
    implementation: ClassVar[str] = "diffbench.diffusion.analytic:MixtureDenoiser"


class EmpiricalSpec(DenoiserSpec):
    """The exact denoiser of the training set itself: it can only reproduce training images."""

    name: Literal["empirical"] = "empirical"
    implementation: ClassVar[str] = "diffbench.diffusion.analytic:EmpiricalDenoiser"
