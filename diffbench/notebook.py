"""Open a finished run in a notebook.

    run = diffbench.load("results/digits/runs/vp/seed0")
    run.solvers()                                  the solvers whose samples the run has, by name
    run.sample(16, "heun-18")                      images by one of them
    run.sample(16, "ddim", steps=10)               or by any solver, with its settings
    z = run.encode(images, "ddim", steps=50)       latents; run.decode(z, ..) and run.interpolate(..) go back
    run.likelihood(images, "ode")                  bits per dimension
    y = run.measure(images, "box-mask", height=4, width=4)
    run.restore(y, "ddrm", steps=20)               images that may have given a measurement
    run.to_diffusers("theirs")                      a UNet2DModel and a scheduler, where diffusers can hold the model

Images are grey levels, uint8 (N, H, W, C), as a data set has them; latents and measurements are tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffbench.data.datasets import Dataset
from diffbench.data.grey_levels import GreyLevels, Images
from diffbench.diffusion.core.condition import Condition
from diffbench.diffusion.core.process import Process
from diffbench.diffusion.core.streams import stream
from diffbench.diffusion.denoisers.denoiser import Denoiser
from diffbench.diffusion.denoisers.guidance import Classifier
from diffbench.diffusion.denoisers.network import NetworkBased
from diffbench.diffusion.inverse.operators.operator import Degradation
from diffbench.diffusion.inverse.restorers.restorer import Measurement
from diffbench.diffusion.solvers.encoding import encode, slerp
from diffbench.diffusion.solvers.loop import Solver, Watch, sample, solve, unwatched
from diffbench.jobs import data
from diffbench.jobs.restore import build_restorer, operator_of
from diffbench.jobs.trajectory import Kept
from diffbench.plan.reading import Tree, validated
from diffbench.pretrained import exporting
from diffbench.specs.base import Registered
from diffbench.specs.errors import PlanError, shown
from diffbench.specs.extensions import load_used
from diffbench.specs.jobs import ClassifierSpec, LikelihoodStageSpec, SampleSpec, TrainSpec
from diffbench.specs.likelihoods import LikelihoodSpec
from diffbench.specs.operators import OperatorSpec
from diffbench.specs.registry import build
from diffbench.specs.restorers import RestorerSpec
from diffbench.specs.solvers import SolverSpec
from diffbench.specs.weights import OfWeights
from diffbench.store.paths import sidecar
from diffbench.store.products import read_sidecar
from diffbench.training import models

Chosen = TypeVar("Chosen", bound=Registered)


def chosen(
    kind: type[Chosen], named: Chosen | str, known: Mapping[str, Chosen], settings: dict[str, Any]
) -> Chosen:
    """Return a spec: the given one, the one that a run knows by this name, or that of a registered class.

    ``settings`` replace keys of it.

    Raises:
        PlanError: when there is neither, or for a setting that the spec lacks, does not have, or refuses.

    Example:
        >>> spec = chosen(SolverSpec, "heun", {}, {"steps": 9})
        >>> spec.name, spec.steps, spec.order
        ('heun', 9, 2)
    """
    spec = known.get(named, named) if isinstance(named, str) else named
    if isinstance(spec, str):
        if spec not in kind.known:
            names = ", ".join(sorted({*known, *kind.known}))
            raise PlanError(f"{spec!r} is not a known {kind.kind}; known: {names}")
        given: dict[str, Any] = {kind.chosen_by: spec}
    elif not settings:
        return spec
    else:
        given = spec.model_dump(exclude_unset=True)
    model = kind.known[given[kind.chosen_by]]
    tree = Tree(
        given | settings, {(): f"{kind.kind} {named if isinstance(named, str) else ''}".strip()}
    )
    # The specs' base says what a choice returns only for the kind.
    return cast(Chosen, validated(model.model_validate, model, tree))


@dataclass(frozen=True, repr=False)
class Run:
    """A trained (or exact) model, with the data set and the specs that it was made from.

    Methods that take a solver take its name in ``solvers()``, the name of a registered one (``diffbench list
    solvers``), or its spec; keywords are its settings.  So it is with likelihoods, operators and restorers.
    """

    folder: Path
    spec: TrainSpec
    process: Process
    denoiser: Denoiser
    dataset: Dataset
    device: torch.device

    def __repr__(self) -> str:
        return (
            f"Run({str(self.folder)!r}: {self.spec.variant}, seed {self.spec.seed}, {self.spec.process.name} on "
            f"{self.dataset.name}, {len(self.solvers())} solvers)"
        )

    def solvers(self) -> dict[str, SolverSpec]:
        """Return the solvers whose samples the run's folder has, by name."""
        found = (
            SampleSpec.model_validate(read_sidecar(file)["spec"])
            for file in sorted(self.folder.glob("samples/*/samples.npz"))
        )
        return {each.solver_id: each.solver for each in found if each.solver is not None}

    def likelihoods(self) -> dict[str, LikelihoodSpec]:
        """Return the likelihoods that the run's folder has numbers of, by name."""
        files = sorted(self.folder.glob("likelihood/*.json"))
        return {
            file.stem: LikelihoodStageSpec.model_validate(read_sidecar(file)["spec"]).likelihood
            for file in files
            if len(file.suffixes) == 1
        }

    def sample(
        self,
        count: int,
        solver: SolverSpec | str,
        seed: int = 0,
        labels: Sequence[int] | None = None,
        classifier: str | Path | None = None,
        **settings: Any,
    ) -> Images:
        """Return images in grey levels, uint8 (count, H, W, C), drawn by a solver.

        Args:
            count: the number of images.
            solver: the solver: see the class.
            seed: the seed of the noise.
            labels: a class for each image, for a conditional model or a guide.
            classifier: the folder of the guide of a solver with a ``classifier_scale``, such as
                ``results/digits-full/classifier/discrete-20bf8d2f/seed0``.
            settings: settings of the solver.

        Raises:
            ValueError: when there is no such solver, or it cannot serve the model, with the reason; for labels that are
                not ``count`` classes of the data set, that are not used, or that are missing; for a
                classifier of another process.
            StoreError: when the classifier is missing or altered.
        """
        built = self._solver(self._named(solver, settings), classifier)
        return self._grey.from_model(self._drawn(count, built, seed, labels))

    def trajectory(
        self,
        count: int,
        solver: SolverSpec | str,
        states: int = 12,
        seed: int = 0,
        labels: Sequence[int] | None = None,
        classifier: str | Path | None = None,
        **settings: Any,
    ) -> dict[str, Any]:
        """Return states on the way from noise to the images of ``sample`` with the same arguments.

        Returns:
            states: float32 (S, count, H, W, C) in the process's data range, S at most ``states``, the images last;
            steps: int (S,), how many steps of the solver were taken; times, alpha, alpha_highest and sigma: float64
            (S,), the noise levels for data in [-1, 1].

        Raises:
            ValueError: as ``sample``, and for fewer than two states.
        """
        if states < 2:
            raise ValueError(f"states: {states} must be at least 2: the noise and the images")
        built = self._solver(self._named(solver, settings), classifier)
        kept = Kept(states, count)
        self._drawn(count, built, seed, labels, kept.watching(built))
        return kept.arrays()

    def encode(
        self,
        images: Images,
        solver: SolverSpec | str,
        labels: Sequence[int] | None = None,
        **settings: Any,
    ) -> Tensor:
        """Return the latents (N, C, H, W) of images (N, H, W, C): a solver's steps from data to noise.

        Raises:
            ValueError: for images of another shape; when the solver draws noise or cannot serve the model.
        """
        built = self._solver(self._named(solver, settings))
        y = self._labels(len(images), built.spec, labels)
        return encode(built, self._to_model(images), Condition(y))

    @torch.no_grad()
    def decode(
        self,
        latents: Tensor,
        solver: SolverSpec | str,
        labels: Sequence[int] | None = None,
        **settings: Any,
    ) -> Images:
        """Return the images (N, H, W, C) of latents (N, C, H, W), by a solver that draws no noise.

        Raises:
            ValueError: as ``encode``.
        """
        built = self._solver(self._named(solver, settings))
        if not built.spec.invertible:
            raise ValueError(
                f"{built.spec.name} draws noise with these settings; use ddim with eta 0, ode or heun"
            )
        y = self._labels(len(latents), built.spec, labels)
        x = solve(built, latents.to(self.device), Condition(y), torch.zeros_like)
        return self._grey.from_model(built.returned(x))

    def interpolate(
        self,
        first: Images,
        second: Images,
        solver: SolverSpec | str,
        between: int = 5,
        labels: Sequence[int] | None = None,
        **settings: Any,
    ) -> Images:
        """Return images (N, between, H, W, C) on the way from the first (N, H, W, C) to the second, with both ends.

        Latents are interpolated on the sphere (Song, Meng & Ermon 2021, appendix D.5).

        Raises:
            ValueError: as ``encode``, and for fewer than two images.
        """
        if between < 2:
            raise ValueError(f"between: {between} must be at least 2: both ends")
        mean, spec = self.process.prior_mean, self._named(solver, settings)
        start, end = (self.encode(each, spec, labels) - mean for each in (first, second))
        shares = (step / (between - 1) for step in range(between))
        found = [self.decode(slerp(start, end, share) + mean, spec, labels) for share in shares]
        return np.stack(found, axis=1)

    def likelihood(
        self,
        images: Images,
        likelihood: LikelihoodSpec | str,
        seed: int = 0,
        labels: Sequence[int] | None = None,
        **settings: Any,
    ) -> NDArray[np.float64]:
        """Return bits per dimension, float64 (N,), of images (N, H, W, C), or a bound on them.

        Raises:
            ValueError: when there is no such likelihood, or it cannot serve the model, with the reason; for images of
                another shape.
        """
        spec = chosen(LikelihoodSpec, likelihood, self.likelihoods(), settings)
        if reason := spec.refusal(self.spec.process, self.spec.denoiser):
            raise ValueError(reason)
        built = build(spec, self.denoiser, self._grey)
        y = None if labels is None else torch.tensor(labels, device=self.device)
        if (y is not None) != (self.denoiser.classes > 0):
            raise ValueError(f"labels: {self._whether(self.denoiser.classes > 0)}")
        batches = models.in_batches(self._to_model(images), y, built.spec.batch)
        found = [
            built(batch, stream("notebook likelihood", seed, i), Condition(part))["total"]
            for i, (batch, part) in enumerate(batches)
        ]
        bits: NDArray[np.float64] = torch.cat(found).double().cpu().numpy()
        return bits

    def measure(
        self,
        images: Images,
        operator: OperatorSpec | str,
        noise: float = 0.0,
        seed: int = 0,
        **settings: Any,
    ) -> Measurement:
        """Return a measurement y = H x + noise of images x (N, H, W, C), in the range of the process.

        Args:
            images: the images.
            operator: the operator H: see the class; ``diffbench list operators``.
            noise: the standard deviation of the noise, as a share of the width of the data range.
            seed: the seed of the noise.
            settings: settings of the operator.

        Raises:
            ValueError: when there is no such operator, or it cannot degrade these images.
        """
        spec = chosen(OperatorSpec, operator, {}, settings)
        built: Degradation = operator_of(spec, self.dataset, self._grey)
        clean = built.apply(self._to_model(images))
        std = noise * (self._grey.high - self._grey.low)
        drawn = torch.randn(
            clean.shape, generator=stream("notebook measurement", seed), dtype=clean.dtype
        )
        return Measurement(built, clean + std * drawn.to(clean.device), std)

    @torch.no_grad()
    def restore(
        self,
        measurement: Measurement,
        restorer: RestorerSpec | str,
        seed: int = 0,
        **settings: Any,
    ) -> Images:
        """Return images (N, H, W, C) that may have given a measurement, by a restorer with this model.

        Raises:
            ValueError: when there is no such restorer, or it cannot serve the model or the operator, with the reason.
        """
        spec = chosen(RestorerSpec, restorer, {}, settings)
        operator = measurement.operator.spec
        if reason := spec.refusal(self.spec.process, self.spec.denoiser, operator):
            raise ValueError(reason)
        built = build_restorer(spec, self.dataset, self._grey, self.denoiser)
        return self._grey.from_model(
            built.restore(measurement, stream("notebook restore", seed)).cpu()
        )

    def to_diffusers(self, folder: str | Path) -> Path:
        """Write the model as a UNet2DModel of diffusers with its scheduler into a new folder, and return the folder.

        ``UNet2DModel.from_pretrained(folder)`` and ``DDPMScheduler.from_pretrained(folder)`` read it, and
        ``DDPMPipeline.from_pretrained(folder)`` that of a model without labels.  The scheduler steps as the solver
        ``ancestral`` does by default.  Label N of N classes is the null class.  diffusers is not needed here.

        Raises:
            ValueError: when diffusers cannot hold the model, with the key that is the reason, or the folder has files.
        """
        denoiser = self.denoiser
        running = denoiser.network if isinstance(denoiser, NetworkBased) else None
        network = getattr(running, "network", None)
        return exporting.write(
            Path(folder),
            network,
            self.spec.network,
            self.spec.denoiser,
            self.process,
            models.image_shape(self.dataset),
        )

    @property
    def _grey(self) -> GreyLevels:
        return models.grey_levels_of(self.dataset, self.spec.process)

    def _to_model(self, images: Images) -> Tensor:
        """Return images in the range of the process (N, C, H, W)."""
        wanted = self.dataset.train.shape[1:]
        if images.dtype != np.uint8 or images.shape[1:] != wanted:
            raise ValueError(
                f"images are {images.dtype} {images.shape}, but must be uint8 (N, {', '.join(map(str, wanted))})"
            )
        if len(images) and images.max() >= self.dataset.levels:
            raise ValueError(
                f"images have grey level {images.max()}, but {self.dataset.name} has levels 0 to "
                f"{self.dataset.levels - 1}"
            )
        return self._grey.to_model(images).to(self.device)

    def _named(self, solver: SolverSpec | str, settings: dict[str, Any]) -> SolverSpec:
        # Only a name needs the folder, whose every sidecar of samples is read.
        known = self.solvers() if isinstance(solver, str) else {}
        return chosen(SolverSpec, solver, known, settings)

    def _solver(self, spec: SolverSpec, classifier: str | Path | None = None) -> Solver:
        if spec.names_weights:
            raise ValueError(
                "at and ema_std choose weights: give them to diffbench.load, not to a solver"
            )
        if reason := spec.refusal(self.spec.process, self.spec.denoiser):
            raise ValueError(reason)
        built: Solver = build(spec, self.denoiser, self._classifier(classifier))
        return built

    def _drawn(
        self,
        count: int,
        solver: Solver,
        seed: int,
        labels: Sequence[int] | None,
        watch: Watch = unwatched,
    ) -> Tensor:
        y = self._labels(count, solver.spec, labels)
        shape = (count, *models.image_shape(self.dataset))
        return sample(
            solver,
            shape,
            stream("notebook", seed),
            Condition(y),
            device=self.device,
            watch=watch,
        )

    @staticmethod
    def _whether(wanted: bool) -> str:
        return "must be given, one for each image" if wanted else "this model is unconditional"

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
            raise ValueError(f"labels: {self._whether(wanted)}")
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
        extensions: those whose specs the run uses: Python files, packages, names of installed ones.
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
        extensions,
        f"diffbench.load({str(path)!r}, extensions=[..])",
    )
    where = shown(sidecar(folder / "model.safetensors"))
    spec = validated(TrainSpec.model_validate, TrainSpec, Tree(given, {(): where}))
    try:
        found = torch.device(device)
    except RuntimeError:
        raise PlanError(f"device: {device!r} is not cpu, cuda or mps") from None
    dataset = data.load(root, spec.data)
    denoiser = models.load_denoiser(
        spec, root, dataset, found, choice=OfWeights(at=at, ema_std=ema_std)
    )
    return Run(folder, spec, denoiser.process, denoiser, dataset, found)
