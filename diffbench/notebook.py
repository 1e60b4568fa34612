"""Open a finished run in a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from diffbench.data.datasets import Dataset
from diffbench.data.grey_levels import Images
from diffbench.diffusion.core.condition import Condition
from diffbench.diffusion.core.process import Process
from diffbench.diffusion.core.streams import stream
from diffbench.diffusion.denoisers.denoiser import Denoiser
from diffbench.diffusion.denoisers.guidance import Classifier
from diffbench.diffusion.solvers.loop import sample
from diffbench.jobs import data
from diffbench.plan.reading import Tree, validated
from diffbench.specs.errors import PlanError, shown
from diffbench.specs.jobs import ClassifierSpec, TrainSpec
from diffbench.specs.registry import build, load_used
from diffbench.specs.solvers import SolverSpec
from diffbench.specs.weights import OfWeights
from diffbench.store.paths import sidecar
from diffbench.store.products import read_sidecar
from diffbench.training import models


@dataclass(frozen=True)
class Run:
    """A trained (or exact) model, with the data set and the specs that it was made from."""

    spec: TrainSpec
    process: Process
    denoiser: Denoiser
    dataset: Dataset
    device: torch.device

    def sample(
        self,
        count: int,
        solver: SolverSpec,
        seed: int = 0,
        labels: Sequence[int] | None = None,
        classifier: str | Path | None = None,
    ) -> Images:
        """Return images in grey levels, uint8 (count, H, W, C), drawn by a solver.

        Args:
            count: the number of images.
            solver: the spec of the solver.
            seed: the seed of the noise.
            labels: a class for each image, for a conditional model or a guide.
            classifier: the folder of the guide of a solver with a ``classifier_scale``, such as
                ``results/digits-full/classifier/discrete-20bf8d2f/seed0``.

        Raises:
            ValueError: when the solver cannot serve the model, with the reason; for labels that are not
                ``count`` classes of the data set, that are not used, or that are missing; for a
                classifier of another process.
            StoreError: when the classifier is missing or altered.
        """
        if solver.names_weights:
            raise ValueError(
                "at and ema_std choose weights: give them to diffbench.load, not to a solver"
            )
        if reason := solver.refusal(self.spec.process, self.spec.denoiser):
            raise ValueError(reason)
        y = self._labels(count, solver, labels)
        built = build(solver, self.denoiser, self._classifier(classifier))
        shape = (count, *models.image_shape(self.dataset))
        x = sample(built, shape, stream("notebook", seed), Condition(y), device=self.device)
        return models.grey_levels_of(self.dataset, self.spec.process).from_model(x)

    def _classifier(self, folder: str | Path | None) -> Classifier | None:
        if folder is None:
            return None
        path = Path(folder)
        spec = ClassifierSpec.model_validate(read_sidecar(path / "model.safetensors")["spec"])
        if spec.process != self.spec.process:
            raise ValueError(
                f"classifier: {path} is for the process {spec.process.canonical()}, but the model is for "
                f"{self.spec.process.canonical()}"
            )
        root = path.parents[2]
        return models.load_classifier(spec, root, self.dataset, self.device, "fp32")

    def _labels(
        self, count: int, solver: SolverSpec, labels: Sequence[int] | None
    ) -> Tensor | None:
        wanted = self.denoiser.classes > 0 or solver.uses_labels
        if labels is None and solver.labels is not None:
            labels = [solver.labels[i % len(solver.labels)] for i in range(count)]
        if (labels is not None) != wanted:
            raise ValueError(
                f"labels: {'must be given, one for each image' if wanted else 'this model is unconditional'}"
            )
        if labels is None:
            return None
        classes = models.known_classes(self.dataset, "labels")
        if len(labels) != count or not all(0 <= label < classes for label in labels):
            raise ValueError(
                f"labels: {list(labels)} must be {count} labels from 0 to {classes - 1}"
            )
        return torch.tensor(labels, device=self.device)


def load(
    path: str | Path,
    device: str = "cpu",
    extensions: Iterable[str | Path] = (),
    at: int | float | None = None,
    ema_std: float | None = None,
) -> Run:
    """Return the run in a folder such as ``results/digits/runs/vp/seed0``; its network computes in float32.

    Args:
        path: the run's folder.
        device: ``cpu`` or ``cuda``.
        extensions: the extension files whose specs the run uses.
        at: the step, or the fraction of the run, of the weights: one of the budget's ``snapshots``; else the last.
        ema_std: the length of a power-function average.

    Raises:
        ValueError: for weights that the run did not keep.
        StoreError: when the model or its data set is missing or altered.
        PlanError: when the folder is none of a run, its spec is not one, or an extension is missing, has changed or
            does not import.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise PlanError(f"{folder}: there is no such folder of a run")
    root = folder.resolve().parents[2]
    given = read_sidecar(folder / "model.safetensors")["spec"]
    load_used(
        given.get("extensions") or {},
        map(Path, extensions),
        f"diffbench.load({str(path)!r}, extensions=[..])",
    )
    where = shown(sidecar(folder / "model.safetensors"))
    spec = validated(TrainSpec.model_validate, TrainSpec, Tree(given, {(): where}))
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise PlanError(f"device: {device!r} is not cpu, cuda or mps") from None
    dataset = data.load(root, spec.data)
    denoiser = models.load_denoiser(
        spec, root, dataset, chosen, choice=OfWeights(at=at, ema_std=ema_std)
    )
    return Run(spec, denoiser.process, denoiser, dataset, chosen)
