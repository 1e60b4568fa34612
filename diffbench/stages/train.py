"""The train stage: fit an exact denoiser, or train a network, resuming exactly where it was stopped.

Every random draw of step i is a function of (seed, i), and the state holds all else: weights, average,
optimiser, torch's generator (dropout), what the training times learned.  So a run that was killed ends in the
same bits as one that was not.  The classifier stage trains by the same code.
"""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Self

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from diffbench.data.datasets import Dataset
from diffbench.diffusion.objectives import CrossEntropy, Objective
from diffbench.diffusion.streams import stream
from diffbench.networks.ema import EMA
from diffbench.plan.registry import build
from diffbench.specs.stages import ClassifierSpec, TrainSpec
from diffbench.specs.training import TrainingSpec
from diffbench.stages import data, machine, models
from diffbench.stages.progress import Progress
from diffbench.store import paths
from diffbench.store.products import write_product
from diffbench.store.state import StateStore

#: Exit status of a run that saved its state when asked to stop: call again to go on.
STOPPED = 85


class TrainingError(RuntimeError):
    """Training cannot go on."""


def run(spec: TrainSpec, root: Path, device: str) -> None:
    """Write model.safetensors: averaged weights, or the tensors of an exact denoiser."""
    place = machine.prepare(device, spec.training)
    dataset = data.load(root, spec.data)
    if not spec.denoiser.trained:
        with machine.record(paths.product(root, spec), place):
            write(models.fit_exact(spec, dataset), root, spec)
        return
    train_network(spec, root, place, lambda: denoiser_trainer(spec, dataset, place))


def denoiser_trainer(spec: TrainSpec, dataset: Dataset, device: torch.device) -> Trainer:
    """The trainer of a variant's network by its objective."""
    assert spec.objective is not None
    network = models.build_network(spec, dataset).to(device).train()
    process = models.build_process(spec.process, dataset)
    denoiser = models.wrap(spec, process, network, dataset, device)
    times = build(spec.objective.times, process)
    spacing = models.levels_of(dataset, spec.process).spacing
    objective: Objective = build(spec.objective, denoiser, times, spacing)
    return Trainer(spec, network, objective, dataset, device, labelled=denoiser.classes > 0)


def train_network(
    spec: TrainSpec | ClassifierSpec, root: Path, place: torch.device, make: Callable[[], Trainer]
) -> None:
    """Train what ``make`` makes, or go on, and write the averaged weights."""
    state = StateStore(paths.state(root, spec), spec)
    with state.lock():
        trainer = make()
        earlier = resume(trainer, state)
        with machine.record(paths.product(root, spec), place, earlier) as record:
            with Stop() as stop:
                executed = train(trainer, state, earlier, stop)
            record.note(
                steps=trainer.training.steps, executed=executed, start=trainer.step - executed
            )
            write(trainer.averaged(), root, spec)


def write(tensors: dict[str, Tensor], root: Path, spec: TrainSpec | ClassifierSpec) -> None:
    """Write the product."""
    tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    write_product(paths.product(root, spec), lambda file: save_file(tensors, file), spec)


def learning_rate(training: TrainingSpec, step: int) -> float:
    """The rate of a step 0 .. steps-1: warm-up, flat, linear to ``final``."""
    warm = min(1.0, (step + 1) / (training.warmup + 1))
    turn = training.flat * training.steps
    down = max(0.0, (step - turn) / max(training.steps - turn, 1))
    return training.lr * warm * (1 - (1 - training.final) * down)


class Trainer:
    """Network, average and optimiser of one run, and the step that advances them."""

    def __init__(
        self,
        spec: TrainSpec | ClassifierSpec,
        network: nn.Module,
        objective: Objective | CrossEntropy,
        dataset: Dataset,
        device: torch.device,
        *,
        labelled: bool,
    ) -> None:
        assert spec.training is not None
        self.spec, self.training, self.device = spec, spec.training, device
        self.step = 0
        self.network, self.objective = network, objective
        self.ema = EMA(self.network, self.training.ema)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(),
            lr=self.training.lr,
            betas=self.training.betas,
            weight_decay=self.training.weight_decay,
            fused=True,
        )
        self.levels = models.levels_of(dataset, spec.process)
        self.images = self.levels.to_model(dataset.train)
        self.labels = torch.from_numpy(dataset.train_labels) if labelled else None
        self.orders: dict[int, Tensor] = {}

    def order(self, epoch: int) -> Tensor:
        """The order of the images in one pass."""
        if epoch not in self.orders:
            generator = stream("order", self.spec.seed, epoch)
            self.orders = {key: value for key, value in self.orders.items() if key >= epoch - 1} | {
                epoch: torch.randperm(len(self.images), generator=generator)
            }
        return self.orders[epoch]

    def batch(self, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """The images of this step, (B, C, H, W) on the CPU, and their labels (B,) if it has any."""
        count, size = len(self.images), self.training.batch
        positions = torch.arange(self.step * size, (self.step + 1) * size)
        epochs = positions // count
        chosen = torch.cat(
            [self.order(int(e))[positions[epochs == e] % count] for e in epochs.unique()]
        )
        x0, y = self.images[chosen], None if self.labels is None else self.labels[chosen]
        if self.spec.dequantise == "none":
            return x0, y
        return self.levels.dequantise(x0, torch.rand(x0.shape, generator=generator)), y

    def advance(self) -> Tensor:
        """One optimiser step; returns the loss, a scalar on the device."""
        generator = stream("training", self.spec.seed, self.step)
        x0, y = self.batch(generator)
        noise = torch.randn(x0.shape, generator=generator).to(self.device)
        y = None if y is None else y.to(self.device)
        loss = self.objective(x0.to(self.device), noise, generator, y).mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if self.training.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.training.clip)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.training, self.step)
        self.optimiser.step()
        self.ema.update()
        self.step += 1
        return loss.detach()

    def averaged(self) -> dict[str, Tensor]:
        """The network's tensors with averaged parameters: the product."""
        return {**self.network.state_dict(), **self.ema.shadow}

    def state(self) -> dict[str, Tensor]:
        """All that the next step depends on."""
        optimiser = self.optimiser.state_dict()["state"]
        tensors = {f"model.{name}": each for name, each in self.network.state_dict().items()}
        tensors |= {f"ema.{name}": each for name, each in self.ema.shadow.items()}
        tensors |= {
            f"optimiser.{index}.{name}": each
            for index, parts in optimiser.items()
            for name, each in parts.items()
        }
        tensors |= {f"times.{name}": each for name, each in self.objective.times.state().items()}
        tensors["ema.updates"] = torch.tensor(self.ema.updates)
        tensors["rng.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["rng.cuda"] = torch.cuda.get_rng_state(self.device)
        return tensors

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take up a saved state."""
        parts: dict[str, dict[str, Tensor]] = {}
        for name, each in tensors.items():
            part, _, inner = name.partition(".")
            parts.setdefault(part, {})[inner] = each
        self.step = int(tensors["step"])
        self.network.load_state_dict(parts["model"])
        updates = int(parts["ema"].pop("updates"))
        self.ema.load({"updates": updates, "shadow": parts["ema"]})
        state: dict[int, dict[str, Tensor]] = {}
        for name, each in parts["optimiser"].items():
            index, _, key = name.partition(".")
            state.setdefault(int(index), {})[key] = each
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": state, "param_groups": groups})
        times = parts.get("times", {})
        if missing := sorted(self.objective.times.state().keys() - times.keys()):
            raise TrainingError(f"the training state lacks times.{missing[0]}: remove it")
        self.objective.times.load(times)
        torch.set_rng_state(parts["rng"]["cpu"])
        if "cuda" in parts["rng"]:
            torch.cuda.set_rng_state(parts["rng"]["cuda"], self.device)


def resume(trainer: Trainer, state: StateStore) -> float:
    """Restore the newest state, if any; returns the seconds that led to it."""
    tensors = state.load()
    if tensors is not None:
        trainer.restore(tensors)
        print(
            f"{trainer.spec.stage} {trainer.spec.variant}: resume at step {trainer.step}",
            file=sys.stderr,
            flush=True,
        )
    state.event("resume" if tensors is not None else "start", step=trainer.step)
    saved = [
        event
        for event in state.events()
        if event["event"] == "saved" and event["step"] <= trainer.step
    ]
    return float(saved[-1]["seconds"]) if tensors is not None and saved else 0.0


class Stop:
    """While it is entered, notes that the process was asked to stop (SIGTERM, SIGUSR1)."""

    SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

    def __enter__(self) -> Self:
        self.asked = False
        self._before = [signal.signal(number, self._ask) for number in self.SIGNALS]
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in zip(self.SIGNALS, self._before, strict=True):
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True


def train(trainer: Trainer, state: StateStore, earlier: float, stop: Stop) -> int:
    """Advance to the end of the budget, saving about ten times; returns the steps executed.

    Raises:
        TrainingError: when the loss is no longer finite.
        SystemExit: with status 85 when asked to stop, after saving.
    """
    steps, first, start = trainer.training.steps, trainer.step, time.monotonic()
    every, saved_at = max(1, math.ceil(steps / 10)), start
    title = f"{trainer.spec.stage} {trainer.spec.variant} seed {trainer.spec.seed}"
    progress = Progress(title, steps, "step", trainer.step)

    def save(loss: Tensor) -> None:
        if not bool(loss.isfinite()):
            raise TrainingError(f"the loss is {float(loss)} at step {trainer.step}: try a lower lr")
        state.save(trainer.state(), trainer.step)
        seconds = round(earlier + time.monotonic() - start, 3)
        state.event("saved", step=trainer.step, seconds=seconds)

    while trainer.step < steps:
        loss = trainer.advance()
        due = trainer.step % every == 0 or time.monotonic() - saved_at > 300
        if due or stop.asked or trainer.step == steps:
            save(loss)
            saved_at = time.monotonic()
        if stop.asked and trainer.step < steps:
            print(
                f"{title}: stopped at step {trainer.step}, state saved: call again", file=sys.stderr
            )
            raise SystemExit(STOPPED)
        progress.advance(loss=loss)
    progress.close()
    state.event("end", step=trainer.step, executed=trainer.step - first)
    return trainer.step - first
