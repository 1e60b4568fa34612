"""What a GPU brings, in at most eight minutes: the `gpu` tests, the speed of three networks, and a short real training.

    python benchmarks/gpu.py [--images PATH] [--seconds 480] [--write FOLDER] [--device cuda]

    peak     the matrix products of each precision: what `share of peak` is a share of
    tests    pytest -m gpu
    digits   the U-Net of config/digits.yaml: training and sampling, with and without each switch
    ddpm     DDPM's network, ddpm-linear of config/cifar10.yaml
    ddpmpp   EDM's DDPM++, edm of config/cifar10.yaml
    mini     edm of config/cifar10-mini.yaml on real images for three minutes at most: a folder, a zip, a tar, a folder
             of parquet files, or cifar-10-python.tar.gz

Each part is a process of its own with a deadline, and what an earlier part leaves of its time goes to the later ones.
A part that fails, hangs or is late costs its own rows alone: after each part FOLDER (results/gpu) has all that is
known, in `gpu.json`, three tables and `gpu.log`, and what was not measured has a row with the reason.  The tables,
copied to docs/records/trials, become part of docs/performance.md by `diffbench pages --write`.

Networks are untrained and images are noise, but for `mini`.  Times are medians of three blocks of calls, after a
warm-up.  `--device cpu` takes small networks and a few calls: it tries the script, and its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import csv
import gc
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

#: The time for everything, as asked for at most.
SECONDS = 480.0
#: Each part's share of the time, and the most seconds that it may take of so many.
PARTS = {
    "peak": (8, 60.0),  # the first to read PyTorch from the disk
    "tests": (13, 120.0),
    "digits": (13, 90.0),
    "ddpm": (23, 150.0),
    "ddpmpp": (23, 150.0),
    "mini": (25, 180.0),
}
#: Seconds after its deadline at which a part is stopped.
GRACE = 5.0
#: Seconds within which a network is compiled for training, on the slowest of machines with a GPU.
COMPILING = 60.0
PACKAGES = ("torch", "triton", "numpy", "nvidia-cudnn-cu13", "nvidia-cudnn-cu12")
PRECISIONS = ("fp32", "tf32", "bf16")
PLANNED = "planned"

Row = dict[str, Any]


@dataclass(frozen=True)
class Network:
    """A network that is timed: a variant of a benchmark file, and what makes it small."""

    title: str
    config: str
    variant: str
    solver: str
    #: The steps of the timed path.
    steps: int
    #: The image's shape (C, H, W).
    shape: tuple[int, int, int]
    toy: Mapping[str, Any]


SMALL = {"channels": 32, "multipliers": (1, 1), "blocks": 1}
NETWORKS = {
    "digits": Network(
        "digits U-Net",
        "digits",
        "ddpm-cosine",
        "ancestral-100",
        10,
        (1, 8, 8),
        {"channels": 8, "inner_channels": 8},
    ),
    "ddpm": Network("DDPM", "cifar10", "ddpm-linear", "ancestral-1000", 5, (3, 32, 32), SMALL),
    "ddpmpp": Network("DDPM++ (EDM)", "cifar10", "edm", "heun-18", 3, (3, 32, 32), SMALL),
}
#: The images of a batch in sampling: as the files have it, and few.
CHUNKS = (500, 16)


@dataclass(frozen=True)
class Switches:
    """A way to run a network: its budget's keys, and what is changed around it."""

    budget: Mapping[str, Any] = field(default_factory=dict)
    unfused: bool = False
    benchmark: bool = False
    free: bool = False
    graphs: bool = False

    @property
    def precision(self) -> str:
        found: str = self.budget.get("precision", "fp32")
        return found


LAST = {"precision": "bf16", "channels_last": True}
BOTH = {
    "fp32": Switches(),
    "tf32": Switches({"precision": "tf32"}),
    "bf16": Switches({"precision": "bf16"}),
    "bf16, channels_last": Switches(LAST),
}
TRAINING = BOTH | {
    "bf16, channels_last, AdamW not fused": Switches(LAST, unfused=True),
    "bf16, channels_last, cudnn.benchmark": Switches(LAST, benchmark=True),
    "bf16, channels_last, any kernels": Switches(LAST, free=True),
    "bf16, channels_last, compile": Switches({**LAST, "compile": True}),
}
SAMPLING = BOTH | {"bf16, channels_last, CUDA graphs": Switches(LAST, graphs=True)}


@dataclass(frozen=True)
class Item:
    """A measurement: what it is of, the function that makes its row, and why it is not made.

    ``needs`` are its seconds; None is what the one before took.
    """

    facts: Row
    function: Callable[[], Row]
    needs: float | None = None
    refusal: str = ""

    @property
    def named(self) -> Row:
        """The facts, and what this is called among the rows."""
        return self.facts | {"item": ", ".join(map(str, self.facts.values()))}


class Bench:
    """What a part needs: the device, its deadline, and where its rows go."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.part, self.until, self.toy = options.part, options.until, options.device == "cpu"
        self.images, self.rows, self.write = options.images, options.rows, options.write
        self.name = options.device
        self.peaks: dict[str, float | None] = {}
        #: The seconds of the measurement before.
        self.before = 2.0

    def left(self) -> float:
        """The seconds until the deadline."""
        return float(self.until - time.time())

    def add(self, **row: Any) -> None:
        """Add a row, at once: what follows may end the process."""
        with open(self.rows, "a", encoding="utf-8") as file:
            file.write(json.dumps({"part": self.part, "status": "measured", **row}) + "\n")
        print(f"{self.part}: {row}", flush=True)

    def plan(self, items: Sequence[Item]) -> None:
        """Say what is going to be measured, for the first process to know what is missing if this one is stopped."""
        for each in items:
            self.add(**each.named, status=PLANNED)

    def measure(self, item: Item) -> None:
        """Add the row of a measurement, or why there is none."""
        needs, reason, status = item.needs or self.before, item.refusal, "left out"
        if not reason and self.left() < needs:
            reason = f"{needs:.0f} s are needed, and {max(self.left(), 0):.0f} s were left"
        if not reason:
            start = time.time()
            try:
                self.add(**item.named | item.function())
                return
            except Exception as error:
                traceback.print_exc()
                reason, status = said(error), "failed"
            finally:
                forget()
                self.before = max(2.0, time.time() - start)
        self.add(**item.named, status=status, reason=reason)


def said(error: BaseException) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"[:300]


def forget() -> None:
    """Give the memory of what is no longer used back to the device."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


# ---------------------------------------------------------------- in the process of a part


def seconds(bench: Bench, device: Any, call: Callable[[], object]) -> tuple[float, float, float]:
    """Seconds of a call: the median of three blocks, the least and the most."""
    from diffbench.estimate.stopwatch import Stopwatch

    now = Stopwatch(device, 1).now
    for _ in range(2):
        start = now()
        call()
        once = now() - start
        if once > 0.5:
            break
    count = max(1, int((0.01 if bench.toy else 0.4) / max(once, 1e-6)))
    blocks = []
    for _ in range(3):
        start = now()
        for _ in range(count):
            call()
        blocks.append((now() - start) / count)
    return statistics.median(blocks), min(blocks), max(blocks)


def timing(
    bench: Bench,
    device: Any,
    call: Callable[[], object],
    images: int,
    operations: int,
    precision: str,
) -> Row:
    """The speed, memory and share of the peak of a call on so many images, with the operations of each."""
    import torch

    from diffbench.training.machine import peak_memory

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    median, least, most = seconds(bench, device, call)
    speed, peak = images / median, peak_of(bench, device, precision)
    return {
        "ms": float(f"{1e3 * median:.4g}"),
        "ms_least_and_most": [float(f"{1e3 * each:.4g}") for each in (least, most)],
        "images_per_second": float(f"{speed:.4g}"),
        "operations_per_image": operations,
        "share_of_peak": None if peak is None else round(speed * operations / peak, 4),
        "memory_mib": round(peak_memory(device)),
    }


def peak_of(bench: Bench, device: Any, precision: str) -> float | None:
    """The measured operations a second of a matrix product; None on a CPU."""
    from diffbench.training.meter import matrix_peak

    if precision not in bench.peaks:
        bench.peaks[precision] = matrix_peak(device, precision)
    return bench.peaks[precision]


def peak(bench: Bench) -> None:
    """What the device is, and its matrix products."""
    import torch

    from diffbench.training import machine

    device = machine.prepare(bench.name)
    about: Row = {"work": "machine", "device": machine.name(device), "cudnn": None}
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        about |= {
            "cudnn": torch.backends.cudnn.version(),
            "cuda": torch.version.cuda,
            "multiprocessors": found.multi_processor_count,
            "memory_mib": found.total_memory >> 20,
            "capability": f"{found.major}.{found.minor}",
        }
    bench.add(**about)

    def product(precision: str) -> Row:
        found = peak_of(bench, device, precision)
        return {"tflops": found and float(f"{found / 1e12:.4g}")}

    refusal = "" if device.type == "cuda" else "a CPU's peak is not measured"
    for each in PRECISIONS:
        facts = {"work": "matrix product", "switches": each}
        bench.measure(Item(facts, partial(product, each), refusal=refusal))


def tests(bench: Bench) -> None:
    """The tests that are marked `gpu`, each with its outcome."""
    files = [
        str(path)
        for path in sorted((ROOT / "tests").glob("test_*.py"))
        if "pytest.mark.gpu" in path.read_text(encoding="utf-8")
    ]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        # One process: several would each take their share of the GPU's memory and of the time to start.
        command = [sys.executable, "-m", "pytest", "-m", "gpu", "-v", "--tb=short"]
        command += ["-p", "no:cacheprovider", f"--junitxml={report}", *files]
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, "DIFFBENCH_SERVER": ""})
        if not report.is_file():
            raise RuntimeError(f"pytest ended with status {done.returncode} and no report")
        outcomes = list(outcomes_of(report))
    for row in outcomes:
        bench.add(**row)
    if done.returncode not in (0, 1) or not outcomes:
        raise RuntimeError(f"pytest ended with status {done.returncode}")


def outcomes_of(report: Path) -> Iterator[Row]:
    """The outcome of each test of a report in JUnit's XML."""
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        outcome, reason = "passed", None
        for kind in ("failure", "error", "skipped"):
            if (found := case.find(kind)) is not None:
                outcome = {"failure": "failed", "error": "failed"}.get(kind, kind)
                reason = (found.get("message") or kind).strip().partition("\n")[0][:300]
        name = f"{case.get('classname')}::{case.get('name')}"
        yield {"work": "test", "item": name, "status": outcome, "reason": reason}


@contextmanager
def switched(switches: Switches) -> Iterator[None]:
    """A block in which kernels are chosen by trial, in which any may be taken, or in which calls become graphs."""
    import torch

    from diffbench.training import graphs

    cudnn = torch.backends.cudnn
    benchmark, mode = cudnn.benchmark, torch.get_deterministic_debug_mode()
    try:
        os.environ[graphs.VARIABLE] = "1" if switches.graphs else ""
        cudnn.benchmark = switches.benchmark
        if switches.free:
            torch.set_deterministic_debug_mode("default")
        yield
    finally:
        os.environ[graphs.VARIABLE] = ""
        cudnn.benchmark = benchmark
        torch.set_deterministic_debug_mode(mode)


class Model:
    """One of the networks, on the device."""

    def __init__(self, bench: Bench, network: Network) -> None:
        from diffbench.estimate.timings import noise_images
        from diffbench.plan.loading import load_plan
        from diffbench.training import machine

        self.bench, self.network = bench, network
        file = ROOT / "config" / f"{network.config}.yaml"
        plan = load_plan([file], {"only": [network.variant]}, ROOT, needs_files=False)
        spec = plan.job("train", network.variant, plan.seeds(network.variant)[0]).spec
        if bench.toy:
            training = spec.training.model_copy(update={"batch": 2})
            small = spec.network.model_copy(update=dict(network.toy))
            changes = {"network": small, "training": training}
            spec = spec.model_copy(update=changes)
        self.spec = spec
        seed = plan.seeds(network.variant)[0]
        solver = plan.job("sample", network.variant, seed, network.solver).spec.solver
        self.solver = solver.model_copy(update={"steps": 2 if bench.toy else network.steps})
        self.device = machine.prepare(bench.name, spec.training)
        shape = (network.shape[0], 8, 8) if bench.toy else network.shape
        self.dataset = noise_images(plan.located.here, shape)
        self.operations: dict[str, int] = {}

    def run_as(self, switches: Switches) -> Any:
        """The training's spec under these switches."""
        plain = {"precision": "fp32", "channels_last": False, "compile": False}
        training = self.spec.training.model_copy(update=plain | dict(switches.budget))
        return self.spec.model_copy(update={"training": training})

    def training(self, switches: Switches, batch: int) -> Row:
        """The time of a step of training."""
        import torch

        from diffbench.jobs.train import denoiser_trainer
        from diffbench.training.meter import operations

        with switched(switches):
            spec = self.run_as(switches)
            trainer = denoiser_trainer(spec, self.dataset, self.device)
            if switches.unfused:
                budget = spec.training
                trainer.optimiser = torch.optim.AdamW(
                    trainer.network.parameters(),
                    lr=budget.lr,
                    betas=budget.betas,
                    eps=budget.eps,
                    weight_decay=budget.weight_decay,
                    foreach=True,
                )
            if "training" not in self.operations:
                self.operations["training"] = operations(trainer)
            count = self.operations["training"]
            start = time.perf_counter()
            trainer.advance()
            first = time.perf_counter() - start
            found = timing(
                self.bench, self.device, trainer.advance, batch, count, switches.precision
            )
            loss = float(trainer.advance())
        return found | {"first_call_s": round(first, 2), "loss": loss}

    def sampling(self, switches: Switches, count: int) -> Row:
        """The time of a call of the network in a solver's path."""
        import torch
        from torch.utils.flop_counter import FlopCounterMode

        from diffbench.diffusion.core.streams import stream
        from diffbench.diffusion.denoisers.denoiser import Counted
        from diffbench.diffusion.solvers.loop import sample
        from diffbench.specs.registry import build
        from diffbench.training import models

        with switched(switches), torch.no_grad():
            spec, shape = self.run_as(switches), models.image_shape(self.dataset)
            network = models.build_network(spec, self.dataset)
            network = models.placed(network, spec.training, self.device)
            network = network.eval().requires_grad_(False)
            process = models.build_process(spec.process, self.dataset)
            parts = (spec, process, network, self.dataset, self.device)
            counted = Counted(models.wrap(*parts, switches.precision))
            if "sampling" not in self.operations:
                one = torch.zeros(1, *shape, device=self.device)
                with FlopCounterMode(display=False) as counter:
                    counted(one, float(process.t_max))
                self.operations["sampling"] = counter.get_total_flops()
            solver = build(self.solver, counted)

            def path() -> object:
                return sample(solver, (count, *shape), stream("gpu"), device=self.device)

            start, before = time.perf_counter(), counted.calls
            assert torch.isfinite(path()).all()  # type: ignore[call-overload]
            first, calls = time.perf_counter() - start, counted.calls - before
            operations, precision = self.operations["sampling"], switches.precision
            images = count * calls
            found = timing(self.bench, self.device, path, images, operations, precision)
        # A call of the network, not the path.
        found["ms"] = float(f"{found['ms'] / calls:.4g}")
        found["ms_least_and_most"] = [
            float(f"{each / calls:.4g}") for each in found["ms_least_and_most"]
        ]
        return found | {"calls": calls, "first_call_s": round(first, 2)}


def speeds(bench: Bench) -> None:
    """Training and sampling of a network, with and without each switch; what is compiled comes last."""
    network = NETWORKS[bench.part]
    model = Model(bench, network)
    from diffbench.specs.registry import implementation

    always = model.device.type in implementation(model.spec.network).channels_last

    def item(work: str, name: str, count: int) -> Item:
        switches = TRAINING[name] if work == "training" else SAMPLING[name]
        facts = {"network": network.title, "work": work, "switches": name, "batch": count}
        refusal, compiled = "", switches.budget.get("compile", False)
        if name == "bf16, channels_last" and always:
            refusal = "this network always has its channels last"
        if compiled and bench.toy:
            refusal = "networks are compiled on a GPU only"
        if switches.graphs and bench.toy:
            refusal = "CUDA graphs are a GPU's"
        made = model.training if work == "training" else model.sampling
        function = partial(made, switches, count)
        return Item(facts, function, COMPILING if compiled else None, refusal)

    batch = model.spec.training.batch
    trained = [item("training", name, batch) for name in TRAINING]
    drawn = [
        item("sampling", name, count)
        for count in ((2,) if bench.toy else CHUNKS)
        for name in SAMPLING
    ]
    plain = len([each for each in TRAINING.values() if each == Switches(each.budget)]) - 1
    items = [*trained[:plain], *drawn, *trained[plain:]]
    bench.plan(items)
    for each in items:
        bench.measure(each)


def data_of(images: Path) -> Row:
    """The data set's keys of a path to images."""
    if not images.exists():
        raise FileNotFoundError(f"--images {images}: there is no such file or folder")
    path = str(images.resolve())
    if images.name.startswith("cifar-10-python"):
        return {"name": "cifar10", "archive": path}
    if images.is_dir() and next(images.glob("**/train*.parquet"), None):
        return {"name": "parquet", "path": path, "size": 32, "channels": 3}
    return {"name": "folder", "path": path, "size": 32, "channels": 3, "test_fraction": 0.2}


class Mini:
    """A training of edm of config/cifar10-mini.yaml on real images, in a results folder of its own."""

    def __init__(self, bench: Bench, root: Path) -> None:
        from diffbench.plan import places

        self.bench, self.root = bench, root
        self.given: Row = {
            "data": data_of(bench.images),
            "only": ["edm"],
            "extractor": "classifier",
        }
        if bench.toy:
            self.given |= {
                "network": {"channels": 16, "multipliers": [1, 1], "blocks": 1, "attention": []},
                "training": {"steps": 10, "batch": 4, "precision": "fp32", "compile": False},
                "samples": 20,
            }
        self.plan = self.planned()
        os.environ[places.VARIABLE] = self.plan.located.told

    def planned(self, **training: Any) -> Any:
        """The plan, with these keys of the budget."""
        from diffbench.plan.loading import load_plan

        budget = {**self.given.get("training", {}), **training}
        given = {**self.given, **({"training": budget} if budget else {})}
        return load_plan([ROOT / "config" / "cifar10-mini.yaml"], given, ROOT)

    def training(self) -> Row:
        """Train in as many of the file's steps as fit; the rate falls as planned, so their number is chosen before."""
        from diffbench.jobs import data, train
        from diffbench.store import paths, run_record
        from diffbench.training import machine

        start = time.perf_counter()
        data.run(self.plan.job("data").spec, self.root, self.bench.name)
        spec = self.plan.job("train", "edm", 0).spec
        dataset = data.load(self.root, spec.data)
        read, start = time.perf_counter() - start, time.perf_counter()
        device = machine.prepare(self.bench.name, spec.training)
        trainer = train.denoiser_trainer(spec, dataset, device)
        first = float(trainer.advance())
        compiled = time.perf_counter() - start
        step = seconds(self.bench, device, trainer.advance)[0]
        del trainer
        forget()
        budget = spec.training.steps
        fit = int(0.75 * (self.bench.left() - 15 - compiled) / step)
        steps = budget if self.bench.toy else min(budget, fit)
        if steps < 10:
            raise RuntimeError(f"a step takes {step:.3f} s, and {self.bench.left():.0f} s are left")
        self.plan = self.planned(steps=steps)
        spec = self.plan.job("train", "edm", 0).spec
        train.run(spec, self.root, self.bench.name)
        record = run_record.known(paths.product(self.root, spec))
        notes = record["notes"]
        events = (paths.state(self.root, spec) / "events.jsonl").read_text(encoding="utf-8")
        losses = [each["loss"] for each in map(json.loads, events.splitlines()) if "loss" in each]
        return {
            "batch": spec.training.batch,
            "images": len(dataset.train),
            "steps": steps,
            "steps_of_the_file": budget,
            "images_per_second": notes["images_per_second"],
            "operations_per_image": notes["operations_per_image"],
            "share_of_peak": notes["utilisation"],
            "memory_mib": record.get("device_memory_mib"),
            "seconds": record["seconds"],
            "reading_s": round(read, 1),
            "first_call_s": round(compiled, 1),
            "losses": [first, *losses],
        }

    def sampling(self) -> Row:
        """Draw the file's number of images, or fewer where there is no time; keep a picture of a hundred."""
        import numpy as np

        from diffbench.jobs import sample
        from diffbench.store import paths, run_record

        spec = self.plan.job("sample", "edm", 0, "heun-18").spec
        sample.run(spec, self.root, self.bench.name)
        product = paths.product(self.root, spec)
        took, calls = run_record.known(product)["seconds"], int(np.load(product)["nfe"])
        (picture,) = paths.extras(self.root, spec)
        (self.bench.write / "gpu-mini.png").write_bytes(picture.read_bytes())
        speed = float(f"{calls * spec.samples / took:.4g}")
        shown = {"batch": spec.chunk, "images": spec.samples, "calls": calls, "seconds": took}
        return shown | {"images_per_second": speed}


def mini(bench: Bench) -> None:
    """Train on real images, and draw images from what was learnt."""
    facts = {"network": "cifar10-mini, edm"}
    with tempfile.TemporaryDirectory() as folder:
        found = None if bench.images is None else Mini(bench, Path(folder))
        refusal = "" if found else "no --images were given"
        switches = "as the file" if not bench.toy else "fp32"
        items = [
            Item(
                {**facts, "work": f"{work} with real images", "switches": switches},
                getattr(found, work, dict),
                5.0,
                refusal,
            )
            for work in ("training", "sampling")
        ]
        bench.plan(items)
        for each in items:
            bench.measure(each)


WORK: dict[str, Callable[[Bench], None]] = {"peak": peak, "tests": tests, "mini": mini}
WORK |= dict.fromkeys(NETWORKS, speeds)

# ---------------------------------------------------------------- in the first process


def run_part(name: str, limit: float, options: argparse.Namespace) -> tuple[Row, list[Row]]:
    """How a part went that runs as a process, and its rows; it is stopped with all that it started when it is late."""
    start = time.time()
    with tempfile.TemporaryDirectory() as folder:
        rows, log = Path(folder, "rows"), Path(folder, "log")
        rows.touch()
        command = [sys.executable, str(Path(__file__).resolve()), "--part", name]
        command += ["--until", str(start + limit), "--rows", str(rows), "--device", options.device]
        command += ["--write", str(options.write)]
        command += ["--images", str(options.images)] if options.images else []
        with log.open("wb") as out:
            process = subprocess.Popen(
                command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )
            try:
                status, late = process.wait(limit + GRACE), False
            except subprocess.TimeoutExpired:
                late = True
            finally:
                # The compiler's and pytest's processes too.
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        text = log.read_text(encoding="utf-8", errors="replace")
        with (options.write / "gpu.log").open("a", encoding="utf-8") as whole:
            whole.write(f"== {name}\n{text}\n")
        found = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    print(text[-6000:], flush=True)
    lines = [line for line in text.splitlines() if line.strip()]
    last = lines[-1][:300] if lines else "no output"
    part: Row = {"part": name, "limit_s": round(limit), "seconds": round(time.time() - start, 1)}
    if late:
        part |= {"status": "late", "reason": f"stopped after {limit:.0f} s at: {last}"}
    elif status:
        part |= {"status": "failed", "reason": f"status {status}: {last}"}
    else:
        part |= {"status": "done", "reason": None}
    return part, settled(found)


def settled(rows: list[Row]) -> list[Row]:
    """The rows, where what was planned and never came to an end is left out."""
    found = [row for row in rows if row["status"] != PLANNED]
    done = {row.get("item") for row in found}
    lost = [row for row in rows if row["status"] == PLANNED and row["item"] not in done]
    reason = "the process was stopped before"
    return found + [row | {"status": "left out", "reason": reason} for row in lost]


def counted(rows: list[Row]) -> str:
    """How many rows have each status."""
    found = [row["status"] for row in rows if row.get("work") != "machine"]
    return ", ".join(f"{found.count(each)} {each}" for each in dict.fromkeys(found)) or "no rows"


def table_of_parts(report: Row) -> list[Row]:
    """A row for each part: how it went, and why what is missing is missing."""
    rows = []
    for part in report["parts"]:
        own = [row for row in report["rows"] if row["part"] == part["part"]]
        missing: dict[str, list[str]] = {}
        for row in own:
            if row.get("reason"):
                missing.setdefault(row["reason"], []).append(row["item"])
        reasons = [f"{', '.join(items)}: {reason}" for reason, items in missing.items()]
        rows.append(
            {
                "part": part["part"],
                "": part["status"],
                "rows": counted(own),
                "s": f"{part['seconds']:.0f}",
                "what is missing, and why": "; ".join(filter(None, [part["reason"], *reasons])),
            }
        )
    return rows


def table_of_speeds(report: Row) -> list[Row]:
    """A row for each speed, with its ratio to fp32 on the same network, work and batch."""
    measured = [row for row in report["rows"] if row.get("images_per_second")]
    plain = {
        (row["network"], row["work"], row["batch"]): row["images_per_second"]
        for row in measured
        if row.get("switches") == "fp32"
    }

    def shown(row: Row) -> Row:
        base = plain.get((row["network"], row["work"], row["batch"]))
        share, ms = row.get("share_of_peak"), row.get("ms")
        memory = row.get("memory_mib")
        return {
            "network": row["network"],
            "work": row["work"],
            "batch": str(row["batch"]),
            "switches": row["switches"] or "fp32",
            "ms a call": "–" if ms is None else f"{ms:.3g}",
            "images/s": f"{row['images_per_second']:,.0f}",
            "x fp32": f"{row['images_per_second'] / base:.2f}" if base else "–",
            "share of the peak": "–" if share is None else f"{share:.1%}",
            "peak MiB": "–" if memory is None else f"{memory:,.0f}",
        }

    return [shown(row) for row in measured]


def table_of_machine(report: Row) -> list[Row]:
    """A row for each fact of the machine, its matrix products last."""
    facts = {key: each for key, each in report["machine"].items() if key != "commit"}
    facts |= {
        f"matrix product in {row['switches']}": f"{row['tflops']:.3g} TFLOP/s"
        for row in report["rows"]
        if row.get("tflops")
    }
    return [{"machine": key, "": str(each)} for key, each in facts.items() if each is not None]


def machine_of(report: Row) -> None:
    """Note what was measured of the device where the part that looks has run."""
    for row in report["rows"]:
        if row.get("work") == "machine":
            shown = {key: row[key] for key in row.keys() - {"part", "work", "status"}}
            report["machine"] |= dict(sorted(shown.items()))


def about(options: argparse.Namespace) -> Row:
    """Versions, date and commit."""
    from facts import commit, versions

    found: Row = {"date": date.today().isoformat(), "python": sys.version.split()[0]}
    found |= versions(PACKAGES)
    asked = options.commit or commit() or "not noted"
    return found | {"commit": asked, "device": options.device, "cores": os.cpu_count()}


def markdown(rows: list[Row]) -> str:
    """Rows as a table of Markdown."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    cells = [[str(each).replace("|", "\\|") for each in row.values()] for row in rows]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in cells])


def write(report: Row, folder: Path) -> None:
    """Write the JSON, and the two tables with their command and commit; each file at once."""
    machine_of(report)
    texts = {"gpu.json": json.dumps(report, indent=1) + "\n"}
    tables = {"gpu": table_of_speeds, "gpu-parts": table_of_parts, "gpu-machine": table_of_machine}
    for name, table in tables.items():
        rows = table(report)
        if not rows:
            continue
        ends = {"command": report["command"], "commit": report["machine"]["commit"]}
        file = folder / f"{name}.csv.new"
        with file.open("w", encoding="utf-8", newline="") as out:
            writer = csv.DictWriter(out, [*rows[0], *ends], lineterminator="\n")
            writer.writeheader()
            writer.writerows(row | ends for row in rows)
        texts[f"{name}.csv"] = file.read_text(encoding="utf-8")
        file.unlink()
    for name, text in texts.items():
        new = folder / f"{name}.new"
        new.write_text(text, encoding="utf-8")
        new.replace(folder / name)


def main(options: argparse.Namespace) -> None:
    """Run all parts within the time, and write what is known after each."""
    end = time.time() + options.seconds
    command = ["python", "benchmarks/gpu.py"]
    command += ["--device", options.device] if options.device != "cuda" else []
    # The path of the images is this machine's own.
    command += ["--images", "IMAGES"] if options.images else []
    options.write.mkdir(parents=True, exist_ok=True)
    (options.write / "gpu.log").unlink(missing_ok=True)
    report: Row = {"machine": about(options), "command": " ".join(command), "parts": [], "rows": []}
    names = [name for name in PARTS if options.only is None or name in options.only]
    for index, name in enumerate(names):
        shares = [PARTS[each][0] for each in names[index:]]
        # The seconds after the deadlines, and those of starting each process, are within the time too.
        left = end - time.time() - GRACE * len(shares)
        most = PARTS[name][1] * max(1, options.seconds / SECONDS)
        limit = min(left * shares[0] / sum(shares), most)
        if limit < 1:
            part = {"part": name, "limit_s": 0, "seconds": 0.0, "status": "left out"}
            report["parts"].append(part | {"reason": "no time was left"})
        else:
            print(f"\n== {name}: {limit:.0f} s", flush=True)
            part, rows = run_part(name, limit, options)
            report["parts"].append(part)
            report["rows"] += rows
        write(report, options.write)
    for rows in (table_of_speeds(report), table_of_parts(report), table_of_machine(report)):
        if rows:
            print("\n" + markdown(rows))
    print(f"written to {re.sub(f'^{re.escape(str(ROOT))}/', '', str(options.write))}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument(
        "--images", type=Path, help="images for cifar10-mini; without them it is left out"
    )
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for everything")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="these parts alone")
    parser.add_argument("--write", type=Path, default=ROOT / "results" / "gpu", help="a folder")
    parser.add_argument("--commit", help="of the code, where there is no git")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    chosen.write = chosen.write.resolve()
    if chosen.part:
        WORK[chosen.part](Bench(chosen))
    else:
        main(chosen)
