"""Specs of the analyses: measurements on a variant that are neither samples nor a likelihood."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from diffbench.specs.base import Int, PositiveInt, Registered
from diffbench.specs.denoiser import DenoiserSpec
from diffbench.specs.process import ProcessSpec


class AnalysisSpec(Registered):
    """A measurement whose result is one JSON file."""

    kind: ClassVar[str] = "analysis"

    name: str

    def refusal(self, process: ProcessSpec, denoiser: DenoiserSpec | None = None) -> str | None:
        """Why the variant cannot be analysed so; None when it can."""
        return None


class GradientNoiseSpec(AnalysisSpec):
    """How noisy the gradients of L_vlb and L_hybrid are along a neutral run.

    The variant's network is trained with L_simple.  At each of ``checkpoints`` evenly spaced steps, from
    ``draws`` minibatches of the training batch's size, the total variance of the gradient of L_vlb with
    uniform times, of L_vlb with importance-sampled times, and of L_hybrid is estimated
    (Nichol & Dhariwal 2021, section 3.3 and figure 3).
    """

    name: Literal["gradient-noise"] = "gradient-noise"
    implementation: ClassVar[str] = "diffbench.stages.gradient_noise:GradientNoise"

    checkpoints: PositiveInt = 10
    draws: Annotated[Int, Field(ge=2)] = 64

    def refusal(self, process: ProcessSpec, denoiser: DenoiserSpec | None = None) -> str | None:
        """L_vlb needs a chain, L_hybrid a learned variance."""
        if process.time != "discrete":
            return f"L_vlb needs integer times, and {process.name} is continuous"
        if denoiser is not None and not denoiser.learns_variance:
            return "L_hybrid needs denoiser.variance: learned"
        return None
