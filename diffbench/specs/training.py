"""Spec of a training budget: optimiser, learning rate, averaging, precision."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from diffbench.specs.base import (
    Float,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Spec,
    nothing,
)

#: A rate of averaging: at 1 nothing would ever be taken in.
Decay = Annotated[Float, Field(ge=0, lt=1)]


class TrainingSpec(Spec):
    """AdamW with warm-up, a flat stretch and a linear decay; gradients clipped; weights averaged.

    The rate rises linearly over ``warmup`` steps, stays at ``lr`` until the fraction ``flat`` of the
    run, then falls linearly to ``final * lr``.  ``clip`` is the largest gradient norm, or ``none``.
    ``ema`` is the averaging rate, reached as min(ema, (1 + n)/(10 + n)).  ``threads`` is part of the
    spec because sums over threads change the last bits of every result.
    """

    steps: PositiveInt
    batch: PositiveInt = 128
    lr: PositiveFloat = 2e-4
    warmup: NonNegativeInt = 0
    flat: Fraction = 1.0
    final: Fraction = 1.0
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    weight_decay: NonNegativeFloat = 0.0
    clip: Annotated[PositiveFloat | None, BeforeValidator(nothing)] = 1.0
    ema: Decay = 0.9999
    precision: Literal["fp32", "bf16"] = "fp32"
    threads: PositiveInt = 1
