r"""Objectives: from training times, a target and a weight, one loss for each image.

    loss_i = w(t_i) * mean over pixels of |view(prediction) - target|^2,     x_t = alpha x_0 + sigma eps

    simple           the denoiser's native quantity, weight 1                 (Ho et al. 2020, equation 14)
    score matching   lambda |score - target|^2 = lambda/sigma^2 |eps - target|^2, lambda = sigma^2, g^2 or 1
                                                                        (Song et al. 2021, equation 7; Song, Durkan,
                                                                        Murray & Ermon 2021, theorem 1, for g^2)
    edm              (s^2 + s_d^2)/(s s_d)^2 |x0 - target|^2,  s = sigma/alpha   (Karras et al. 2022, table 1)
    mean             |mean at the level below - target|^2/sigma^2                      (Rissanen et al. 2023, section 3)
    vlb              T times one term of the variational bound, bits/dim         (Ho et al. 2020, equation 5)
    hybrid           simple + 0.001 vlb, where vlb sends no gradient to the mean (Nichol & Dhariwal 2021, eq. 16)

Squared errors and their weights are in the process's units (``core.process``), so that a loss does not depend on the
data range.  The prior's term of the bound, a constant, is left out.
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
from diffbench.diffusion.core.returned import check_rows
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


def part_of(batch: Tensor | None, part: slice) -> Tensor | None:
    """The part of a batch; None where there is no batch."""
    return None if batch is None else batch[part]


class Draws(NamedTuple):
    """The random draws for a batch of B images.

    All are made before any loss, so that a batch can be cut into parts.

    eps: standard normal noise (B, C, H, W).
    t, importance: times and their weights, float64 (B,) on the CPU.
    y: labels that the model is told (B,), or None.
    mask: masks of the known pixels that the model is told (B, 1, H, W), or None.
    augmentation: how the images are changed, (B, parameters) on the CPU, or None.
    """

    eps: Tensor
    t: Tensor
    importance: Tensor
    y: Tensor | None
    mask: Tensor | None
    augmentation: Tensor | None = None

    def cut(self, part: slice) -> Draws:
        """The draws for a part of the batch."""
        eps, t, importance, *others = self
        return Draws(
            eps[part], t[part], importance[part], *(part_of(each, part) for each in others)
        )

    def on(self, x0: Tensor) -> Draws:
        """The draws on the device of images x0 and in their precision; times stay on the CPU."""
        y = None if self.y is None else self.y.to(x0.device, non_blocking=x0.is_cuda)
        mask = None if self.mask is None else self.mask.to(x0, non_blocking=x0.is_cuda)
        return self._replace(eps=self.eps.to(x0), y=y, mask=mask)


class Loss(Described):
    """Base of losses at x_t for random times: one loss for each image."""

    def __init__(self, times: Times) -> None:
        self.times = times

    def __call__(
        self, x0: Tensor, eps: Tensor, generator: torch.Generator, y: Tensor | None = None
    ) -> Tensor:
        """Weighted losses (B,) of images x0 and their noise eps, both (B, C, H, W); times come from the generator.

        y: labels (B,); None where none are known.
        """
        draws = self.draw(eps, generator, y)
        losses = self.losses_for(x0, draws)
        self.times.update(draws.t, losses.detach())
        return losses * cast(draws.importance, x0)

    def draw(self, eps: Tensor, generator: torch.Generator, y: Tensor | None = None) -> Draws:
        """The random draws for images with this noise eps (B, C, H, W) and labels y (B,) or None."""
        t, importance = self.times.draw(len(eps), generator)
        y = self.labels(y, generator)
        mask = self.mask(eps.shape, generator)
        return Draws(eps, t, importance, y, mask, self.changes(len(eps), generator))

    def losses_for(self, x0: Tensor, draws: Draws) -> Tensor:
        """Losses (B,) of images x0 (B, C, H, W) for these draws, before the weights of the times.

        Raises:
            ValueError: when ``losses`` returns no float for each image.
        """
        draws = draws.on(x0)
        t, told = draws.t[:, None, None, None], self.condition(x0, draws)
        found = self.losses(x0, t, draws.eps, told)
        check_rows(found, (len(x0),), f"{type(self).__name__}.losses")
        return found

    def numbers(self, shape: tuple[int, int, int]) -> int:
        """The number of values of an image (C, H, W) over which the loss is a mean."""
        return 1

    def labels(self, y: Tensor | None, generator: torch.Generator) -> Tensor | None:
        """The labels that the model is told, from the known labels y."""
        return y

    def mask(self, shape: torch.Size, generator: torch.Generator) -> Tensor | None:
        """The masks of the pixels that the model is told, for images of this shape; None where it takes no masks."""
        return None

    def changes(self, count: int, generator: torch.Generator) -> Tensor | None:
        """The parameters of the augmentation of ``count`` images; None without augmentation."""
        return None

    def condition(self, x0: Tensor, draws: Draws) -> Condition:
        """The condition that the model is given for images x0."""
        return Condition(draws.y)

    @abstractmethod
    def losses(self, x0: Tensor, t: Tensor, eps: Tensor, condition: Condition) -> Tensor:
        """Losses (B,) at given times t (B, 1, 1, 1), before the weights of the times."""


class Objective(Loss):
    """Base of a denoiser's objectives: the weighted squared error of one view of the prediction.

    ``spacing`` is the distance of neighbouring grey levels in the process's range, which the bound's decoder needs.
    ``augmentation`` changes the images, if there is one, and the denoiser is told how.
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
        """The number of all values of an image, C H W."""
        return math.prod(shape)

    def labels(self, y: Tensor | None, generator: torch.Generator) -> Tensor | None:
        """The labels that the model is told: a fraction ``label_dropout`` becomes the null class."""
        if y is None or not self.spec.label_dropout:
            return y
        drop = torch.rand(len(y), generator=generator) < self.spec.label_dropout
        return y.masked_fill(drop.to(y.device), self.denoiser.classes)

    def mask(self, shape: torch.Size, generator: torch.Generator) -> Tensor | None:
        """A random mask for each image; None where the denoiser takes no masks."""
        if not self.denoiser.takes_masks:
            return None
        return training_masks(shape[0], shape[2], shape[3], generator)

    def changes(self, count: int, generator: torch.Generator) -> Tensor | None:
        """The parameters of the augmentation, drawn last so that all other draws are the same without one."""
        return None if self.augmentation is None else self.augmentation.draw(count, generator)

    def losses_for(self, x0: Tensor, draws: Draws) -> Tensor:
        """Losses (B,) of images x0 (B, C, H, W), augmented, for these draws, before the weights of the times."""
        if self.augmentation is not None and draws.augmentation is not None:
            x0 = self.augmentation.apply(x0, draws.augmentation)
        return super().losses_for(x0, draws)

    def condition(self, x0: Tensor, draws: Draws) -> Condition:
        """The labels, the known pixels and the augmentation; the loss is still over all pixels."""
        known = None if draws.mask is None else Known.of(x0, draws.mask)
        if self.augmentation is None or draws.augmentation is None:
            return Condition(draws.y, known)
        return Condition(draws.y, known, self.augmentation.labels(draws.augmentation).to(x0))

    def losses(self, x0: Tensor, t: Tensor, eps: Tensor, condition: Condition) -> Tensor:
        prediction = self.denoiser(self.denoiser.process.diffuse(x0, t, eps), t, condition)
        return self.error(prediction, x0, eps)

    def error(self, prediction: Prediction, x0: Tensor, eps: Tensor) -> Tensor:
        """The weighted squared errors (B,) of a prediction."""
        process, x_t, t = prediction.process, prediction.x_t, prediction.t
        truth = Truth(process, x_t, t, x0, process.noise_in(x_t, t, x0, eps))
        view = self.view(prediction)
        unit = process.unit ** -LENGTHS[view]
        weight = cast(unit * self.weight(t).sqrt(), x0)
        error = prediction.view(view) - truth.view(view)
        return process.basis.scale(weight, error).square().flatten(1).mean(1)

    def view(self, prediction: Prediction) -> Native:
        """The view of the prediction whose error is the loss."""
        return prediction.native

    def weight(self, t: Tensor) -> Tensor:
        """The weight at each time, of t's shape, or with one value for each coordinate of the process's basis."""
        return torch.ones_like(t)


class Simple(Objective):
    """L_simple: the squared error of the denoiser's native quantity."""


class VLBObjective(Objective):
    """L_vlb: one term of the variational bound, in bits/dim."""

    spec: VLBObjectiveSpec

    def error(self, prediction: Prediction, x0: Tensor, eps: Tensor) -> Tensor:
        """T times the bound's term (B,), so that the mean over uniform times is the sum of the terms."""
        return bound(prediction, x0, self.spec.variance, self.spacing)


class Hybrid(Objective):
    """L_hybrid: L_simple plus a small multiple of L_vlb."""

    spec: HybridSpec

    def error(self, prediction: Prediction, x0: Tensor, eps: Tensor) -> Tensor:
        """L_simple plus the weighted bound (B,); the bound takes the predicted mean as a constant."""
        detached = prediction.with_value(prediction.value.detach())
        simple = super().error(prediction, x0, eps)
        return simple + self.spec.weight * bound(detached, x0, "learned", self.spacing)


def bound(prediction: Prediction, x0: Tensor, kind: Variance, spacing: float) -> Tensor:
    """T times the term of the bound at the prediction's times, in bits/dim (B,)."""
    process = prediction.process
    s = process.level_before(prediction.t)
    term = bound_term(prediction, x0, s, model_variance(prediction, s, kind), spacing)
    return (process.t_max - process.t_min + 1) * term


class ScoreMatching(Objective):
    """The objective of denoising score matching."""

    spec: ScoreMatchingSpec

    def view(self, prediction: Prediction) -> Native:
        """The view eps: sigma^2 |score error|^2 is |eps error|^2, without a division by a small sigma."""
        return "eps"

    def weight(self, t: Tensor) -> Tensor:
        """The weight lambda/sigma^2."""
        process = self.denoiser.process
        match self.spec.weight:
            case "likelihood":
                found: Tensor = process.g2(t) / process.sigma(t) ** 2
                return found
            case "unit":
                return (process.sigma(t) / process.unit) ** -2
        return torch.ones_like(t)


class Mean(Objective):
    """The objective of the posterior mean: its squared error, divided by sigma^2."""

    def view(self, prediction: Prediction) -> Native:
        return "mean"

    def weight(self, t: Tensor) -> Tensor:
        """The weight 1/sigma^2."""
        process = self.denoiser.process
        return (process.sigma(t) / process.unit) ** -2


class EDMObjective(Objective):
    """EDM's objective: the weighted squared error of the denoised image."""

    spec: EDMObjectiveSpec

    def view(self, prediction: Prediction) -> Native:
        return "x0"

    def weight(self, t: Tensor) -> Tensor:
        """The weight lambda(s) = (s^2 + s_d^2)/(s s_d)^2, s = sigma/alpha."""
        process = self.denoiser.process
        data_std = process.spec.in_range(self.spec.data_std) / process.unit
        s = process.ratio(t) / process.unit
        found: Tensor = (s**2 + data_std**2) / (s * data_std) ** 2
        return found
