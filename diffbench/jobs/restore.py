"""The restore stage: the first test images, degraded by one task, restored by one method, and scored.

    y = H x + noise (high - low) n,      n ~ N(0, I)

n is the i-th image's own, whatever the variant, the method, the seed and the number of images: all methods restore the
same measurements, up to the range [low, high] in which a process has its images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffbench.data.datasets import Dataset
from diffbench.data.grey_levels import GreyLevels, Images
from diffbench.data.pictures import grid_png
from diffbench.diffusion.core.integrators import check_finite
from diffbench.diffusion.core.returned import check_rows
from diffbench.diffusion.core.streams import stream
from diffbench.diffusion.denoisers.denoiser import Counted, Denoiser
from diffbench.diffusion.inverse.operators.operator import Degradation, Operator
from diffbench.diffusion.inverse.restorers.baselines import PosteriorMean
from diffbench.diffusion.inverse.restorers.restorer import Measurement, Restorer
from diffbench.estimate.costs import Cost
from diffbench.estimate.counting import Calls, cheap_denoiser
from diffbench.estimate.scoring import OPENING, Scoring
from diffbench.estimate.timings import Timings
from diffbench.jobs import data
from diffbench.jobs.reference import load_fidelity
from diffbench.metrics import restoration
from diffbench.metrics.fidelity import Fidelity
from diffbench.metrics.scores import Score
from diffbench.specs.data import FEWEST
from diffbench.specs.jobs import RestoreSpec
from diffbench.specs.operators import OperatorSpec
from diffbench.specs.registry import build
from diffbench.specs.restorers import PosteriorMeanSpec, RestorerSpec
from diffbench.store import paths
from diffbench.store.products import write_json_product, write_product
from diffbench.store.progress import Progress
from diffbench.training import machine, models

#: The number of images that are stored and shown.
SHOWN = 10


@dataclass(frozen=True)
class Problem:
    """A task on the first test images.

    grey: the conversion between grey levels and the range of the images.
    x: the images (N, C, H, W) in that range.
    measurement: the measurements of all images.
    """

    grey: GreyLevels
    x: Tensor
    measurement: Measurement

    @property
    def operator(self) -> Degradation:
        """The degradation H."""
        return self.measurement.operator

    @property
    def width(self) -> float:
        """The width high - low of the range."""
        return self.grey.high - self.grey.low

    def on_unit(self, x: Tensor) -> Tensor:
        """Return images on [0, 1], float64."""
        return (x.double() - self.grey.low) / self.width

    def repeated(self, draws: int) -> Tensor:
        """Return each measurement ``draws`` times."""
        return self.measurement.y.repeat_interleave(draws, 0)


def run(spec: RestoreSpec, root: Path, device_name: str) -> None:
    """Write {method}.json, the scores, and {method}/images.npz with a picture of the first images.

    images.npz has, as grey levels NHWC, ``truth``, ``measurement`` (H^+ y), ``restorations`` (N, K, H, W, C) and
    their ``mean``.
    """
    device = machine.prepare(device_name, spec.train.running if spec.train else None)
    path, archive = paths.products(root, spec)
    with machine.record(path, device):
        dataset = data.load(root, spec.data)
        problem = pose(spec, dataset)
        drawn, nfe = restore(spec, root, dataset, problem, device)
        fidelity = load_fidelity(spec.reference, root, dataset, scoring(spec, device), spec.floors)
        content = score(spec, dataset, problem, drawn, fidelity) | {"nfe": nfe}
        content["metrics"] |= measures(spec, problem, drawn, device)
        shown = pictures(problem, drawn[:SHOWN])
        (picture,) = paths.extras(root, spec)
        beside = {picture: strip(shown, dataset.levels)}
        write_product(archive, lambda file: np.savez(file, **shown), spec, beside)
        write_json_product(path, content, spec)


def cost(spec: RestoreSpec, timings: Timings) -> Cost:
    """Return the cost of all draws of the task and of their FID, that of the true images and its floor."""
    scoring = Scoring(spec.reference, timings)
    count = spec.images * spec.draws

    def scores() -> float:
        fids = 2 * (1 + spec.reference.extractor.resamples) + spec.floors.redraws
        return OPENING + scoring.features(2 * count) + fids * scoring.one_fid(count)

    return drawing_cost(spec, timings) + scoring.cost(scores)


def drawing_cost(spec: RestoreSpec, timings: Timings) -> Cost:
    """Return the cost of all draws of the task; without a model they are taken to cost nothing."""
    train, inner = spec.train, spec.restorer.inner
    if train is None or train.network is None:
        return Cost(0.0 if train is None else None)
    key = ("restore", spec.restorer, spec.task, train.process, train.denoiser)
    adaptive = inner is not None and inner.adaptive
    calls, notes = timings.calls(key, adaptive, lambda: calls_of(spec, timings.dataset))
    count = spec.images * spec.draws
    chunk = min(spec.chunk, count)
    call = timings.call(train, chunk, spec.precision, train.denoiser.takes_labels)
    return Cost(calls.network * call.seconds * count / chunk / 3600, notes=notes)


def calls_of(spec: RestoreSpec, dataset: Dataset) -> Calls:
    """Return the evaluations for one batch of measurements, counted with a network that takes no time."""
    assert spec.train is not None
    denoiser, network = cheap_denoiser(spec.train, dataset)
    problem = pose(spec.model_copy(update={"images": 1}), dataset)
    restorer = build_restorer(spec.restorer, dataset, problem.grey, denoiser)
    with torch.no_grad():
        restorer.restore(problem.measurement, stream("estimate"))
    return Calls(network.calls)


def scoring(spec: RestoreSpec, device: torch.device) -> torch.device:
    """Return the device for features: that of the restorations if the extractor is large, else the CPU."""
    return (
        device if spec.reference.extractor.heavy and device.type == "cuda" else torch.device("cpu")
    )


def pose(spec: RestoreSpec, dataset: Dataset) -> Problem:
    """Return the task on the first test images, degraded.

    Raises:
        ValueError: when the data set has fewer, the operator cannot degrade them, or what it returns is no measurement.
    """
    if spec.images > len(dataset.test):
        raise ValueError(
            f"restorations.images: {spec.images} are asked for, but {dataset.name} has {len(dataset.test)} test "
            "images"
        )
    grey = GreyLevels(dataset.levels)
    if spec.train is not None:
        grey = models.grey_levels_of(dataset, spec.train.process)
    operator = operator_of(spec.task.operator, dataset, grey)
    x = grey.to_model(dataset.test[: spec.images])
    clean, std = operator.apply(x), spec.task.noise * (grey.high - grey.low)
    what = f"{type(operator).__name__}.apply"
    check_rows(clean, (len(x), *operator.measurement_shape), what)
    check_finite(clean, what)
    return Problem(grey, x, Measurement(operator, clean + std * noise_like(clean), std))


def operator_of(spec: OperatorSpec, dataset: Dataset, grey: GreyLevels) -> Degradation:
    """Return the operator, built with the facts that it asks for."""
    facts = {"image_shape": models.image_shape(dataset), "low": grey.low, "high": grey.high}
    operator: Degradation = build(spec, **{name: facts[name] for name in spec.facts})
    return operator


def noise_like(y: Tensor) -> Tensor:
    """Return standard normal noise for measurements (N, ...); each image's is from a stream of its own."""
    each = [
        torch.randn(y.shape[1:], generator=stream("measurement", i), dtype=y.dtype)
        for i in range(len(y))
    ]
    return torch.stack(each)


@torch.no_grad()
def restore(
    spec: RestoreSpec, root: Path, dataset: Dataset, problem: Problem, device: torch.device
) -> tuple[Tensor, int]:
    """Return restorations (N, K, C, H, W), in chunks with a stream each, and the denoiser's calls for an image.

    Raises:
        ValueError: when a restoration is not finite, or not one image for each measurement.
    """
    model = load_denoiser(spec, root, dataset, device)
    y, std = problem.repeated(spec.draws), problem.measurement.std
    title = f"restore {spec.variant} {spec.task_id} {spec.method_id}"
    progress = Progress(title, len(y), "image")
    denoiser = None if model is None else Counted(model, progress.call)
    restorer = build_restorer(spec.restorer, dataset, problem.grey, denoiser)
    parts: list[Tensor] = []
    calls = 0
    for chunk, part in enumerate(y.split(spec.chunk)):
        measurement = Measurement(problem.operator, part.to(device), std)
        before = denoiser.calls if denoiser else 0
        x = restorer.restore(measurement, stream("restore", spec.seed, chunk))
        check_rows(x, (len(part), *problem.x.shape[1:]), f"{type(restorer).__name__}.restore")
        check_finite(x, "the restoration")
        parts.append(x.cpu())
        calls += (denoiser.calls - before) * len(part) if denoiser else 0
        progress.advance(len(part))
    progress.close()
    drawn = torch.cat(parts).reshape(spec.images, spec.draws, *problem.x.shape[1:])
    return drawn, round(calls / len(y))


def load_denoiser(
    spec: RestoreSpec, root: Path, dataset: Dataset, device: torch.device
) -> Denoiser | None:
    """Return the trained model; None where the method uses none."""
    if spec.train is None:
        return None
    return models.load_denoiser(spec.train, root, dataset, device, spec.precision)


def build_restorer(
    spec: RestorerSpec, dataset: Dataset, grey: GreyLevels, denoiser: Denoiser | None
) -> Restorer:
    """Return the restorer of images of a data set."""
    middle = (grey.low + grey.high) / 2
    return wired(spec, denoiser, lambda: grey.to_model(dataset.train), middle)


def wired(
    spec: RestorerSpec,
    denoiser: Denoiser | None,
    images: Callable[[], Tensor],
    middle: float,
) -> Restorer:
    """Return the restorer, built with the facts that it asks for.

    Args:
        spec: the restorer.
        denoiser: the model; None for a baseline.
        images: makes the training images (N, C, H, W), in the range of the measured images.
        middle: the middle of that range.
    """

    def built(restorer: Any) -> Any:
        facts: dict[str, Callable[[], Any]] = {
            "denoiser": lambda: denoiser,
            "solver": lambda: build(restorer.inner, denoiser),
            "around": lambda: built(restorer.around),
            "estimate": lambda: built(restorer.estimate),
            "images": images,
            "middle": lambda: middle,
        }
        return build(restorer, **{name: facts[name]() for name in restorer.facts})

    restorer: Restorer = built(spec)
    return restorer


def score(
    spec: RestoreSpec, dataset: Dataset, problem: Problem, drawn: Tensor, fidelity: Fidelity
) -> dict[str, Any]:
    """Return metrics with their standard errors and floors, counts and protocol.

    FID is of all draws, as grey levels, to the training split; there is none where the draws are too few.  ``truth``
    has the FID of the true images in the restorations' place, each as often.
    """
    again = problem.operator.apply(drawn.flatten(0, 1)).reshape(
        *drawn.shape[:2], *problem.measurement.y.shape[1:]
    )
    span = spec.task.operator.span or problem.width
    metrics = restoration.of_pictures(problem.on_unit(problem.x), problem.on_unit(drawn))
    metrics["residual"] = restoration.residual(problem.measurement.y, again, span)
    metrics |= posterior_scores(spec, dataset, problem, drawn)
    count = spec.images * spec.draws
    counts = {"images": spec.images, "draws": spec.draws}
    found: dict[str, Any] = {"metrics": metrics, "floors": {}, "truth": {}}
    if count >= FEWEST:
        images = problem.grey.from_model(drawn.flatten(0, 1))
        metrics["fid"] = fidelity.frechet(images, spec.draws)
        true = dataset.test[: spec.images].repeat(spec.draws, axis=0)
        found["truth"] = {"fid": fidelity.frechet(true, spec.draws)}
        found["floors"] = fidelity.real_images.of_restorations(spec.images, spec.draws)
    return found | {"samples": count, "protocol": fidelity.protocol | counts}


def measures(
    spec: RestoreSpec, problem: Problem, drawn: Tensor, device: torch.device
) -> dict[str, Score]:
    """Return the scores by the benchmark's further measures."""
    truth, found = problem.on_unit(problem.x), problem.on_unit(drawn)
    shape = tuple(truth.shape[1:])
    return {
        each.metric: restoration.measured(build(each, shape, device), truth, found)
        for each in spec.measures
    }


def posterior_scores(
    spec: RestoreSpec, dataset: Dataset, problem: Problem, drawn: Tensor
) -> dict[str, Score]:
    """Return scores against the true posterior, where the model is the exact one of a Gaussian and H a matrix."""
    operator = problem.operator
    if not (spec.train and spec.train.denoiser.gaussian and isinstance(operator, Operator)):
        return {}
    truth = PosteriorMean(PosteriorMeanSpec(), problem.grey.to_model(dataset.train))
    y, std = problem.measurement.y.double(), problem.measurement.std
    mean = truth.restore(Measurement(operator, y, std), stream("restore", spec.seed))
    variances = truth.covariance(operator, std).diagonal() / problem.width**2
    return restoration.against_posterior(problem.on_unit(drawn), problem.on_unit(mean), variances)


def pictures(problem: Problem, drawn: Tensor) -> dict[str, Any]:
    """Return the first images as grey levels, as ``run`` writes them."""
    count, draws = drawn.shape[:2]
    grey, y = problem.grey, problem.measurement.y[:count]
    restored = grey.from_model(drawn.flatten(0, 1))
    return {
        "truth": grey.from_model(problem.x[:count]),
        "measurement": grey.from_model(problem.operator.pseudo_inverse(y)),
        "restorations": restored.reshape(count, draws, *restored.shape[1:]),
        "mean": grey.from_model(drawn.mean(1)),
    }


def strip(shown: dict[str, Images], count: int) -> bytes:
    """Return a PNG whose rows are the truth, H^+ y, each draw and their mean."""
    draws = shown["restorations"].swapaxes(0, 1)
    rows = [shown["truth"], shown["measurement"], *draws, shown["mean"]]
    return grid_png(np.concatenate(rows), count, columns=len(shown["truth"]))
