"""From a benchmark file to its plan: the file is read, checked, also against this machine, and expanded to jobs."""

from __future__ import annotations

import functools
import gc
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diffbench.plan import pictures, places, reading
from diffbench.plan.devices import resolved
from diffbench.plan.expansion import Expansion, origin_of
from diffbench.plan.jobs import Job, Plan
from diffbench.plan.reading import Tree
from diffbench.plan.variants import variants_of
from diffbench.specs import extensions
from diffbench.specs.benchmark import BenchmarkSpec, VariantSpec
from diffbench.specs.data import FEWEST, DataSpec
from diffbench.specs.errors import PlanError, shown
from diffbench.specs.extensions import ExtensionSource
from diffbench.specs.extractors import ExtractorSpec
from diffbench.specs.image_measures import ImageMeasureSpec
from diffbench.specs.jobs import STAGES
from diffbench.store import paths

DEFAULT = Path("config") / "digits.yaml"
METHODS = Path("config") / "methods.yaml"
#: The most jobs of a plan, and the most shards of one job: Snakemake keeps each in memory.
MOST_JOBS = 100_000
MOST_SHARDS = 10_000


@contextmanager
def _uncollected() -> Iterator[None]:
    """A block that makes many objects that stay: to look again and again for garbage among them takes a third of it."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_uncollected()
def load_plan(
    config_files: Sequence[str | Path],
    overrides: Mapping[str, Any],
    repository: Path,
    origin: str = "--config",
    needs_files: bool = True,
    looks: bool = False,
) -> Plan:
    """Read a benchmark and expand it to its jobs.

    Args:
        config_files: the last is the benchmark; the repository's ``config/digits.yaml`` if empty.
        overrides: laid over the benchmark file; nested mappings or dotted keys.
        repository: the folder that holds the Snakefile and ``config/methods.yaml``.
        origin: the option that the overrides came from, for messages.
        needs_files: whether the files that the data set is read from must be there, as they must for any job to run.
        looks: whether image files are counted and the first bytes of each looked at, so that what the data stage would
            refuse is refused.

    Raises:
        PlanError: for the first mistake, with the file, the line, the key, the value and the nearest valid name.
    """
    config = Path(config_files[-1]) if config_files else repository / DEFAULT
    layers = _with_base(reading.read(config), config)
    layers.append((reading.overriding(overrides, origin), Path()))
    trees = [each for each, _ in layers]
    tree = functools.reduce(Tree.merged, trees)
    sources = _extensions(tree, config)
    written = benchmark = reading.validated(BenchmarkSpec.model_validate, BenchmarkSpec, tree)
    found = places.located(benchmark.data, layers)
    if needs_files:
        _check_sources(found.here, tree)
        _check_files(benchmark, tree)
    found = places.identified(found, paths.root(benchmark.name))
    benchmark = _identified(benchmark).model_copy(update={"data": found.named})
    _check_tasks(benchmark, tree)
    _check_measures(benchmark, tree)
    _check_shards(benchmark, tree)
    methods = reading.read(repository / METHODS)
    variants, left_out = variants_of(written, tree, methods, found.here, trees)
    if looks:
        _check_pictures(found.here, tree)
    if needs_files:
        _check_controls(variants, tree)
    found, variants = places.with_controls(found, variants, benchmark)
    expansion = Expansion(benchmark, tree, sources, found.here)
    jobs = tuple(itertools.islice(expansion.jobs(variants), MOST_JOBS + 1))
    _check_count(jobs, tree)
    _check_apart(jobs, tree)
    return Plan(
        benchmark=benchmark,
        variants=variants,
        jobs=tuple(sorted(jobs, key=lambda job: list(STAGES).index(job.stage))),
        refusals=tuple(expansion.refusals),
        device=resolved(benchmark.device),
        extensions=sources,
        config=config,
        repository=repository,
        located=found,
        left_out=left_out,
    )


def _check_count(jobs: Sequence[Job], tree: Tree) -> None:
    if len(jobs) > MOST_JOBS:
        raise PlanError(
            f"{tree.where(('variants',))}: variants: more than {MOST_JOBS:,} jobs, the last of {jobs[-1].variant}; "
            "split the benchmark"
        )


def _check_apart(jobs: Iterable[Job], tree: Tree) -> None:
    """Refuse two variants, or two items of a variant, whose folders are one where names have no case."""
    known: dict[tuple[str, str, str], tuple[str, str]] = {}
    for job in jobs:
        name = (job.variant, job.item)
        other = known.setdefault((job.stage, name[0].casefold(), name[1].casefold()), name)
        if other != name:
            one, two = next((a, b) for a, b in zip(other, name, strict=True) if a != b)
            whose = "" if job.variant in (one, two) else f"{job.variant}: "
            raise PlanError(
                f"{origin_of(tree, job.variant)}: {whose}{one!r} and {two!r} differ only in the case of letters, and "
                "name one folder on some disks: rename one"
            )


def _with_base(tree: Tree, config: Path) -> list[places.Layer]:
    """Return a benchmark file, below it the file that its ``base`` names; a base may not have a ``base``."""
    if "base" not in tree.value:
        return [(tree, config.parent)]
    origin, named = tree.where(("base",)), tree.value["base"]
    if not isinstance(named, str):
        raise PlanError(f"{origin}: base: must be the path of a file, not {named!r}")
    base = config.parent / named
    if not base.is_file():
        raise PlanError(f"{origin}: base: there is no file {shown(base)}")
    under = reading.read(base)
    if "base" in under.value:
        raise PlanError(
            f"{under.where(('base',))}: base: {shown(base)} names a base itself; a base must not"
        )
    return [(under, base.parent), (tree.without("base"), config.parent)]


def _check_sources(data: DataSpec, tree: Tree) -> None:
    if data.path_refusal:
        raise PlanError(f"{tree.where(('data', 'path'))}: data.{data.path_refusal}")
    for key, path in data.paths.items():
        if not Path(path).exists():
            wanted = f"; expected: {data.origin}" if data.origin else ""
            origin = tree.where(("data", key))
            raise PlanError(f"{origin}: data.{key}: there is no file or folder {path!r}{wanted}")


def _check_pictures(data: DataSpec, tree: Tree) -> None:
    """Refuse a data set with files that cannot be used or with too few test images, as the data stage would."""
    try:
        pictures.faults(data).check()
    except ValueError as error:
        raise PlanError(f"{tree.where(('data', 'path'))}: data.path: {error}") from None
    tests = pictures.tests_of(data)
    if tests is not None and tests[1] < FEWEST:
        key, count = tests
        raise PlanError(
            f"{tree.where(('data', key))}: data.{key}: {getattr(data, key)} gives {count} test images, and at least "
            f"{FEWEST} are needed to be scored against; give more images, or a larger part of them"
        )


def _check_controls(variants: Mapping[str, VariantSpec], tree: Tree) -> None:
    for name, variant in variants.items():
        for path in variant.control.sources if variant.control else ():
            if not Path(path).exists():
                origin = tree.where(("methods", name, "control", "path"))
                raise PlanError(
                    f"{origin}: {name}.control.path: there is no file or folder {path!r}"
                )


def _check_files(benchmark: BenchmarkSpec, tree: Tree) -> None:
    """Refuse files of the extractor or of a measure that are not there, or that are others than their SHA-256 says."""
    from diffbench.store import contents  # the cache's module takes long to import

    choices: dict[tuple[str | int, ...], ExtractorSpec | ImageMeasureSpec] = {
        ("extractor",): benchmark.extractor
    }
    for number, measure in enumerate(benchmark.restorations.measures):
        choices["restorations", "measures", number] = measure
    for keys, choice in choices.items():
        for key, file in choice.files.items():
            place = f"{tree.where((*keys, key))}: {'.'.join(map(str, (*keys, key)))}"
            if not Path(file).is_file():
                raise PlanError(
                    f"{place}: there is no file {file!r}; expected: {choice.origins[key]}"
                )
            wanted = choice.checksums.get(key)
            if wanted is not None and (found := contents.sha256(Path(file))) != wanted:
                raise PlanError(
                    f"{place}: {file!r} has the sha256 {found}; expected: {choice.origins[key]}"
                )


def _identified(benchmark: BenchmarkSpec) -> BenchmarkSpec:
    """Add the SHA-256 of a reference file that is given only by its path: scores depend on its content."""
    extractor = benchmark.extractor
    file = extractor.files.get("reference")
    if file is None or extractor.reference_sha256 is not None or not Path(file).is_file():
        return benchmark
    from diffbench.store import contents  # the cache's module takes long to import

    known = extractor.with_reference(contents.sha256(Path(file)))
    return benchmark.model_copy(update={"extractor": known})


def _check_tasks(benchmark: BenchmarkSpec, tree: Tree) -> None:
    """Refuse more images than there are, and an operator that cannot degrade images of their shape, where known."""
    shape, restorations = benchmark.data.known_shape, benchmark.restorations
    tests = benchmark.data.known_counts.get("test")
    if restorations.tasks and tests is not None and restorations.images > tests:
        raise PlanError(
            f"{tree.where(('restorations', 'images'))}: restorations.images: {restorations.images:,}; "
            f"{benchmark.data.name} has {tests:,} test images"
        )
    if shape is None:
        return
    for name, task in restorations.tasks.items():
        if reason := task.operator.refusal(shape):
            keys = ("restorations", "tasks", name, "operator", reason.partition(":")[0])
            origin = tree.where(keys)
            raise PlanError(f"{origin}: restorations.tasks.{name}.operator.{reason}")


def _check_measures(benchmark: BenchmarkSpec, tree: Tree) -> None:
    """Refuse a measure that cannot measure the data set's images, where their shape is known."""
    shape = benchmark.data.known_shape
    if shape is None:
        return
    for number, measure in enumerate(benchmark.restorations.measures):
        if reason := measure.refusal(shape):
            keys = ("restorations", "measures", number)
            raise PlanError(f"{tree.where(keys)}: restorations.measures.{number}.{reason}")


def _check_shards(benchmark: BenchmarkSpec, tree: Tree) -> None:
    """Refuse more shards than there are chunks."""
    chunks = -(-benchmark.samples // benchmark.chunk)
    if benchmark.shards > MOST_SHARDS:
        raise PlanError(
            f"{tree.where(('shards',))}: shards: {benchmark.shards:,}; at most {MOST_SHARDS:,}"
        )
    if benchmark.shards > chunks:
        raise PlanError(
            f"{tree.where(('shards',))}: shards: {benchmark.shards}, but {benchmark.samples} samples in chunks of "
            f"{benchmark.chunk} are {chunks} chunks, and each shard needs one; lower shards or chunk"
        )


def _extensions(tree: Tree, config: Path) -> tuple[ExtensionSource, ...]:
    """Import the extensions, so that a benchmark can name what they register, and return them."""
    named = tree.value.get("extensions", [])
    listed = named if isinstance(named, list) else [named]
    for index, name in enumerate(listed):
        if not isinstance(name, str):
            origin = tree.where(("extensions", index))
            raise PlanError(
                f"{origin}: extensions: must be paths of Python files or packages, or names of installed ones, "
                f"not {name!r}"
            )
    sources: list[ExtensionSource] = []
    for index, name in enumerate(listed):
        try:
            sources.append(extensions.source(name, config.parent))
            extensions.named_once(sources)
            _check_outside(sources[-1], config)
            sources[-1].load()
        except PlanError as error:
            origin = tree.where(("extensions", index))
            raise PlanError(f"{origin}: {error}") from error.__cause__
    return tuple(sources)


def _check_outside(source: ExtensionSource, config: Path) -> None:
    """Refuse a package in which the benchmark file or the results lie: every file of it is part of the specs."""
    for place, what in ((config, "this benchmark file"), (paths.RESULTS, "the results")):
        if source.folder and place.resolve().is_relative_to(source.folder.resolve()):
            raise PlanError(
                f"extensions: {what} would lie in the package {source.told}, whose every file counts: move the package "
                "into a folder of its own"
            )


def check_writable(root: Path) -> None:
    """Check that results can be written, before any job has run for hours.

    Raises:
        PlanError: with the folder that cannot be written.
    """
    existing = root
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise PlanError(f"results cannot be written to {root}: {existing} is not a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PlanError(f"results cannot be written to {root}: no permission to write {existing}")
