"""Spec of how solvers, likelihoods, restorers and analyses run a trained network."""

from __future__ import annotations

from typing import Literal

from diffbench.specs.base import Spec

#: The precision of a network's arithmetic: float32; float32 whose products a GPU may round to TF32, with 10 bits of
#: mantissa; or bfloat16 or float16 under autocast.
Precision = Literal["fp32", "tf32", "bf16", "fp16"]


class SamplingSpec(Spec):
    """How the network is run to draw, evaluate or restore images, whatever precision it was trained in.

    precision: of the network's arithmetic.  Solvers that control their error, and exact likelihoods, use fp32
        anyway, because they would take rounding for error.
    """

    precision: Precision = "fp32"
