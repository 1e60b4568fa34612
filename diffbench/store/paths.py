"""Where everything lies, said once.

    {root}/data/levels.npz
    {root}/data/reference/statistics.npz
    {root}/data/extractor/model.safetensors                        where it is trained on the data set
    {root}/runs/{variant}/seed{n}/model.safetensors
    {root}/runs/{variant}/seed{n}/snapshots/{step}/model.safetensors         and of other lengths of averages
    {root}/runs/{variant}/seed{n}/snapshots/{step}/std{length}/model.safetensors
    {root}/runs/{variant}/seed{n}/samples/{solver}/samples.npz
    {root}/runs/{variant}/seed{n}/samples/{solver}/{k}of{n}/chunks.npz       until the samples are gathered
    {root}/runs/{variant}/seed{n}/scores.json
    {root}/runs/{variant}/seed{n}/likelihood/{kind}.json
    {root}/runs/{variant}/seed{n}/restore/{task}/{method}.json
    {root}/runs/{variant}/seed{n}/restore/{task}/{method}/images.npz
    {root}/runs/{variant}/seed{n}/analysis/{id}.json               with or without {id}.png
    {root}/classifier/{process}/seed{n}/model.safetensors
    {root}/tables/{table}.{csv,md,tex}
    {root}/figures/{figure}.{png,csv}
    {root}/.state/{digest of a job's spec}/

Beside a product lie its sidecar (spec and checksum: ``spec.json``, or ``<stem>.spec.json`` beside a
JSON product) and its run record (``<stem>.run.json``: duration, device, versions).  ``root`` is
``results/{benchmark}``; nothing here touches the disk.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from diffbench.specs.jobs import (
    AnalysisStageSpec,
    ClassifierSpec,
    DataStageSpec,
    LikelihoodStageSpec,
    ReferenceSpec,
    RestoreSpec,
    SampleSpec,
    ScoreSpec,
    ShardSpec,
    StageSpec,
    TrainSpec,
)
from diffbench.specs.weights import Weights

RESULTS = Path("results")
TABLE_SUFFIXES = ("csv", "md", "tex")
FIGURE_SUFFIXES = ("png", "csv")


def root(benchmark: str) -> Path:
    """Return the folder of a benchmark's results, relative to the working directory."""
    return RESULTS / benchmark


def levels(root: Path) -> Path:
    """Return the data set in grey levels."""
    return root / "data" / "levels.npz"


def data_manifest(root: Path) -> Path:
    """Return the data set's manifest."""
    return root / "data" / "manifest.json"


def reference(root: Path) -> Path:
    """Return what the extractor makes of the data set."""
    return root / "data" / "reference" / "statistics.npz"


def extractor(root: Path) -> Path:
    """Return the weights of the feature extractor."""
    return root / "data" / "extractor" / "model.safetensors"


def run_folder(root: Path, variant: str, seed: int) -> Path:
    """Return the folder of one variant trained with one seed."""
    return root / "runs" / variant / f"seed{seed}"


def model(root: Path, variant: str, seed: int) -> Path:
    """Return the averaged weights of one run."""
    return run_folder(root, variant, seed) / "model.safetensors"


def snapshot(root: Path, variant: str, seed: int, weights: Weights, own: float | None) -> Path:
    """Return averaged weights of a step, in a folder of theirs alone; ``own`` is the length of the model's own."""
    folder = run_folder(root, variant, seed) / "snapshots" / str(weights.step)
    return (
        folder if weights.length == own else folder / f"std{weights.length:g}"
    ) / "model.safetensors"


def weights(root: Path, spec: TrainSpec, wanted: Weights) -> Path:
    """Return one of the weights that a training keeps, such as its budget's ``kept`` names."""
    assert spec.training is not None
    first = spec.training.kept[0]
    if wanted == first:
        return model(root, spec.variant, spec.seed)
    return snapshot(root, spec.variant, spec.seed, wanted, first.length)


def imported(folder: str | Path) -> Path:
    """Return the weights of an imported model, which lies in a folder of its own, outside any results."""
    return Path(folder) / "model.safetensors"


def samples(root: Path, variant: str, seed: int, solver: str) -> Path:
    """Return the samples that one solver drew from one run."""
    return run_folder(root, variant, seed) / "samples" / solver / "samples.npz"


def shard(root: Path, variant: str, seed: int, solver: str, part: str) -> Path:
    """Return the chunks that one shard drew of these samples; ``part`` is ``2of3``."""
    return samples(root, variant, seed, solver).parent / part / "chunks.npz"


def grid(root: Path, variant: str, seed: int, solver: str) -> Path:
    """Return the picture of the first samples."""
    return samples(root, variant, seed, solver).with_name("grid.png")


def scores(root: Path, variant: str, seed: int) -> Path:
    """Return the scores of all of a run's samples."""
    return run_folder(root, variant, seed) / "scores.json"


def partial_scores(root: Path, variant: str, seed: int) -> Path:
    """Return the scores of those samples that exist when a run has failed."""
    return run_folder(root, variant, seed) / "scores.partial.json"


def likelihood(root: Path, variant: str, seed: int, kind: str) -> Path:
    """Return one kind of likelihood of one run."""
    return run_folder(root, variant, seed) / "likelihood" / f"{kind}.json"


def restoration(root: Path, variant: str, seed: int, task: str, method: str) -> Path:
    """Return the scores of one method's restorations of one task."""
    return run_folder(root, variant, seed) / "restore" / task / f"{method}.json"


def restored_images(root: Path, variant: str, seed: int, task: str, method: str) -> Path:
    """Return the first of these restorations; in a folder of their own, which their sidecar shares with nothing."""
    return restoration(root, variant, seed, task, method).with_suffix("") / "images.npz"


def restored_picture(root: Path, variant: str, seed: int, task: str, method: str) -> Path:
    """Return the picture of the first restorations; no product, like a grid of samples."""
    return restored_images(root, variant, seed, task, method).with_name("strip.png")


def analysis_picture(root: Path, variant: str, seed: int, item: str) -> Path:
    """Return the picture beside an analysis, where it makes one; no product, like a grid of samples."""
    return analysis(root, variant, seed, item).with_suffix(".png")


def analysis(root: Path, variant: str, seed: int, item: str) -> Path:
    """Return one analysis of one variant and seed."""
    return run_folder(root, variant, seed) / "analysis" / f"{item}.json"


def classifier(root: Path, process: str, seed: int) -> Path:
    """Return the averaged weights of a noise-aware classifier."""
    return root / "classifier" / process / f"seed{seed}" / "model.safetensors"


def table(root: Path, name: str, suffix: str) -> Path:
    """Return one table in one format (see TABLE_SUFFIXES)."""
    return root / "tables" / f"{name}.{suffix}"


def figure(root: Path, name: str, suffix: str) -> Path:
    """Return one figure (png), or the numbers that it shows (csv)."""
    return root / "figures" / f"{name}.{suffix}"


def tables_complete(root: Path) -> Path:
    """Return the mark that the tables hold every result that was planned."""
    return root / "tables" / ".complete"


def sidecar(product: Path) -> Path:
    """Return the sidecar that holds a product's spec and checksum."""
    name = f"{product.stem}.spec.json" if product.suffix == ".json" else "spec.json"
    return product.with_name(name)


def run_record(product: Path) -> Path:
    """Return the record of how, when and where a product was made."""
    return product.with_name(f"{product.stem}.run.json")


def states(root: Path) -> Path:
    """Return the folder of all jobs' states."""
    return root / ".state"


def state(root: Path, spec: StageSpec) -> Path:
    """Return the folder of one job's state, status and events; a shard's is inside that of its samples."""
    if isinstance(spec, ShardSpec):
        return state(root, spec.sample) / spec.part
    return states(root) / spec.digest()


def _data(root: Path, spec: DataStageSpec) -> tuple[Path, ...]:
    return (levels(root),)


def _reference(root: Path, spec: ReferenceSpec) -> tuple[Path, ...]:
    return (reference(root), *([extractor(root)] if spec.extractor.stored else []))


def _train(root: Path, spec: TrainSpec) -> tuple[Path, ...]:
    if spec.training is None:
        return (model(root, spec.variant, spec.seed),)
    return tuple(weights(root, spec, each) for each in spec.training.kept)


def _sample(root: Path, spec: SampleSpec) -> tuple[Path, ...]:
    return (samples(root, spec.variant, spec.seed, spec.solver_id),)


def _shard(root: Path, spec: ShardSpec) -> tuple[Path, ...]:
    sample = spec.sample
    return (shard(root, sample.variant, sample.seed, sample.solver_id, spec.part),)


def _score(root: Path, spec: ScoreSpec) -> tuple[Path, ...]:
    return (scores(root, spec.variant, spec.seed),)


def _likelihood(root: Path, spec: LikelihoodStageSpec) -> tuple[Path, ...]:
    return (likelihood(root, spec.variant, spec.seed, spec.kind_id),)


def _classifier(root: Path, spec: ClassifierSpec) -> tuple[Path, ...]:
    return (classifier(root, spec.variant, spec.seed),)


def _restore(root: Path, spec: RestoreSpec) -> tuple[Path, ...]:
    job = (spec.variant, spec.seed, spec.task_id, spec.method_id)
    return restoration(root, *job), restored_images(root, *job)


def _analysis(root: Path, spec: AnalysisStageSpec) -> tuple[Path, ...]:
    return (analysis(root, spec.variant, spec.seed, spec.analysis_id),)


_PRODUCTS: dict[str, Callable[..., tuple[Path, ...]]] = {
    "data": _data,
    "reference": _reference,
    "train": _train,
    "classifier": _classifier,
    "shard": _shard,
    "sample": _sample,
    "score": _score,
    "likelihood": _likelihood,
    "restore": _restore,
    "analysis": _analysis,
}


def products(root: Path, spec: StageSpec) -> tuple[Path, ...]:
    """Return all products of a job, the main one first (reference, train and restore may have several)."""
    return _PRODUCTS[spec.stage](root, spec)


def product(root: Path, spec: StageSpec) -> Path:
    """Return the main product of a job."""
    return products(root, spec)[0]
