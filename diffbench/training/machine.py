"""What a job needs of the machine: the device, threads, determinism, a record of the run."""

from __future__ import annotations

import ctypes
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

from diffbench.specs.errors import UserError
from diffbench.specs.pretrained import PretrainedSpec
from diffbench.specs.sampling import Precision
from diffbench.specs.training import TrainingSpec
from diffbench.store import downloads
from diffbench.store.run_record import RunRecord
from diffbench.store.run_record import peak_memory as peak_resident
from diffbench.training import gpus
from diffbench.training.launch import launched, local_rank


class DeviceError(UserError, RuntimeError):
    """A device that this machine lacks."""


def prepare(device_name: str, running: TrainingSpec | PretrainedSpec | None = None) -> torch.device:
    """Set the spec's number of threads and deterministic kernels; return the device.

    Raises:
        DeviceError: when there is no such device.
    """
    torch.set_num_threads(running.threads if running else 1)
    keep_freed_memory()
    # By default compiled kernels lie under a name that others can guess, in the folder of temporary files.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(downloads.cache() / "torchinductor"))
    if device_name.startswith("cuda"):
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        if not torch.cuda.is_available():
            raise DeviceError(f"device {device_name}: this PyTorch sees no GPU (set device: cpu)")
        allow_tf32(matrices=False, convolutions=False)
    if device_name == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("device mps: this PyTorch has no MPS (set device: cpu)")
    # The same switch as use_deterministic_algorithms(True, warn_only=True), which also imports the
    # compiler: a second of CPU time in every job.
    torch.set_deterministic_debug_mode("warn")
    # That switch also fills every new tensor with NaN, to show who reads it before it is written. It costs time, and
    # changes no number.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return device_of(device_name)


@cache
def keep_freed_memory() -> None:
    """Let the C library keep memory that was freed, once a process, where it is glibc.

    As it comes, it gives the memory of each tensor of a few MiB back to the system, which fills the next one with
    zeros again: a fifth of the time in which a small network draws 500 images.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    trim_threshold, mmap_threshold = (
        -1,
        -3,
    )  # the numbers of M_TRIM_THRESHOLD and M_MMAP_THRESHOLD in malloc.h
    mallopt(mmap_threshold, 32 << 20)  # the largest that it takes
    mallopt(trim_threshold, 1 << 30)


def device_of(name: str) -> torch.device:
    """The named device; ``cuda`` is a free GPU, or, in a job of several processes, the GPU of this process's rank."""
    if name == "cuda" and launched():
        torch.cuda.set_device(local_rank())
        return torch.device("cuda", local_rank())
    if name == "cuda":
        torch.cuda.set_device(own_gpu())
        return torch.device("cuda", own_gpu())
    return torch.device(name)


def name(device: torch.device) -> str:
    """The device's name in records: ``cpu``, or the GPU's number (``cuda:0``) and name."""
    if device.type != "cuda":
        return device.type
    return f"{device}: {torch.cuda.get_device_name(device)}"


@cache
def warn_if_slow(device_type: str, precision: Precision) -> None:
    """Warn, once a process, where a network in this precision is several times slower than in float32.

    On a CPU without AVX-512 PyTorch has no fast convolution of bfloat16 and float16.
    """
    if (
        device_type == "cpu"
        and precision in ("bf16", "fp16")
        and torch.backends.cpu.get_cpu_capability() == "AVX2"
    ):
        warnings.warn(
            f"precision: {precision} is about ten times as slow as fp32 on this processor, which has no AVX-512: "
            "write `precision: fp32` under `training` and under `sampling`",
            stacklevel=2,
        )


def allow_tf32(matrices: bool, convolutions: bool) -> None:
    """Let a GPU round the factors of float32 products to TF32, or not; PyTorch's default is in convolutions alone."""
    torch.backends.cuda.matmul.allow_tf32 = matrices
    torch.backends.cudnn.allow_tf32 = convolutions


@contextmanager
def products(device: torch.device, precision: Precision) -> Iterator[None]:
    """A block whose products of float32 on a GPU are rounded to TF32 where the precision says so, and only there.

    TF32 has 10 bits of mantissa and float32's exponents; sums are float32. (NVIDIA, "A100 Tensor Core GPU
    Architecture", 2020.)  On other devices nothing changes.
    """
    if device.type != "cuda":
        yield
        return
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    allow_tf32(precision == "tf32", precision == "tf32")
    try:
        yield
    finally:
        allow_tf32(*before)


@cache
def own_gpu() -> int:
    """The number of the GPU that this process holds until it ends."""
    return gpus.claim(gpus.visible())[0]


def peak_memory(device: torch.device) -> float:
    """The peak memory so far, in MiB: what is allocated on the GPU, or without one this process's memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return peak_resident()


@cache
def kernels() -> dict[str, str]:
    """The kernels that sums and products of matrices run on: torch's vector instructions, and each library of BLAS."""
    from threadpoolctl import threadpool_info

    found = {"torch": torch.backends.cpu.get_cpu_capability()}
    if torch.backends.mkl.is_available():
        found["mkl"] = os.environ.get("MKL_CBWR", "default")
    for each in threadpool_info():
        if each["user_api"] == "blas":
            found[f"{each['internal_api']} {each['version']}"] = str(each.get("architecture"))
    return found


def record(product: Path, device: torch.device, earlier: float | None = 0.0) -> RunRecord:
    """The run record of a product, with the device's name and peak memory."""
    if device.type != "cuda":
        return RunRecord(product, name(device), None, earlier, kernels)
    torch.cuda.reset_peak_memory_stats(device)
    return RunRecord(product, name(device), lambda: peak_memory(device), earlier, kernels)
