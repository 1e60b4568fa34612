"""The train stage: fit an exact denoiser, or train a network, resuming exactly where it was stopped.

Every random draw of step i is a function of (seed, i), and the state holds all else: weights, average,
optimiser, torch's generator (dropout), what the training times learned.  So a run that was killed gives the
same bits as one that was not.  Snapshots, the averaged weights of earlier steps, are kept beside the state until the
end, when all weights become products at once.  The classifier stage trains by the same code, and the reference stage's
extractor in the same loop (`diffbench.training.loop`).

Several processes (``team``) may share the work: the first writes state, log and product, the others read the state.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from diffbench.data.datasets import Dataset
from diffbench.diffusion.objectives.losses import Objective
from diffbench.estimate.costs import Cost
from diffbench.estimate.timings import MakeTrainer, Timings, size_of
from diffbench.jobs import data
from diffbench.specs.jobs import ClassifierSpec, TrainSpec
from diffbench.specs.registry import build
from diffbench.specs.training import TrainingSpec
from diffbench.specs.weights import Weights
from diffbench.store import paths, stopping
from diffbench.store.products import StoreError, write_product
from diffbench.store.state import GENERATIONS, SpectatorStore, StateStore, generations
from diffbench.training import loop, machine, models
from diffbench.training.meter import Meter, matrix_peak, operations
from diffbench.training.team import Team, joined_team
from diffbench.training.trainer import Trainer


def run(spec: TrainSpec, root: Path, device_name: str) -> None:
    """Write model.safetensors: averaged weights, imported ones, or the tensors of an exact denoiser.

    For a training, the averaged weights of its snapshots, and of further lengths of averages, are written too.
    """
    device = machine.prepare(device_name, spec.running)
    dataset = data.load(root, spec.data)
    if spec.training is None:
        with machine.record(paths.product(root, spec), device):
            write(models.untrained(spec, dataset), paths.product(root, spec), spec)
        return
    train_network(spec, root, device, lambda team: denoiser_trainer(spec, dataset, device, team))


def cost(spec: TrainSpec, timings: Timings) -> Cost:
    """Return the cost of training; imported weights take no time, and an exact denoiser is not estimated."""
    if spec.network is None:
        return Cost(None)
    if spec.training is None:
        with torch.device("meta"):
            return Cost(0.0, size_of(models.build_network(spec, timings.dataset).state_dict()))
    return training_cost(spec, timings, denoiser_trainer)


def training_cost(spec: TrainSpec | ClassifierSpec, timings: Timings, make: MakeTrainer) -> Cost:
    """Return the cost of the steps that are left, and the size of all weights and training states that are kept.

    Each snapshot is counted twice: as a product, and beside the states, from which products can be made again.
    """
    training = spec.training
    assert training is not None
    found = timings.training(spec, make)
    folder = paths.state(timings.root, spec)
    states = generations(folder) if folder.is_dir() else []
    saved = int(states[0].stem.split("-")[1]) if states else 0
    notes: tuple[str, ...] = ()
    if saved:
        notes += (f"{spec.variant} seed {spec.seed} goes on from step {saved}",)
    whole = found.step.images == training.batch
    if training.compile and not (whole and timings.compiles):
        notes += ("training is timed without compiling the network",)
    all_steps = training.steps * found.step.seconds / 3600
    hours = all_steps * (1 - saved / training.steps)
    weights = len(spec.products) + len(snapshots_of(spec))
    return Cost(hours, weights * found.weights + GENERATIONS * found.state, notes, whole=all_steps)


def denoiser_trainer(
    spec: TrainSpec, dataset: Dataset, device: torch.device, team: Team | None = None
) -> Trainer:
    """Return the trainer of a variant's network by its objective."""
    assert spec.objective is not None and spec.training is not None
    network = models.placed(models.build_network(spec, dataset), spec.training, device).train()
    process = models.build_process(spec.process, dataset)
    called = called_in(team, network, spec.training)
    precision = spec.training.precision
    denoiser = models.wrap(spec, process, called, dataset, device, precision)
    times = build(spec.objective.times, process)
    spacing = models.grey_levels_of(dataset, spec.process).spacing
    changes = spec.objective.augmentation
    augmentation = None if changes is None else build(changes)
    objective: Objective = build(spec.objective, denoiser, times, spacing, augmentation)
    labelled = denoiser.classes > 0
    return Trainer(spec, network, objective, dataset, device, labelled=labelled, team=team)


def called_in(
    team: Team | None, network: nn.Module, training: TrainingSpec
) -> Callable[..., Tensor]:
    """Return the function that calls a network in training: joined to the team's, compiled if the budget says so."""
    called = team.joined(network) if team else network
    # Compiled last, so that gradients are exchanged while the others are still being computed.
    compiled: Callable[..., Tensor] = torch.compile(called) if training.compile else called
    return compiled


def train_network(
    spec: TrainSpec | ClassifierSpec,
    root: Path,
    device: torch.device,
    make: Callable[[Team], Trainer],
) -> None:
    """Train with the trainer of ``make``, or resume, and write the averaged weights."""
    with joined_team(device) as processes:
        store = StateStore if processes.first else SpectatorStore
        state = store(paths.state(root, spec), spec)
        with state.lock():
            trainer = make(processes)
            team, before = trainer.team, first_lost(trainer, state)
            earlier = loop.resume(trainer, state, team, before)
            record = machine.record(paths.product(root, spec), device, earlier)
            # A request that comes after the last step finds a training that is done: its products are written.
            with record if processes.first else nullcontext(), stopping.noted():
                meter = metered(trainer)
                after = keeping(trainer, state)
                executed = loop.train(trainer, state, earlier, meter, team, after)
                if processes.first:
                    steps = trainer.training.steps
                    record.note(steps=steps, executed=executed, start=trainer.step - executed)
                    record.note(processes=processes.size, **meter.summary())
                    write_others(trainer, state, root)
                    write(trainer.averaged(), paths.product(root, spec), spec)


def metered(trainer: Trainer) -> Meter:
    """Return a meter of the training; it counts nothing where no step is left."""
    done = trainer.step == trainer.steps
    peak = None if done else matrix_peak(trainer.device, trainer.training.precision)
    counted = 0 if done else operations(trainer)
    return Meter(trainer.batch, trainer.step, counted, peak, trainer.team.size)


def write(tensors: dict[str, Tensor], path: Path, spec: TrainSpec | ClassifierSpec) -> None:
    """Write weights as a product of the job."""
    tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    write_product(path, partial(save_file, tensors), spec)


def others(spec: TrainSpec | ClassifierSpec) -> dict[Weights, Path]:
    """Return the weights that are kept beside the model's own -> their products; a classifier has none."""
    assert spec.training is not None
    # The products are in the order of what the budget keeps, and a classifier has the first alone.
    return dict(list(zip(spec.training.kept, spec.products, strict=False))[1:])


def snapshots_of(spec: TrainSpec | ClassifierSpec) -> dict[Weights, tuple[int, int]]:
    """Return the weights that are kept along training -> (step, number of the average)."""
    assert spec.training is not None
    steps, lengths = spec.training.steps, list(spec.training.ema.tracked)
    return {
        each: (each.step, lengths.index(each.length)) for each in others(spec) if each.step < steps
    }


def first_lost(trainer: Trainer, state: StateStore) -> int | None:
    """Return the step of the first snapshot that is not whole: states after it are not used; None where all are."""
    lost = [where for where in snapshots_of(trainer.spec).values() if state.kept(*where) is None]
    return min((step for step, _ in lost), default=None)


def keeping(trainer: Trainer, state: StateStore) -> Callable[[], None]:
    """Return what is done after each step: averaged weights are kept where the budget asks for them."""
    kept = snapshots_of(trainer.spec).values()

    def keep() -> None:
        for step, index in kept:
            if step == trainer.step:
                state.keep(trainer.averaged(index), step, index)

    return keep


def write_others(trainer: Trainer, state: StateStore, root: Path) -> None:
    """Write the weights beside the model's own: other lengths of the last step, and the snapshots as they were kept.

    Raises:
        StoreError: when a snapshot has been lost since the state was resumed.
    """
    spec, snapshots = trainer.spec, snapshots_of(trainer.spec)
    lengths = list(trainer.training.ema.tracked)
    for weights, product in others(spec).items():
        if weights not in snapshots:
            write(trainer.averaged(lengths.index(weights.length)), root / product, spec)
            continue
        file = state.kept(*snapshots[weights])
        if file is None:
            raise StoreError(
                f"the snapshot of step {weights.step} in {state.folder} is torn or missing: run the command again"
            )
        write_product(root / product, file.read_bytes(), spec)
