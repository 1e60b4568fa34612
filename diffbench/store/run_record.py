"""The record of how a product was made: duration, memory, device, versions, commit.

It lies beside the product as ``<stem>.run.json``, and has all that differs between two runs of the
same spec.  It has a seal (``seals``) and the product's SHA-256: one that is damaged, or of another product, is not
read.  The processor and the kernels of linear algebra are named, since the last bits of sums depend on them.
"""

from __future__ import annotations

import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from diffbench.store import files, paths, products
from diffbench.store.products import StoreError
from diffbench.store.seals import opened, sealed

PACKAGES = ("diffbench", "torch", "numpy", "torch-fidelity", "torchvision", "safetensors")

#: What every record has, those of earlier versions too, which name no product.
ALWAYS = {"seconds"}


@cache
def versions() -> dict[str, str | None]:
    """Return the versions of the packages that numbers depend on; None for one that is not installed."""
    return {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@cache
def commit() -> str | None:
    """Return the commit at which this package is checked out, with ``-dirty`` when there are changes.

    It is asked for once in a process, and by the job server when it starts: its jobs run the code of that moment.
    """
    try:
        # An environment inside another project's repository is not of that repository.
        _git("ls-files", "--error-unmatch", Path(__file__).name)
        return _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*") or None
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str) -> str:
    folder = Path(__file__).resolve().parent
    command = ["git", *arguments]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=10, check=True
    )
    return done.stdout.strip()


def peak_memory() -> float:
    """Return the largest resident memory of this process so far, in MiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _cpu_seconds() -> float:
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in usage)


@cache
def processor() -> str:
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _digest(product: Path) -> str | None:
    """Return the SHA-256 in a product's sidecar; None where there is none."""
    try:
        return str(products.read_sidecar(product)["sha256"][product.name])
    except StoreError:
        return None


def read(product: Path) -> dict[str, Any]:
    """Return the run record of a product.

    Raises:
        StoreError: when there is none, or it is damaged or of another product.
    """
    path = paths.run_record(product)
    try:
        record = opened(path.read_bytes())
    except FileNotFoundError:
        raise StoreError(f"{path} does not exist: run the job again to have one") from None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} is damaged, {error}: {products.REMEDY}") from None
    if "product" not in record and not record.keys() >= ALWAYS:
        raise StoreError(f"{path} is damaged, it is no run record: {products.REMEDY}")
    if record.get("product") not in (None, _digest(product)):
        raise StoreError(f"{path} is not the record of {product.name} there: {products.REMEDY}")
    return record


def known(product: Path) -> dict[str, Any]:
    """Return the run record of a product; empty where there is none that is whole."""
    try:
        return read(product)
    except StoreError:
        return {}


def write_lost(product: Path) -> None:
    """Write a record that says only that the product's own was lost: Snakemake need not make the product again."""
    path = paths.run_record(product)
    files.remove(path)
    lost = {"product": _digest(product), "notes": {"lost": "the record was damaged or missing"}}
    files.write_json(path, sealed(lost))


class RunRecord:
    """A context that measures its block, and writes the run record when the block ends without an error.

    Args:
        product: the path of the (main) product.
        device: what the job ran on, e.g. ``cpu`` or ``cuda: NVIDIA H200``.
        device_memory: a function that returns the device's largest allocation in MiB; None for the CPU.
        earlier: seconds that earlier, interrupted attempts at the same job took; None where it is not known.
        kernels: a function that returns the names of the kernels of linear algebra.
    """

    def __init__(
        self,
        product: Path,
        device: str = "cpu",
        device_memory: Callable[[], float] | None = None,
        earlier: float | None = 0.0,
        kernels: Callable[[], Mapping[str, str]] | None = None,
    ) -> None:
        self.product = product
        self.device = device
        self.device_memory = device_memory
        self.earlier = earlier
        self.kernels = kernels
        self.notes: dict[str, Any] = {}

    def note(self, **values: Any) -> None:
        """Add values to the record (steps, images per second, threads)."""
        self.notes |= values

    def __enter__(self) -> Self:
        self.start = datetime.now(UTC)
        self._clock, self._cpu = time.perf_counter(), _cpu_seconds()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            files.write_json(paths.run_record(self.product), sealed(self.content()))

    def content(self) -> dict[str, Any]:
        """Return the content of the record at this moment."""
        took = time.perf_counter() - self._clock
        return {
            "product": _digest(self.product),
            "start": self.start.isoformat(timespec="seconds"),
            "end": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": None if self.earlier is None else round(self.earlier + took, 3),
            "cpu_seconds": round(_cpu_seconds() - self._cpu, 3),
            "peak_memory_mib": round(peak_memory(), 1),
            "device": self.device,
            "device_memory_mib": self.device_memory() if self.device_memory else None,
            "host": platform.node(),
            "platform": platform.platform(),
            "processor": processor(),
            "kernels": dict(self.kernels()) if self.kernels else None,
            "versions": dict(versions()),
            "commit": commit(),
            "notes": self.notes,
        }
