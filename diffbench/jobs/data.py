"""The data stage: read the data set and store its images in grey levels."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from diffbench.data.datasets import Dataset, checked, manifest
from diffbench.estimate.costs import Cost
from diffbench.estimate.scoring import ASSUMED
from diffbench.estimate.timings import Timings
from diffbench.plan import places
from diffbench.specs.data import FEWEST, DataSpec
from diffbench.specs.jobs import DataStageSpec
from diffbench.specs.registry import build
from diffbench.store import contents, files, mapped, paths
from diffbench.store.products import StoreError, read_product, read_sidecar, write_product
from diffbench.store.progress import announce
from diffbench.training import machine

#: Guesses, seconds: of imports, of a byte that is read, hashed and written, and of a picture file that is decoded.
IMPORTING, STORING, DECODING = 1.5, 25e-9, 2e-4
FACTS = ("levels", "classes", "name", "limits", "inception_score")


def run(spec: DataStageSpec, root: Path, device_name: str) -> None:
    """Write levels.npz and manifest.json."""
    path = paths.dataset(root)
    with machine.record(path, machine.prepare("cpu")):
        announce(f"data: reading {spec.data.name}")
        here = placed(spec.data)
        dataset: Dataset = build(here).load()
        if here.planned_contents is not None and dataset.contents is None:
            at = {key: Path(each) for key, each in here.paths.items()}
            found = contents.contents(at, here.listing)
            dataset = replace(
                dataset, contents=as_planned("data.path", here.planned_contents, found)
            )
        if len(dataset.test) < FEWEST:
            raise ValueError(
                f"data: {len(dataset.test)} test images are too few for scores: at least {FEWEST} are needed (more "
                "images, or a larger test_fraction)"
            )
        dataset = checked(dataset)
        for note in dataset.notes:
            announce(f"data: {note}")
        announce(f"data: storing {len(dataset.train) + len(dataset.test):,} images")
        beside = {paths.data_manifest(root): files.json_bytes(manifest(dataset))}
        write_product(path, lambda file: save(dataset, file), spec, beside)


def placed(data: DataSpec) -> DataSpec:
    """Return a data set with the paths of its files on this machine, where the environment says them."""
    given = told()
    return data.model_copy(update={key: given[key] for key in data.read_from if key in given})


def told() -> dict[str, str]:
    """Return the paths in the environment: of the data set's files by their keys, of controls' by their contents."""
    found: dict[str, str] = json.loads(os.environ.get(places.VARIABLE) or "{}")
    return found


def as_planned(key: str, planned: str, found: str) -> str:
    """Return the contents of files that were read.

    Raises:
        ValueError: when they are not those of the plan.
    """
    if found != planned:
        raise ValueError(
            f"{key}: the files are others than when the run was planned (contents {found}, not {planned}): run it again"
        )
    return found


def cost(spec: DataStageSpec, timings: Timings) -> Cost:
    """Return a guess of the cost of reading and storing the images: by their bytes, and by files that are decoded."""
    images = sum((ASSUMED | dict(spec.data.known_counts)).values())
    size = images * timings.dataset.train[0].size
    decoding = images * DECODING if spec.data.decoded else 0.0
    return replace(Cost.guess(IMPORTING + size * STORING + decoding), size=size)


def save(dataset: Dataset, file: Path) -> None:
    """Write a data set as npz: its arrays, and its facts as JSON text."""
    facts = json.dumps({name: getattr(dataset, name) for name in FACTS})
    arrays = {
        name: getattr(dataset, name) for name in ("train", "test", "train_labels", "test_labels")
    }
    np.savez(file, **arrays, facts=np.array(facts))


def load(root: Path, spec: DataSpec) -> Dataset:
    """Return the stored data set; its images are mapped into memory, and shared by all jobs that read them.

    Raises:
        StoreError: when it is missing, altered, or another data set than the spec's.
    """
    path = read_product(paths.dataset(root))
    found = read_sidecar(path)["spec"]["data"] | dict.fromkeys(spec.places)
    if found != spec.unplaced.model_dump(mode="json"):
        raise StoreError(f"{path} is stale, it holds another data set: run the data stage again")
    arrays = mapped.load(path)
    facts = json.loads(str(arrays.pop("facts")))
    if facts.keys() != set(FACTS):
        raise StoreError(
            f"{path} is stale, it holds other facts of the data set: run the data stage again"
        )
    return Dataset(**arrays, **{**facts, "classes": tuple(facts["classes"])})
