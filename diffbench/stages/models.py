"""From a training run's spec, data and weights to the denoiser they describe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from diffbench.data.datasets import Dataset
from diffbench.data.levels import Levels
from diffbench.diffusion.denoisers import Denoiser
from diffbench.diffusion.processes.gaussian import GaussianProcess
from diffbench.diffusion.streams import key
from diffbench.plan.registry import build, implementation
from diffbench.specs.process import ProcessSpec
from diffbench.specs.stages import TrainSpec
from diffbench.store import paths
from diffbench.store.products import read_product


def levels_of(dataset: Dataset, process: ProcessSpec) -> Levels:
    """The conversion between the data set's levels and the process's range."""
    return Levels(dataset.levels, process.low, process.high)


def image_shape(dataset: Dataset) -> tuple[int, int, int]:
    """(C, H, W)."""
    height, width, channels = dataset.shape
    return channels, height, width


class Precision:
    """A network called under the precision of its spec; x in and out stay float32."""

    def __init__(self, network: nn.Module, device: torch.device, precision: str) -> None:
        self.network, self.device, self.low = network, device, precision == "bf16"

    def __call__(self, x: Tensor, c_noise: Tensor, y: Tensor | None, raw: Tensor) -> Tensor:
        """The network's output for (x, c_noise, y, raw)."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.low):
            answer: Tensor = self.network(x, c_noise, y, raw)
        return answer.to(x.dtype)


def build_network(spec: TrainSpec, dataset: Dataset) -> nn.Module:
    """The untrained network; its initial weights are a function of the seed."""
    assert spec.network is not None
    torch.manual_seed(key("initial weights", spec.seed))
    shape = image_shape(dataset)
    network: nn.Module = build(spec.network, image_shape=shape, out_channels=shape[0], classes=0)
    return network


def wrap(
    spec: TrainSpec, process: GaussianProcess, network: nn.Module, device: torch.device
) -> Denoiser:
    """The denoiser around a network on its device."""
    assert spec.training is not None
    runner = Precision(network, device, spec.training.precision)
    denoiser: Denoiser = build(spec.denoiser, process, runner)
    return denoiser


def fit_exact(spec: TrainSpec, dataset: Dataset) -> dict[str, Tensor]:
    """The tensors of an exact denoiser, fitted to the training split."""
    images = levels_of(dataset, spec.process).to_model(dataset.train)
    labels = torch.from_numpy(dataset.train_labels)
    tensors: Mapping[str, Tensor] = implementation(spec.denoiser).fit(images, labels)
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def load_denoiser(spec: TrainSpec, root: Path, dataset: Dataset, device: torch.device) -> Denoiser:
    """The denoiser of a finished run, from its verified product.

    Raises:
        StoreError: when the product is missing, altered, or of another spec.
    """
    path = read_product(paths.product(root, spec), spec)
    tensors = load_file(path, device=str(device))
    process: GaussianProcess = build(spec.process)
    if not spec.denoiser.trained:
        denoiser: Denoiser = build(spec.denoiser, process, tensors)
        return denoiser
    network = build_network(spec, dataset)
    network.load_state_dict(tensors)
    return wrap(spec, process, network.to(device).eval(), device)
