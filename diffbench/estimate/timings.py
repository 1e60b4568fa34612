"""Timings that jobs share, each measured once: a step of training, a call of a network, a gradient of a classifier.

No data are read: images are noise of the data set's known shape.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diffbench.data.datasets import Dataset
from diffbench.diffusion.core.condition import Condition
from diffbench.estimate.costs import Timed
from diffbench.estimate.counting import ADAPTIVE_CALLS, Calls
from diffbench.estimate.stopwatch import Clock, Stopwatch
from diffbench.plan.jobs import Plan
from diffbench.plan.pictures import classes_of
from diffbench.specs.data import DataSpec
from diffbench.specs.jobs import ClassifierSpec, TrainSpec
from diffbench.specs.processes import ProcessSpec
from diffbench.specs.sampling import Precision
from diffbench.training import machine, models
from diffbench.training.trainer import Trainer

#: The number of noise images in each split.
IMAGES = 64
#: Evaluations are counted on images no larger than this.
SMALL = 8
#: Channels and side of the images of a timed convolution.
WIDTH, SIDE = 128, 32

#: The keys of a budget that do not change the time of a step.
OF_NO_STEP = {
    "steps",
    "lr",
    "warmup",
    "flat",
    "final",
    "betas",
    "eps",
    "weight_decay",
    "ema",
    "snapshots",
}

Shape = tuple[int, int, int]
#: A function that makes the trainer of a spec for a data set, on a device.
MakeTrainer = Callable[[Any, Dataset, torch.device], Trainer]


@dataclass(frozen=True)
class Training:
    """The cost of training a network: the time of a step, and bytes of the weights and of a training state."""

    step: Timed
    weights: int
    state: int


def noise_images(data: DataSpec, shape: Shape) -> Dataset:
    """Return a data set of noise with the shape, grey levels and classes of another."""
    channels, height, width = shape
    generator = np.random.default_rng(0)
    train, test = generator.integers(
        0, data.levels, (2, IMAGES, height, width, channels), dtype=np.uint8
    )
    classes = max(classes_of(data), 1)
    labels = np.arange(IMAGES, dtype=np.int64) % classes
    names = tuple(map(str, range(classes)))
    return Dataset(train, test, labels, labels, data.levels, names, data.name)


class Timings:
    """Timings and counts, each measured once, however many jobs need it.

    Attributes:
        root: the results, where a job may have begun.
        device: the device that is timed.
        compiles: whether networks are compiled where their budget says so.
        dataset: images of noise; ``small`` ones are for counting.
        timed: what was measured so far.
    """

    def __init__(
        self, plan: Plan, repeats: int, shape: Shape, clock: Clock | None, compiled: bool = True
    ) -> None:
        self.root: Path = plan.root
        trained = (each.training for each in plan.variants.values() if each.training)
        self.device = machine.prepare(plan.device, next(trained, None))
        # The compiler takes minutes on a CPU.
        self.compiles = compiled and self.device.type == "cuda"
        self.stopwatch = Stopwatch(self.device, repeats, clock)
        self.dataset = noise_images(plan.located.here, shape)
        channels, height, width = shape
        self.small = noise_images(
            plan.located.here, (channels, min(height, SMALL), min(width, SMALL))
        )
        self.timed: dict[str, Any] = {}

    def once(self, key: tuple[Any, ...], measure: Callable[[], Any]) -> Any:
        """Return what was measured under a key, measured now if needed."""
        text = json.dumps(key, sort_keys=True, default=lambda spec: spec.canonical())
        if text not in self.timed:
            self.timed[text] = measure()
        return self.timed[text]

    def training(self, spec: TrainSpec | ClassifierSpec, make: MakeTrainer) -> Training:
        """Return the measurements of a network's training, which all trainings with the same kind of step share."""
        assert spec.training is not None
        objective = getattr(spec, "objective", None)
        key = (
            spec.stage,
            spec.network,
            getattr(spec, "denoiser", None),
            objective and objective.name,
            *_kind(spec.process),
            spec.training.model_dump(mode="json", exclude=OF_NO_STEP),
            len(spec.training.ema.tracked),
        )
        found: Training = self.once(key, lambda: self._training(spec, make))
        return found

    def _training(self, spec: TrainSpec | ClassifierSpec, make: MakeTrainer) -> Training:
        assert spec.training is not None and spec.network is not None
        training, sizes = spec.training, [0, 0]

        def step(batch: int) -> Callable[[], object]:
            parts = min(training.accumulate, batch)
            # Compiling takes as long for a few images as for a batch.
            worth_it = self.compiles and batch == training.batch
            changes = {
                "batch": batch,
                "accumulate": parts,
                "compile": training.compile and worth_it,
            }
            some = training.model_copy(update=changes)
            changed = spec.model_copy(update={"training": some})
            trainer = make(changed, self.dataset, self.device)
            trainer.advance()
            sizes[:] = size_of(trainer.averaged()), size_of(trainer.state())
            return trainer.advance

        what = f"{spec.stage} step: {spec.network.name}, {training.precision}, {spec.variant}"
        timed = self.stopwatch.of_batch(what, training.batch, step)
        return Training(timed, *sizes)

    def calls(
        self, key: tuple[Any, ...], adaptive: bool, count: Callable[[], Calls]
    ) -> tuple[Calls, tuple[str, ...]]:
        """Return the evaluations for a batch, and notes on what is assumed about them."""
        if adaptive:
            note = f"step size control is assumed to take {ADAPTIVE_CALLS} evaluations"
            return Calls(ADAPTIVE_CALLS), (note,)
        found: Calls = self.once(key, count)
        return found, ()

    def call(
        self,
        train: TrainSpec,
        batch: int,
        precision: Precision,
        labelled: bool,
        *,
        backward: bool = False,
    ) -> Timed:
        """Return the time of one evaluation of a network, with or without the gradient with respect to the image."""
        running = train.running
        assert running is not None and train.network is not None
        what = f"{'gradient' if backward else 'call'}: {train.network.name}, {precision}, {train.variant}"
        key = (
            "call",
            train.network,
            train.denoiser,
            *_kind(train.process),
            batch,
            precision,
            running.channels_last,
            backward,
        )

        def make(count: int) -> Callable[[], object]:
            network = self.frozen(models.build_network(train, self.dataset), running)
            process = models.build_process(train.process, self.dataset)
            denoiser = models.wrap(train, process, network, self.dataset, self.device, precision)
            x, t, y = self.question(train.process.t_max, count, labelled)

            def forward() -> object:
                with torch.no_grad():
                    return denoiser(x, t, Condition(y))

            def both() -> object:
                seen = x.detach().requires_grad_()
                return torch.autograd.grad(denoiser(seen, t, Condition(y)).value.sum(), seen)

            return both if backward else forward

        found: Timed = self.once(key, lambda: self.stopwatch.of_batch(what, batch, make))
        return found

    def gradient(self, spec: ClassifierSpec, batch: int, precision: Precision) -> Timed:
        """Return the time of one gradient of a classifier."""
        what = f"classifier gradient: {spec.network.name}, {precision}"
        parts = batch, precision, spec.training.channels_last
        key = ("gradient", spec.network, *_kind(spec.process), *parts)

        def make(count: int) -> Callable[[], object]:
            network = self.frozen(models.build_classifier(spec, self.dataset), spec.training)
            classifier = models.wrap_classifier(spec, network, self.dataset, self.device, precision)
            x, t, y = self.question(spec.process.t_max, count, labelled=True)
            assert y is not None
            return lambda: classifier.gradient(x, t, y)

        found: Timed = self.once(key, lambda: self.stopwatch.of_batch(what, batch, make))
        return found

    def operation(self, device: torch.device) -> float:
        """Return the seconds of a floating-point operation of a convolution, with a batch of images in the cache."""
        x = torch.rand(4, WIDTH, SIDE, SIDE, device=device)
        layer = nn.Conv2d(WIDTH, WIDTH, 3, padding=1).to(device)
        count = 2 * 9 * WIDTH**2 * x[:, 0].numel()

        def convolve() -> object:
            with torch.no_grad():
                return layer(x)

        found: float = self.once(
            ("operation", device.type), lambda: self.stopwatch.seconds(convolve)
        )
        return found / count

    def frozen(self, network: nn.Module, running: models.Running) -> nn.Module:
        """Return a network in the form in which samplers use it."""
        return models.placed(network, running, self.device).eval().requires_grad_(False)

    def question(
        self, t_max: float, count: int, labelled: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return random inputs of a network: images, a time and labels."""
        x = torch.rand(count, *models.image_shape(self.dataset)).to(self.device)
        t = torch.tensor(t_max, dtype=torch.float64)
        y = torch.zeros(count, dtype=torch.long, device=self.device) if labelled else None
        return x, t, y


def _kind(process: ProcessSpec) -> tuple[str, str]:
    """Return the properties of a process on which the time of a call depends."""
    return process.family, process.alpha


def size_of(tensors: dict[str, Tensor]) -> int:
    """Return the bytes of tensors."""
    return sum(math.prod(each.shape) * each.element_size() for each in tensors.values())
