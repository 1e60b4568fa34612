"""Spec of a training budget: optimiser, learning rate, averaging, precision."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from diffbench.specs.averages import AnyAverage, Decay, WarmAverageSpec
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
from diffbench.specs.weights import OfWeights, Step, StepName, Weights, step_of, untold

#: At 1 ms, the least for the launches of a network's kernels and their gradients, 10^9 steps take 12 days.  The longest
#: training of the papers has 2.5e6.
MOST_STEPS = 10**9
#: The images of a batch: 2^20 are 8,000 of the largest batches of the papers together.
MOST_IMAGES = 2**20
#: The threads of a job: more than any processor has.
MOST_THREADS = 2**12
#: Adam moves each weight by about the rate in a step (Kingma & Ba 2015, section 2.1), and weights begin below 1: a rate
#: above it replaces them.
LARGEST_RATE = 1.0


class MuonSpec(Spec):
    """Muon for the weights of convolutions, while AdamW moves all other weights (Jordan et al. 2024).

    A weight is a matrix with a row for each output channel.  Its steps have singular values that are all about 1, times
    a factor that makes their root mean square 0.2 ``lr``, as AdamW's usually is (Liu et al. 2025,
    https://arxiv.org/abs/2502.16982).  The rate rises and falls with the budget's ``lr``.  ``momentum`` is the rate at
    which gradients are averaged.
    """

    lr: Annotated[PositiveFloat, Field(le=LARGEST_RATE)] = 0.02
    momentum: Decay = 0.95


class TrainingSpec(Spec):
    """AdamW with warm-up, a constant rate and a linear decay; gradients are clipped, weights are averaged.

    The rate rises linearly over ``warmup`` steps, stays at ``lr`` until the fraction ``flat`` of the
    run, then falls linearly to ``final * lr``.  ``clip`` is the largest gradient norm, or ``none``.
    With ``muon`` the weights of convolutions are moved by Muon (`MuonSpec`).
    ``ema`` is a rule of averaging; a number is its rate, reached as min(ema, (1 + n)/(10 + n)).
    ``threads`` is part of the spec because sums over threads change the last bits of every result.

    ``accumulate`` is the number of parts into which each process cuts its share of a batch, to save memory; the
    gradient is the same but for rounding.  ``reduction`` is how the loss of an image is made of its pixels' losses:
    ``mean``, ``sum`` (EDM) or ``half-sum`` (Song et al. 2021).  It scales the gradient, on which clipping and Adam's
    ``eps`` depend.  ``channels_last`` keeps an image's channels together in memory, ``compile`` compiles the network
    for training; both are for speed, and both change the rounding.
    ``flip`` mirrors each training image, left to right, with probability 1/2.
    ``finite`` replaces NaN in a gradient by 0 and infinities by +-1e5 before the gradient is clipped (Karras et al.
    2022, official code).  One bad batch, or a loss that is not finite, then does not end a training.
    ``snapshots`` are steps, or fractions of the run, whose averaged weights are kept besides those of the last step;
    after validation they are steps, in order, without the last.

    ``precision`` is that of the network in training; later uses of the network have their own (`SamplingSpec`).  With
    ``tf32`` a GPU may round what it multiplies to 10 bits of mantissa; ``fp32`` keeps float32's 23 there too.  The
    smallest number of fp16 is 6e-8, so with fp16 the loss is multiplied by ``loss_scale`` and its gradient divided by
    it.  ``loss_scale`` is a number or ``dynamic``: then, where a gradient is not finite, it is halved and the step is
    left out, and after 2,000 finite steps in a row it is doubled (Micikevicius et al. 2018,
    https://arxiv.org/abs/1710.03740).
    """

    steps: Annotated[PositiveInt, Field(le=MOST_STEPS)]
    batch: Annotated[PositiveInt, Field(le=MOST_IMAGES)] = 128
    accumulate: PositiveInt = 1
    lr: Annotated[PositiveFloat, Field(le=LARGEST_RATE)] = 2e-4
    warmup: NonNegativeInt = 0
    flat: Fraction = 1.0
    final: Fraction = 1.0
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    eps: PositiveFloat = 1e-8
    weight_decay: NonNegativeFloat = 0.0
    muon: Annotated[MuonSpec | None, BeforeValidator(nothing)] = Field(
        default=None, exclude_if=untold
    )
    reduction: Literal["mean", "sum", "half-sum"] = "mean"
    clip: Annotated[PositiveFloat | None, BeforeValidator(nothing)] = 1.0
    ema: AnyAverage = WarmAverageSpec()
    finite: bool = False
    flip: bool = False
    precision: Precision = "fp32"
    loss_scale: Literal["dynamic"] | PositiveFloat = "dynamic"
    channels_last: bool = False
    compile: bool = False
    threads: Annotated[PositiveInt, Field(le=MOST_THREADS)] = 1
    snapshots: tuple[Step, ...] = Field(default=(), exclude_if=untold)

    @field_validator("snapshots")
    @classmethod
    def _are_steps(cls, named: tuple[StepName, ...], info: ValidationInfo) -> tuple[int, ...]:
        steps = info.data.get("steps")
        if steps is None:
            return ()
        found = [step_of(each, steps) for each in named]
        for each, step in zip(named, found, strict=True):
            if not 1 <= step <= steps:
                raise ValueError(_beyond(each, steps))
            if found.count(step) > 1:
                raise ValueError(f"step {step} appears twice")
        return tuple(sorted(step for step in found if step < steps))

    @property
    def kept(self) -> tuple[Weights, ...]:
        """All weights that are kept, the model's own first: those of the last step, then those of the snapshots."""
        steps = (self.steps, *map(int, self.snapshots))
        return tuple(Weights(step, length) for step in steps for length in self.ema.tracked)

    def chosen(self, named: StepName | None, ema_std: float | None) -> Weights:
        """Return the weights of a step, named in any way, and of a length; None is the first length that is tracked."""
        own = next(iter(self.ema.tracked))
        return Weights(step_of(named, self.steps), own if ema_std is None else ema_std)

    def at_refusal(self, named: StepName | None) -> str | None:
        """Return why no weights of a step are kept; None where they are."""
        step = step_of(named, self.steps)
        if not 1 <= step <= self.steps:
            return f"at: {_beyond(named, self.steps)}"
        if step in (self.steps, *self.snapshots):
            return None
        known = ", ".join(map(str, self.snapshots)) or "none"
        which = f"{named} (step {step})" if isinstance(named, float) else f"{named}"
        return (
            f"at: {which} is neither one of the snapshots (training.snapshots: {known}) nor the last step, "
            f"{self.steps}"
        )

    def weights_refusal(self, choice: OfWeights) -> str | None:
        """Return why the weights that a solver or likelihood names are not kept; None when they are."""
        for named in choice.step_names:
            if reason := self.at_refusal(named):
                return reason
        steps = [step_of(named, self.steps) for named in choice.step_names]
        if twice := [step for step in steps if steps.count(step) > 1]:
            return f"at: step {twice[0]} appears twice"
        return next(
            filter(None, (self._length_refusal(choice.ema_std, each) for each in steps)), None
        )

    def _length_refusal(self, length: float | None, step: int) -> str | None:
        lengths = list(self.ema.tracked)
        if length is None or length in lengths:
            return None
        if len(lengths) == 1:
            return (
                f"ema_std: {length:g} needs at least two tracked lengths, and training.ema tracks "
                f"{lengths[0] or 'none'}; {{name: power}} tracks 0.05 and 0.1"
            )
        from diffbench.specs.profiles import TOLERATED, missed

        share = missed(self.until(step), Weights(step, length))
        if share <= TOLERATED:
            return None
        return (
            f"ema_std: {length:g} at step {step} cannot be computed from the snapshots: {share:.0%} of its profile "
            f"would be missed, and at most {TOLERATED:.0%} may be; keep more snapshots before, or track a length "
            "nearby"
        )

    @property
    def note(self) -> str | None:
        """What a plan notes: that the rate is never reached; None where it is."""
        if self.warmup <= self.steps:
            return None
        return f"warmup: {self.warmup:,} of {self.steps:,} steps: the rate {self.lr:g} is never reached"

    def until(self, step: int) -> tuple[Weights, ...]:
        """Return the weights that are kept up to a step, from which other lengths are reconstructed."""
        return tuple(each for each in self.kept if each.step <= step)

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        # A step multiplies each weight by 1 - lr * weight_decay (Loshchilov & Hutter 2019): below -1 it grows for ever.
        if self.lr * self.weight_decay > 2:
            raise ValueError(
                f"weight_decay: {self.weight_decay:g} with lr {self.lr:g} makes weights grow in every step; their "
                "product must be at most 2"
            )
        if self.accumulate > self.batch:
            raise ValueError(
                f"accumulate: a batch of {self.batch} cannot be divided into {self.accumulate} parts"
            )
        if self.loss_scale != "dynamic" and self.precision != "fp16":
            raise ValueError(
                f"loss_scale: {self.loss_scale:g} belongs to fp16, but precision is {self.precision}; leave it out"
            )
        return self


def _beyond(named: StepName | None, steps: int) -> str:
    if isinstance(named, float):
        return f"{named} of {steps} steps is less than one step"
    return f"{named} is past the budget of {steps} steps"
