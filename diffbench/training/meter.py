"""The speed of a training: images per second, and the share of the device's peak for matrix products.

    utilisation = images/s * (operations of an image, forward and backward) / (peak * processes)

Operations are those of matrix products and convolutions, two per multiplication.  The peak is measured: one large
matrix product on the same device in the same precision.  On a CPU it is not measured, because its threads are shared.
"""

from __future__ import annotations

import time
import warnings
from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffbench.specs.sampling import Precision
from diffbench.training import machine

if TYPE_CHECKING:
    from diffbench.training.trainer import Trainer

#: The width of the square matrices in the measured product, and the number of repetitions.
WIDTH, TIMES = 8192, 20
TYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


def operations(trainer: Trainer) -> int:
    """The floating-point operations of one image, forward and backward; the trainer is left unchanged."""
    from torch.utils.flop_counter import FlopCounterMode

    one = trainer.drawn().cut(slice(0, 1))
    generators = [trainer.device] if trainer.device.type == "cuda" else []
    # Compiled code is not counted.  The stance is set only where needed, since it imports the compiler: a second.
    eager = torch.compiler.set_stance("force_eager") if trainer.training.compile else nullcontext()
    counter = FlopCounterMode(display=False)
    with warnings.catch_warnings(), torch.random.fork_rng(devices=generators):
        # The warning is that the counter's hooks run twice in a compiled network; here the network runs eagerly.
        warnings.filterwarnings("ignore", message="Using `torch.compile")
        with trainer.team.adding(last_part=False), eager, counter:
            trainer.part(one, 1)[1].backward()
    trainer.optimiser.zero_grad(set_to_none=True)
    return counter.get_total_flops()


def matrix_peak(device: torch.device, precision: Precision) -> float | None:
    """The operations per second of a large matrix product; None for a device that is not a GPU."""
    if device.type != "cuda":
        return None
    with machine.products(device, precision):
        seconds = _product_seconds(_noise(device).to(TYPES[precision]))
    return 2 * WIDTH**3 / seconds


def _noise(device: torch.device) -> Tensor:
    """A random matrix from a generator of its own: products of constants take less power, and are faster."""
    generator = torch.Generator(device).manual_seed(0)
    return torch.randn(WIDTH, WIDTH, generator=generator, device=device)


def _product_seconds(a: Tensor) -> float:
    out = a @ a
    torch.cuda.synchronize(a.device)
    start = time.perf_counter()
    for _ in range(TIMES):
        torch.mm(a, a, out=out)
    torch.cuda.synchronize(a.device)
    return (time.perf_counter() - start) / TIMES


class Meter:
    """The speed of a training, measured in the stretches between its saves; the saves are left out.

    The first stretch includes the warm-up of kernels and compilers; it counts only where it is the only one.

    Args:
        batch: the number of images of a step.
        step: the step at which the first stretch starts.
        operations: those of an image, forward and backward; 0 where they are not counted.
        peak: the operations per second of the device; None where it is not measured.
        processes: the number of processes that share a step.
    """

    def __init__(
        self, batch: int, step: int, operations: int, peak: float | None, processes: int = 1
    ) -> None:
        self.operations, self.peak = operations, peak
        self.batch, self.processes = batch, processes
        self.stretches: list[tuple[int, float]] = []
        self.go(step)

    def go(self, step: int) -> None:
        """Start a stretch at a step."""
        self.step, self.start = step, time.perf_counter()

    def stop(self, step: int) -> dict[str, float | None]:
        """End a stretch at a step, after the device has finished; return the stretch's numbers."""
        images, seconds = (step - self.step) * self.batch, time.perf_counter() - self.start
        self.stretches.append((images, seconds))
        return self.numbers([self.stretches[-1]])

    def numbers(self, stretches: list[tuple[int, float]]) -> dict[str, float | None]:
        """The images per second of some stretches, and the share of the peak."""
        seconds = sum(each for _, each in stretches)
        speed = sum(images for images, _ in stretches) / max(seconds, 1e-9)
        used = self.peak and speed * self.operations / (self.peak * self.processes)
        return {
            "images_per_second": float(f"{speed:.4g}"),
            "utilisation": None if used is None else round(used, 4),
        }

    def summary(self) -> dict[str, float | None]:
        """The numbers of the whole training, with the operations and the peak that they are computed from."""
        if not self.stretches:
            return {}
        return self.numbers(self.stretches[1:] or self.stretches) | {
            "operations_per_image": self.operations,
            "peak_operations_per_second": self.peak,
        }
