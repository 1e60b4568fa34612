"""Spec of how a trained network is asked: by solvers, likelihoods, restorers and analyses."""

from __future__ import annotations

from typing import Literal

from diffbench.specs.base import Spec

#: Of a network's arithmetic: float32, or under autocast bfloat16 or float16.
Precision = Literal["fp32", "bf16", "fp16"]


class SamplingSpec(Spec):
    """How whatever draws, evaluates or restores images runs the network, whatever it was trained in.

    ``precision``: what controls its own error, and an exact likelihood, take fp32 all the same: they would take
    rounding for error.
    """

    precision: Precision = "fp32"
