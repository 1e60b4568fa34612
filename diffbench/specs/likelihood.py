"""Specs of the likelihoods: bits per dimension, each kind in a column of its own."""

from __future__ import annotations

from typing import ClassVar, Literal

from diffbench.specs.base import PositiveInt, Registered
from diffbench.specs.process import ProcessSpec


class LikelihoodSpec(Registered):
    """A bound on, or the value of, the negative log likelihood of the test set."""

    kind: ClassVar[str] = "likelihood"
    column: ClassVar[str]

    name: str

    def refusal(self, process: ProcessSpec) -> str | None:
        """Why this likelihood cannot serve the process; None when it can."""
        return None


class VLBSpec(LikelihoodSpec):
    """The discrete variational bound: prior + one KL per step + discretised-Gaussian decoder.

    Ho et al. 2020, equation 5.  ``threshold: static`` clips predicted x0 to the data range, as the
    official code does when it evaluates the bound.  ``batch`` images are evaluated at a time.
    """

    name: Literal["vlb"] = "vlb"
    implementation: ClassVar[str] = "diffbench.diffusion.likelihoods.vlb:VLB"
    column: ClassVar[str] = "vlb"

    variance: Literal["small", "large"] = "small"
    threshold: Literal["none", "static"] = "static"
    batch: PositiveInt = 500

    def refusal(self, process: ProcessSpec) -> str | None:
        """The bound is a sum over a chain of integer steps."""
        if process.family != "gaussian" or process.time != "discrete":
            return f"the discrete bound needs integer times, and {process.name} is continuous"
        return None
