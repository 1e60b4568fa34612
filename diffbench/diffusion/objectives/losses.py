r"""Objectives: times x target x weight -> one loss per example.

    loss_i = w(t_i) * mean over pixels of |view(prediction) - target|^2,     x_t = alpha x_0 + sigma eps

    simple           the denoiser's native quantity, weight 1                 (Ho et al. 2020, equation 14)
    score matching   lambda |score - target|^2 = lambda/sigma^2 |eps - target|^2, lambda = sigma^2, g^2 or 1
                                                                        (Song et al. 2021, equation 7; Song, Durkan,
                                                                        Murray & Ermon 2021, theorem 1, for g^2)
    edm              (s^2 + s_d^2)/(s s_d)^2 |x0 - target|^2,  s = sigma/alpha   (Karras et al. 2022, table 1)
    mean             |mean of the level before - target|^2/sigma^2                     (Rissanen et al. 2023, section 3)
    vlb              T times one term of the variational bound, bits/dim         (Ho et al. 2020, equation 5)
    hybrid           simple + 0.001 vlb, the mean without the bound's gradient   (Nichol & Dhariwal 2021, eq. 16)

Squared errors and their weights are in the process's units (``core.process``), so that a loss does not depend on the
data range.  The bound's constant, the prior's term, is left out.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from diffbench.diffusion.core.bound import bound_term
from diffbench.diffusion.core.condition import Condition
from diffbench.diffusion.core.described import Described
from diffbench.diffusion.core.known import Known, training_masks
from diffbench.diffusion.core.predictions import LENGTHS, Native, Prediction, Truth
from diffbench.diffusion.core.process import cast
from diffbench.diffusion.core.transitions import model_variance
from diffbench.diffusion.denoisers.denoiser import Denoiser
from diffbench.diffusion.objectives.augmentation import Augmentation
from diffbench.diffusion.objectives.times import Times
from diffbench.specs.objectives import (
    EDMObjectiveSpec,
    HybridSpec,
    ObjectiveSpec,
    ScoreMatchingSpec,
    VLBObjectiveSpec,
)
from diffbench.specs.processes import Variance


def some(batch: Tensor | None, part: slice) -> Tensor | None:
    """Part of a batch, where there is one."""
    return None if batch is None else batch[part]


class Draws(NamedTuple):
    """What is drawn for a batch of B images, all before any loss, so that a batch can be cut into parts.

    noise: (B, C, H, W).
    t, importance: times and their weights, float64 (B,) on the CPU.
    y: labels that the model is told (B,), or None.
    mask: what it is told of the images (B, 1, H, W), or None.
    augmentation: how the images are changed, (B, parameters) on the CPU, or None.
    """

    noise: Tensor
    t: Tensor
    importance: Tensor
    y: Tensor | None
    mask: Tensor | None
    augmentation: Tensor | None = None

    def cut(self, part: slice) -> Draws:
        """Some of the batch."""
        noise, t, importance, *others = self
        return Draws(noise[part], t[part], importance[part], *(some(each, part) for each in others))

    def on(self, x0: Tensor) -> Draws:
        """For images x0 on their device and in their precision; times stay where they are."""
        y = None if self.y is None else self.y.to(x0.device, non_blocking=x0.is_cuda)
        mask = None if self.mask is None else self.mask.to(x0, non_blocking=x0.is_cuda)
        return self._replace(noise=self.noise.to(x0), y=y, mask=mask)


class Loss(Described):
    """Base of what is trained on x_t at drawn times: one loss per example."""

    def __init__(self, times: Times) -> None:
        self.times = times

    def __call__(
        self, x0: Tensor, noise: Tensor, generator: torch.Generator, y: Tensor | None = None
    ) -> Tensor:
        """Losses (B,) of images x0 and their noise, both (B, C, H, W); times come from the generator.

        y: labels (B,), None where none are known.
        """
        draws = self.draw(noise, generator, y)
        losses = self.at(x0, draws)
        self.times.update(draws.t, losses.detach())
        return losses * cast(draws.importance, x0)

    def draw(self, noise: Tensor, generator: torch.Generator, y: Tensor | None = None) -> Draws:
        """All that is drawn for images with this noise (B, C, H, W) and labels y (B,), if any are known."""
        t, importance = self.times.draw(len(noise), generator)
        y = self.labels(y, generator)
        mask = self.mask(noise.shape, generator)
        return Draws(noise, t, importance, y, mask, self.changes(len(noise), generator))

    def at(self, x0: Tensor, draws: Draws) -> Tensor:
        """Losses (B,) of images x0 (B, C, H, W) at what was drawn, before the times' own weights."""
        draws = draws.on(x0)
        t, told = draws.t[:, None, None, None], self.condition(x0, draws)
        return self.losses(x0, t, draws.noise, told)

    def numbers(self, shape: tuple[int, int, int]) -> int:
        """Of how many numbers of an image (C, H, W) the loss is the mean."""
        return 1

    def labels(self, y: Tensor | None, generator: torch.Generator) -> Tensor | None:
        """The labels that the model is told."""
        return y

    def mask(self, shape: torch.Size, generator: torch.Generator) -> Tensor | None:
        """Which pixels of images of that shape the model is told; None where it takes no masks."""
        return None

    def changes(self, count: int, generator: torch.Generator) -> Tensor | None:
        """How so many images are augmented; None where they are not."""
        return None

    def condition(self, x0: Tensor, draws: Draws) -> Condition:
        """What the model is told of images x0."""
        return Condition(draws.y)

    @abstractmethod
    def losses(self, x0: Tensor, t: Tensor, noise: Tensor, condition: Condition) -> Tensor:
        """Losses (B,) at given times t (B, 1, 1, 1), before the times' own weights."""


class Objective(Loss):
    """Base of a denoiser's objectives: squared error of one view of the prediction, weighted.

    ``spacing`` of the grey levels, in model units, is what the bound's decoder needs.  ``augmentation`` changes the
    images, if any does, and the denoiser is told how.
    """

    def __init__(
        self,
        spec: ObjectiveSpec,
        denoiser: Denoiser,
        times: Times,
        spacing: float = 0.0,
        augmentation: Augmentation | None = None,
    ) -> None:
        super().__init__(times)
        self.spec, self.denoiser, self.spacing = spec, denoiser, spacing
        self.augmentation = augmentation

    def numbers(self, shape: tuple[int, int, int]) -> int:
        """All pixels of all channels."""
        return math.prod(shape)

    def labels(self, y: Tensor | None, generator: torch.Generator) -> Tensor | None:
        """A fraction ``label_dropout`` is replaced by the null class."""
        if y is None or not self.spec.label_dropout:
            return y
        drop = torch.rand(len(y), generator=generator) < self.spec.label_dropout
        return y.masked_fill(drop.to(y.device), self.denoiser.classes)

    def mask(self, shape: torch.Size, generator: torch.Generator) -> Tensor | None:
        """A random mask an image, where the denoiser takes any."""
        if not self.denoiser.takes_masks:
            return None
        return training_masks(shape[0], shape[2], shape[3], generator)

    def changes(self, count: int, generator: torch.Generator) -> Tensor | None:
        """Drawn last, so that all else is the same with an augmentation and without."""
        return None if self.augmentation is None else self.augmentation.draw(count, generator)

    def at(self, x0: Tensor, draws: Draws) -> Tensor:
        """Losses (B,) of images x0 (B, C, H, W), changed as drawn, at what was drawn."""
        if self.augmentation is not None and draws.augmentation is not None:
            x0 = self.augmentation.apply(x0, draws.augmentation)
        return super().at(x0, draws)

    def condition(self, x0: Tensor, draws: Draws) -> Condition:
        """The labels, the pixels under the masks and the augmentation; the loss is over all pixels all the same."""
        known = None if draws.mask is None else Known.of(x0, draws.mask)
        if self.augmentation is None or draws.augmentation is None:
            return Condition(draws.y, known)
        return Condition(draws.y, known, self.augmentation.labels(draws.augmentation).to(x0))

    def losses(self, x0: Tensor, t: Tensor, noise: Tensor, condition: Condition) -> Tensor:
        """Losses (B,) at given times t (B, 1, 1, 1), before the times' own weights."""
        prediction = self.denoiser(self.denoiser.process.diffuse(x0, t, noise), t, condition)
        return self.error(prediction, x0, noise)

    def error(self, prediction: Prediction, x0: Tensor, noise: Tensor) -> Tensor:
        """The weighted squared error of a prediction (B,)."""
        process, x_t, t = prediction.process, prediction.x_t, prediction.t
        truth = Truth(process, x_t, t, x0, process.noise_in(x_t, t, x0, noise))
        view = self.view(prediction)
        unit = process.unit ** -LENGTHS[view]
        weight = cast(unit * self.weight(t).sqrt(), x0)
        error = prediction.view(view) - truth.view(view)
        return process.basis.scale(weight, error).square().flatten(1).mean(1)

    def view(self, prediction: Prediction) -> Native:
        """The view whose error is taken."""
        return prediction.native

    def weight(self, t: Tensor) -> Tensor:
        """The weight of each time, of t's shape; or of each coordinate of the process's basis, too."""
        return torch.ones_like(t)


class Simple(Objective):
    """L_simple."""


class VLBObjective(Objective):
    """L_vlb."""

    spec: VLBObjectiveSpec

    def error(self, prediction: Prediction, x0: Tensor, noise: Tensor) -> Tensor:
        """T times the bound's term, so that the mean over uniform times is the sum."""
        return bound(prediction, x0, self.spec.variance, self.spacing)


class Hybrid(Objective):
    """L_hybrid."""

    spec: HybridSpec

    def error(self, prediction: Prediction, x0: Tensor, noise: Tensor) -> Tensor:
        """The bound sees the mean as a constant."""
        detached = prediction.with_value(prediction.value.detach())
        simple = super().error(prediction, x0, noise)
        return simple + self.spec.weight * bound(detached, x0, "learned", self.spacing)


def bound(prediction: Prediction, x0: Tensor, kind: Variance, spacing: float) -> Tensor:
    """T times the term of the bound at the prediction's times, bits/dim (B,)."""
    process = prediction.process
    s = process.level_before(prediction.t)
    term = bound_term(prediction, x0, s, model_variance(prediction, s, kind), spacing)
    return (process.t_max - process.t_min + 1) * term


class ScoreMatching(Objective):
    """Denoising score matching."""

    spec: ScoreMatchingSpec

    def view(self, prediction: Prediction) -> Native:
        """sigma^2 |score error|^2 is |eps error|^2, without dividing by a small sigma."""
        return "eps"

    def weight(self, t: Tensor) -> Tensor:
        """lambda/sigma^2."""
        process = self.denoiser.process
        match self.spec.weight:
            case "likelihood":
                return process.g2(t) / process.sigma(t) ** 2
            case "unit":
                return (process.sigma(t) / process.unit) ** -2
        return torch.ones_like(t)


class Mean(Objective):
    """The error of the posterior mean, in units of the noise."""

    def view(self, prediction: Prediction) -> Native:
        """The mean."""
        return "mean"

    def weight(self, t: Tensor) -> Tensor:
        """1/sigma^2."""
        process = self.denoiser.process
        return (process.sigma(t) / process.unit) ** -2


class EDMObjective(Objective):
    """EDM's loss."""

    spec: EDMObjectiveSpec

    def view(self, prediction: Prediction) -> Native:
        """The denoised image."""
        return "x0"

    def weight(self, t: Tensor) -> Tensor:
        """lambda(s) = (s^2 + s_d^2)/(s s_d)^2."""
        process = self.denoiser.process
        data_std = process.spec.in_range(self.spec.data_std) / process.unit
        s = process.ratio(t) / process.unit
        return (s**2 + data_std**2) / (s * data_std) ** 2
