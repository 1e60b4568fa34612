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
    cross-entropy    -ln p(y | x_t), for a classifier of noisy images            (Dhariwal & Nichol 2021, section 4.1)

Squared errors and their weights are in the process's units (``processes/base``), so that a loss does not depend on the
data range.  The bound's constant, the
prior's term, is left out.  Times are drawn on the CPU in float64 from a stream
that is a function of the seed and the step.  A distribution of times returns, with each time, the weight
that makes the expectation that of the paper's distribution.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from diffbench.diffusion.core.bound import bound_term
from diffbench.diffusion.core.known import Known, training_masks
from diffbench.diffusion.core.predictions import LENGTHS, Native, Prediction, Truth
from diffbench.diffusion.core.process import Process, cast
from diffbench.diffusion.core.transitions import model_variance
from diffbench.diffusion.denoisers.guidance import Classifier
from diffbench.diffusion.denoisers.network import Denoiser, NetworkBased
from diffbench.diffusion.objectives.augmentation import Augmentation
from diffbench.specs.objectives import (
    EDMObjectiveSpec,
    HybridSpec,
    ImportanceTimesSpec,
    LogNormalTimesSpec,
    LogSNRTimesSpec,
    MixedTimesSpec,
    ObjectiveSpec,
    ScoreMatchingSpec,
    TimesSpec,
    VLBObjectiveSpec,
)
from diffbench.specs.processes import Variance


def independent(count: int, generator: torch.Generator) -> Tensor:
    """Uniform in [0, 1), float64 (count,)."""
    return torch.rand(count, generator=generator, dtype=torch.float64)


def stratified(count: int, generator: torch.Generator) -> Tensor:
    """One in each n-th of [0, 1), in random order."""
    u = independent(count, generator)
    return (torch.randperm(count, generator=generator) + u) / count


def low_discrepancy(count: int, generator: torch.Generator) -> Tensor:
    """(u + i/n) mod 1 with one u for all (Kingma et al. 2021, https://arxiv.org/abs/2107.00630, appendix I.1)."""
    u = independent(1, generator)
    return (u + torch.arange(count, dtype=torch.float64) / count) % 1


QUANTILES = {
    "independent": independent,
    "stratified": stratified,
    "low-discrepancy": low_discrepancy,
}


class Times:
    """Base: a distribution of training times for one process.

    ``history`` is how many losses of each time it wants to know; most distributions want none.
    """

    history: int = 0

    def __init__(self, spec: TimesSpec, process: Process) -> None:
        self.spec, self.process = spec, process

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Times and weights, float64 of shape (count,) each."""
        return self.quantile(QUANTILES[self.spec.draw](count, generator))

    def quantile(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Times and weights at the quantiles u in [0, 1)."""
        raise TypeError(f"{type(self).__name__} has no quantiles")

    def update(self, t: Tensor, losses: Tensor) -> None:
        """Learn the unweighted losses (B,) of times (B,); most distributions do not."""

    def state(self) -> dict[str, Tensor]:
        """What was learned, for the training state."""
        return {}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from a ``state``."""


class UniformTimes(Times):
    """Uniform over the integers of a discrete process, over [last, t_max], or over levels of it."""

    def __init__(self, spec: TimesSpec, process: Process) -> None:
        super().__init__(spec, process)
        self.discrete = process.spec.time == "discrete"
        last: float = getattr(spec, "last", process.t_min)
        self.start = process.t_min if self.discrete else max(last, process.t_min)
        self.length = process.t_max - self.start - (not getattr(spec, "highest", True))
        #: How many different times there are; None where all between the ends are.
        self.count = round(self.length) + 1 if self.discrete else getattr(spec, "levels", None)

    def quantile(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Weight 1."""
        if self.count is not None:
            u = (u * self.count).floor() / (self.count - 1)
        t = self.start + u * self.length
        # Rounded: a level in floating point would be truncated to the one below.
        return (t.round() if self.discrete else t), torch.ones_like(u)


class LogSNRTimes(UniformTimes):
    """Uniform in ln(sigma/alpha), whose rate is g^2/(2 sigma^2); weighted back to uniform times."""

    def __init__(self, spec: LogSNRTimesSpec, process: Process) -> None:
        super().__init__(spec, process)
        ends = torch.tensor([self.start, process.t_max], dtype=torch.float64)
        self.low, self.high = process.ratio(ends).log().tolist()

    def quantile(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Between the two ends."""
        t = self.process.time_of((self.low + u * (self.high - self.low)).exp())
        t = t.clamp(self.start, self.process.t_max)
        rate = self.process.g2(t) / (2 * self.process.sigma(t) ** 2)
        return t, (self.high - self.low) / (rate * self.length)


class LogNormalTimes(Times):
    """ln(sigma/alpha) on [-1, 1] normal with the spec's mean and standard deviation, in [t_min, t_max]; weight 1."""

    spec: LogNormalTimesSpec

    def quantile(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Through the normal quantile function."""
        log_ratio = self.spec.mean + self.spec.std * torch.special.ndtri(u.clamp(1e-9, 1 - 1e-9))
        t = self.process.time_of(self.process.spec.half_range * log_ratio.exp())
        return t.clamp(self.process.t_min, self.process.t_max), torch.ones_like(u)


class CellTimes(UniformTimes):
    """Base of unequal times, weighted back to uniform.

    [start, start + length] is cut into equal cells (one an integer time, or ``CELLS``); inside a cell
    times are uniform, so the density, hence the weight 1/(cells * probability), is exact.
    """

    CELLS = 1000

    def __init__(self, spec: TimesSpec, process: Process) -> None:
        super().__init__(spec, process)
        self.cells = self.count or self.CELLS

    @property
    def probability(self) -> Tensor:
        """The cells' probabilities, float64 (cells,)."""
        raise TypeError(f"{type(self).__name__} has no probabilities")

    def quantile(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Through the piecewise linear distribution function."""
        cumulative = self.probability.cumsum(0)
        cell = torch.searchsorted(cumulative, u, right=True).clamp(max=self.cells - 1)
        probability = self.probability[cell]
        inside = ((u - cumulative[cell]) / probability + 1).clamp(0, 1)
        # Float64 first: an integer tensor and a number make float32.
        position = cell.double() + (0.5 if self.count else inside)
        t, _ = super().quantile(position / self.cells)
        return t, 1 / (self.cells * probability)


class MixedTimes(CellTimes):
    """Uniform and log-normal times mixed."""

    def __init__(self, spec: MixedTimesSpec, process: Process) -> None:
        super().__init__(spec, process)
        centre = spec.mean + math.log(process.spec.half_range)
        mass = torch.special.ndtr((self._edges().log() - centre) / spec.std).diff()
        self._probability = spec.share / self.cells + (1 - spec.share) * mass / mass.sum()

    @property
    def probability(self) -> Tensor:
        """Constant."""
        return self._probability

    def _edges(self) -> Tensor:
        """The cells' edges as sigma/alpha; of integer times, half-way between levels in the logarithm."""
        count = self.count or self.CELLS + 1
        times = self.start + torch.linspace(0, 1, count, dtype=torch.float64) * self.length
        if self.count is None:
            return self.process.ratio(times)
        ratio = self.process.ratio(times.round() if self.discrete else times)
        middle = (ratio[1:] * ratio[:-1]).sqrt()
        return torch.cat([ratio[:1] ** 2 / middle[:1], middle, ratio[-1:] ** 2 / middle[-1:]])


class ImportanceTimes(CellTimes):
    """Integer times in proportion to the root mean square of their last losses.

    Nichol & Dhariwal 2021, https://arxiv.org/abs/2102.09672, equation 18.
    """

    def __init__(self, spec: ImportanceTimesSpec, process: Process) -> None:
        super().__init__(spec, process)
        self.share, self.history = spec.share, spec.history
        #: The last losses of each time, in no order, and how many were seen.
        self.losses = torch.zeros(self.cells, spec.history, dtype=torch.float64)
        self.seen = torch.zeros(self.cells, dtype=torch.int64)

    @property
    def probability(self) -> Tensor:
        """Uniform until every time has its history."""
        uniform = torch.full((self.cells,), 1 / self.cells, dtype=torch.float64)
        if bool((self.seen < self.history).any()):
            return uniform
        size = self.losses.square().mean(1).sqrt()
        return (1 - self.share) * size / size.sum() + self.share * uniform

    def update(self, t: Tensor, losses: Tensor) -> None:
        """Take in the losses (B,) of times (B,), in their order."""
        cells = (t - self.start).round().long()
        for cell, loss in zip(cells.tolist(), losses.cpu().double().tolist(), strict=True):
            self.losses[cell, self.seen[cell] % self.history] = loss
            self.seen[cell] += 1

    def state(self) -> dict[str, Tensor]:
        """The history."""
        return {"losses": self.losses, "seen": self.seen}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from a ``state``."""
        self.losses, self.seen = state["losses"].clone(), state["seen"].clone()


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


class Loss:
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
        with self.told(x0, draws.mask):
            return self.losses(x0, draws.t[:, None, None, None], draws.noise, draws.y)

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

    def told(self, x0: Tensor, mask: Tensor | None) -> AbstractContextManager[None]:
        """While it lasts, the model is told the images x0 under the mask."""
        return nullcontext()

    def losses(self, x0: Tensor, t: Tensor, noise: Tensor, y: Tensor | None) -> Tensor:
        """Losses (B,) at given times t (B, 1, 1, 1), before the times' own weights."""
        raise TypeError(f"{type(self).__name__} has no losses")


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
        if self.augmentation is None or draws.augmentation is None:
            return super().at(x0, draws)
        assert isinstance(self.denoiser, NetworkBased)
        x0 = self.augmentation.apply(x0, draws.augmentation)
        with self.denoiser.told_augmentation(self.augmentation.labels(draws.augmentation).to(x0)):
            return super().at(x0, draws)

    def told(self, x0: Tensor, mask: Tensor | None) -> AbstractContextManager[None]:
        """The pixels under the mask; the loss is over all pixels all the same."""
        return nullcontext() if mask is None else self.denoiser.informed(Known.of(x0, mask))

    def losses(self, x0: Tensor, t: Tensor, noise: Tensor, y: Tensor | None) -> Tensor:
        """Losses (B,) at given times t (B, 1, 1, 1), before the times' own weights."""
        prediction = self.denoiser(self.denoiser.process.diffuse(x0, t, noise), t, y)
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


class CrossEntropy(Loss):
    """The loss of a classifier of noisy images."""

    def __init__(self, classifier: Classifier, times: Times) -> None:
        super().__init__(times)
        self.classifier = classifier

    def losses(self, x0: Tensor, t: Tensor, noise: Tensor, y: Tensor | None) -> Tensor:
        """-ln p(y | x_t), (B,), for labels y (B,).

        Raises:
            ValueError: without labels.
        """
        if y is None:
            raise ValueError("a classifier is trained on labels y")
        logits = self.classifier.logits(self.classifier.process.diffuse(x0, t, noise), t)
        return F.cross_entropy(logits, y, reduction="none")
