"""Specs of the likelihoods: bits per dimension, each kind in a column of its own."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator

from diffbench.specs.base import PositiveInt, Registered, nothing
from diffbench.specs.denoiser import DenoiserSpec
from diffbench.specs.process import ProcessSpec, Variance
from diffbench.specs.solver import IntegerGrid, grid_refusal, variance_refusal


class LikelihoodSpec(Registered):
    """A bound on, or the value of, the negative log likelihood of the test set."""

    kind: ClassVar[str] = "likelihood"
    column: ClassVar[str]

    name: str

    def refusal(self, process: ProcessSpec, denoiser: DenoiserSpec | None = None) -> str | None:
        """Why this likelihood cannot serve the denoiser on the process; None when it can."""
        return None


class VLBSpec(LikelihoodSpec):
    """The discrete variational bound: prior + one KL per step + discretised-Gaussian decoder.

    Ho et al. 2020, equation 5.  ``threshold: static`` clips predicted x0 to the data range, as the
    official code does when it evaluates the bound.  ``steps`` evenly spaced levels are taken (all by
    default; ``grid: strided`` takes a constant stride).  ``batch`` images are evaluated at a time.
    """

    name: Literal["vlb"] = "vlb"
    implementation: ClassVar[str] = "diffbench.diffusion.likelihoods.vlb:VLB"
    column: ClassVar[str] = "vlb"

    variance: Variance = "small"
    threshold: Literal["none", "static"] = "static"
    steps: Annotated[PositiveInt | None, BeforeValidator(nothing)] = None
    grid: IntegerGrid = "respaced"
    batch: PositiveInt = 500

    def refusal(self, process: ProcessSpec, denoiser: DenoiserSpec | None = None) -> str | None:
        """The bound is a sum over a chain of integer steps."""
        if process.family != "gaussian" or process.time != "discrete":
            return f"the discrete bound needs integer times, and {process.name} is continuous"
        if self.steps is not None and (reason := grid_refusal(process, self.grid, self.steps)):
            return reason
        return variance_refusal(self.variance, denoiser)
