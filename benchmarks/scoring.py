"""The reference of a large data set, and scores against it: CPU time and peak memory, of a process each.

    python benchmarks/scoring.py [--images 50000] [--epochs 1] [--samples 64 50000] [--root FOLDER]

The images are made here, 32 x 32 x 3 in 256 grey levels, ten classes: sums of random fields on grids of 1 to 32 pixels,
whose variances are about those of photographs.  The extractor is the trained classifier.  Samples are further such
images.  With ``--root`` the images and the reference are kept there, and those that are there already are used.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import numpy as np

from diffbench.data.datasets import Dataset
from diffbench.data.grey_levels import Images
from diffbench.jobs import data, reference
from diffbench.specs.data import CIFAR10Spec
from diffbench.specs.extractors import TrainedExtractorSpec
from diffbench.specs.floors import FloorSpec
from diffbench.specs.jobs import DataStageSpec, ReferenceSpec
from diffbench.store import paths
from diffbench.store.products import write_product
from diffbench.training import machine

#: The side of a grid -> its share of the variance.
OCTAVES = {1: 0.35, 2: 0.27, 4: 0.22, 8: 0.1, 16: 0.05, 32: 0.01}
SIDE, CLASSES, TEST = 32, 10, 5
#: Which images are drawn: of the training split, of the test split, of the samples.
TRAIN, OTHERS, SAMPLES = range(3)


def made(count: int, seed: int) -> tuple[Images, np.ndarray]:
    """Images uint8 (N, 32, 32, 3), of which each class has a mean of its own, and their classes (N,)."""
    means = np.random.default_rng(99).standard_normal((CLASSES, 4, 4, 3)).astype(np.float32)
    images = np.empty((count, SIDE, SIDE, 3), np.uint8)
    labels = np.arange(count) % CLASSES
    for start in range(0, count, 1000):
        part = slice(start, min(start + 1000, count))
        random = np.random.default_rng((seed, start))
        fields = {
            side: random.standard_normal((part.stop - start, side, side, 3), np.float32)
            for side in OCTAVES
        }
        fields[4] = 0.8 * fields[4] + 0.6 * means[labels[part]]
        x = sum(
            share**0.5 * fields[side].repeat(SIDE // side, 1).repeat(SIDE // side, 2)
            for side, share in OCTAVES.items()
        )
        images[part] = (128 + 64 * x).clip(0, 255).astype(np.uint8)
    return images, labels


def spec_of(epochs: int) -> ReferenceSpec:
    """The reference's spec: that of CIFAR-10, whose images these replace."""
    extractor = TrainedExtractorSpec(epochs=epochs)
    library = f"torch-fidelity {metadata.version('torch-fidelity')}"
    return ReferenceSpec(
        data=CIFAR10Spec(), extractor=extractor, library=library, conversion=extractor.conversion
    )


def make_data(root: Path, images: int) -> None:
    """Store the data set."""
    train, labels = made(images, TRAIN)
    test, test_labels = made(images // TEST, OTHERS)
    names = tuple(map(str, range(CLASSES)))
    dataset = Dataset(train, test, labels, test_labels, 256, names, "cifar10")
    spec = DataStageSpec(data=CIFAR10Spec())
    write_product(paths.dataset(root), lambda file: data.save(dataset, file), spec)


def score(root: Path, spec: ReferenceSpec, count: int) -> dict[str, float | None]:
    """What a score job does with the samples of one solver."""
    device = machine.prepare("cpu")
    dataset = data.load(root, spec.data)
    fidelity = reference.load_fidelity(spec, root, dataset, device, FloorSpec())
    samples, _ = made(count, SAMPLES)
    scores = fidelity.score(samples)
    floors = fidelity.real_images.of_samples(count)
    found = scores | {f"floor of {name}": each for name, each in floors.items()}
    return {name: each["value"] for name, each in found.items()}


def part(name: str, options: argparse.Namespace) -> None:
    """Do one part in this process, and print what it cost."""
    root, spec, start = options.root, spec_of(options.epochs), time.monotonic()
    found: dict[str, float | None] = {}
    if name == "data":
        make_data(root, options.images)
    elif name == "reference":
        reference.run(spec, root, "cpu")
    else:
        found = score(root, spec, int(name))
    used = resource.getrusage(resource.RUSAGE_SELF)
    cost = {
        "cpu_s": used.ru_utime + used.ru_stime,
        "wall_s": time.monotonic() - start,
        "peak_mib": used.ru_maxrss / 1024,
    }
    print(json.dumps({"part": name} | cost | {"scores": found}))


def main(options: argparse.Namespace) -> None:
    """Do all parts, each in a process of its own."""
    spec = spec_of(options.epochs)
    ready = {"data": paths.dataset(options.root), "reference": paths.product(options.root, spec)}
    for name in ("data", "reference", *map(str, options.samples)):
        if name in ready and ready[name].exists():
            continue
        command = [sys.executable, __file__, f"--part={name}", f"--root={options.root}"]
        command += [f"--images={options.images}", f"--epochs={options.epochs}"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        title = name if name in ready else f"scores of {int(name):,} samples"
        print(
            f"{title}: {found['cpu_s']:.1f} CPU s, {found['wall_s']:.1f} s, peak memory {found['peak_mib']:,.0f} MiB",
            flush=True,
        )
        if options.scores and found["scores"]:
            print(json.dumps(found["scores"]), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--samples", type=int, nargs="*", default=[64, 50_000])
    parser.add_argument("--root", type=Path)
    parser.add_argument("--scores", action="store_true", help="print the scores too")
    parser.add_argument("--part", help="do one part in this process")
    options = parser.parse_args()
    if options.part:
        part(options.part, options)
    elif options.root:
        main(options)
    else:
        with tempfile.TemporaryDirectory() as folder:
            options.root = Path(folder)
            main(options)
