"""Spec of a training budget: optimiser, learning rate, averaging, precision."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, model_validator

from diffbench.specs.average import AnyAverage, Decay, WarmAverageSpec
from diffbench.specs.base import (
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Spec,
    nothing,
)
from diffbench.specs.sampling import Precision


class TrainingSpec(Spec):
    """AdamW with warm-up, a flat stretch and a linear decay; gradients clipped; weights averaged.

    The rate rises linearly over ``warmup`` steps, stays at ``lr`` until the fraction ``flat`` of the
    run, then falls linearly to ``final * lr``.  ``clip`` is the largest gradient norm, or ``none``.
    ``ema`` is a rule of averaging; a number is its rate, reached as min(ema, (1 + n)/(10 + n)).
    ``threads`` is part of the spec because sums over threads change the last bits of every result.

    ``accumulate`` cuts each process's share of a batch into so many parts, to save memory: the same
    gradient but for rounding.  ``reduction`` is how the loss joins an image's numbers before its gradient is
    taken, which clipping and Adam's ``eps`` notice: ``mean``, ``sum`` (EDM), ``half-sum`` (Song et al. 2021).
    ``channels_last`` keeps an image's channels together in memory, ``compile`` has the network compiled for
    training: both are for speed, and both round otherwise.
    ``flip`` mirrors each training image, left to right, with probability 1/2.
    ``finite`` takes 0 for what is NaN in a gradient, and +-1e5 for what is infinite, before it is clipped (Karras
    et al. 2022, official code): one bad batch does not end a training then, nor does a loss that is not finite.

    ``precision`` is that of the network in training; what asks it afterwards has its own (`SamplingSpec`).  Numbers of
    fp16 end at 6e-8, so there the loss is multiplied by ``loss_scale`` before its gradient is taken, which is divided
    by it again: a number, or ``dynamic``, which halves it and leaves a step out where a gradient is not finite, and
    doubles it after 2,000 steps in a row that were (Micikevicius et al. 2018, https://arxiv.org/abs/1710.03740).
    """

    steps: PositiveInt
    batch: PositiveInt = 128
    accumulate: PositiveInt = 1
    lr: PositiveFloat = 2e-4
    warmup: NonNegativeInt = 0
    flat: Fraction = 1.0
    final: Fraction = 1.0
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    eps: PositiveFloat = 1e-8
    weight_decay: NonNegativeFloat = 0.0
    reduction: Literal["mean", "sum", "half-sum"] = "mean"
    clip: Annotated[PositiveFloat | None, BeforeValidator(nothing)] = 1.0
    ema: AnyAverage = WarmAverageSpec()
    finite: bool = False
    flip: bool = False
    precision: Precision = "fp32"
    loss_scale: Literal["dynamic"] | PositiveFloat = "dynamic"
    channels_last: bool = False
    compile: bool = False
    threads: PositiveInt = 1

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.accumulate > self.batch:
            raise ValueError(
                f"accumulate: a batch of {self.batch} cannot be cut into {self.accumulate} parts"
            )
        if self.loss_scale != "dynamic" and self.precision != "fp16":
            raise ValueError(
                f"loss_scale: {self.loss_scale:g} is of fp16 alone, and precision is {self.precision}; leave it out"
            )
        return self
