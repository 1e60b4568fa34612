"""Open a finished run in a notebook."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from diffbench.data.datasets import Dataset
from diffbench.data.levels import Images
from diffbench.diffusion.denoisers import Denoiser
from diffbench.diffusion.processes.gaussian import GaussianProcess
from diffbench.diffusion.solvers.loop import sample
from diffbench.diffusion.streams import stream
from diffbench.plan.registry import build, load_extension
from diffbench.specs.solver import SolverSpec
from diffbench.specs.stages import TrainSpec
from diffbench.stages import data, models
from diffbench.store.products import read_sidecar


@dataclass(frozen=True)
class Run:
    """A trained (or exact) model with all that made it."""

    spec: TrainSpec
    process: GaussianProcess
    denoiser: Denoiser
    dataset: Dataset
    device: torch.device

    def sample(self, count: int, solver: SolverSpec, seed: int = 0) -> Images:
        """Images in grey levels, uint8 (count, H, W, C), by a solver.

        Raises:
            ValueError: when the solver cannot serve the process, with the reason.
        """
        if reason := solver.refusal(self.spec.process):
            raise ValueError(reason)
        shape = (count, *models.image_shape(self.dataset))
        x = sample(
            build(solver, self.denoiser), shape, stream("notebook", seed), device=self.device
        )
        return models.levels_of(self.dataset, self.spec.process).from_model(x)


def load(path: str | Path, device: str = "cpu", extensions: Iterable[str | Path] = ()) -> Run:
    """Load the run in a folder such as ``results/digits/runs/vp/seed0``.

    Args:
        path: the run's folder.
        device: ``cpu`` or ``cuda``.
        extensions: the extension files whose specs the run uses.

    Raises:
        StoreError: when the model or its data set is missing or altered.
        PlanError: when an extension is missing or does not import.
    """
    for extension in extensions:
        load_extension(Path(extension))
    folder = Path(path)
    root = folder.parents[2]
    spec = TrainSpec.model_validate(read_sidecar(folder / "model.safetensors")["spec"])
    place = torch.device(device)
    dataset = data.load(root, spec.data)
    denoiser = models.load_denoiser(spec, root, dataset, place)
    return Run(spec, denoiser.process, denoiser, dataset, place)
