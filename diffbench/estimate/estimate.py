"""What a plan would cost on this machine: a few steps and calls are timed and multiplied.

    train, classifier     steps x seconds of a step
    sample                samples/chunk x (network calls x seconds of a call + classifier gradients x theirs)
    likelihood            test images/batch x calls x (seconds of a call + backward passes x theirs)
    restore               images x draws/chunk x calls x seconds of a call

No data are read: images are noise of the data set's known shape.  Data, references, scores, analyses and models without
a network are not estimated.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diffbench.data.datasets import Dataset
from diffbench.diffusion.core.condition import Condition
from diffbench.estimate import counting
from diffbench.estimate.costs import Cost, Estimate, Timed, is_done
from diffbench.estimate.counting import ADAPTIVE_CALLS, Calls
from diffbench.estimate.timing import Clock, Stopwatch
from diffbench.jobs.classifier import classifier_trainer
from diffbench.jobs.train import denoiser_trainer, snapshots_of
from diffbench.plan.jobs import Plan, Run
from diffbench.plan.variants import classes_of
from diffbench.specs.data import DataSpec
from diffbench.specs.errors import PlanError
from diffbench.specs.jobs import (
    ClassifierSpec,
    LikelihoodStageSpec,
    RestoreSpec,
    SampleSpec,
    StageSpec,
    TrainSpec,
)
from diffbench.specs.processes import ProcessSpec
from diffbench.specs.sampling import Precision
from diffbench.store import paths
from diffbench.store.state import GENERATIONS, generations
from diffbench.training import machine, models

#: Test images, where a data set does not say how many it has.
ASSUMED_IMAGES = 10_000
#: Images of noise that stand for each split.
IMAGES = 64
#: Evaluations are counted on images no larger than this.
SMALL = 8

#: What of a budget the time of a step does not depend on.
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


@dataclass(frozen=True)
class Training:
    """What training a network takes: a step, and bytes of the weights and of a training state."""

    step: Timed
    weights: int
    state: int


def estimate(
    plan: Plan, repeats: int = 3, shape: Shape | None = None, clock: Clock | None = None
) -> Estimate:
    """Time what a plan needs on its device and add up its jobs.

    Args:
        plan: the benchmark.
        repeats: how often each thing is timed, after once to warm up.
        shape: of images (C, H, W), where the data set does not say.
        clock: seconds; of a GPU, or of all of a CPU's cores, unless it is given.

    Raises:
        PlanError: when nothing says what shape images have.
        RuntimeError: when there is no such device, or it has too little memory for a batch.
    """
    return _Estimator(plan, repeats, shape or known_shape(plan), clock).estimate()


def known_shape(plan: Plan) -> Shape:
    """The shape (C, H, W) of a benchmark's images, from its data's spec alone.

    Raises:
        PlanError: naming the key that would say it.
    """
    data = plan.benchmark.data
    if data.known_shape is not None:
        return data.known_shape
    lacking = [key for key in ("size", "channels") if getattr(data, key, 0) is None]
    key = f"data.{lacking[0]} is not given, and " if lacking else ""
    raise PlanError(
        f"{plan.config}: data: {key}the shape of the images of {data.name} is known only once they are read; "
        "say it with --shape, e.g. --shape 3,32,32"
    )


def noise_images(data: DataSpec, shape: Shape) -> Dataset:
    """A data set of noise with the shape, grey levels and classes of another."""
    channels, height, width = shape
    generator = np.random.default_rng(0)
    train, test = generator.integers(
        0, data.levels, (2, IMAGES, height, width, channels), dtype=np.uint8
    )
    classes = max(classes_of(data), 1)
    labels = np.arange(IMAGES, dtype=np.int64) % classes
    names = tuple(map(str, range(classes)))
    return Dataset(train, test, labels, labels, data.levels, names, data.name)


class _Estimator:
    """Times each thing once, however many jobs need it."""

    def __init__(self, plan: Plan, repeats: int, shape: Shape, clock: Clock | None) -> None:
        self.plan, self.repeats = plan, repeats
        trained = (each.training for each in plan.variants.values() if each.training)
        self.device = machine.prepare(plan.device, next(trained, None))
        self.stopwatch = Stopwatch(self.device, repeats, clock)
        self.dataset = noise_images(plan.benchmark.data, shape)
        channels, height, width = shape
        self.small = noise_images(
            plan.benchmark.data, (channels, min(height, SMALL), min(width, SMALL))
        )
        self.timed: dict[str, Any] = {}

    def estimate(self) -> Estimate:
        costs = tuple(self.cost(run) for run in self.plan.runs)
        steps = [each.step for each in self.timed.values() if isinstance(each, Training)]
        timed = steps + [each for each in self.timed.values() if isinstance(each, Timed)]
        return Estimate(self.plan, costs, tuple(timed), machine.name(self.device), self.repeats)

    def cost(self, run: Run) -> Cost:
        """One job's."""
        stages: dict[type[StageSpec], Callable[[Run, Any], Cost]] = {
            TrainSpec: self.train,
            ClassifierSpec: self.train,
            SampleSpec: self.sample,
            LikelihoodStageSpec: self.likelihood,
            RestoreSpec: self.restore,
        }
        found = stages.get(type(run.spec), lambda run, spec: Cost(run, None))(run, run.spec)
        return replace(found, done=is_done(self.plan, run))

    def once(self, key: tuple[Any, ...], measure: Callable[[], Any]) -> Any:
        """What was measured under a key, or is now."""
        text = json.dumps(key, sort_keys=True, default=lambda spec: spec.canonical())
        if text not in self.timed:
            self.timed[text] = measure()
        return self.timed[text]

    # Training.

    def train(self, run: Run, spec: TrainSpec | ClassifierSpec) -> Cost:
        """The steps that are left, and all weights with the training states that are kept.

        Snapshots lie beside the states once more, from which all products can be made again.
        """
        if spec.network is None:
            return Cost(run, None)
        if spec.training is None:
            return Cost(run, 0.0, self.imported(spec))
        found = self.training(spec)
        saved = self.saved_step(spec)
        notes: tuple[str, ...] = ()
        if saved:
            notes += (f"{run.variant} seed {run.seed} goes on from step {saved}",)
        whole = found.step.images == spec.training.batch
        if spec.training.compile and not (whole and self.device.type == "cuda"):
            notes += ("training is timed without compiling the network",)
        hours = (spec.training.steps - saved) * found.step.seconds / 3600
        files = len(run.products) + len(snapshots_of(spec))
        return Cost(run, hours, files * found.weights + GENERATIONS * found.state, notes=notes)

    def imported(self, spec: TrainSpec) -> int:
        """The bytes of imported weights."""
        with torch.device("meta"):
            return _size(models.build_network(spec, self.dataset).state_dict())

    def training(self, spec: TrainSpec | ClassifierSpec) -> Training:
        """What is measured of a network's training; the same for all with the same kind of step."""
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
        found: Training = self.once(key, lambda: self._training(spec))
        return found

    def _training(self, spec: TrainSpec | ClassifierSpec) -> Training:
        assert spec.training is not None and spec.network is not None
        training, sizes = spec.training, [0, 0]

        def step(batch: int) -> Callable[[], object]:
            parts = min(training.accumulate, batch)
            # The compiler takes minutes on a CPU, and as long for a few images as for a batch.
            worth_it = self.device.type == "cuda" and batch == training.batch
            changes = {
                "batch": batch,
                "accumulate": parts,
                "compile": training.compile and worth_it,
            }
            some = training.model_copy(update=changes)
            trainer = self.trainer(spec.model_copy(update={"training": some}))
            trainer.advance()
            sizes[:] = _size(trainer.averaged()), _size(trainer.state())
            return trainer.advance

        what = f"{spec.stage} step: {spec.network.name}, {training.precision}, {spec.variant}"
        timed = self.stopwatch.of_batch(what, training.batch, step)
        return Training(timed, *sizes)

    def trainer(self, spec: TrainSpec | ClassifierSpec) -> Any:
        """Of a variant's network, or of a classifier."""
        if isinstance(spec, ClassifierSpec):
            return classifier_trainer(spec, self.dataset, self.device)
        return denoiser_trainer(spec, self.dataset, self.device)

    def saved_step(self, spec: TrainSpec | ClassifierSpec) -> int:
        """The step of the newest training state; 0 without one."""
        folder = paths.state(self.plan.root, spec)
        found = generations(folder) if folder.is_dir() else []
        return int(found[0].stem.split("-")[1]) if found else 0

    # What asks a trained network.

    def sample(self, run: Run, spec: SampleSpec) -> Cost:
        """The chunks of one solver."""
        size = spec.samples * self.dataset.train[0].size
        train, solver = spec.train, spec.solver
        if train is None or train.network is None or solver is None:
            return Cost(run, 0.0 if train is None else None, size)
        key = ("sample", solver.plain, train.process, train.denoiser)
        calls, notes = self.calls(
            key, solver.adaptive, lambda: counting.of_solver(train, solver, self.small)
        )
        chunk = min(spec.chunk, spec.samples)
        labelled = train.denoiser.takes_labels
        seconds = calls.network * self.call(train, chunk, spec.precision, labelled).seconds
        if spec.classifier is not None:
            gradient = self.gradient(spec.classifier, chunk, spec.precision)
            seconds += calls.classifier * gradient.seconds
        hours = seconds * spec.samples / chunk / 3600
        return Cost(run, hours, size, notes=notes)

    def restore(self, run: Run, spec: RestoreSpec) -> Cost:
        """All draws of one task by one restorer."""
        train, restorer = spec.train, spec.restorer
        if train is None or train.network is None:
            return Cost(run, 0.0 if train is None else None)
        inner = restorer.inner
        key = ("restore", restorer, spec.task, train.process, train.denoiser)
        calls, notes = self.calls(
            key,
            inner is not None and inner.adaptive,
            lambda: counting.of_restorer(spec, self.dataset),
        )
        count = spec.images * spec.draws
        chunk = min(spec.chunk, count)
        call = self.call(train, chunk, spec.precision, train.denoiser.takes_labels)
        return Cost(
            run,
            calls.network * call.seconds * count / chunk / 3600,
            notes=notes,
        )

    def likelihood(self, run: Run, spec: LikelihoodStageSpec) -> Cost:
        """The whole split."""
        train, likelihood = spec.train, spec.likelihood
        if train.network is None:
            return Cost(run, None)
        key = ("likelihood", likelihood.plain, train.process, train.denoiser)
        calls, notes = self.calls(
            key,
            likelihood.adaptive,
            lambda: counting.of_likelihood(train, likelihood, self.small),
        )
        images = self.plan.benchmark.data.known_counts.get(likelihood.split)
        if images is None:
            notes += (f"{ASSUMED_IMAGES:,} {likelihood.split} images are assumed",)
        count = images or ASSUMED_IMAGES
        batch = min(getattr(likelihood, "batch", count), count)
        seconds = calls.network * self.evaluation(spec, batch)
        return Cost(run, seconds * count / batch / 3600, notes=notes)

    def evaluation(self, spec: LikelihoodStageSpec, batch: int) -> float:
        """Seconds of a call with the backward passes that it has."""
        asked = spec.train, batch, spec.precision, spec.train.denoiser.takes_labels
        forward = self.call(*asked)
        passes = spec.likelihood.backward_passes(self.dataset.train[0].size)
        if passes == 0:
            return forward.seconds
        both = self.call(*asked, backward=True)
        return both.seconds + (passes - 1) * max(both.seconds - forward.seconds, 0.0)

    def calls(
        self, key: tuple[Any, ...], adaptive: bool, count: Callable[[], Calls]
    ) -> tuple[Calls, tuple[str, ...]]:
        """Evaluations for a batch, and what is assumed about them."""
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
        """One evaluation of a network, with or without the gradient with respect to the image."""
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
        """One gradient of a classifier."""
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

    def frozen(self, network: nn.Module, running: models.Running) -> nn.Module:
        """A network as samplers have it."""
        return models.placed(network, running, self.device).eval().requires_grad_(False)

    def question(
        self, t_max: float, count: int, labelled: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Images, a time and labels."""
        x = torch.rand(count, *models.image_shape(self.dataset)).to(self.device)
        t = torch.tensor(t_max, dtype=torch.float64)
        y = torch.zeros(count, dtype=torch.long, device=self.device) if labelled else None
        return x, t, y


def _kind(process: ProcessSpec) -> tuple[str, str]:
    """What of a process the time of a call depends on."""
    return process.family, process.alpha


def _size(tensors: dict[str, Tensor]) -> int:
    return sum(math.prod(each.shape) * each.element_size() for each in tensors.values())
