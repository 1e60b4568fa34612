"""The paths of all files below a benchmark's folder, ``root``; nothing here touches the disk.

The spec of a job says what it makes (``diffbench.specs.jobs``), and results/README.md what lies where.  Beside a
product lie its sidecar (spec and checksum: ``spec.json``, or ``<stem>.spec.json`` beside a JSON product) and its run
record (``<stem>.run.json``: duration, device, versions).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from diffbench.specs.benchmark import CONTROL_SOLVER
from diffbench.specs.jobs import STATES, DataStageSpec, SampleSpec, StageSpec, TrainSpec
from diffbench.specs.jobs.stage import RUN
from diffbench.specs.weights import Weights

RESULTS = Path("results")
TABLE_SUFFIXES = ("csv", "md", "tex")
FIGURE_SUFFIXES = ("png", "csv")


@cache
def root(benchmark: str) -> Path:
    """Return the folder of a benchmark's results, relative to the working directory."""
    return RESULTS / benchmark


def products(root: Path, spec: StageSpec) -> tuple[Path, ...]:
    """Return the paths of all products of a job, the main one first; reference, train and restore may have several."""
    return tuple(root / spec.filled(each) for each in spec.templates)


def product(root: Path, spec: StageSpec) -> Path:
    """Return the path of the main product of a job."""
    return products(root, spec)[0]


def extras(root: Path, spec: StageSpec) -> tuple[Path, ...]:
    """Return the paths of a job's outputs without a sidecar, such as pictures."""
    return tuple(root / spec.filled(each) for each in spec.extras)


def made(root: Path, spec: StageSpec) -> tuple[Path, ...]:
    """Return the paths of all files that a job makes: products, extras, run record, and the sidecars last."""
    found = products(root, spec)
    return (*found, *extras(root, spec), run_record(found[0]), *map(sidecar, found))


def weights(root: Path, spec: TrainSpec, wanted: Weights) -> Path:
    """Return the path of weights that a training keeps; ``wanted`` is one of its budget's ``kept``."""
    return root / spec.path_of(spec.weights_template(wanted))


def dataset(root: Path) -> Path:
    """Return the path of the stored data set."""
    return root / DataStageSpec.template


def data_manifest(root: Path) -> Path:
    """Return the path of the data set's manifest."""
    return root / DataStageSpec.extras[0]


def control(root: Path, variant: str, seed: int) -> Path:
    """Return the path of the images of a control."""
    return root / SampleSpec.template.format(variant=variant, seed=seed, solver=CONTROL_SOLVER)


def partial_scores(root: Path, variant: str, seed: int) -> Path:
    """Return the path of the scores of those samples that exist when a run has failed."""
    return root / RUN.format(variant=variant, seed=seed) / "scores.partial.json"


def imported(folder: str | Path) -> Path:
    """Return the path of the weights of an imported model, in its own folder outside any results."""
    return Path(folder) / "model.safetensors"


def table(root: Path, name: str, suffix: str) -> Path:
    """Return the path of one table in one format (see TABLE_SUFFIXES)."""
    return root / "tables" / f"{name}.{suffix}"


def figure(root: Path, name: str, suffix: str) -> Path:
    """Return the path of one figure (png), or of the numbers that it shows (csv)."""
    return root / "figures" / f"{name}.{suffix}"


def page(root: Path) -> Path:
    """Return the path of the page with all tables and figures."""
    return root / "index.html"


def tables_complete(root: Path) -> Path:
    """Return the path of the mark that the tables have every result that was planned."""
    return root / "tables" / ".complete"


def tables_record(root: Path) -> Path:
    """Return the path of the record of the tables, figures and page that were made, with their checksums."""
    return root / "tables" / ".made.json"


def sidecar(product: Path) -> Path:
    """Return the path of the sidecar, which holds a product's spec and checksum."""
    name = f"{product.stem}.spec.json" if product.suffix == ".json" else "spec.json"
    return product.with_name(name)


def run_record(product: Path) -> Path:
    """Return the path of the run record, which says how, when and where a product was made."""
    return product.with_name(f"{product.stem}.run.json")


def states(root: Path) -> Path:
    """Return the folder of all jobs' states."""
    return root / STATES


def spec_files(root: Path) -> Path:
    """Return the folder of the specs of a run's jobs, while it lasts."""
    return states(root) / "specs"


def finished(root: Path) -> Path:
    """Return the folder of second links to what jobs elsewhere have finished, until a run ends well."""
    return states(root) / "finished"


def spec_file(root: Path, digest: str) -> Path:
    """Return the path of the spec that a job is given, by the spec's digest."""
    return spec_files(root) / f"{digest}.json"


def state(root: Path, spec: StageSpec) -> Path:
    """Return the folder of one job's state, status and events; that of a shard is inside that of its samples."""
    return root / spec.state
