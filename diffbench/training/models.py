"""From a training run's spec, data and weights to the denoiser they describe."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from diffbench.data.datasets import Dataset
from diffbench.data.grey_levels import GreyLevels
from diffbench.diffusion.core.process import Process
from diffbench.diffusion.core.streams import key
from diffbench.diffusion.denoisers.denoiser import Denoiser
from diffbench.diffusion.denoisers.guidance import Classifier
from diffbench.networks.ema import joined
from diffbench.specs.jobs import ClassifierSpec, TrainSpec, weights_refusal
from diffbench.specs.pretrained import PretrainedSpec
from diffbench.specs.processes import ProcessSpec
from diffbench.specs.profiles import shares
from diffbench.specs.registry import build, implementation
from diffbench.specs.sampling import Precision
from diffbench.specs.training import TrainingSpec
from diffbench.specs.weights import OfWeights, Weights
from diffbench.store import files, paths
from diffbench.store.products import StoreError, read_product, reading
from diffbench.training import graphs, machine

#: The specs that say how a network is run, except for its precision.
Running = TrainingSpec | PretrainedSpec
#: The types in which autocast computes, by precision.
LOW = {"bf16": torch.bfloat16, "fp16": torch.float16}


def grey_levels_of(dataset: Dataset, process: ProcessSpec) -> GreyLevels:
    """The conversion between the data set's grey levels and the process's range."""
    return GreyLevels(dataset.levels, process.low, process.high, process.bounded)


def in_batches(x: Tensor, y: Tensor | None, size: int) -> Iterator[tuple[Tensor, Tensor | None]]:
    """The images x (B, C, H, W) and labels y (B,), if any, in batches of ``size``."""
    parts = x.split(size)
    return zip(parts, [None] * len(parts) if y is None else y.split(size), strict=True)


def build_process(spec: ProcessSpec, dataset: Dataset) -> Process:
    """The process of a spec, with the facts of the data set that it needs."""
    facts: dict[str, Callable[[], Any]] = {
        "image_shape": lambda: image_shape(dataset),
        "images": lambda: grey_levels_of(dataset, spec).to_model(dataset.train),
    }
    process: Process = build(spec, **{name: facts[name]() for name in spec.facts})
    return process


def image_shape(dataset: Dataset) -> tuple[int, int, int]:
    """The shape (C, H, W) of the data set's images."""
    height, width, channels = dataset.shape
    return channels, height, width


def placed(network: nn.Module, running: Running, device: torch.device) -> nn.Module:
    """The network on the device, in the memory format that the spec asks for or that suits the network."""
    network = network.to(device)
    if wants_channels_last(network, running, device):
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def wants_channels_last(
    network: Callable[..., Tensor], running: Running, device: torch.device
) -> bool:
    """Whether an image's channels are together in memory: the budget asks for it, or the network is faster so."""
    return running.channels_last or device.type in getattr(network, "channels_last", ())


class NetworkRunner:
    """A network called in a given precision and memory format; its input x and its output stay float32."""

    def __init__(
        self,
        network: Callable[..., Tensor],
        device: torch.device,
        running: Running,
        precision: Precision,
    ) -> None:
        self.network, self.device, self.precision = network, device, precision
        machine.warn_if_slow(device.type, precision)
        self.channels_last = wants_channels_last(network, running, device)
        self.graphs = graphs.Recorded() if graphs.asked_for(device) else None

    def __call__(self, x: Tensor, *others: Tensor | None) -> Tensor:
        """The network's output for x and its other inputs (c_noise, y, raw)."""
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        if self.graphs is None:
            return self.in_precision(x, *others)
        return self.graphs(self.in_precision, x, *others)

    def in_precision(self, x: Tensor, *others: Tensor | None) -> Tensor:
        """The network's output in x's type, computed in the runner's precision."""
        low = LOW.get(self.precision)
        autocast = torch.autocast(self.device.type, low, enabled=low is not None)
        with autocast, machine.products(self.device, self.precision):
            answer: Tensor = self.network(x, *others)
        return answer.to(x.dtype)


def classes_of(spec: TrainSpec, dataset: Dataset) -> int:
    """The number of labels that the model is given; 0 for an unconditional one.

    Raises:
        ValueError: for a conditional model of a data set without classes.
    """
    if not spec.denoiser.takes_labels:
        return 0
    return known_classes(dataset, "denoiser.conditional: true")


def known_classes(dataset: Dataset, wanted_by: str) -> int:
    """The number of the data set's classes.

    Raises:
        ValueError: when there are fewer than two, with what needs them.
    """
    if len(dataset.classes) < 2:
        raise ValueError(f"{wanted_by} needs at least two classes, and {dataset.name} has fewer")
    return len(dataset.classes)


def build_network(spec: TrainSpec, dataset: Dataset) -> nn.Module:
    """The untrained network; its initial weights are a function of the seed."""
    assert spec.network is not None
    torch.manual_seed(key("initial weights", spec.seed))
    shape = image_shape(dataset)
    network: nn.Module = build(
        spec.network,
        image_shape=shape,
        in_channels=spec.denoiser.inputs(shape[0]),
        out_channels=shape[0] * spec.denoiser.outputs,
        classes=classes_of(spec, dataset),
    )
    return network


def wrap(
    spec: TrainSpec,
    process: Process,
    network: Callable[..., Tensor],
    dataset: Dataset,
    device: torch.device,
    precision: Precision,
) -> Denoiser:
    """The denoiser around a network on its device."""
    assert spec.running is not None
    runner = NetworkRunner(network, device, spec.running, precision)
    denoiser: Denoiser = build(spec.denoiser, process, runner, classes=classes_of(spec, dataset))
    return denoiser


def build_classifier(spec: ClassifierSpec, dataset: Dataset) -> nn.Module:
    """The untrained classifier's network; its initial weights are a function of the seed."""
    torch.manual_seed(key("initial weights of a classifier", spec.seed))
    classes = known_classes(dataset, "classifier_scale")
    network: nn.Module = build(spec.network, image_shape=image_shape(dataset), classes=classes)
    return network


def wrap_classifier(
    spec: ClassifierSpec,
    network: Callable[..., Tensor],
    dataset: Dataset,
    device: torch.device,
    precision: Precision,
) -> Classifier:
    """The classifier around a network on its device."""
    runner = NetworkRunner(network, device, spec.training, precision)
    process = build_process(spec.process, dataset)
    return Classifier(process, runner, known_classes(dataset, "classifier_scale"))


def load_classifier(
    spec: ClassifierSpec | None,
    root: Path,
    dataset: Dataset,
    device: torch.device,
    precision: Precision,
) -> Classifier | None:
    """The trained classifier, from its verified product; None without a spec.

    Raises:
        StoreError: when the product is missing, altered, or of another spec.
    """
    if spec is None:
        return None
    network = build_classifier(spec, dataset)
    path = read_product(paths.product(root, spec), spec)
    with reading(path):
        network.load_state_dict(load_file(path))
    network = placed(network, spec.training, device).eval().requires_grad_(False)
    return wrap_classifier(spec, network, dataset, device, precision)


def fit_exact(spec: TrainSpec, dataset: Dataset) -> dict[str, Tensor]:
    """The tensors of an exact denoiser, fitted to the training split."""
    images = grey_levels_of(dataset, spec.process).to_model(dataset.train)
    labels = torch.from_numpy(dataset.train_labels)
    tensors: Mapping[str, Tensor] = implementation(spec.denoiser).fit(images, labels)
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def taken(spec: TrainSpec, dataset: Dataset) -> dict[str, Tensor]:
    """The tensors of an imported model, from its verified folder.

    Raises:
        StoreError: when they are missing, altered, or have changed since the plan was made.
        ValueError: when the model is for other images than the data set's, or has another network than the spec's.
    """
    assert spec.pretrained is not None
    if reason := spec.pretrained.refusal(
        image_shape(dataset), classes_of(spec, dataset), dataset.name
    ):
        raise ValueError(f"{spec.variant}.pretrained.{reason}")
    path = read_product(paths.imported(spec.pretrained.folder))
    if files.sha256(path) != spec.pretrained.weights:
        raise StoreError(f"{path} has changed since the plan was made: plan again")
    with reading(path):
        tensors = load_file(path)
    with torch.device("meta"):
        wanted = build_network(spec, dataset).state_dict()
    shapes = [{name: each.shape for name, each in state.items()} for state in (tensors, wanted)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"{path} holds the weights of another network than that of its spec.json")
    return tensors


def untrained(spec: TrainSpec, dataset: Dataset) -> dict[str, Tensor]:
    """The tensors of a model that is not trained here: an imported model or an exact denoiser."""
    return fit_exact(spec, dataset) if spec.pretrained is None else taken(spec, dataset)


def weights_of(
    spec: TrainSpec, root: Path, choice: OfWeights | None, averaged: Sequence[str]
) -> dict[str, Tensor]:
    """The tensors of the chosen weights: kept ones, or a reconstruction from all that were kept until then.

    Args:
        spec: the training of a network.
        root: the results folder.
        choice: which weights, by a step and a length; None for the model's own.
        averaged: the names of the network's parameters.

    Raises:
        StoreError: when a product is missing, altered, or of another spec.
    """
    if choice is None or not choice.names_weights:
        return load_file(read_product(paths.product(root, spec), spec))
    assert spec.training is not None
    (named,) = choice.step_names
    chosen = spec.training.chosen(named, choice.ema_std)

    def read(each: Weights) -> dict[str, Tensor]:
        return load_file(read_product(paths.weights(root, spec, each), spec))

    if chosen in spec.training.kept:
        return read(chosen)
    kept = spec.training.until(chosen.step)
    return joined(zip(shares(kept, chosen).tolist(), map(read, kept), strict=True), averaged)


def load_denoiser(
    spec: TrainSpec,
    root: Path,
    dataset: Dataset,
    device: torch.device,
    precision: Precision = "fp32",
    choice: OfWeights | None = None,
) -> Denoiser:
    """The denoiser of a finished run, from its verified products.

    Args:
        spec: the run.
        root: the results folder.
        dataset: the data set that it was trained on.
        device: the device to load it to.
        precision: the precision of its network, if it has one.
        choice: which weights, by a step and a length; None for the model's own.

    Raises:
        StoreError: when a product is missing, altered, or of another spec.
        ValueError: for weights that the run did not keep.
    """
    if choice is not None and (reason := weights_refusal(spec, choice)):
        raise ValueError(f"{spec.variant}: {reason}")
    process = build_process(spec.process, dataset)
    if not spec.denoiser.trained:
        path = read_product(paths.product(root, spec), spec)
        with reading(path):
            tensors = load_file(path, device=str(device))
            denoiser: Denoiser = build(spec.denoiser, process, tensors)
        return denoiser
    network = build_network(spec, dataset)
    averaged = [name for name, _ in network.named_parameters()]
    with reading(paths.product(root, spec)):
        network.load_state_dict(weights_of(spec, root, choice, averaged))
    assert spec.running is not None
    network = placed(network, spec.running, device).eval().requires_grad_(False)
    return wrap(spec, process, network, dataset, device, precision)
